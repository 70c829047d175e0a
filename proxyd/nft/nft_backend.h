// SPDX-License-Identifier: Apache-2.0
// NftBackend: Services in the nftables table `inet hawser-proxy` (layout.h). The sync thread is its only caller.
//
// The first apply() reads the table back and writes only what differs, so a restarted daemon changes nothing that is
// right. Later ones compare the new state with the last one and send element changes; invalidate() makes the next one
// read back again.
//
// Very large changes are made in parts, each with whole Services; a table that no packet sees yet is filled in parts
// and then put into the path of packets at one instant.
#pragma once

#include <optional>
#include <vector>

#include "lib/nft/runner.h"
#include "proxyd/backend.h"
#include "proxyd/nft/plan.h"

namespace hawser::proxy {

// The table as the kernel has it, less what rules put into its dynamic sets.
[[nodiscard]] Result<Found> read_back(nft::NftRunner& runner);

class NftBackend final : public Backend {
 public:
  NftBackend(nft::NftRunner& nft, LayoutOptions options) : nft_(nft), options_(std::move(options)) {}

  [[nodiscard]] std::string_view name() const override { return "nftables"; }
  Result<SyncReport> apply(const DesiredStatePtr& state) override;
  void invalidate() override { image_.reset(); }
  Result<> cleanup() override;

 private:
  Result<SyncReport> apply_full(const DesiredState& state);
  Result<std::optional<SyncReport>> apply_changes(const DesiredState& state);  // nothing: has to be full
  Result<> apply_steps(Steps steps);
  Result<> forget_stale_clients();
  Result<std::size_t> delete_stale_clients(SetRole role, int family);

  nft::NftRunner& nft_;
  const LayoutOptions options_;
  std::optional<TableImage> image_;  // what the table holds; none: to be read back
  DesiredStatePtr applied_;          // what it was made from; with image_
  std::vector<SideId> contested_;    // with image_
};

}  // namespace hawser::proxy
