// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/node_reporter.h"

#include <algorithm>

#include "lib/base/log.h"
#include "lib/base/time_text.h"
#include "lib/kube/object.h"

namespace hawser::agent {
namespace {

using kube::Object;

constexpr std::chrono::milliseconds kUnreadyPeriod{200};
constexpr std::chrono::seconds kPeriod{10};
constexpr std::chrono::minutes kReportAnyway{5};
constexpr std::chrono::seconds kCompare{10};  // how often the API's copy is looked at
constexpr std::chrono::seconds kLeasePeriod{10};
constexpr int kLeaseSeconds = 40;
constexpr std::string_view kLeaseNamespace = "kube-node-lease";

}  // namespace

NodeReporter::NodeReporter(kube::Client& client, CriRuntime& runtime, CriImages& images, const NodeSettings& node,
                           Clock& clock)
    : client_(client),
      runtime_(runtime),
      images_(images),
      node_(node),
      clock_(clock),
      machine_(read_machine(node.root_dir)) {}

NodeReporter::~NodeReporter() {
  stop();
}

void NodeReporter::start() {
  thread_ = std::thread([this] { loop(); });
}

void NodeReporter::stop() {
  {
    std::lock_guard l(mu_);
    stopping_ = true;
    cv_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

bool NodeReporter::ready() const {
  std::lock_guard l(mu_);
  return ready_;
}

void NodeReporter::loop() {
  while (true) {
    const Nanos wait = round();
    std::unique_lock l(mu_);
    if (clock_.wait_until(l, cv_, clock_.now() + wait, [this] { return stopping_; })) return;
  }
}

NodeInputs NodeReporter::look() {
  NodeInputs in;
  in.machine = machine_;
  in.pressure = read_pressure(node_.root_dir);
  if (auto s = runtime_.state())
    in.runtime = *s;
  else
    in.runtime_error = s.error().text;
  if (in.runtime_error.empty())
    if (auto images = images_.list_images()) in.images = std::move(*images);
  return in;
}

Nanos NodeReporter::round() {
  const NodeInputs in = look();
  const bool ready = node_ready(in);
  bool was_ready = false;
  {
    std::lock_guard l(mu_);
    was_ready = std::exchange(ready_, ready);
  }
  if (ready != was_ready) log::info("node {}: {}", node_.node_name, ready ? "ready" : "not ready");
  Result<> r = ensure_registered();
  if (r) r = report(in);
  if (r && clock_.now() >= lease_due_) {
    r = renew_lease();
    if (r) lease_due_ = clock_.now() + kLeasePeriod;
  }
  if (!r) {
    // The first is told, a long absence of the API is not told again every second.
    if (api_failures_++ == 0) log::warn("node {}: {}", node_.node_name, r.error().text);
    return std::min<Nanos>(std::chrono::seconds(2), Nanos(kUnreadyPeriod) * (1 << std::min(api_failures_, 4)));
  }
  api_failures_ = 0;
  return ready ? Nanos(kPeriod) : Nanos(kUnreadyPeriod);
}

Result<> NodeReporter::ensure_registered() {
  if (registered_) return {};
  auto current = client_.get(kube::kNodes, "", node_.node_name);
  if (!current && is_not_found(current.error())) {
    current = client_.create(kube::kNodes, "", node_object(node_, machine_));
    if (current) log::info("node {}: registered", node_.node_name);
  }
  if (!current) return propagate(current, "register");
  const Object labels = node_labels(node_, machine_);
  const Object& have = kube::obj(**current, {"metadata", "labels"});
  const bool labelled = std::ranges::all_of(
      labels, [&](const auto& e) { return have.contains(e.key()) && have.at(e.key()) == e.value(); });
  if (!labelled) {
    const Object body{{"metadata", Object{{"labels", labels}}}};
    current = client_.patch(kube::kNodes, "", node_.node_name, kube::PatchType::kMerge, body);
    if (!current) return propagate(current, "label");
  }
  node_uid_ = kube::uid(**current);
  api_status_ = kube::obj(**current, {"status"});
  reported_.clear();
  registered_ = true;
  return {};
}

// Whether the API still has what was reported. A control plane that did not hear of this node for a while has put
// Unknown in its place; somebody may have deleted the Node.
Result<bool> NodeReporter::still_reported() {
  const MonoTime now = clock_.now();
  if (now < compare_due_) return true;
  auto current = client_.get(kube::kNodes, "", node_.node_name);
  if (!current) {
    if (is_not_found(current.error())) registered_ = false;
    return propagate(current, "status");
  }
  if (kube::uid(**current) != node_uid_) {
    registered_ = false;
    return fail(EAGAIN, "status: the Node was made anew");
  }
  compare_due_ = now + kCompare;
  api_status_ = kube::obj(**current, {"status"});
  const auto& theirs = kube::arr(api_status_, {"conditions"});
  return std::ranges::all_of(kube::arr(reported_, {"conditions"}), [&](const auto& ours) {
    return std::ranges::any_of(theirs, [&](const auto& v) {
      const auto same = [&](std::string_view field) {
        return kube::str(kube::as_obj(v), {field}) == kube::str(kube::as_obj(ours), {field});
      };
      return same("type") && same("status");
    });
  });
}

Result<> NodeReporter::report(const NodeInputs& in) {
  Object status = node_status(node_, in);
  const MonoTime now = clock_.now();
  if (status == reported_ && now - reported_at_ < kReportAnyway) {
    auto same = still_reported();
    if (!same) return propagate(same);
    if (*same) return {};
  }
  Object stamped = status;
  stamp_conditions(stamped, api_status_, clock_.wall());
  auto r = client_.patch(kube::kNodes, "", node_.node_name, kube::PatchType::kStrategic, Object{{"status", stamped}},
                         "status");
  if (!r) {
    if (is_not_found(r.error())) registered_ = false;  // somebody deleted the Node: register again
    return propagate(r, "status");
  }
  api_status_ = kube::obj(**r, {"status"});
  compare_due_ = now + kCompare;
  reported_ = std::move(status);
  reported_at_ = now;
  return {};
}

Result<> NodeReporter::renew_lease() {
  const std::string now = rfc3339_micro(clock_.wall());
  if (lease_) {
    Object next = *lease_;
    kube::ensure(next, {"spec"})["renewTime"] = now;
    auto r = client_.update(kube::kLeases, next);
    if (r) {
      lease_ = *r;
      return {};
    }
    lease_ = nullptr;
    if (!is_not_found(r.error()) && !is_conflict(r.error())) return propagate(r, "lease");
  }
  auto current = client_.get(kube::kLeases, kLeaseNamespace, node_.node_name);
  const Object spec{{"holderIdentity", node_.node_name}, {"leaseDurationSeconds", kLeaseSeconds}, {"renewTime", now}};
  if (current) {
    Object next = **current;
    next["spec"] = spec;
    auto r = client_.update(kube::kLeases, next);
    if (!r) return propagate(r, "lease");
    lease_ = *r;
    return {};
  }
  if (!is_not_found(current.error())) return propagate(current, "lease");
  Object lease{{"apiVersion", "coordination.k8s.io/v1"}, {"kind", "Lease"}, {"spec", spec}};
  Object meta{{"name", node_.node_name}, {"namespace", kLeaseNamespace}};
  meta["ownerReferences"] =
      kube::Array{Object{{"apiVersion", "v1"}, {"kind", "Node"}, {"name", node_.node_name}, {"uid", node_uid_}}};
  lease["metadata"] = std::move(meta);
  auto r = client_.create(kube::kLeases, kLeaseNamespace, lease);
  if (!r) return propagate(r, "lease");
  lease_ = *r;
  return {};
}

}  // namespace hawser::agent
