// SPDX-License-Identifier: Apache-2.0
// ResourceHandler: requests for objects. Turns method, route, query and body into registry calls, and their results
// into responses. Any thread; one call is one request.
#pragma once

#include "controlplane/apiserver/http_watch.h"
#include "controlplane/apiserver/log_proxy.h"
#include "controlplane/apiserver/registry.h"
#include "controlplane/apiserver/router.h"

namespace hawser::apiserver {

class ResourceHandler {
 public:
  ResourceHandler(Registry& registry, WatchHub& watches, LogProxy& logs)
      : registry_(registry), watches_(watches), logs_(logs) {}

  // The verb as Kubernetes names it: "list", "watch", ...; "" for a method without one. Pure.
  static std::string_view verb(const http::Request& r, const Route& route);
  // Answers through `out`, always.
  void serve(const http::Request& r, const Route& route, std::string_view verb, http::Responder& out);

 private:
  struct Context;  // one request
  using Reply = Expected<http::Response>;
  Reply answer(Context& c);
  Reply get(Context& c);
  Reply list(Context& c);
  Reply create(Context& c);
  Reply update(Context& c);
  Reply patch(Context& c);
  Reply remove(Context& c);
  Reply remove_collection(Context& c);
  Reply post_subresource(Context& c);

  Registry& registry_;
  WatchHub& watches_;
  LogProxy& logs_;
};

}  // namespace hawser::apiserver
