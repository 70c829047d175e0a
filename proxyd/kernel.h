// SPDX-License-Identifier: Apache-2.0
// This node's kernel, as proxyd's parts ask for it. The sockets belong to one thread.
#pragma once

#include <memory>
#include <optional>

#include "lib/base/result.h"
#include "lib/netlink/ipvs.h"
#include "lib/netlink/rtnl_kernel.h"
#include "lib/nft/kernel_nft.h"
#include "proxyd/ipvs/ipvs_backend.h"

namespace hawser::proxy {

struct KernelSockets {
  std::unique_ptr<nft::KernelNft> nft;
  std::optional<netlink::KernelRtnl> rtnl;
  std::optional<netlink::KernelIpvs> ipvs;
  static Result<KernelSockets> open();
};

// Mode ipvs' part of it; refers to `sockets`.
[[nodiscard]] IpvsKernel ipvs_kernel(KernelSockets& sockets);

}  // namespace hawser::proxy
