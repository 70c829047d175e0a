// SPDX-License-Identifier: Apache-2.0
#include "lib/netlink/genl.h"

namespace hawser::netlink {

void put_genl_header(Message& m, std::uint8_t command, std::uint8_t version) {
  auto& h = m.fixed<genlmsghdr>();
  h.cmd = command;
  h.version = version;
}

void put_family_query(Message& m, const std::string& name) {
  put_genl_header(m, CTRL_CMD_GETFAMILY, 1);
  m.strz(CTRL_ATTR_FAMILY_NAME, name);
}

std::optional<std::uint16_t> parse_family_id(const nlmsghdr* h) {
  if (h->nlmsg_type != GENL_ID_CTRL || mnl_nlmsg_get_payload_len(h) < kGenlHeaderBytes) return std::nullopt;
  return Attrs(h, kGenlHeaderBytes).u16(CTRL_ATTR_FAMILY_ID);
}

Result<std::uint16_t> find_family(Socket& socket, const std::string& name) {
  Message m(GENL_ID_CTRL, 0);
  put_family_query(m, name);
  std::optional<std::uint16_t> id;
  auto r = socket.execute(m, [&](const nlmsghdr* h) { id = parse_family_id(h); });
  if (!r) return propagate(r, "netlink family \"{}\"", name);
  if (!id) return fail(EBADMSG, "netlink family \"{}\": an answer without a number", name);
  return *id;
}

}  // namespace hawser::netlink
