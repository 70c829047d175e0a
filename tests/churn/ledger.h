// SPDX-License-Identifier: Apache-2.0
// Ledger: which endpoint was whose and until when, and what each request says about that. Any thread.
//
// An endpoint is dead from the moment at which the API server has acknowledged the change that removes it: from then on
// its removal can certainly be read. A request may still go there for kGrace; later ones are late. Dead endpoints go on
// answering here, so that a late request is seen for what it is and every failure is one.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/ip.h"

namespace hawser::churn {

inline constexpr Nanos kGrace = std::chrono::milliseconds(50);

struct Report {
  std::uint64_t changes = 0, refused_changes = 0, restarts = 0, kills = 0;
  std::uint64_t requests = 0;  // answered
  std::uint64_t soon = 0;      // of them by an endpoint that was dead, within kGrace
  std::uint64_t late = 0;      // and after it
  // Of the late ones those to an endpoint that was removed while proxyd was starting, or before: see Ledger::served().
  std::uint64_t late_at_restart = 0;
  Nanos latest{0};                       // how long after its removal an endpoint got a request
  Nanos latest_running{0};               // the same without restarts in between
  std::uint64_t lost_with_endpoint = 0;  // datagrams whose flow was being moved away from a dead endpoint
  std::uint64_t failures = 0;
  std::vector<std::string> first_failures;
  std::vector<Nanos> start_times;  // of proxyd, from exec to its first sync
};

class Ledger {
 public:
  // Before the change is sent: from here on the endpoint may get requests.
  void add(int service, const IpAddr& endpoint);
  // After the change was acknowledged.
  void remove(const IpAddr& endpoint, MonoTime at);
  void changed(bool accepted);

  void restarted(bool killed, MonoTime at);
  void served(MonoTime at);  // the first sync since the restart

  // A request of `asked` to the service was answered by the endpoint.
  void answered(int service, const IpAddr& endpoint, MonoTime asked);
  void failed(int service, std::string what, MonoTime asked);
  // A datagram of a flow that had last been answered by `last` got no answer; nor had `before` earlier ones then.
  void unanswered(int service, const IpAddr& last, MonoTime asked, int before);

  [[nodiscard]] Report report() const;

 private:
  struct Endpoint {
    int service = 0;
    bool alive = true;
    MonoTime removed{};
  };
  void note_dead(const Endpoint& e, MonoTime asked);
  void note_failure(int service, const std::string& what, MonoTime asked);

  mutable std::mutex mu_;
  const MonoTime begin_ = system_clock().now();
  std::map<IpAddr, Endpoint> endpoints_;            // guarded by mu_
  std::vector<std::pair<MonoTime, MonoTime>> out_;  // guarded by mu_: times without a proxyd that has synced
  Report report_;                                   // guarded by mu_
};

}  // namespace hawser::churn
