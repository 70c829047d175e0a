// SPDX-License-Identifier: Apache-2.0
// Ipvs: virtual services and destinations of the kernel's load balancer (linux/ip_vs.h), as plain values. Two
// implementations: KernelIpvs for one network namespace, and FakeIpvs (ipvs_fake.h), a working model for tests. One
// thread at a time per object.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/netlink/socket.h"

namespace hawser::netlink {

// What the kernel finds a service by. Services by firewall mark are not ours and are not read.
struct IpvsKey {
  std::uint8_t protocol = 0;  // IPPROTO_TCP, _UDP, _SCTP
  IpAddr address;
  std::uint16_t port = 0;
  [[nodiscard]] std::string text() const;  // "tcp 10.96.0.10:80"
  auto operator<=>(const IpvsKey&) const = default;
};

struct IpvsService {
  IpvsKey key;
  std::string scheduler = "rr";
  // 0: every connection is placed anew. Otherwise a client's connections go where its last one went, for so long after
  // it; a client is one address.
  std::uint32_t persistence_seconds = 0;
  bool operator==(const IpvsService&) const = default;
};

// Forwarded by address translation; the kernel's other ways need tunnels or a shared link.
struct IpvsDestination {
  IpAddr address;
  std::uint16_t port = 0;
  std::uint32_t weight = 1;  // 0: no new connections
  // As read back only.
  std::uint32_t active = 0, inactive = 0, persistent = 0;  // connections, and clients remembered
  [[nodiscard]] std::string text() const;
  bool operator==(const IpvsDestination&) const = default;
};

// Idle times of connections, for all services of the namespace; 0: stays as it is.
struct IpvsTimeouts {
  std::uint32_t tcp_seconds = 0, tcp_fin_seconds = 0, udp_seconds = 0;
  bool operator==(const IpvsTimeouts&) const = default;
};

// kAdd fails with EEXIST on the same key, kSet and kDelete with ESRCH or ENOENT on one that is not there.
enum class IpvsVerb : std::uint8_t { kAdd, kSet, kDelete };

class Ipvs {
 public:
  virtual ~Ipvs() = default;
  // Each call: EOPNOTSUPP when this kernel has no IPVS; the error's text says what it lacks.
  virtual Result<std::vector<IpvsService>> list_services() = 0;
  virtual Result<std::vector<IpvsDestination>> list_destinations(const IpvsKey& service) = 0;
  // EOPNOTSUPP also for a scheduler that this kernel does not have.
  virtual Result<> change_service(IpvsVerb verb, const IpvsService& service) = 0;
  virtual Result<> change_destination(IpvsVerb verb, const IpvsKey& service, const IpvsDestination& destination) = 0;
  virtual Result<IpvsTimeouts> get_timeouts() = 0;
  virtual Result<> set_timeouts(const IpvsTimeouts& timeouts) = 0;
};

class KernelIpvs final : public Ipvs {
 public:
  // netns_fd -1: the calling thread's namespace. Works without IPVS in the kernel; the first call then fails.
  static Result<KernelIpvs> open(int netns_fd = -1);
  Result<std::vector<IpvsService>> list_services() override;
  Result<std::vector<IpvsDestination>> list_destinations(const IpvsKey& service) override;
  Result<> change_service(IpvsVerb verb, const IpvsService& service) override;
  Result<> change_destination(IpvsVerb verb, const IpvsKey& service, const IpvsDestination& destination) override;
  Result<IpvsTimeouts> get_timeouts() override;
  Result<> set_timeouts(const IpvsTimeouts& timeouts) override;

 private:
  explicit KernelIpvs(Socket s) : socket_(std::move(s)) {}
  Result<std::uint16_t> family();

  Socket socket_;
  std::optional<std::uint16_t> family_;
};

// The messages, for KernelIpvs and its tests.
void put_ipvs_services_query(Message& m);
void put_ipvs_destinations_query(Message& m, const IpvsKey& service);
void put_ipvs_service(Message& m, IpvsVerb verb, const IpvsService& service);
void put_ipvs_destination(Message& m, IpvsVerb verb, const IpvsKey& service, const IpvsDestination& destination);
void put_ipvs_timeouts_query(Message& m);
void put_ipvs_timeouts(Message& m, const IpvsTimeouts& timeouts);
[[nodiscard]] std::optional<IpvsService> parse_ipvs_service(const nlmsghdr* h);
// The answer has the address's family only on kernels that know mixed ones; `family` is the service's.
[[nodiscard]] std::optional<IpvsDestination> parse_ipvs_destination(const nlmsghdr* h, int family);
[[nodiscard]] std::optional<IpvsTimeouts> parse_ipvs_timeouts(const nlmsghdr* h);

}  // namespace hawser::netlink
