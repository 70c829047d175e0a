// SPDX-License-Identifier: Apache-2.0
// HttpClient: the Client interface over HTTPS, against any Kubernetes API server. Lists come in pages of 500, watches
// ask for bookmarks and end after 5 to 10 minutes so that load spreads over servers. Objects of lists get the kind and
// apiVersion the server leaves out; managedFields, which no component of ours reads, are dropped from lists and
// watches. Any thread.
#pragma once

#include <memory>
#include <string>

#include "lib/base/clock.h"
#include "lib/http/message.h"
#include "lib/kube/client.h"
#include "lib/kube/kubeconfig.h"

namespace hawser::kube {

class HttpClient final : public Client {
 public:
  // `program` becomes the User-Agent: "hawser-proxyd/0.1.0".
  static Result<std::unique_ptr<HttpClient>> make(const ClientConfig& config, const std::string& program,
                                                  Clock& clock = system_clock());
  ~HttpClient() override;

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

  // Any request with this client's credentials: "/version", "/healthz". A status of 400 or more is an Error.
  Result<http::Response> raw(http::Request r);

 private:
  struct Impl;
  explicit HttpClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hawser::kube
