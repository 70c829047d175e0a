// SPDX-License-Identifier: Apache-2.0
// Ethtool's view of a device: whether it leaves the checksums of what it sends to the hardware. By ioctl, which needs
// no message types of its own for the one feature that is of interest. Any thread; the calling thread's network
// namespace.
#pragma once

#include <string>

#include "lib/base/result.h"

namespace hawser::netlink {

// "tx-checksumming" of `ethtool -k`: of TCP and UDP, and for a tunnel device of the packets inside. ENODEV.
Result<bool> tx_checksum_offload(const std::string& device);
// Also ends segmentation offload while it is off, which builds on it.
Result<> set_tx_checksum_offload(const std::string& device, bool on);

}  // namespace hawser::netlink
