// SPDX-License-Identifier: Apache-2.0
#include "lib/netlink/conntrack.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

namespace hawser::netlink {
namespace {

// The bit that makes CTA_FILTER compare the protocol number; the kernel keeps the list to itself
// (net/netfilter/nf_conntrack_netlink.c, CTA_FILTER_F_CTA_PROTO_NUM, Linux 5.8).
constexpr std::uint32_t kFilterByProtocol = 1u << 3;

constexpr std::uint16_t message_type(int verb) {
  return static_cast<std::uint16_t>(NFNL_SUBSYS_CTNETLINK << 8 | verb);
}

void put_header(Message& m, int family) {
  auto& h = m.fixed<nfgenmsg>();
  h.nfgen_family = static_cast<std::uint8_t>(family);
  h.version = NFNETLINK_V0;
}

// Source or destination of one direction's tuple.
FlowEnd read_target(const Attrs& tuple, bool source) {
  FlowEnd t;
  auto ip = tuple.nest(CTA_TUPLE_IP);
  auto proto = tuple.nest(CTA_TUPLE_PROTO);
  if (!ip || !proto) return t;
  t.addr = ip->addr(source ? CTA_IP_V4_SRC : CTA_IP_V4_DST);
  if (!t.addr) t.addr = ip->addr(source ? CTA_IP_V6_SRC : CTA_IP_V6_DST);
  t.port = proto->be16(source ? CTA_PROTO_SRC_PORT : CTA_PROTO_DST_PORT).value_or(0);
  return t;
}

std::optional<Flow> parse_flow(const nlmsghdr* h) {
  if (h->nlmsg_type != message_type(IPCTNL_MSG_CT_NEW)) return std::nullopt;
  Attrs a(h, sizeof(nfgenmsg));
  auto original = a.nest(CTA_TUPLE_ORIG);
  auto reply = a.nest(CTA_TUPLE_REPLY);
  if (!original || !reply) return std::nullopt;
  Flow f;
  if (auto proto = original->nest(CTA_TUPLE_PROTO)) f.protocol = proto->u8(CTA_PROTO_NUM).value_or(0);
  f.source = read_target(*original, true);
  f.destination = read_target(*original, false);
  f.answers_from = read_target(*reply, true);
  if (!f.destination.addr || !f.answers_from.addr) return std::nullopt;
  f.id = a.u32(CTA_ID).value_or(0);
  f.zone = a.be16(CTA_ZONE).value_or(0);
  return f;
}

}  // namespace

Result<KernelConntrack> KernelConntrack::open() {
  auto s = Socket::open(NETLINK_NETFILTER);
  if (!s) return propagate(s, "conntrack");
  return KernelConntrack(std::move(*s));
}

Result<std::vector<Flow>> KernelConntrack::list(int family, std::uint8_t protocol) {
  Message m(message_type(IPCTNL_MSG_CT_GET), 0);
  put_header(m, family);
  {
    Message::Nest tuple(m, CTA_TUPLE_ORIG | NLA_F_NESTED);
    Message::Nest proto(m, CTA_TUPLE_PROTO | NLA_F_NESTED);
    m.u8(CTA_PROTO_NUM, protocol);
  }
  {
    Message::Nest filter(m, CTA_FILTER | NLA_F_NESTED);
    m.u32(CTA_FILTER_ORIG_FLAGS, kFilterByProtocol);
    m.u32(CTA_FILTER_REPLY_FLAGS, 0);
  }
  auto flows = socket_.dump<Flow>(m, [&](const nlmsghdr* h) -> std::optional<Flow> {
    auto f = parse_flow(h);
    if (!f || f->protocol != protocol || f->destination.addr.family() != family) return std::nullopt;
    return f;
  });
  if (!flows) return propagate(flows, "list flows");
  return flows;
}

Result<> KernelConntrack::remove(const Flow& f) {
  Message m(message_type(IPCTNL_MSG_CT_DELETE), 0);
  const bool v4 = f.destination.addr.is_v4();
  put_header(m, f.destination.addr.family());
  {
    Message::Nest tuple(m, CTA_TUPLE_ORIG | NLA_F_NESTED);
    {
      Message::Nest ip(m, CTA_TUPLE_IP | NLA_F_NESTED);
      m.addr(v4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, f.source.addr);
      m.addr(v4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, f.destination.addr);
    }
    Message::Nest proto(m, CTA_TUPLE_PROTO | NLA_F_NESTED);
    m.u8(CTA_PROTO_NUM, f.protocol);
    m.be16(CTA_PROTO_SRC_PORT, f.source.port);
    m.be16(CTA_PROTO_DST_PORT, f.destination.port);
  }
  if (f.zone != 0) m.be16(CTA_ZONE, f.zone);
  // The id is opaque, in the byte order it came in.
  m.u32(CTA_ID, f.id);
  auto r = socket_.execute(m);
  if (!r && !is_not_found(r.error()))
    return propagate(r, "remove the flow {}:{} to {}:{}", f.source.addr, f.source.port, f.destination.addr,
                     f.destination.port);
  return {};
}

}  // namespace hawser::netlink
