// SPDX-License-Identifier: Apache-2.0
#include "lib/netlink/ethtool.h"

#include <cstring>

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "lib/base/unique_fd.h"

namespace hawser::netlink {
namespace {

Result<> call(const std::string& device, ethtool_value& value) {
  if (device.empty() || device.size() >= IFNAMSIZ) return fail(ENODEV, "device {:?}: no name of one", device);
  UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "ethtool socket");
  ifreq request{};
  std::memcpy(request.ifr_name, device.data(), device.size());
  request.ifr_data = reinterpret_cast<char*>(&value);
  if (ioctl(fd.get(), SIOCETHTOOL, &request) != 0) return fail_errno(errno, "checksum offload of {}", device);
  return {};
}

}  // namespace

Result<bool> tx_checksum_offload(const std::string& device) {
  ethtool_value value{.cmd = ETHTOOL_GTXCSUM, .data = 0};
  if (auto r = call(device, value); !r) return propagate(r);
  return value.data != 0;
}

Result<> set_tx_checksum_offload(const std::string& device, bool on) {
  ethtool_value value{.cmd = ETHTOOL_STXCSUM, .data = on ? 1u : 0u};
  return call(device, value);
}

}  // namespace hawser::netlink
