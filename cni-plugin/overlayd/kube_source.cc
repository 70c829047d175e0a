// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/kube_source.h"

#include <algorithm>

#include <malloc.h>
#include <sys/socket.h>

#include "lib/base/log.h"

namespace hawser::overlay {

NodeCondition path_condition(const std::vector<PathReport>& faults) {
  constexpr std::size_t kNamed = 10;  // of perhaps thousands
  if (faults.empty())
    return {kPathCondition, "False", "ProbesAnswered", "small and MTU-sized packets reach every node's pods"};
  std::string text;
  for (std::size_t i = 0; i < std::min(kNamed, faults.size()); i++)
    text += (i ? "; " : "") + path_text(faults[i].state, faults[i].target);
  if (faults.size() > kNamed) text += fmt::format("; and {} more", faults.size() - kNamed);
  return {kPathCondition, "True", "ProbesLost", text};
}

Result<bool> remove_path_condition(kube::Client& client, const std::string& node) {
  auto object = client.get(kube::kNodes, "", node);
  if (!object && is_not_found(object.error())) return false;
  if (!object) return propagate(object);
  const auto& conditions = kube::arr(**object, {"status", "conditions"});
  if (std::ranges::none_of(conditions,
                           [](const kube::Value& c) { return kube::str(kube::as_obj(c), {"type"}) == kPathCondition; }))
    return false;
  const kube::Object gone{{"type", kPathCondition}, {"$patch", "delete"}};
  const kube::Object patch{{"status", {{"conditions", kube::Array{kube::Value(gone)}}}}};
  auto answer = client.patch(kube::kNodes, "", node, kube::PatchType::kStrategic, patch, "status");
  if (!answer) return propagate(answer);
  return true;
}

KubeSource::KubeSource(KubeSourceOptions options, kube::Client& client)
    : options_(std::move(options)), client_(client) {
  publisher_ = std::make_unique<BoundedRunner>(
      BoundedRunnerOptions{.retry_interval = std::chrono::seconds(3), .max_interval = std::chrono::hours(24)},
      [this] { return publish_now(); });
  kube::ListOptions list;
  list.trim = [name = options_.node, prefix = options_.annotation_prefix](kube::Object& o) {
    trim_node(o, prefix, kube::name(o) == name);
  };
  informer_ = std::make_unique<kube::Informer>(client_, kube::kNodes, std::move(list));
}

KubeSource::~KubeSource() {
  KubeSource::stop();
}

void KubeSource::start(std::function<void()> on_change) {
  on_change_ = std::move(on_change);
  publisher_->start();
  informer_->start({.on_change = [this](const auto& old, const auto& now) { on_node(old, now); },
                    .on_synced =
                        [this] {
                          {
                            std::lock_guard l(mu_);
                            nodes_known_ = true;
                          }
                          ::malloc_trim(0);  // what thousands of whole Nodes took on their way in
                          on_change_();
                        }});
}

void KubeSource::stop() {
  informer_->stop();
  publisher_->stop();
}

void KubeSource::on_node(const kube::ObjectPtr& old, const kube::ObjectPtr& current) {
  const auto name = std::string(kube::name(current ? *current : *old));
  bool changed = false;
  {
    std::lock_guard l(mu_);
    if (name == options_.node) own_node_ = current;
    auto it = leases_.find(name);
    if (!current) {
      changed = it != leases_.end();
      leases_.erase(name);
    } else {
      // Heartbeats change a Node every few seconds; its lease hardly ever.
      auto lease = read_lease(*current, options_.annotation_prefix);
      changed = it == leases_.end() || it->second != lease;
      if (changed) leases_[name] = std::move(lease);
    }
  }
  if (name == options_.node) publisher_->run();
  if (changed) on_change_();
}

std::expected<SubnetView, std::string> KubeSource::view() {
  std::lock_guard l(mu_);
  if (!nodes_known_) return std::unexpected("no answer from the API server yet");
  auto it = leases_.find(options_.node);
  if (it == leases_.end() || !own_node_)
    return std::unexpected(fmt::format("node {} is not registered", options_.node));
  SubnetView v{.own = it->second};
  v.nodes.reserve(leases_.size());
  for (const auto& [name, lease] : leases_) v.nodes.push_back(lease);
  for (int family : {AF_INET, AF_INET6}) {
    if (auto a = internal_ip(*own_node_, family)) v.node_addresses.push_back(a);
    if (auto a = overwritten_address(*own_node_, options_.annotation_prefix, family)) v.overwrites.push_back(a);
  }
  return v;
}

void KubeSource::publish(const Lease& own, bool ready) {
  if (!ready) return;
  {
    std::lock_guard l(mu_);
    wanted_ = Publication{
        .lease = own, .prefix = options_.annotation_prefix, .network_available = options_.set_network_available};
  }
  publisher_->run();
}

void KubeSource::set_condition(const NodeCondition& condition) {
  {
    std::lock_guard l(mu_);
    if (condition_ == condition) return;
    condition_ = condition;
  }
  publisher_->run();
}

Result<> KubeSource::publish_now() {
  std::optional<Publication> wanted;
  kube::ObjectPtr node;
  {
    std::lock_guard l(mu_);
    wanted = wanted_;
    if (wanted) wanted->condition = condition_;
    node = own_node_;
  }
  if (!wanted || !node) return {};
  auto patch = publication_patch(*node, *wanted, system_clock().wall());
  if (!patch) return {};
  auto answer = client_.patch(kube::kNodes, "", options_.node, kube::PatchType::kStrategic, *patch, "status");
  // Some servers keep metadata out of the status subresource.
  const auto rest = answer && *answer ? publication_patch(**answer, *wanted, system_clock().wall()) : std::nullopt;
  if (const auto* metadata = rest ? kube::find(rest->get_object(), {"metadata"}) : nullptr)
    answer = client_.patch(kube::kNodes, "", options_.node, kube::PatchType::kStrategic,
                           kube::Object{{"metadata", *metadata}});
  if (!answer) {
    log::warn("publish the lease of node {}: {}", options_.node, answer.error().text);
    return propagate(answer);
  }
  log::info("published the lease of node {}", options_.node);
  return {};
}

}  // namespace hawser::overlay
