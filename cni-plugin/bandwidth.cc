// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/bandwidth.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>

#include "cni-plugin/attachment.h"
#include "lib/base/endian.h"
#include "lib/netlink/rtnl_ensure.h"
#include "lib/netlink/socket.h"

namespace hawser::cni {
namespace {

using netlink::Attrs;
using netlink::Message;
using netlink::Socket;

constexpr std::string_view kIfbPrefix = "hb";
constexpr std::uint64_t kBitsPerByte = 8;
// How long a packet may wait for its tokens, as the reference plugin has it.
constexpr std::uint64_t kLatencyMs = 25;
constexpr std::uint64_t kMsPerSecond = 1000;
constexpr const char* kClassifier = "u32";
constexpr std::uint32_t kRootHandle = 1u << 16;  // "1:"
constexpr std::uint32_t kClsactHandle = TC_H_MAKE(TC_H_CLSACT, 0);

struct Bucket {
  std::uint64_t bytes_per_second = 0;
  std::uint32_t burst_bytes = 0;
  std::uint32_t limit_bytes = 0;  // of the queue behind it
  bool operator==(const Bucket&) const = default;
};

Bucket bucket_of(const RateLimit& r) {
  Bucket b;
  b.bytes_per_second = r.bits_per_second / kBitsPerByte;
  b.burst_bytes = static_cast<std::uint32_t>(r.burst_bits / kBitsPerByte);
  const auto waiting = b.bytes_per_second / kMsPerSecond * kLatencyMs + b.burst_bytes;
  b.limit_bytes =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(waiting, std::numeric_limits<std::uint32_t>::max()));
  return b;
}

tcmsg& put_header(Message& m, int link, std::uint32_t parent, std::uint32_t handle) {
  auto& t = m.fixed<tcmsg>();
  t.tcm_family = AF_UNSPEC;
  t.tcm_ifindex = link;
  t.tcm_parent = parent;
  t.tcm_handle = handle;
  return t;
}

Result<> set_bucket(Socket& s, int link, const Bucket& b) {
  Message m(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE);
  put_header(m, link, TC_H_ROOT, kRootHandle);
  m.strz(TCA_KIND, "tbf");
  {
    Message::Nest options(m, TCA_OPTIONS);
    tc_tbf_qopt q{};
    q.limit = b.limit_bytes;
    // Ethernet as it is: the kernel then needs no table of transmission times.
    q.rate.linklayer = TC_LINKLAYER_ETHERNET;
    q.rate.rate = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(b.bytes_per_second, std::numeric_limits<std::uint32_t>::max()));
    m.bytes(TCA_TBF_PARMS, &q, sizeof q);
    m.u32(TCA_TBF_BURST, b.burst_bytes);
    if (b.bytes_per_second > std::numeric_limits<std::uint32_t>::max())
      m.bytes(TCA_TBF_RATE64, &b.bytes_per_second, sizeof b.bytes_per_second);
  }
  auto r = s.execute(m);
  if (!r) return propagate(r, "bandwidth: token bucket");
  return {};
}

Result<> redirect_arrivals(Socket& s, int from, int to) {
  Message q(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE);
  put_header(q, from, TC_H_CLSACT, kClsactHandle);
  q.strz(TCA_KIND, "clsact");
  if (auto r = s.execute(q); !r && !is_exists(r.error())) return propagate(r, "bandwidth: clsact");
  Message m(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL);
  auto& t = put_header(m, from, TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS), 0);
  t.tcm_info = TC_H_MAKE(1u << 16, be16(ETH_P_ALL).network());
  // u32 with one key that every packet has; not every kernel has matchall.
  m.strz(TCA_KIND, kClassifier);
  {
    Message::Nest options(m, TCA_OPTIONS);
    // The selector ends in a list of keys; the one key is all zeros: mask and value.
    std::array<std::uint8_t, sizeof(tc_u32_sel) + sizeof(tc_u32_key)> any{};
    tc_u32_sel selector{};
    selector.flags = TC_U32_TERMINAL;
    selector.nkeys = 1;
    std::memcpy(any.data(), &selector, sizeof selector);
    m.bytes(TCA_U32_SEL, any.data(), any.size());
    Message::Nest actions(m, TCA_U32_ACT);
    Message::Nest first(m, 1);
    m.strz(TCA_ACT_KIND, "mirred");
    Message::Nest action(m, TCA_ACT_OPTIONS);
    tc_mirred p{};
    p.action = TC_ACT_STOLEN;
    p.eaction = TCA_EGRESS_REDIR;
    p.ifindex = static_cast<std::uint32_t>(to);
    m.bytes(TCA_MIRRED_PARMS, &p, sizeof p);
  }
  auto r = s.execute(m);
  if (!r) return propagate(r, "bandwidth: redirect to the ifb");
  return {};
}

