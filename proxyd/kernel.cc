// SPDX-License-Identifier: Apache-2.0
#include "proxyd/kernel.h"

#include <sys/utsname.h>

#include "lib/base/sysctl.h"

namespace hawser::proxy {

Result<KernelSockets> KernelSockets::open() {
  KernelSockets s;
  auto nft = nft::KernelNft::open();
  if (!nft) return propagate(nft);
  auto rtnl = netlink::KernelRtnl::open();
  if (!rtnl) return propagate(rtnl);
  auto ipvs = netlink::KernelIpvs::open();
  if (!ipvs) return propagate(ipvs);
  s.nft = std::move(*nft);
  s.rtnl.emplace(std::move(*rtnl));
  s.ipvs.emplace(std::move(*ipvs));
  return s;
}

IpvsKernel ipvs_kernel(KernelSockets& sockets) {
  utsname name{};
  uname(&name);
  const auto set = [](const std::string& key, const std::string& value) { return sysctl::ensure(key, value); };
  return {*sockets.ipvs, *sockets.rtnl, *sockets.nft, set, name.release};
}

}  // namespace hawser::proxy
