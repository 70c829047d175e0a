// SPDX-License-Identifier: Apache-2.0
// Client: the Kubernetes API verbs, as a caller sees them. Two implementations: HttpClient (lib/kube/http_client.h)
// over the network, and the control plane's LocalClient, which calls the API server's registry in the same process.
//
// Calls block and may come from any thread. Objects are immutable and shared: never cast the const away.
// Errors: Error::code is the HTTP status (0 or an errno when no answer came), Error::reason the Status reason,
// Error::text the Status message. Source: Kubernetes API conventions (meta/v1).
#pragma once

#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>

#include "lib/base/result.h"

namespace hawser::kube {

using Object = boost::json::object;
using ObjectPtr = std::shared_ptr<const Object>;

// A kind as it is addressed in URLs.
struct Resource {
  std::string_view group;    // "" for the core group
  std::string_view version;  // "v1"
  std::string_view plural;   // "pods"
  std::string_view kind;     // "Pod"
  bool namespaced = true;
};

inline constexpr Resource kNamespaces{"", "v1", "namespaces", "Namespace", false};
inline constexpr Resource kNodes{"", "v1", "nodes", "Node", false};
inline constexpr Resource kPods{"", "v1", "pods", "Pod"};
inline constexpr Resource kServices{"", "v1", "services", "Service"};
inline constexpr Resource kEndpoints{"", "v1", "endpoints", "Endpoints"};
inline constexpr Resource kConfigMaps{"", "v1", "configmaps", "ConfigMap"};
inline constexpr Resource kSecrets{"", "v1", "secrets", "Secret"};
inline constexpr Resource kServiceAccounts{"", "v1", "serviceaccounts", "ServiceAccount"};
inline constexpr Resource kEvents{"", "v1", "events", "Event"};
inline constexpr Resource kEndpointSlices{"discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"};
inline constexpr Resource kLeases{"coordination.k8s.io", "v1", "leases", "Lease"};
inline constexpr Resource kDeployments{"apps", "v1", "deployments", "Deployment"};
inline constexpr Resource kReplicaSets{"apps", "v1", "replicasets", "ReplicaSet"};

struct ListOptions {
  std::string ns;  // empty: all namespaces (or a cluster-scoped kind)
  std::string label_selector;
  std::string field_selector;
  // Called with each object as it comes, to drop what the caller never reads: lists of thousands of large objects then
  // cost little memory. A client that holds the objects anyway may leave it out.
  std::function<void(Object&)> trim;
};
struct ObjectList {
  std::string resource_version;
  std::vector<ObjectPtr> items;
};

enum class EventType { kAdded, kModified, kDeleted, kBookmark };
struct WatchEvent {
  EventType type;
  ObjectPtr object;  // kDeleted: the last state. kBookmark: only metadata.resourceVersion
};
struct WatchOptions : ListOptions {
  std::string resource_version;  // watch what came after it
  // Called once when the server has accepted the watch; may be null.
  std::function<void()> on_open;
};

enum class PatchType { kJson, kMerge, kStrategic };

struct DeleteOptions {
  int grace_period_seconds = -1;  // < 0: the kind's default
  std::string uid;                // precondition; empty: none
  std::string resource_version;   // precondition; empty: none
  std::string propagation;        // "", "Background", "Foreground", "Orphan"
};

class Client {
 public:
  virtual ~Client() = default;

  virtual Result<ObjectPtr> get(const Resource& r, std::string_view ns, std::string_view name) = 0;
  virtual Result<ObjectList> list(const Resource& r, const ListOptions& o) = 0;
  // `ns` is empty for a cluster-scoped kind. Returns the object as stored.
  virtual Result<ObjectPtr> create(const Resource& r, std::string_view ns, const Object& o) = 0;
  // Namespace and name come from o's metadata; a resourceVersion there makes it a compare-and-swap.
  // `subresource`: "" or "status".
  virtual Result<ObjectPtr> update(const Resource& r, const Object& o, std::string_view subresource = "") = 0;
  virtual Result<ObjectPtr> patch(const Resource& r, std::string_view ns, std::string_view name, PatchType type,
                                  const boost::json::value& body, std::string_view subresource = "") = 0;
  virtual Result<> remove(const Resource& r, std::string_view ns, std::string_view name,
                          const DeleteOptions& o = {}) = 0;
  // Subresource POST: pods/binding, serviceaccounts/token.
  virtual Result<ObjectPtr> create_sub(const Resource& r, std::string_view ns, std::string_view name,
                                       std::string_view subresource, const Object& o) = 0;

  // Calls `on_event` on this thread, in order, until it returns false, `stop` is requested, the server ends the watch
  // (success: the caller watches again from the last resourceVersion it saw) or an error. is_gone(error): list again.
  virtual Result<> watch(const Resource& r, const WatchOptions& o,
                         const std::function<bool(const WatchEvent&)>& on_event, std::stop_token stop) = 0;
};

}  // namespace hawser::kube
