// SPDX-License-Identifier: Apache-2.0
// What a client says around the body. Line 1: the target; line 2: Accept; line 3: Content-Type; the rest: the body of a
// delete. All of it is total, errors are the client's (4xx), and a continue token that is accepted says the same when
// it is sent again.
#include "controlplane/apiserver/continue_token.h"
#include "controlplane/apiserver/negotiate.h"
#include "controlplane/apiserver/request_options.h"
#include "controlplane/apiserver/router.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace hawser;
using fuzz::check;

template <class T>
void client_error(const kube::Expected<T>& r) {
  if (!r) check(r.error().code >= 400 && r.error().code < 500 && !r.error().message.empty(), r.error().message);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input in(data, size);
  http::Request r;
  r.target = in.line();
  auto accept = in.line();
  r.headers.set("Accept", accept);
  r.headers.set("Content-Type", in.line());
  r.body = in.rest();

  auto route = apiserver::route(r.path());
  check((route.type == apiserver::Route::Type::kResource) == (route.kind != nullptr), r.target);
  if (route.kind) check(route.group == route.kind->group && route.version == route.kind->version, r.target);
  auto list = apiserver::parse_list(r, route);
  client_error(list);
  client_error(apiserver::parse_write(r));
  client_error(apiserver::parse_delete(r));
  client_error(apiserver::parse_get_version(r));
  client_error(apiserver::parse_include_object(r));
  client_error(apiserver::negotiate(accept, true));
  client_error(apiserver::body_type(r.headers.get("Content-Type")));
  client_error(apiserver::patch_type(r.headers.get("Content-Type")));
  if (auto version = apiserver::aggregated_discovery(accept)) check(*version == "v2" || *version == "v2beta1");
  if (auto t = apiserver::ContinueToken::decode(r.query("continue"))) {
    auto again = apiserver::ContinueToken::decode(t->encode());
    check(again && again->revision == t->revision && again->start == t->start, t->encode());
  }
  return 0;
}
