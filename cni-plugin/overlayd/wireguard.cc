// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/wireguard.h"

#include <algorithm>

#include <sys/socket.h>

#include "lib/base/atomic_file.h"
#include "lib/base/clock.h"
#include "lib/netlink/rtnl_ensure.h"

namespace hawser::overlay {
namespace {

using netlink::WgChange;
using netlink::WgDevice;
using netlink::WgEndpoint;
using netlink::WgKey;
using netlink::WgPeer;
using netlink::WgPeerChange;

// After this without a handshake the kernel has thrown the session's keys away (REJECT_AFTER_TIME).
constexpr std::int64_t kSessionSeconds = 180;

// What must be written of a peer that stands; nullopt: nothing.
std::optional<WgPeerChange> difference(const WgPeer& want, const WgPeer& have, bool endpoint_too) {
  WgPeerChange c{.public_key = want.public_key};
  if (have.preshared_key != want.preshared_key) c.preshared_key = want.preshared_key;
  if (have.endpoint != want.endpoint && endpoint_too) c.endpoint = want.endpoint;
  if (have.keepalive_seconds != want.keepalive_seconds) c.keepalive_seconds = want.keepalive_seconds;
  auto sorted = [](std::vector<Cidr> v) {
    std::ranges::sort(v);
    return v;
  };
  if (sorted(have.allowed_ips) != sorted(want.allowed_ips)) c.allowed_ips = want.allowed_ips;
  if (c == WgPeerChange{.public_key = want.public_key}) return std::nullopt;
  return c;
}

WgPeerChange whole(const WgPeer& p) {
  return {.public_key = p.public_key,
          .preshared_key = p.preshared_key,
          .endpoint = p.endpoint,
          .keepalive_seconds = p.keepalive_seconds,
          .allowed_ips = p.allowed_ips};
}

std::unexpected<Error> no_kernel_support(const std::string& device) {
  return fail(EOPNOTSUPP,
              "device {}: this kernel has no WireGuard (CONFIG_WIREGUARD): load its module \"wireguard\", or choose "
              "another back end",
              device);
}

}  // namespace

WireguardWanted wanted_wireguard(std::span<const OverlaySpec> specs, const Settings& settings,
                                 const WgKey& private_key) {
  const auto& w = settings.wireguard;
  WireguardWanted want{.private_key = private_key};
  std::map<WgKey, std::size_t> by_key;
  for (const auto& spec : specs) {
    want.port = wireguard_port(spec.family, w);
    for (const auto& p : spec.peers) {
      if (!p.key) continue;
      auto [it, is_new] = by_key.try_emplace(*p.key, want.peers.size());
      if (is_new) {
        want.peers.push_back({.public_key = *p.key,
                              .preshared_key = w.preshared_key,
                              .endpoint = {p.vtep, want.port},
                              .keepalive_seconds = w.keepalive_seconds});
      }
      want.peers[it->second].allowed_ips.push_back(p.pod_cidr);
    }
  }
  return want;
}

WgChange plan_wireguard(const WireguardWanted& want, const WgDevice& have, const WireguardOrders& ordered,
                        std::int64_t now) {
  WgChange c;
  if (have.private_key != want.private_key) c.private_key = want.private_key;
  if (have.port != want.port) c.port = want.port;
  std::map<WgKey, const WgPeer*> wanted, there;
  for (const auto& p : want.peers) wanted[p.public_key] = &p;
  for (const auto& p : have.peers) {
    there[p.public_key] = &p;
    if (!wanted.contains(p.public_key)) c.peers.push_back({.public_key = p.public_key, .remove = true});
  }
  for (const auto& p : want.peers) {
    auto h = there.find(p.public_key);
    if (h == there.end()) {
      c.peers.push_back(whole(p));
      continue;
    }
    auto told = ordered.find(p.public_key);
    const bool news = told != ordered.end() && told->second != p.endpoint;
    const bool dead = now - h->second->last_handshake > kSessionSeconds;
    if (auto d = difference(p, *h->second, news || dead || !h->second->endpoint.address)) c.peers.push_back(*d);
  }
  return c;
}

std::vector<Change> wireguard_changes(const WgChange& c) {
  std::vector<Change> out;
  if (c.private_key) out.push_back({"device", "set the WireGuard key"});
  if (c.port) out.push_back({"device", fmt::format("set WireGuard port {}", *c.port)});
  for (const auto& p : c.peers) {
    std::string text = fmt::format("{} WireGuard peer {}", p.remove ? "delete" : "set", p.public_key.text());
    if (p.endpoint) text += " at " + p.endpoint->text();
    out.push_back({"peer", std::move(text)});
  }
  return out;
}

Result<WgKey> load_wireguard_key(const std::string& path) {
  auto text = read_file(path, 4096);
  if (text) {
    auto key = WgKey::parse(*text);
    if (!key) return propagate(key, "WireGuard key file {}", path);
    return key->clamped();
  }
  if (!is_not_found(text.error())) return propagate(text, "WireGuard key file");
  const auto key = WgKey::random_private();
  const auto slash = path.rfind('/');
  if (slash != std::string::npos && slash != 0) {
    if (auto r = make_folders(path.substr(0, slash)); !r) return propagate(r, "WireGuard key file");
  }
  if (auto r = write_file(path, key.text() + "\n", {.mode = 0600}); !r) return propagate(r, "WireGuard key file");
  return key;
}

Result<WireguardDevice::Done> WireguardDevice::sync(netlink::Rtnl& rtnl, netlink::Wireguard& kernel,
                                                    std::span<const OverlaySpec> specs, const Settings& settings) {
  const auto& spec = specs[0].device;
  auto key = load_wireguard_key(settings.wireguard.key_file);
  if (!key) return propagate(key);
  Done done;
  auto device = sync_device(rtnl, spec, done.wrote);
  if (!device && device.error().code == EOPNOTSUPP) return no_kernel_support(spec.name);
  if (!device) return propagate(device);
  auto have = kernel.get(spec.name);
  if (!have && have.error().code == ENOENT) return no_kernel_support(spec.name);
  if (!have) return propagate(have);
  const auto want = wanted_wireguard(specs, settings, *key);
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(system_clock().wall().time_since_epoch()).count();
  const auto change = plan_wireguard(want, *have, ordered_, now);
  ordered_.clear();
  for (const auto& p : want.peers) ordered_[p.public_key] = p.endpoint;
  done.public_key = have->public_key;
  if (change.empty()) return done;
  if (auto r = kernel.change(spec.name, change); !r) return propagate(r);
  for (auto& c : wireguard_changes(change)) done.wrote.push_back(std::move(c));
  if (change.private_key) {
    auto again = kernel.get(spec.name);
    if (!again) return propagate(again);
    done.public_key = again->public_key;
  }
  return done;
}

}  // namespace hawser::overlay
