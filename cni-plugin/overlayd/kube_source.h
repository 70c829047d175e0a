// SPDX-License-Identifier: Apache-2.0
// KubeSource: leases from Node objects, in flannel's annotations; our own is published on our Node. The informer's
// thread folds events into `leases_`; the publisher's thread alone writes to the API, so that a hanging API server
// never delays a repair. A Node is compared as a whole lease, so no change of any one family is lost (O37, O38), and a
// relist brings what a broken watch missed.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "cni-plugin/overlayd/probe.h"
#include "cni-plugin/overlayd/subnet_source.h"
#include "lib/base/bounded_runner.h"
#include "lib/kube/client.h"
#include "lib/kube/informer.h"

namespace hawser::overlay {

struct KubeSourceOptions {
  std::string node;
  std::string annotation_prefix{kDefaultAnnotationPrefix};
  bool set_network_available = true;
};

inline constexpr const char* kPathCondition = "PeersUnreachable";
// That condition of the Node: True with the peers and what is wrong, or False. Pure.
[[nodiscard]] NodeCondition path_condition(const std::vector<PathReport>& faults);
// Takes it off a node that we leave: nobody would correct it any more. False: it has none.
Result<bool> remove_path_condition(kube::Client& client, const std::string& node);

class KubeSource final : public SubnetSource {
 public:
  KubeSource(KubeSourceOptions options, kube::Client& client);
  ~KubeSource() override;
  void start(std::function<void()> on_change) override;
  void stop() override;
  std::expected<SubnetView, std::string> view() override;
  void publish(const Lease& own, bool ready) override;
  // A further condition of our Node (path_condition()); published when it differs.
  void set_condition(const NodeCondition& condition);

 private:
  void on_node(const kube::ObjectPtr& old, const kube::ObjectPtr& current);
  Result<> publish_now();

  const KubeSourceOptions options_;
  kube::Client& client_;
  std::function<void()> on_change_;

  std::mutex mu_;
  std::map<std::string, Lease> leases_;     // guarded by mu_
  kube::ObjectPtr own_node_;                // guarded by mu_
  bool nodes_known_ = false;                // guarded by mu_
  std::optional<Publication> wanted_;       // guarded by mu_
  std::optional<NodeCondition> condition_;  // guarded by mu_

  std::unique_ptr<BoundedRunner> publisher_;
  std::unique_ptr<kube::Informer> informer_;  // last: its thread ends before what it uses
};

}  // namespace hawser::overlay
