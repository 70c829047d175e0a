// SPDX-License-Identifier: Apache-2.0
// Node IPAM: gives each node its part of the cluster's pod addresses. One worker, because the pools are its alone. What
// nodes already have is adopted before anything new is given out, so a restart changes nothing and gives nothing twice.
#include <mutex>
#include <set>

#include "controlplane/controllers/cidr_pool.h"
#include "controlplane/controllers/controllers.h"
#include "controlplane/controllers/pod_state.h"
#include "lib/base/log.h"

namespace hawser::controllers {
namespace {

std::vector<Cidr> cidrs_of(const Object& node) {
  std::vector<Cidr> out;
  for (const Value& v : kube::arr(node, {"spec", "podCIDRs"}))
    if (v.is_string())
      if (auto c = Cidr::parse(v.get_string())) out.push_back(*c);
  if (out.empty())
    if (auto c = Cidr::parse(kube::str(node, {"spec", "podCIDR"}))) out.push_back(*c);
  return out;
}

class NodeIpamController final : public Controller {
 public:
  explicit NodeIpamController(Context& ctx) : Controller(ctx, "nodeipam", 1) {}

  void watch() override {
    cache(kube::kNodes).subscribe([this](const ObjectPtr& old, const ObjectPtr& current) {
      // A node's heartbeat is no news here.
      if (old == nullptr || current == nullptr || cidrs_of(*old) != cidrs_of(*current))
        enqueue(kube::key(current != nullptr ? *current : *old));
    });
  }

  void prepare() override {
    for (const Cidr& range : ctx_.options.cluster_cidrs) {
      auto pool = CidrPool::make(range, range.addr().is_v4() ? ctx_.options.node_mask_v4 : ctx_.options.node_mask_v6);
      if (!pool) {
        log::error("nodeipam: {}", pool.error().text);
        pools_.clear();
        return;
      }
      if (ctx_.options.service_cidr && range.overlaps(ctx_.options.service_cidr))
        if (auto kept = pool->adopt(std::string(kServices), ctx_.options.service_cidr); !kept)
          log::error("nodeipam: {}", kept.error().text);
      pools_.push_back(std::move(*pool));
    }
    for (const ObjectPtr& n : cache(kube::kNodes).list()) adopt(*n);
  }

  Outcome sync(const std::string& key) override {
    const ObjectPtr node = cache(kube::kNodes).get(key);
    if (node == nullptr) {
      release(key);
      return std::nullopt;
    }
    if (pools_.empty()) return std::nullopt;
    if (!cidrs_of(*node).empty()) {
      adopt(*node);
      return std::nullopt;
    }
    return assign(*node);
  }

 private:
  static constexpr std::string_view kServices = "(service CIDR)";  // no valid node name

  void adopt(const Object& node) {
    for (const Cidr& c : cidrs_of(node))
      for (CidrPool& p : pools_)
        if (auto ok = p.adopt(std::string(kube::name(node)), c); !ok) {
          log::error("nodeipam: {}", ok.error().text);
          ctx_.warn(kube::kNodes, node, "CIDRConflict", ok.error().text);
        }
  }

  void release(const std::string& key) {
    waiting_.erase(key);
    for (CidrPool& p : pools_) p.release(key);
    for (const std::string& k : waiting_) enqueue(k);
  }

  Outcome assign(const Object& node) {
    const std::string name(kube::name(node));
    Array list;
    for (CidrPool& p : pools_) {
      const auto c = p.allocate(name);
      if (!c) {
        for (CidrPool& q : pools_) q.release(name);
        waiting_.insert(name);
        ctx_.warn(kube::kNodes, node, "CIDRNotAvailable",
                  "Node " + name + " status is now: CIDRNotAvailable: no free block in " + p.range().text());
        return std::nullopt;
      }
      list.push_back(text(c->text()));
    }
    waiting_.erase(name);
    Object next = node;
    Object& spec = kube::ensure(next, {"spec"});
    spec["podCIDR"] = list[0];
    spec["podCIDRs"] = std::move(list);
    // The block stays this node's if the write fails: a later try gets the same one.
    if (auto written = ctx_.update(kube::kNodes, next); !written) return propagate(written, "podCIDR");
    return std::nullopt;
  }

  // worker thread only (prepare() runs before it starts)
  std::vector<CidrPool> pools_;
  std::set<std::string> waiting_;  // nodes that found the range full
};

}  // namespace

std::unique_ptr<Controller> make_node_ipam_controller(Context& ctx) {
  return std::make_unique<NodeIpamController>(ctx);
}

}  // namespace hawser::controllers
