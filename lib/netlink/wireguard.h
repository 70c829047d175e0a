// SPDX-License-Identifier: Apache-2.0
// Wireguard: keys and peers of WireGuard devices (linux/wireguard.h), as plain values. The devices themselves are links
// of kind "wireguard" (rtnl.h). Two implementations: KernelWireguard for one network namespace, and FakeWireguard
// (wireguard_fake.h), a working model for tests. One thread at a time per object.
//
// Private and preshared keys are secrets: nothing here puts them into a text or an error.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/netlink/socket.h"

namespace hawser::netlink {

struct WgKey {
  std::array<std::uint8_t, 32> bytes{};          // all zero: none
  static Result<WgKey> parse(std::string_view);  // base64, as `wg genkey` prints it; the error does not quote it
  static WgKey random_private();                 // clamped
  // The secret as Curve25519 uses it (RFC 7748 section 5), and as the kernel gives it back whatever it was given.
  [[nodiscard]] WgKey clamped() const;
  [[nodiscard]] std::string text() const;
  explicit operator bool() const { return *this != WgKey{}; }
  auto operator<=>(const WgKey&) const = default;
};

struct WgEndpoint {
  IpAddr address;
  std::uint16_t port = 0;
  [[nodiscard]] std::string text() const;
  auto operator<=>(const WgEndpoint&) const = default;
};

struct WgPeer {
  WgKey public_key, preshared_key;
  WgEndpoint endpoint;  // without an address: not known
  std::uint16_t keepalive_seconds = 0;
  std::vector<Cidr> allowed_ips;
  // As read back only.
  std::int64_t last_handshake = 0;  // seconds since 1970; 0: never
  std::uint64_t received_bytes = 0, sent_bytes = 0;
};

struct WgDevice {
  int index = 0;
  std::string name;
  WgKey private_key, public_key;  // the kernel derives the second from the first
  std::uint16_t port = 0;
  std::vector<WgPeer> peers;
};

// One peer to set or to remove; a field without a value stays as it is.
struct WgPeerChange {
  WgKey public_key;
  bool remove = false;
  std::optional<WgKey> preshared_key;
  std::optional<WgEndpoint> endpoint;
  std::optional<std::uint16_t> keepalive_seconds;
  std::optional<std::vector<Cidr>> allowed_ips;  // in place of all it has
  bool operator==(const WgPeerChange&) const = default;
};
struct WgChange {
  std::optional<WgKey> private_key;
  std::optional<std::uint16_t> port;
  std::vector<WgPeerChange> peers;
  [[nodiscard]] bool empty() const { return !private_key && !port && peers.empty(); }
};

class Wireguard {
 public:
  virtual ~Wireguard() = default;
  // ENODEV: no such link; EOPNOTSUPP: it is of another kind; ENOENT: this kernel has no WireGuard.
  virtual Result<WgDevice> get(const std::string& device) = 0;
  // In order: the device's own, then one peer after the other; what was done before an error stays done.
  virtual Result<> change(const std::string& device, const WgChange& change) = 0;
};

class KernelWireguard final : public Wireguard {
 public:
  // netns_fd -1: the calling thread's namespace. Works without WireGuard in the kernel; the first call then fails.
  static Result<KernelWireguard> open(int netns_fd = -1);
  Result<WgDevice> get(const std::string& device) override;
  Result<> change(const std::string& device, const WgChange& change) override;

 private:
  explicit KernelWireguard(Socket s) : socket_(std::move(s)) {}
  Result<std::uint16_t> family();

  Socket socket_;
  std::optional<std::uint16_t> family_;
};

// The messages, for KernelWireguard and its tests. A device's answer may come in several parts.
void put_wg_query(Message& m, const std::string& device);
void put_wg_device(Message& m, const std::string& device, const WgChange& change);  // without its peers
void put_wg_peer(Message& m, const std::string& device, const WgPeerChange& peer);
[[nodiscard]] std::optional<WgDevice> parse_wg_device(const nlmsghdr* h);
[[nodiscard]] WgDevice join_wg_parts(std::vector<WgDevice> parts);

}  // namespace hawser::netlink
