// SPDX-License-Identifier: Apache-2.0
// Probe: does the data path to each peer work? An ICMP echo goes through the tunnel to the peer's device (which any
// peer answers, flannel's too), once small and once exactly as large as pods may send, undivided. What comes back, and
// which peers' echoes reach us, tells the fault: nothing works, only small packets do (an MTU black hole), or one
// direction is lost (a filter on the way). Where the tunnel leaves checksums to the network device, a datagram with
// such a checksum goes as well (checksum_probe.h). FEATURES I07, X05.
//
// judge() is pure. Prober owns a thread; targets come from a function it calls there, reports go out through one, and
// lines() may be called from any thread.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "cni-plugin/overlayd/checksum_probe.h"
#include "lib/base/ip.h"
#include "lib/base/metrics.h"
#include "lib/base/unique_fd.h"

namespace hawser::overlay {

struct ProbeTarget {
  std::string node;
  IpAddr address;              // an address of the peer's that is reached the way its pods are
  int mtu = 0;                 // of pods' packets to it
  std::string offload_device;  // the tunnel's device if it leaves checksums to the one below; empty: not tested
  bool operator==(const ProbeTarget&) const = default;
};

// What one round saw of one target.
struct ProbeSeen {
  bool small_back = false, full_back = false;  // our echoes were answered
  // Of two datagrams: with the checksum that the device has written, and with the kernel's. Neither: not known.
  bool offloaded_back = false, computed_back = false;
  bool heard = false;  // an echo of the peer's own reached us since the round before
};
enum class PathState { kUnknown, kWorks, kMtuBlackHole, kOneWay, kUnreachable, kWrongChecksum };
[[nodiscard]] const char* state_name(PathState state);  // "works", "mtu_black_hole": for metrics
[[nodiscard]] PathState judge(const ProbeSeen& seen);
// "works", or a sentence with the peer's name.
[[nodiscard]] std::string path_text(PathState state, const ProbeTarget& target);

struct PathReport {
  ProbeTarget target;
  PathState state = PathState::kUnknown;
  std::chrono::microseconds round_trip{0};  // of the last small echo
  int bad_rounds = 0;                       // in a row; a state other than kWorks stands only after several
  int checksum_rounds = 0;                  // in a row with kWrongChecksum, which stands after several of its own
};

struct ProberOptions {
  std::chrono::milliseconds interval{10000};
  std::chrono::milliseconds answer_within{1000};
  int rounds_to_fault = 3;
};

class Prober {
 public:
  using Targets = std::function<std::vector<ProbeTarget>()>;
  using OnReport = std::function<void(const std::vector<PathReport>& faults, std::size_t targets)>;
  Prober(ProberOptions options, Targets targets, OnReport on_report, metrics::Registry& registry);
  ~Prober() { stop(); }
  Prober(const Prober&) = delete;
  Prober& operator=(const Prober&) = delete;

  // Opens its sockets in the calling thread's network namespace. EPERM without CAP_NET_RAW.
  Result<> start();
  void stop();
  // One line a peer, sorted by name: "node-2 10.244.2.0: works, 0.31 ms".
  [[nodiscard]] std::vector<std::string> lines() const;

 private:
  struct Sent {
    ProbeTarget target;
    ProbeSeen seen;
    std::uint16_t small = 0, full = 0, checksum = 0;  // sequence numbers
    std::chrono::steady_clock::time_point at;
    std::chrono::microseconds round_trip{0};
  };
  struct Round {
    std::map<IpAddr, Sent> sent;
  };
  [[nodiscard]] PathReport next_report(const Sent& s, const PathReport& before) const;
  void loop();
  bool one_round();  // false: told to stop
  void send_all(Round& round);
  void receive(Round& round, int family);
  static void receive_refusals(Round& round, const ChecksumProbe& probe);
  void conclude(const Round& round);
  bool wait_until(Round& round, std::chrono::steady_clock::time_point deadline);

  const ProberOptions options_;
  const Targets targets_;
  const OnReport on_report_;
  metrics::Family<metrics::Gauge>& paths_;
  UniqueFd v4_, v6_, stop_;
  ChecksumProbe checksum4_, checksum6_;
  // Prober thread only:
  std::uint16_t id_ = 0, sequence_ = 0;
  std::set<IpAddr> heard_;  // peers whose echoes reached us since the last conclusion

  mutable std::mutex mu_;
  std::map<IpAddr, PathReport> reports_;  // guarded by mu_; written by the prober thread only
  std::thread thread_;
};

}  // namespace hawser::overlay
