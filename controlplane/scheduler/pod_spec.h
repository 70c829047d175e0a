// SPDX-License-Identifier: Apache-2.0
// What the scheduler needs to know of a pod and of a node, read once from their objects. Plain values. Source: core/v1
// of the API documentation and "Scheduling, Preemption and Eviction".
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "lib/base/clock.h"
#include "lib/kube/client.h"
#include "lib/kube/object.h"
#include "lib/kube/selector.h"

namespace hawser::scheduler {

using kube::Array;
using kube::Object;
using kube::ObjectPtr;
using kube::Value;

// cpu in thousandths, everything else in units; "pods" is not in it.
using Resources = std::map<std::string, std::int64_t, std::less<>>;

struct Taint {
  std::string key, value, effect;
};
struct Toleration {
  std::string key, value, effect;
  bool exists = false;
  [[nodiscard]] bool tolerates(const Taint& t) const;
};

// One requirement of a node selector term, on a label or on metadata.name.
struct NodeRequirement {
  enum class Op { kIn, kNotIn, kExists, kNotExists, kGt, kLt, kInvalid };
  bool on_name = false;
  std::string key;
  Op op = Op::kIn;
  std::vector<std::string> values;
};
struct NodeTerm {
  std::vector<NodeRequirement> requirements;  // all; a term without any matches nothing
  std::int64_t weight = 0;                    // of a preferred term
};

struct HostPort {
  std::string ip;  // empty: all
  std::string protocol;
  std::int64_t port = 0;
  auto operator<=>(const HostPort&) const = default;
};

struct SpreadConstraint {
  std::int64_t max_skew = 1;
  std::string topology_key;
  bool hard = true;  // DoNotSchedule
  kube::LabelSelector selector;
};

// A term of pod (anti-)affinity.
struct PodTerm {
  kube::LabelSelector selector;
  std::set<std::string> namespaces;  // empty: all
  std::string topology_key;
  std::int64_t weight = 0;
};

struct PodSpec {
  ObjectPtr object;
  std::string key, uid, ns, name;
  std::string node_name;  // spec.nodeName: assigned already
  std::string scheduler_name;
  std::int64_t priority = 0;
  bool gated = false;  // schedulingGates
  bool deleting = false;
  bool terminal = false;
  std::string owner;  // uid of the controller, for spreading
  Resources requests;
  // What scoring counts for a pod that asks for nothing, so that such pods spread too.
  std::int64_t score_cpu = 0, score_memory = 0;
  std::vector<Toleration> tolerations;
  std::map<std::string, std::string, std::less<>> node_selector;
  bool has_required_affinity = false;
  std::vector<NodeTerm> required_affinity;  // any of them
  std::vector<NodeTerm> preferred_affinity;
  std::vector<HostPort> host_ports;
  std::vector<SpreadConstraint> spread;
  std::vector<PodTerm> affinity, anti_affinity;
  std::vector<PodTerm> preferred_affinity_pods, preferred_anti_affinity_pods;
  std::vector<std::string> images;

  [[nodiscard]] const Object& labels() const { return kube::obj(*object, {"metadata", "labels"}); }
  static PodSpec from(const ObjectPtr& pod);
};

struct NodeSpec {
  std::string name;
  std::map<std::string, std::string, std::less<>> labels;
  std::vector<Taint> taints;
  bool unschedulable = false;
  Resources allocatable;
  std::int64_t max_pods = 0;
  std::set<std::string, std::less<>> images;

  static NodeSpec from(const Object& node);
  bool operator==(const NodeSpec& o) const;
};

}  // namespace hawser::scheduler
