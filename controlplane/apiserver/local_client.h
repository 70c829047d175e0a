// SPDX-License-Identifier: Apache-2.0
// LocalClient: kube::Client on the registry of this very process, for controllers and scheduler. Objects are handed
// over as the cache holds them: no HTTP, no TLS, no serialization beyond the one that the store needs. Any thread.
#pragma once

#include "controlplane/apiserver/registry.h"
#include "lib/kube/client.h"

namespace hawser::apiserver {

class LocalClient final : public kube::Client {
 public:
  explicit LocalClient(Registry& registry) : registry_(registry) {}

  Result<ObjectPtr> get(const kube::Resource& r, std::string_view ns, std::string_view name) override;
  Result<kube::ObjectList> list(const kube::Resource& r, const kube::ListOptions& o) override;
  Result<ObjectPtr> create(const kube::Resource& r, std::string_view ns, const Object& o) override;
  Result<ObjectPtr> update(const kube::Resource& r, const Object& o, std::string_view subresource) override;
  Result<ObjectPtr> patch(const kube::Resource& r, std::string_view ns, std::string_view name, kube::PatchType type,
                          const boost::json::value& body, std::string_view subresource) override;
  Result<> remove(const kube::Resource& r, std::string_view ns, std::string_view name,
                  const kube::DeleteOptions& o) override;
  Result<ObjectPtr> create_sub(const kube::Resource& r, std::string_view ns, std::string_view name,
                               std::string_view subresource, const Object& o) override;
  Result<> watch(const kube::Resource& r, const kube::WatchOptions& o,
                 const std::function<bool(const kube::WatchEvent&)>& on_event, std::stop_token stop) override;

 private:
  Registry& registry_;
};

}  // namespace hawser::apiserver
