// SPDX-License-Identifier: Apache-2.0
#include "lib/netlink/wireguard_fake.h"

#include <algorithm>

namespace hawser::netlink {

WgKey FakeWireguard::public_of(WgKey secret) {
  for (auto& b : secret.bytes) b = static_cast<std::uint8_t>(~b);
  return secret;
}

Result<WgDevice*> FakeWireguard::find(const std::string& name) {
  auto link = rtnl_.get_link(name);
  if (!link) return propagate(link);
  if (link->kind != "wireguard") return fail_errno(EOPNOTSUPP, "WireGuard device {}", name);
  auto& d = devices_[link->index];
  d.index = link->index;
  d.name = name;
  return &d;
}

Result<WgDevice> FakeWireguard::get(const std::string& device) {
  auto d = find(device);
  if (!d) return propagate(d);
  return **d;
}

Result<> FakeWireguard::change(const std::string& device, const WgChange& change) {
  auto found = find(device);
  if (!found) return propagate(found);
  WgDevice& d = **found;
  if (change.private_key) writes_++, d.private_key = *change.private_key, d.public_key = public_of(d.private_key);
  if (change.port) writes_++, d.port = *change.port;
  for (const auto& c : change.peers) {
    writes_++;
    if (c.remove) {
      std::erase_if(d.peers, [&](const WgPeer& p) { return p.public_key == c.public_key; });
      continue;
    }
    if (c.allowed_ips) {
      const std::set<Cidr> taken(c.allowed_ips->begin(), c.allowed_ips->end());
      for (auto& p : d.peers) std::erase_if(p.allowed_ips, [&](const Cidr& r) { return taken.contains(r); });
    }
    auto p = std::ranges::find(d.peers, c.public_key, &WgPeer::public_key);
    if (p == d.peers.end()) p = d.peers.insert(p, WgPeer{.public_key = c.public_key});
    if (c.preshared_key) p->preshared_key = *c.preshared_key;
    if (c.endpoint) p->endpoint = *c.endpoint;
    if (c.keepalive_seconds) p->keepalive_seconds = *c.keepalive_seconds;
    if (c.allowed_ips) p->allowed_ips = *c.allowed_ips;
  }
  return {};
}

}  // namespace hawser::netlink
