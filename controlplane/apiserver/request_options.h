// SPDX-License-Identifier: Apache-2.0
// The query parameters of a request as typed options, with Kubernetes' errors for what they may not be. Pure, any
// thread. Source: meta/v1 ListOptions, CreateOptions, DeleteOptions, TableOptions.
#pragma once

#include "controlplane/apiserver/registry.h"
#include "controlplane/apiserver/router.h"
#include "lib/http/message.h"

namespace hawser::apiserver {

// The body, in any encoding we take, as an object of no particular kind.
Expected<Object> body_object(const http::Request& r);
// The body of a patch; duplicate keys go to `findings`.
Expected<Value> patch_body(const http::Request& r, std::vector<std::string>& findings);

struct ListParams {
  ListRequest list;
  bool watch = false;
  bool bookmarks = false;
  std::optional<bool> send_initial_events;
  std::int64_t timeout_seconds = 0;
};
Expected<ListParams> parse_list(const http::Request& r, const Route& route);

Expected<WriteOptions> parse_write(const http::Request& r);

// metav1.DeleteOptions. 400 for what they may not hold.
Expected<DeleteRequest> parse_delete_options(const Object& o);
// The body, then the query, which wins.
Expected<DeleteRequest> parse_delete(const http::Request& r);

Expected<Revision> parse_get_version(const http::Request& r);
Expected<schema::IncludeObject> parse_include_object(const http::Request& r);

}  // namespace hawser::apiserver
