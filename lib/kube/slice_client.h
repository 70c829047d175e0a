// SPDX-License-Identifier: Apache-2.0
// EndpointSliceClient: a Client for which every API server has discovery.k8s.io/v1. Where it is missing (before
// Kubernetes 1.21) EndpointSlices are listed and watched as v1beta1 and handed on as v1; an upgrade of the server below
// is noticed at the next list. All other calls go through as they are. Any thread.
#pragma once

#include <atomic>

#include "lib/kube/client.h"

namespace hawser::kube {

// A v1beta1 EndpointSlice as v1: `topology` becomes nodeName, zone and deprecatedTopology. Pure.
[[nodiscard]] ObjectPtr slice_to_v1(const ObjectPtr& v1beta1);

class EndpointSliceClient final : public Client {
 public:
  explicit EndpointSliceClient(Client& below) : below_(below) {}

  Result<ObjectPtr> get(const Resource& r, std::string_view ns, std::string_view name) override;
  Result<ObjectList> list(const Resource& r, const ListOptions& o) override;
  Result<ObjectPtr> create(const Resource& r, std::string_view ns, const Object& o) override;
  Result<ObjectPtr> update(const Resource& r, const Object& o, std::string_view subresource = "") override;
  Result<ObjectPtr> patch(const Resource& r, std::string_view ns, std::string_view name, PatchType type,
                          const boost::json::value& body, std::string_view subresource = "") override;
  Result<> remove(const Resource& r, std::string_view ns, std::string_view name, const DeleteOptions& o = {}) override;
  Result<ObjectPtr> create_sub(const Resource& r, std::string_view ns, std::string_view name,
                               std::string_view subresource, const Object& o) override;
  Result<> watch(const Resource& r, const WatchOptions& o, const std::function<bool(const WatchEvent&)>& on_event,
                 std::stop_token stop) override;

 private:
  Client& below_;
  std::atomic<bool> beta_{false};  // what the last list found
};

}  // namespace hawser::kube
