// SPDX-License-Identifier: Apache-2.0
// Generic netlink: families are known by name and get their number from the kernel at run time. A message of a family
// has that number as its type and begins with a header of its own. Asking for a family that is a module loads it.
#pragma once

#include <linux/genetlink.h>

#include "lib/netlink/socket.h"

namespace hawser::netlink {

// Begins a message; call once, before any attribute.
void put_genl_header(Message& m, std::uint8_t command, std::uint8_t version);
inline constexpr std::size_t kGenlHeaderBytes = sizeof(genlmsghdr);

// The question for a family's number, and the number in an answer.
void put_family_query(Message& m, const std::string& name);
[[nodiscard]] std::optional<std::uint16_t> parse_family_id(const nlmsghdr* h);

// `socket` is of NETLINK_GENERIC. ENOENT: this kernel has no such family.
Result<std::uint16_t> find_family(Socket& socket, const std::string& name);

}  // namespace hawser::netlink