// The root bucket of a link; a zero rate if it has none.
Result<Bucket> read_bucket(Socket& s, int link) {
  Message m(RTM_GETQDISC, 0);
  put_header(m, link, 0, 0);
  auto all = s.dump<Bucket>(m, [link](const nlmsghdr* h) -> std::optional<Bucket> {
    if (h->nlmsg_type != RTM_NEWQDISC || mnl_nlmsg_get_payload_len(h) < sizeof(tcmsg)) return std::nullopt;
    const auto* t = static_cast<const tcmsg*>(mnl_nlmsg_get_payload(h));
    Attrs a(h, sizeof(tcmsg));
    auto options = a.nest(TCA_OPTIONS);
    if (t->tcm_ifindex != link || t->tcm_parent != TC_H_ROOT || a.str(TCA_KIND) != "tbf" || !options)
      return std::nullopt;
    auto bytes = options->bytes(TCA_TBF_PARMS);
    tc_tbf_qopt q{};
    if (bytes.size() < sizeof q) return std::nullopt;
    std::memcpy(&q, bytes.data(), sizeof q);
    std::uint64_t rate = q.rate.rate;
    if (auto wide = options->bytes(TCA_TBF_RATE64); wide.size() == sizeof rate)
      std::memcpy(&rate, wide.data(), sizeof rate);
    // The bucket's size comes back as a time; rate and limit identify it.
    return Bucket{rate, 0, q.limit};
  });
  if (!all) return propagate(all, "list queues");
  return all->empty() ? Bucket{} : all->front();
}

Result<bool> redirects(Socket& s, int from) {
  Message m(RTM_GETTFILTER, 0);
  put_header(m, from, TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS), 0);
  auto all = s.dump<bool>(m, [](const nlmsghdr* h) -> std::optional<bool> {
    if (h->nlmsg_type != RTM_NEWTFILTER) return std::nullopt;
    Attrs a(h, sizeof(tcmsg));
    return a.str(TCA_KIND) == kClassifier ? std::optional(true) : std::nullopt;
  });
  if (!all) return propagate(all, "list filters");
  return !all->empty();
}

bool has_bucket(const Bucket& have, const RateLimit& want) {
  const auto b = bucket_of(want);
  return have.bytes_per_second == b.bytes_per_second && have.limit_bytes == b.limit_bytes;
}

}  // namespace

std::string ifb_name(std::string_view host_link) {
  return std::string(kIfbPrefix) + std::string(host_link.substr(2));
}
bool is_ifb_name(std::string_view name) {
  return name.size() == kHostLinkChars && name.starts_with(kIfbPrefix);
}
std::string host_link_of_ifb(std::string_view ifb) {
  return "hw" + std::string(ifb.substr(kIfbPrefix.size()));
}

Result<> limit_bandwidth(netlink::Rtnl& node, const netlink::Link& host, const Bandwidth& b) {
  auto s = Socket::open(NETLINK_ROUTE);
  if (!s) return propagate(s);
  if (b.ingress.bits_per_second != 0) {
    if (auto r = set_bucket(*s, host.index, bucket_of(b.ingress)); !r) return r;
  }
  if (b.egress.bits_per_second == 0) return {};
  auto ifb = netlink::ensure_link(node, {.name = ifb_name(host.name), .kind = "ifb", .mtu = host.mtu, .up = true});
  if (!ifb) return propagate(ifb, "bandwidth");
  if (auto r = set_bucket(*s, ifb->link.index, bucket_of(b.egress)); !r) return r;
  return redirect_arrivals(*s, host.index, ifb->link.index);
}

Result<std::string> bandwidth_fault(netlink::Rtnl& node, const netlink::Link& host, const Bandwidth& b) {
  auto s = Socket::open(NETLINK_ROUTE);
  if (!s) return propagate(s);
  if (b.ingress.bits_per_second != 0) {
    auto have = read_bucket(*s, host.index);
    if (!have) return propagate(have);
    if (!has_bucket(*have, b.ingress))
      return fmt::format("bandwidth: the bucket on {} is missing or differs", host.name);
  }
  if (b.egress.bits_per_second == 0) return std::string();
  const auto name = ifb_name(host.name);
  auto ifb = node.get_link(name);
  if (!ifb && is_not_found(ifb.error())) return fmt::format("bandwidth: interface {} is missing", name);
  if (!ifb) return propagate(ifb);
  if (!ifb->up) return fmt::format("bandwidth: interface {} is down", name);
  auto have = read_bucket(*s, ifb->index);
  if (!have) return propagate(have);
  if (!has_bucket(*have, b.egress)) return fmt::format("bandwidth: the bucket on {} is missing or differs", name);
  auto redirected = redirects(*s, host.index);
  if (!redirected) return propagate(redirected);
  if (!*redirected) return fmt::format("bandwidth: the filter on {} is missing", host.name);
  return std::string();
}

}  // namespace hawser::cni
