// SPDX-License-Identifier: Apache-2.0
// SwitchBackend: the back end of the wanted mode, and the way there from whatever the kernel has (plan.h): from the
// other mode of ours, from kube-proxy's IPVS (IpvsOptions::adopt), from a switch that a process before this one did not
// finish. New connections move at one instant, to something that was read back before; established ones end where they
// are. The sync thread is its only caller, but for name() and status().
//
// If IPVS cannot be had, the table goes on serving every change and IPVS is tried again at each audit.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "lib/base/metrics.h"
#include "lib/netlink/conntrack.h"
#include "proxyd/health/health.h"
#include "proxyd/ipvs/ipvs_backend.h"
#include "proxyd/nft/nft_backend.h"
#include "proxyd/switch/plan.h"

namespace hawser::proxy {

struct SwitchKernel {
  IpvsKernel ipvs;
  netlink::Conntrack& conntrack;
  std::function<Result<std::string>()> connections;  // the text of /proc/net/ip_vs_conn
};

struct SwitchOptions {
  Mode mode = Mode::kNftables;
  TrafficOptions traffic;
  IpvsOptions ipvs;
  // Told about the beginning and end of a switch, and why it does not get on; for events. On the sync thread.
  std::function<void(const char* reason, const std::string& message, bool warning)> on_event = {};
};

class SwitchBackend final : public Backend {
 public:
  SwitchBackend(SwitchKernel kernel, SwitchOptions options, metrics::Registry& registry, Clock& clock = system_clock());

  // Who decides about new connections; the wanted mode until the kernel was asked. Any thread.
  [[nodiscard]] std::string_view name() const override { return mode_name(current_); }
  [[nodiscard]] ModeStatus status() const;  // any thread
  Result<SyncReport> apply(const DesiredStatePtr& state) override;
  void invalidate() override;
  Result<> cleanup() override { return ipvs_.cleanup(); }

 private:
  // How the node is kept from one plan to the next: by the last step that was done.
  Result<SyncReport> advance(const DesiredStatePtr& state);
  Result<SyncReport> keep(const DesiredStatePtr& state);
  Result<SyncReport> fall_back(const DesiredStatePtr& state, Step failed, const Error& why);
  Result<SwitchFacts> read_facts();
  Result<bool> run(Step s, const DesiredStatePtr& state, SyncReport& report);  // false: the plan waits at this step
  Result<SyncReport> run_rules(Step s, const DesiredStatePtr& state);
  Result<> verify(Step s, const DesiredStatePtr& state);
  Result<> hand_over_clients(const DesiredState& state);
  Result<bool> drained();
  Result<std::size_t> local_flows();
  Result<> remove_ipvs();
  void note_step(std::string_view step);
  void note_deciding(Mode m);
  void note_problem(std::string text);
  void note_draining(std::size_t connections);
  void tell(const char* reason, const std::string& message, bool warning = false);

  SwitchKernel kernel_;
  const SwitchOptions options_;
  Clock& clock_;
  NftBackend table_;
  IpvsBackend ipvs_;

  std::optional<Step> kept_;  // none: the kernel is to be asked
  bool settled_ = false;      // nothing is left to do of a switch
  bool switching_ = false;    // told as begun
  DesiredStatePtr applied_;
  std::optional<MonoTime> drain_since_;

  std::atomic<Mode> current_;
  mutable std::mutex mu_;
  ModeStatus status_;  // guarded by mu_
  metrics::Family<metrics::Gauge>& mode_metric_;
  metrics::Gauge& switching_metric_;
  metrics::Gauge& draining_metric_;
  metrics::Counter& switches_metric_;
};

}  // namespace hawser::proxy
