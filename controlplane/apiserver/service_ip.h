// SPDX-License-Identifier: Apache-2.0
// ServiceAllocator: ClusterIPs and node ports of Services.
//
// Theory of operation. Every address or port in use is one key in the store (/allocator/clusterips/10.96.0.10,
// /allocator/nodeports/31000), written in the same transaction as the Service that uses it and only if absent. So a
// crash between "allocate" and "create" cannot exist, two creations cannot get the same value, and release is part of
// the transaction that deletes or changes the Service. `used_` is a mere hint for picking a free value; a lost race
// shows as a failed transaction and another pick. repair() puts right what an older or restored database may hold.
//
// Any thread. Source: "Service ClusterIP allocation" and "Service" of the Kubernetes documentation.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <span>
#include <unordered_set>

#include "controlplane/apiserver/entry.h"
#include "lib/base/ip.h"

namespace hawser::apiserver {

struct PortRange {
  int first = 30000;
  int last = 32767;
  static Result<PortRange> parse(std::string_view text);  // "30000-32767"
  [[nodiscard]] std::string text() const { return fmt::format("{}-{}", first, last); }
};

// A value that a Service wants, with the error to show if somebody else has it.
struct Claim {
  std::string key;
  bool automatic = false;  // picked by us: on a collision another one will do
  kube::FieldError if_taken;
};

struct Allocation {
  std::vector<Claim> claims;         // to add
  std::vector<std::string> release;  // keys to remove
  [[nodiscard]] bool empty() const { return claims.empty() && release.empty(); }
};

class ServiceAllocator {
 public:
  ServiceAllocator(const Cidr& cidr, PortRange ports) : cidr_(cidr.network()), ports_(ports) {}

  // The cluster's own Service gets the first address.
  [[nodiscard]] std::string first_address() const { return cidr_.addr().plus(1).text(); }

  // Takes over from `old` (null at creation) what the client left out, and drops what the new type has no use for.
  static void inherit(const Object* old, Object& next);
  // Fills clusterIP(s), families and node ports, and says what to claim and release with the write.
  Expected<Allocation> allocate(const Object* old, Object& next);
  [[nodiscard]] static Allocation release(const Object& service);

  // The state of the allocator's keys, as the store tells it.
  void on_key(const store::Event& e);
  // All keys are about to be told again.
  void forget();
  // A transaction found the key taken.
  void note_taken(const std::string& key);
  // Makes the keys agree with the Services there are; the number of keys changed.
  Result<int> repair(store::Store& s, std::span<const EntryPtr> services);

  static std::set<std::string> keys_of(const Object& service);
  static constexpr std::string_view kPrefix = "/allocator/";

 private:
  using Failures = std::vector<kube::FieldError>;
  void allocate_ip(Object& spec, Allocation& a, Failures& failures, kube::Status& full);
  void allocate_ports(Object& spec, const std::set<std::string>& held, Allocation& a, Failures& failures);
  void allocate_health_port(Object& spec, const std::set<std::string>& held, Allocation& a, Failures& failures);
  void claim_port(int port, const std::string& field, const std::set<std::string>& held, Allocation& a, Failures& f);
  // A value in [0, count) that nobody has and `a` does not claim yet, preferably above the first `band`, which are left
  // to explicit choice; -1 if none.
  std::int64_t pick(std::int64_t count, std::int64_t band, const Allocation& a,
                    const std::function<std::string(std::int64_t)>& key_of);
  int pick_port(const Allocation& a);

  const Cidr cidr_;
  const PortRange ports_;
  std::mutex mu_;
  std::unordered_set<std::string> used_;  // guarded by mu_
};

}  // namespace hawser::apiserver
