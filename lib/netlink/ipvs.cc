// SPDX-License-Identifier: Apache-2.0
#include "lib/netlink/ipvs.h"

#include <linux/ip_vs.h>
#include <netinet/in.h>

#include "lib/netlink/genl.h"

namespace hawser::netlink {
namespace {

constexpr std::uint32_t kForwardMask = IP_VS_CONN_F_FWD_MASK;

constexpr std::uint16_t nested(int type) {
  return static_cast<std::uint16_t>(type | NLA_F_NESTED);
}

std::string address_port(const IpAddr& a, std::uint16_t port) {
  return a.is_v4() ? fmt::format("{}:{}", a, port) : fmt::format("[{}]:{}", a, port);
}

// The kernel answers with 16 bytes whatever the family.
IpAddr address_of(const Attrs& a, std::size_t type, int family) {
  const auto b = a.bytes(type);
  const std::size_t len = family == AF_INET ? 4 : 16;
  if (b.size() < len) return {};
  return IpAddr::from_bytes(b.first(len)).value_or(IpAddr());
}

void put_key(Message& m, const IpvsKey& k) {
  m.u16(IPVS_SVC_ATTR_AF, static_cast<std::uint16_t>(k.address.family()));
  m.u16(IPVS_SVC_ATTR_PROTOCOL, k.protocol);
  m.addr(IPVS_SVC_ATTR_ADDR, k.address);
  m.be16(IPVS_SVC_ATTR_PORT, k.port);
}

std::uint8_t service_command(IpvsVerb v) {
  if (v == IpvsVerb::kAdd) return IPVS_CMD_NEW_SERVICE;
  return v == IpvsVerb::kSet ? IPVS_CMD_SET_SERVICE : IPVS_CMD_DEL_SERVICE;
}
std::uint8_t destination_command(IpvsVerb v) {
  if (v == IpvsVerb::kAdd) return IPVS_CMD_NEW_DEST;
  return v == IpvsVerb::kSet ? IPVS_CMD_SET_DEST : IPVS_CMD_DEL_DEST;
}
const char* verb_text(IpvsVerb v) {
  if (v == IpvsVerb::kAdd) return "add";
  return v == IpvsVerb::kSet ? "change" : "delete";
}

}  // namespace

std::string IpvsKey::text() const {
  const char* name = protocol == IPPROTO_TCP ? "tcp" : protocol == IPPROTO_UDP ? "udp" : "sctp";
  return fmt::format("{} {}", name, address_port(address, port));
}

std::string IpvsDestination::text() const {
  return address_port(address, port);
}

void put_ipvs_services_query(Message& m) {
  put_genl_header(m, IPVS_CMD_GET_SERVICE, IPVS_GENL_VERSION);
}

void put_ipvs_destinations_query(Message& m, const IpvsKey& service) {
  put_genl_header(m, IPVS_CMD_GET_DEST, IPVS_GENL_VERSION);
  Message::Nest nest(m, nested(IPVS_CMD_ATTR_SERVICE));
  put_key(m, service);
}

void put_ipvs_service(Message& m, IpvsVerb verb, const IpvsService& s) {
  put_genl_header(m, service_command(verb), IPVS_GENL_VERSION);
  Message::Nest nest(m, nested(IPVS_CMD_ATTR_SERVICE));
  put_key(m, s.key);
  if (verb == IpvsVerb::kDelete) return;
  m.strz(IPVS_SVC_ATTR_SCHED_NAME, s.scheduler);
  const bool persistent = s.persistence_seconds != 0;
  const ip_vs_flags flags{.flags = persistent ? IP_VS_SVC_F_PERSISTENT : 0u, .mask = ~0u};
  m.bytes(IPVS_SVC_ATTR_FLAGS, &flags, sizeof flags);
  m.u32(IPVS_SVC_ATTR_TIMEOUT, s.persistence_seconds);
  // One client is one address: a mask of all ones, which IPv6 has as a length.
  m.u32(IPVS_SVC_ATTR_NETMASK, s.key.address.is_v4() ? ~0u : 128u);
}

void put_ipvs_destination(Message& m, IpvsVerb verb, const IpvsKey& service, const IpvsDestination& d) {
  put_genl_header(m, destination_command(verb), IPVS_GENL_VERSION);
  {
    Message::Nest nest(m, nested(IPVS_CMD_ATTR_SERVICE));
    put_key(m, service);
  }
  Message::Nest nest(m, nested(IPVS_CMD_ATTR_DEST));
  m.u16(IPVS_DEST_ATTR_ADDR_FAMILY, static_cast<std::uint16_t>(d.address.family()));
  m.addr(IPVS_DEST_ATTR_ADDR, d.address);
  m.be16(IPVS_DEST_ATTR_PORT, d.port);
  if (verb == IpvsVerb::kDelete) return;
  m.u32(IPVS_DEST_ATTR_FWD_METHOD, IP_VS_CONN_F_MASQ);
  m.u32(IPVS_DEST_ATTR_WEIGHT, d.weight);
  m.u32(IPVS_DEST_ATTR_U_THRESH, 0);
  m.u32(IPVS_DEST_ATTR_L_THRESH, 0);
}

void put_ipvs_timeouts_query(Message& m) {
  put_genl_header(m, IPVS_CMD_GET_CONFIG, IPVS_GENL_VERSION);
}

void put_ipvs_timeouts(Message& m, const IpvsTimeouts& t) {
  put_genl_header(m, IPVS_CMD_SET_CONFIG, IPVS_GENL_VERSION);
  if (t.tcp_seconds) m.u32(IPVS_CMD_ATTR_TIMEOUT_TCP, t.tcp_seconds);
  if (t.tcp_fin_seconds) m.u32(IPVS_CMD_ATTR_TIMEOUT_TCP_FIN, t.tcp_fin_seconds);
  if (t.udp_seconds) m.u32(IPVS_CMD_ATTR_TIMEOUT_UDP, t.udp_seconds);
}

std::optional<IpvsService> parse_ipvs_service(const nlmsghdr* h) {
  if (mnl_nlmsg_get_payload_len(h) < kGenlHeaderBytes) return std::nullopt;
  const auto a = Attrs(h, kGenlHeaderBytes).nest(IPVS_CMD_ATTR_SERVICE);
  if (!a || a->has(IPVS_SVC_ATTR_FWMARK)) return std::nullopt;
  const int family = a->u16(IPVS_SVC_ATTR_AF).value_or(0);
  IpvsService s{.key = {.protocol = static_cast<std::uint8_t>(a->u16(IPVS_SVC_ATTR_PROTOCOL).value_or(0)),
                        .address = address_of(*a, IPVS_SVC_ATTR_ADDR, family),
                        .port = a->be16(IPVS_SVC_ATTR_PORT).value_or(0)},
                .scheduler = std::string(a->str(IPVS_SVC_ATTR_SCHED_NAME))};
  if (!s.key.address) return std::nullopt;
  ip_vs_flags flags{};
  if (const auto b = a->bytes(IPVS_SVC_ATTR_FLAGS); b.size() == sizeof flags)
    std::memcpy(&flags, b.data(), sizeof flags);
  if (flags.flags & IP_VS_SVC_F_PERSISTENT) s.persistence_seconds = a->u32(IPVS_SVC_ATTR_TIMEOUT).value_or(0);
  return s;
}

std::optional<IpvsDestination> parse_ipvs_destination(const nlmsghdr* h, int family) {
  if (mnl_nlmsg_get_payload_len(h) < kGenlHeaderBytes) return std::nullopt;
  const auto a = Attrs(h, kGenlHeaderBytes).nest(IPVS_CMD_ATTR_DEST);
  if (!a) return std::nullopt;
  family = a->u16(IPVS_DEST_ATTR_ADDR_FAMILY).value_or(static_cast<std::uint16_t>(family));
  IpvsDestination d{.address = address_of(*a, IPVS_DEST_ATTR_ADDR, family),
                    .port = a->be16(IPVS_DEST_ATTR_PORT).value_or(0),
                    .weight = a->u32(IPVS_DEST_ATTR_WEIGHT).value_or(0),
                    .active = a->u32(IPVS_DEST_ATTR_ACTIVE_CONNS).value_or(0),
                    .inactive = a->u32(IPVS_DEST_ATTR_INACT_CONNS).value_or(0),
                    .persistent = a->u32(IPVS_DEST_ATTR_PERSIST_CONNS).value_or(0)};
  if (!d.address || (a->u32(IPVS_DEST_ATTR_FWD_METHOD).value_or(0) & kForwardMask) > IP_VS_CONN_F_LOCALNODE)
    return std::nullopt;
  return d;
}

std::optional<IpvsTimeouts> parse_ipvs_timeouts(const nlmsghdr* h) {
  if (mnl_nlmsg_get_payload_len(h) < kGenlHeaderBytes) return std::nullopt;
  const Attrs a(h, kGenlHeaderBytes);
  if (!a.has(IPVS_CMD_ATTR_TIMEOUT_TCP)) return std::nullopt;
  return IpvsTimeouts{.tcp_seconds = a.u32(IPVS_CMD_ATTR_TIMEOUT_TCP).value_or(0),
                      .tcp_fin_seconds = a.u32(IPVS_CMD_ATTR_TIMEOUT_TCP_FIN).value_or(0),
                      .udp_seconds = a.u32(IPVS_CMD_ATTR_TIMEOUT_UDP).value_or(0)};
}

Result<KernelIpvs> KernelIpvs::open(int netns_fd) {
  auto s = Socket::open(NETLINK_GENERIC, {.netns_fd = netns_fd});
  if (!s) return propagate(s, "IPVS");
  return KernelIpvs(std::move(*s));
}

Result<std::uint16_t> KernelIpvs::family() {
  if (!family_) {
    auto id = find_family(socket_, IPVS_GENL_NAME);
    if (!id && is_not_found(id.error()))
      return fail(EOPNOTSUPP, "this kernel has no IPVS: CONFIG_IP_VS, or its module ip_vs, is missing");
    if (!id) return propagate(id);
    family_ = *id;
  }
  return *family_;
}

Result<std::vector<IpvsService>> KernelIpvs::list_services() {
  auto id = family();
  if (!id) return propagate(id);
  Message m(*id, 0);
  put_ipvs_services_query(m);
  auto r = socket_.dump<IpvsService>(m, parse_ipvs_service);
  if (!r) return propagate(r, "IPVS services");
  return r;
}

Result<std::vector<IpvsDestination>> KernelIpvs::list_destinations(const IpvsKey& service) {
  auto id = family();
  if (!id) return propagate(id);
  Message m(*id, 0);
  put_ipvs_destinations_query(m, service);
  auto r = socket_.dump<IpvsDestination>(
      m, [&](const nlmsghdr* h) { return parse_ipvs_destination(h, service.address.family()); });
  if (!r) return propagate(r, "destinations of {}", service.text());
  return r;
}

Result<> KernelIpvs::change_service(IpvsVerb verb, const IpvsService& s) {
  auto id = family();
  if (!id) return propagate(id);
  Message m(*id, 0);
  put_ipvs_service(m, verb, s);
  auto r = socket_.execute(m);
  // Services are told missing by ESRCH; ENOENT is the scheduler's.
  if (!r && verb != IpvsVerb::kDelete && r.error().code == ENOENT)
    return fail(EOPNOTSUPP, "{} IPVS service {}: this kernel has no scheduler \"{}\" (module ip_vs_{})",
                verb_text(verb), s.key.text(), s.scheduler, s.scheduler);
  if (!r) return propagate(r, "{} IPVS service {}", verb_text(verb), s.key.text());
  return {};
}

Result<> KernelIpvs::change_destination(IpvsVerb verb, const IpvsKey& service, const IpvsDestination& d) {
  auto id = family();
  if (!id) return propagate(id);
  Message m(*id, 0);
  put_ipvs_destination(m, verb, service, d);
  if (auto r = socket_.execute(m); !r) return propagate(r, "{} {} of {}", verb_text(verb), d.text(), service.text());
  return {};
}

Result<IpvsTimeouts> KernelIpvs::get_timeouts() {
  auto id = family();
  if (!id) return propagate(id);
  Message m(*id, 0);
  put_ipvs_timeouts_query(m);
  std::optional<IpvsTimeouts> t;
  auto r = socket_.execute(m, [&](const nlmsghdr* h) { t = parse_ipvs_timeouts(h); });
  if (!r) return propagate(r, "IPVS timeouts");
  if (!t) return fail(EBADMSG, "IPVS timeouts: an answer without them");
  return *t;
}

Result<> KernelIpvs::set_timeouts(const IpvsTimeouts& t) {
  auto id = family();
  if (!id) return propagate(id);
  Message m(*id, 0);
  put_ipvs_timeouts(m, t);
  if (auto r = socket_.execute(m); !r) return propagate(r, "set IPVS timeouts");
  return {};
}

}  // namespace hawser::netlink
