// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/net_conf.h"

#include <algorithm>
#include <array>

#include <boost/json/parse.hpp>
#include <sys/socket.h>

#include "lib/kube/object.h"

namespace hawser::overlay {
namespace {

namespace json = boost::json;

// The keys of one family.
struct PoolKeys {
  int family;
  const char *enable, *network, *len, *min, *max;
  bool enabled_by_default;
  int default_len, smallest_network;
};
constexpr PoolKeys kV4{AF_INET, "EnableIPv4", "Network", "SubnetLen", "SubnetMin", "SubnetMax", true, 24, 28};
constexpr PoolKeys kV6{AF_INET6, "EnableIPv6", "IPv6Network", "IPv6SubnetLen", "IPv6SubnetMin", "IPv6SubnetMax", false,
                       64,       124};

Result<std::optional<std::int64_t>> number(const json::object& o, const char* key) {
  const auto* v = o.if_contains(key);
  if (!v || v->is_null()) return std::nullopt;
  if (v->is_int64()) return v->get_int64();
  return fail(EINVAL, "{}: is not a whole number", key);
}
Result<std::string> text(const json::object& o, const char* key) {
  const auto* v = o.if_contains(key);
  if (!v || v->is_null()) return std::string();
  if (v->is_string()) return std::string(v->get_string());
  return fail(EINVAL, "{}: is not a text", key);
}
Result<bool> yes_or_no(const json::object& o, const char* key, bool otherwise) {
  const auto* v = o.if_contains(key);
  if (!v || v->is_null()) return otherwise;
  if (v->is_bool()) return v->get_bool();
  return fail(EINVAL, "{}: is neither true nor false", key);
}
Result<std::int64_t> bounded(const json::object& o, const char* key, std::int64_t low, std::int64_t high,
                             std::int64_t otherwise) {
  auto n = number(o, key);
  if (!n) return propagate(n);
  if (!*n) return otherwise;
  if (**n < low || **n > high) return fail(EINVAL, "{} {}: is not {} to {}", key, **n, low, high);
  return **n;
}

// The n-th range of `len` bits after `base`.
IpAddr advance(const IpAddr& base, int len, std::uint64_t n) {
  const int shift = base.bits() - len;
  if (base.is_v4()) return base.plus(n << shift);
  std::uint64_t upper = 0, lower = 0;
  auto bytes = base.bytes();
  for (std::size_t i = 0; i < 8; i++) upper = upper << 8 | bytes[i], lower = lower << 8 | bytes[i + 8];
  if (shift >= 64) {
    upper += n << (shift - 64);
  } else {
    const std::uint64_t add = n << shift;
    upper += (shift == 0 ? 0 : n >> (64 - shift)) + (lower + add < lower ? 1 : 0);
    lower += add;
  }
  std::array<std::uint8_t, 16> out{};
  for (std::size_t i = 8; i-- > 0; upper >>= 8, lower >>= 8)
    out[i] = static_cast<std::uint8_t>(upper), out[i + 8] = static_cast<std::uint8_t>(lower);
  return IpAddr::v6(out);
}

// Which range of the network begins at `a`.
std::uint64_t number_of(const Cidr& network, int len, const IpAddr& a) {
  std::uint64_t n = 0;
  auto bytes = a.bytes();
  for (int bit = network.prefix(); bit < len; bit++)
    n = n << 1 | (bytes[static_cast<std::size_t>(bit / 8)] >> (7 - bit % 8) & 1);
  return n;
}

Result<IpAddr> parse_bound(const json::object& o, const char* key, const SubnetPool& p, std::uint64_t otherwise) {
  auto t = text(o, key);
  if (!t) return propagate(t);
  if (t->empty()) return advance(p.network.addr(), p.subnet_len, otherwise);
  auto a = IpAddr::parse(*t);
  if (!a) return propagate(a, "{}", key);
  if (!p.network.contains(*a)) return fail(EINVAL, "{} {}: is not in the network {}", key, *a, p.network);
  if (Cidr(*a, p.subnet_len).network().addr() != *a)
    return fail(EINVAL, "{} {}: is not the first address of a /{}", key, *a, p.subnet_len);
  return *a;
}

Result<std::optional<SubnetPool>> parse_pool(const json::object& o, const PoolKeys& k) {
  auto enabled = yes_or_no(o, k.enable, k.enabled_by_default);
  if (!enabled) return propagate(enabled);
  if (!*enabled) return std::nullopt;
  auto t = text(o, k.network);
  if (!t) return propagate(t);
  auto c = Cidr::parse(*t);
  if (!c) return propagate(c, "{}", k.network);
  if (c->family() != k.family) return fail(EINVAL, "{} {}: is of the other address family", k.network, *c);
  if (c->prefix() > k.smallest_network)
    return fail(EINVAL, "{} {}: is smaller than a /{}", k.network, *c, k.smallest_network);
  SubnetPool p{.network = c->network()};
  // A network that holds fewer than four of the usual ranges is cut into four.
  const int usual = p.network.prefix() > k.default_len - 2 ? p.network.prefix() + 2 : k.default_len;
  const int most = c->addr().bits() - 2;
  auto len = bounded(o, k.len, p.network.prefix() + 2, most, std::min(usual, most));
  if (!len) return propagate(len);
  p.subnet_len = static_cast<int>(*len);
  const int bits = std::min(p.subnet_len - p.network.prefix(), 31);
  // The first and the last range of IPv4 are left out by flannel's defaults.
  auto min = parse_bound(o, k.min, p, 1);
  if (!min) return propagate(min);
  auto max = parse_bound(o, k.max, p, (1ULL << bits) - 2);
  if (!max) return propagate(max);
  if (*max < *min) return fail(EINVAL, "{} {}: is below {} {}", k.max, *max, k.min, *min);
  p.min = *min, p.max = *max;
  return p;
}

Result<WireguardSettings> parse_wireguard(const json::object& o) {
  WireguardSettings w;
  auto port = bounded(o, "ListenPort", 1, 65535, w.port);
  if (!port) return propagate(port);
  auto port_v6 = bounded(o, "ListenPortV6", 1, 65535, w.port_v6);
  if (!port_v6) return propagate(port_v6);
  auto keepalive = bounded(o, "PersistentKeepaliveInterval", 0, 65535, 0);
  if (!keepalive) return propagate(keepalive);
  auto psk = text(o, "PSK");
  if (!psk) return propagate(psk);
  auto mode = text(o, "Mode");
  if (!mode) return propagate(mode);
  w.port = static_cast<std::uint16_t>(*port);
  w.port_v6 = static_cast<std::uint16_t>(*port_v6);
  w.keepalive_seconds = static_cast<std::uint16_t>(*keepalive);
  if (!psk->empty()) {
    auto key = netlink::WgKey::parse(*psk);
    if (!key) return propagate(key, "PSK");
    w.preshared_key = *key;
  }
  auto known = mode->empty() ? std::optional(w.mode) : parse_wireguard_mode(*mode);
  if (!known) return fail(EINVAL, "Mode \"{}\": is not one of separate, auto, ipv4, ipv6", *mode);
  w.mode = *known;
  if (w.mode == WireguardMode::kSeparate && w.port == w.port_v6)
    return fail(EINVAL, "ListenPortV6 {}: is ListenPort, and each of the two devices needs its own", w.port_v6);
  return w;
}

Result<Settings> parse_backend(const json::object& conf) {
  Settings s;
  const auto* v = conf.if_contains("Backend");
  if (!v || v->is_null()) return s;
  if (!v->is_object()) return fail(EINVAL, "Backend: is not an object");
  const auto& o = v->get_object();
  auto type = text(o, "Type");
  if (!type) return propagate(type, "Backend");
  if (!type->empty()) s.backend = *type;
  if (!find_backend(s.backend))
    return fail(EINVAL, "Backend.Type \"{}\": is not one of {}", s.backend, backend_names());
  auto vni = bounded(o, "VNI", 1, 0xffffff, kDefaultVni);
  if (!vni) return propagate(vni, "Backend");
  // 0 is "the kernel's default", which is ours too.
  auto port = bounded(o, "Port", 0, 65535, 0);
  if (!port) return propagate(port, "Backend");
  auto mtu = bounded(o, "MTU", 0, 65535, 0);
  if (!mtu) return propagate(mtu, "Backend");
  auto direct = yes_or_no(o, "DirectRouting", false);
  if (!direct) return propagate(direct, "Backend");
  for (const char* key : {"GBP", "Learning"}) {
    auto on = yes_or_no(o, key, false);
    if (!on) return propagate(on, "Backend");
    if (*on) return fail(EINVAL, "Backend: {} true: is not supported, peers are told by leases only", key);
  }
  auto wireguard = parse_wireguard(o);
  if (!wireguard) return propagate(wireguard, "Backend");
  s.wireguard = std::move(*wireguard);
  s.vni = static_cast<std::uint32_t>(*vni);
  if (*port) s.port = static_cast<std::uint16_t>(*port);
  s.mtu = static_cast<int>(*mtu);
  if (s.mtu && s.mtu < kSmallestMtu) return fail(EINVAL, "Backend: MTU {}: is below {}", s.mtu, kSmallestMtu);
  s.direct_routing = *direct;
  return s;
}

}  // namespace

std::uint64_t SubnetPool::count() const {
  return std::min<std::uint64_t>(number_of(network, subnet_len, max) - number_of(network, subnet_len, min) + 1,
                                 1ULL << 31);
}

Cidr SubnetPool::at(std::uint64_t n) const {
  return {advance(min, subnet_len, n), subnet_len};
}

bool SubnetPool::offers(const Cidr& c) const {
  return c.family() == network.family() && c.prefix() == subnet_len && c.network() == c && min <= c.addr() &&
         c.addr() <= max;
}

std::vector<Cidr> NetConf::networks() const {
  std::vector<Cidr> out;
  if (v4) out.push_back(v4->network);
  if (v6) out.push_back(v6->network);
  return out;
}

Result<NetConf> NetConf::parse(std::string_view text) {
  boost::system::error_code ec;
  auto value = json::parse(text, ec);
  if (ec) return fail(EINVAL, "is no JSON: {}", ec.message());
  if (!value.is_object()) return fail(EINVAL, "is no JSON object");
  const auto& o = value.get_object();
  NetConf c;
  auto v4 = parse_pool(o, kV4);
  if (!v4) return propagate(v4);
  auto v6 = parse_pool(o, kV6);
  if (!v6) return propagate(v6);
  c.v4 = std::move(*v4), c.v6 = std::move(*v6);
  if (!c.v4 && !c.v6) return fail(EINVAL, "EnableIPv4, EnableIPv6: both are false");
  // Which firewall flannel would use; ours is its own nftables table in either case.
  if (auto nft = yes_or_no(o, "EnableNFTables", false); !nft) return propagate(nft);
  auto settings = parse_backend(o);
  if (!settings) return propagate(settings);
  c.settings = std::move(*settings);
  return c;
}

}  // namespace hawser::overlay
