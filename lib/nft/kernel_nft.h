// SPDX-License-Identifier: Apache-2.0
// KernelNft: NftRunner over nfnetlink. Works on the network namespace of the thread that calls open(), whichever thread
// uses it later. A transaction is one batch in one sendmsg, which the kernel has finished when the call returns.
#pragma once

#include <memory>

#include "lib/nft/runner.h"

namespace hawser::nft {

struct Batch;

class KernelNft final : public NftRunner {
 public:
  // ENOTSUP with one clear sentence when this kernel has no nf_tables; EPERM when CAP_NET_ADMIN is missing.
  static Result<std::unique_ptr<KernelNft>> open();
  ~KernelNft() override;

  Result<> apply(const Transaction& t) override;
  Result<TableState> read_table(Family family, std::string_view table) override;
  Result<> read_elements(Family family, std::string_view table, const Set& set,
                         const std::function<void(const Element&)>& each,
                         const std::function<void()>& restart) override;
  Result<std::uint32_t> generation() override;

  // This runner's netlink port: the sender that monitors see on its changes.
  [[nodiscard]] std::uint32_t port_id() const;

 private:
  struct Impl;
  explicit KernelNft(std::unique_ptr<Impl> impl);
  Result<> collect_answers(const Batch& b);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hawser::nft
