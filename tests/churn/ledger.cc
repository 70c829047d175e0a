// SPDX-License-Identifier: Apache-2.0
#include "tests/churn/ledger.h"

#include <algorithm>

#include <fmt/format.h>

namespace hawser::churn {
namespace {

constexpr std::size_t kFailuresKept = 10;
// A datagram can be lost when its flow is removed before the answer is back; an answer takes no longer than this.
constexpr Nanos kAnswer = std::chrono::milliseconds(500);
constexpr int kLostInARow = 200;  // two seconds of a flow

double ms(Nanos d) {
  return std::chrono::duration<double, std::milli>(d).count();
}

}  // namespace

void Ledger::add(int service, const IpAddr& endpoint) {
  std::lock_guard l(mu_);
  endpoints_[endpoint] = {.service = service};
}

void Ledger::remove(const IpAddr& endpoint, MonoTime at) {
  std::lock_guard l(mu_);
  Endpoint& e = endpoints_[endpoint];
  e.alive = false;
  e.removed = at;
}

void Ledger::changed(bool accepted) {
  std::lock_guard l(mu_);
  ++(accepted ? report_.changes : report_.refused_changes);
}

void Ledger::restarted(bool killed, MonoTime at) {
  std::lock_guard l(mu_);
  ++(killed ? report_.kills : report_.restarts);
  out_.emplace_back(at, MonoTime::max());
}

void Ledger::served(MonoTime at) {
  std::lock_guard l(mu_);
  out_.back().second = at;
  report_.start_times.push_back(at - out_.back().first);
}

void Ledger::answered(int service, const IpAddr& endpoint, MonoTime asked) {
  std::lock_guard l(mu_);
  ++report_.requests;
  const auto it = endpoints_.find(endpoint);
  if (it == endpoints_.end() || it->second.service != service) {
    note_failure(service, "answered by " + endpoint.text() + " of another Service", asked);
    return;
  }
  const Endpoint& e = it->second;
  if (e.alive || asked <= e.removed) return;
  note_dead(e, asked);
}

// A request after the endpoint's removal.
void Ledger::note_dead(const Endpoint& e, MonoTime asked) {
  const Nanos after = asked - e.removed;
  const bool out = std::ranges::any_of(out_, [&](const auto& o) { return o.first <= asked && e.removed <= o.second; });
  report_.latest = std::max(report_.latest, after);
  if (!out) report_.latest_running = std::max(report_.latest_running, after);
  if (after <= kGrace) {
    ++report_.soon;
    return;
  }
  ++report_.late;
  if (out) ++report_.late_at_restart;
}

void Ledger::failed(int service, std::string what, MonoTime asked) {
  std::lock_guard l(mu_);
  note_failure(service, what, asked);
}

void Ledger::unanswered(int service, const IpAddr& last, MonoTime asked, int before) {
  std::lock_guard l(mu_);
  const auto it = endpoints_.find(last);
  // Where a flow moved to when its first datagram was lost is not known; it does not go on like that.
  const bool moving = it != endpoints_.end() && !it->second.alive && it->second.removed <= asked + kAnswer;
  if ((!moving && before == 0) || before > kLostInARow) {
    note_failure(service, fmt::format("no answer to a datagram, last from {}, {} lost before", last, before), asked);
    return;
  }
  ++report_.lost_with_endpoint;
  if (moving && asked > it->second.removed) note_dead(it->second, asked);
}

void Ledger::note_failure(int service, const std::string& what, MonoTime asked) {
  ++report_.failures;
  if (report_.first_failures.size() >= kFailuresKept) return;
  const Nanos since = out_.empty() ? Nanos{0} : asked - out_.back().first;
  report_.first_failures.push_back(fmt::format("at {:.0f} ms, {:.0f} ms after the last restart: service {}: {}",
                                               ms(asked - begin_), ms(since), service, what));
}

Report Ledger::report() const {
  std::lock_guard l(mu_);
  return report_;
}

}  // namespace hawser::churn
