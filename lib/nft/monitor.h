// SPDX-License-Identifier: Apache-2.0
// NftMonitor: tells when somebody else changed one nftables table. The thread that calls start() decides the network
// namespace; callbacks come on the monitor's own thread and must be short (post to your own queue).
//
// A change made through the runner whose port is given is not reported. When notifications were lost (ENOBUFS), a
// change is reported, because there may have been one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "lib/base/result.h"

namespace hawser::nft {

class NftMonitor {
 public:
  static Result<std::unique_ptr<NftMonitor>> start(std::string table, std::uint32_t own_port,
                                                   std::function<void()> on_foreign_change);
  ~NftMonitor();  // stops and joins

 private:
  struct Impl;
  explicit NftMonitor(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hawser::nft
