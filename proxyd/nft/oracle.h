// SPDX-License-Identifier: Apache-2.0
// What the model says a new connection gets, straight from the state and the options: the oracle for the tracer and for
// the kernel. It shares no code with the plan. Also clusters made up at random. For tests.
#pragma once

#include <map>
#include <random>
#include <vector>

#include "proxyd/model/options.h"
#include "proxyd/model/tracker.h"
#include "proxyd/nft/tracer.h"

namespace hawser::proxy {

struct Expected {
  Trace::End end = Trace::End::kPass;
  std::vector<Target> targets;  // kTranslated: one of these, each as often as it is here
  bool masquerade = false;      // kTranslated; a hairpin apart
  bool operator==(const Expected&) const = default;
};
[[nodiscard]] Expected expected(const DesiredState& state, const TrafficOptions& o, const Packet& p,
                                const std::function<bool(const IpAddr&)>& is_local);
// True if `target` of `state` answers to itself: its packets are masqueraded on the way back to it.
[[nodiscard]] bool is_hairpin(const DesiredState& state, const IpAddr& source, const IpAddr& target);

// A Service of any type and its slices as API objects, some parts of them unusable. The same seed, the same objects.
struct RandomService {
  kube::ObjectPtr service;
  std::vector<kube::ObjectPtr> slices;
};
[[nodiscard]] RandomService random_service(std::mt19937& random, int number);
[[nodiscard]] TrafficOptions random_options(std::mt19937& random);
// Options and a dozen such Services, some of which are others or gone after each step.
class RandomCluster {
 public:
  explicit RandomCluster(unsigned seed) : random(seed), options(random_options(random)) {}
  DesiredStatePtr next();

  std::mt19937 random;
  const TrafficOptions options;
  Tracker tracker{{.name = "node-1", .zone = "zone-1", .addresses = {*IpAddr::parse("192.0.2.11")}},
                  [](const std::string&) {}};

 private:
  std::map<int, RandomService> services_;
};
// To one of the state's frontends, or near it.
[[nodiscard]] Packet random_packet(std::mt19937& random, const DesiredState& state);

}  // namespace hawser::proxy
