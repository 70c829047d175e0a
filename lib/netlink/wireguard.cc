// SPDX-License-Identifier: Apache-2.0
#include "lib/netlink/wireguard.h"

#include <linux/wireguard.h>
#include <netinet/in.h>
#include <time.h>

#include "lib/base/base64.h"
#include "lib/base/random.h"
#include "lib/netlink/genl.h"

namespace hawser::netlink {
namespace {

constexpr std::uint16_t nested(int type) {
  return static_cast<std::uint16_t>(type | NLA_F_NESTED);
}

void put_key(Message& m, std::uint16_t type, const WgKey& k) {
  m.bytes(type, k.bytes.data(), k.bytes.size());
}

// sockaddr_in or sockaddr_in6, laid out by hand: family in host order, port in network order, then what each has.
void put_endpoint(Message& m, const WgEndpoint& e) {
  std::array<std::uint8_t, sizeof(sockaddr_in6)> b{};
  const auto family = static_cast<sa_family_t>(e.address.family());
  std::memcpy(b.data(), &family, sizeof family);
  b[2] = static_cast<std::uint8_t>(e.port >> 8), b[3] = static_cast<std::uint8_t>(e.port);
  const auto at = e.address.is_v4() ? offsetof(sockaddr_in, sin_addr) : offsetof(sockaddr_in6, sin6_addr);
  std::memcpy(b.data() + at, e.address.bytes().data(), e.address.bytes().size());
  m.bytes(WGPEER_A_ENDPOINT, b.data(), e.address.is_v4() ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
}

WgEndpoint parse_endpoint(std::span<const std::uint8_t> b) {
  sa_family_t family = 0;
  if (b.size() < sizeof(sockaddr_in)) return {};
  std::memcpy(&family, b.data(), sizeof family);
  const auto at = family == AF_INET ? offsetof(sockaddr_in, sin_addr) : offsetof(sockaddr_in6, sin6_addr);
  const std::size_t len = family == AF_INET ? 4 : 16;
  if (b.size() < at + len) return {};
  return {IpAddr::from_bytes(b.subspan(at, len)).value_or(IpAddr()), static_cast<std::uint16_t>(b[2] << 8 | b[3])};
}

WgKey parse_key(std::span<const std::uint8_t> b) {
  WgKey k;
  if (b.size() == k.bytes.size()) std::memcpy(k.bytes.data(), b.data(), b.size());
  return k;
}

WgPeer parse_peer(const Attrs& a) {
  WgPeer p{.public_key = parse_key(a.bytes(WGPEER_A_PUBLIC_KEY)),
           .preshared_key = parse_key(a.bytes(WGPEER_A_PRESHARED_KEY)),
           .endpoint = parse_endpoint(a.bytes(WGPEER_A_ENDPOINT)),
           .keepalive_seconds = a.u16(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL).value_or(0),
           .received_bytes = a.u64(WGPEER_A_RX_BYTES).value_or(0),
           .sent_bytes = a.u64(WGPEER_A_TX_BYTES).value_or(0)};
  if (auto t = a.bytes(WGPEER_A_LAST_HANDSHAKE_TIME); t.size() >= sizeof p.last_handshake)
    std::memcpy(&p.last_handshake, t.data(), sizeof p.last_handshake);
  a.each(WGPEER_A_ALLOWEDIPS, [&](const Attrs& ip) {
    const IpAddr address = ip.addr(WGALLOWEDIP_A_IPADDR);
    if (address) p.allowed_ips.emplace_back(address, ip.u8(WGALLOWEDIP_A_CIDR_MASK).value_or(0));
  });
  return p;
}

}  // namespace

Result<WgKey> WgKey::parse(std::string_view text) {
  WgKey k;
  auto b = base64_decode(text);
  if (!b || b->size() != k.bytes.size()) return fail(EINVAL, "is no key of {} bytes in base64", k.bytes.size());
  std::memcpy(k.bytes.data(), b->data(), b->size());
  return k;
}

WgKey WgKey::random_private() {
  WgKey k;
  secure_random(k.bytes);
  return k.clamped();
}

WgKey WgKey::clamped() const {
  WgKey k = *this;
  k.bytes[0] &= 248;
  k.bytes[31] = static_cast<std::uint8_t>((k.bytes[31] & 127) | 64);
  return k;
}

std::string WgKey::text() const {
  return base64_encode({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

std::string WgEndpoint::text() const {
  return address.is_v4() ? fmt::format("{}:{}", address, port) : fmt::format("[{}]:{}", address, port);
}

void put_wg_query(Message& m, const std::string& device) {
  put_genl_header(m, WG_CMD_GET_DEVICE, WG_GENL_VERSION);
  m.strz(WGDEVICE_A_IFNAME, device);
}

void put_wg_device(Message& m, const std::string& device, const WgChange& change) {
  put_genl_header(m, WG_CMD_SET_DEVICE, WG_GENL_VERSION);
  m.strz(WGDEVICE_A_IFNAME, device);
  if (change.private_key) put_key(m, WGDEVICE_A_PRIVATE_KEY, *change.private_key);
  if (change.port) m.u16(WGDEVICE_A_LISTEN_PORT, *change.port);
}

void put_wg_peer(Message& m, const std::string& device, const WgPeerChange& c) {
  put_genl_header(m, WG_CMD_SET_DEVICE, WG_GENL_VERSION);
  m.strz(WGDEVICE_A_IFNAME, device);
  Message::Nest peers(m, nested(WGDEVICE_A_PEERS));
  Message::Nest peer(m, nested(0));
  put_key(m, WGPEER_A_PUBLIC_KEY, c.public_key);
  std::uint32_t flags = c.remove ? WGPEER_F_REMOVE_ME : 0;
  if (c.allowed_ips) flags |= WGPEER_F_REPLACE_ALLOWEDIPS;
  if (flags) m.u32(WGPEER_A_FLAGS, flags);
  if (c.remove) return;
  if (c.preshared_key) put_key(m, WGPEER_A_PRESHARED_KEY, *c.preshared_key);
  if (c.endpoint) put_endpoint(m, *c.endpoint);
  if (c.keepalive_seconds) m.u16(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, *c.keepalive_seconds);
  if (!c.allowed_ips) return;
  Message::Nest ips(m, nested(WGPEER_A_ALLOWEDIPS));
  for (const auto& cidr : *c.allowed_ips) {
    Message::Nest ip(m, nested(0));
    m.u16(WGALLOWEDIP_A_FAMILY, static_cast<std::uint16_t>(cidr.family()));
    m.addr(WGALLOWEDIP_A_IPADDR, cidr.addr());
    m.u8(WGALLOWEDIP_A_CIDR_MASK, static_cast<std::uint8_t>(cidr.prefix()));
  }
}

std::optional<WgDevice> parse_wg_device(const nlmsghdr* h) {
  if (mnl_nlmsg_get_payload_len(h) < kGenlHeaderBytes) return std::nullopt;
  Attrs a(h, kGenlHeaderBytes);
  // The header promises the name in every part, kernels give it in the first only.
  if (!a.has(WGDEVICE_A_IFNAME) && !a.has(WGDEVICE_A_PEERS)) return std::nullopt;
  WgDevice d{.index = static_cast<int>(a.u32(WGDEVICE_A_IFINDEX).value_or(0)),
             .name = std::string(a.str(WGDEVICE_A_IFNAME)),
             .private_key = parse_key(a.bytes(WGDEVICE_A_PRIVATE_KEY)),
             .public_key = parse_key(a.bytes(WGDEVICE_A_PUBLIC_KEY)),
             .port = a.u16(WGDEVICE_A_LISTEN_PORT).value_or(0)};
  a.each(WGDEVICE_A_PEERS, [&](const Attrs& peer) { d.peers.push_back(parse_peer(peer)); });
  return d;
}

WgDevice join_wg_parts(std::vector<WgDevice> parts) {
  if (parts.empty()) return {};
  WgDevice d = std::move(parts[0]);
  for (std::size_t i = 1; i < parts.size(); i++) {
    for (auto& p : parts[i].peers) {
      // A peer with more ranges than one message holds goes on in the next.
      if (!d.peers.empty() && d.peers.back().public_key == p.public_key)
        d.peers.back().allowed_ips.insert(d.peers.back().allowed_ips.end(), p.allowed_ips.begin(), p.allowed_ips.end());
      else
        d.peers.push_back(std::move(p));
    }
  }
  return d;
}

Result<KernelWireguard> KernelWireguard::open(int netns_fd) {
  auto s = Socket::open(NETLINK_GENERIC, {.netns_fd = netns_fd});
  if (!s) return propagate(s, "wireguard");
  return KernelWireguard(std::move(*s));
}

Result<std::uint16_t> KernelWireguard::family() {
  if (!family_) {
    auto id = find_family(socket_, WG_GENL_NAME);
    if (!id) return propagate(id);
    family_ = *id;
  }
  return *family_;
}

Result<WgDevice> KernelWireguard::get(const std::string& device) {
  auto id = family();
  if (!id) return propagate(id);
  Message m(*id, 0);
  put_wg_query(m, device);
  auto parts = socket_.dump<WgDevice>(m, parse_wg_device);
  if (!parts) return propagate(parts, "WireGuard device {}", device);
  if (parts->empty()) return fail(ENODEV, "WireGuard device {}: no answer", device);
  return join_wg_parts(std::move(*parts));
}

Result<> KernelWireguard::change(const std::string& device, const WgChange& change) {
  auto id = family();
  if (!id) return propagate(id);
  if (change.private_key || change.port) {
    Message m(*id, 0);
    put_wg_device(m, device, change);
    if (auto r = socket_.execute(m); !r) return propagate(r, "set up WireGuard device {}", device);
  }
  for (const auto& p : change.peers) {
    Message m(*id, 0);
    put_wg_peer(m, device, p);
    auto r = socket_.execute(m);
    if (!r) return propagate(r, "WireGuard device {}, peer {}", device, p.public_key.text());
  }
  return {};
}

}  // namespace hawser::netlink
