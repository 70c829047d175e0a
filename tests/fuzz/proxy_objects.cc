// SPDX-License-Identifier: Apache-2.0
// Services and EndpointSlices as proxyd reads them. Line 1: a Service; the rest: its EndpointSlice. Reading is total
// for any JSON, and what comes out holds to what the back ends assume.
#include <algorithm>

#include <boost/json/parse.hpp>
#include <sys/socket.h>

#include "proxyd/model/desired_state.h"
#include "proxyd/model/endpoint_slice_cache.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace hawser;
using fuzz::check;

kube::Object parse(std::string_view text) {
  boost::system::error_code ec;
  auto v = boost::json::parse(text, ec);
  return !ec && v.is_object() ? v.get_object() : kube::Object();
}

void check_targets(const proxy::Frontend& f, const std::vector<proxy::Target>& targets) {
  check(std::ranges::is_sorted(targets));
  for (const auto& t : targets) {
    check(t.addr && t.addr.family() == f.family && t.port != 0, t.addr.text());
  }
}

void check_state(const proxy::ServiceState& s, const proxy::Service& service) {
  check(s.key == service.key);
  for (const auto& f : s.frontends) {
    check(f.port != 0 && f.protocol != 0 && (f.family == AF_INET || f.family == AF_INET6));
    check(f.is_node_port() || f.addr.family() == f.family);
    check(f.reach == proxy::Reach::kExternalLocal || f.local.empty());
    for (const auto* targets : {&f.targets, &f.local, &f.draining}) check_targets(f, *targets);
  }
  check(std::ranges::is_sorted(s.local_addrs));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input in(data, size);
  std::vector<std::string> problems;
  auto service = proxy::parse_service(parse(in.line()), problems);
  auto slice_object = parse(in.rest());
  auto slice = proxy::parse_slice(slice_object, "node-1", problems);
  for (const auto& p : problems) check(!p.empty());
  for (const auto& p : service.ports) check(p.port != 0 && !proxy::protocol_name(p.protocol).empty(), p.name);

  // Whatever its label says: the join is what is tested. Every real object has a name.
  slice.service = service.key.empty() ? "a/b" : service.key;
  proxy::EndpointSliceCache cache;
  check(cache.update("a/1", slice));
  check(!cache.update("a/1", slice), "an equal slice is no change");
  // Doubles count once.
  check(cache.update("a/2", slice));
  std::vector<proxy::PortEndpoints> ports;
  for (const auto& p : service.ports) {
    auto endpoints = cache.endpoints(slice.service, p);
    for (std::size_t i = 1; i < endpoints.size(); i++) check(endpoints[i - 1].target < endpoints[i].target, p.name);
    ports.push_back({p, std::move(endpoints)});
  }
  const proxy::NodeInfo node{.name = "node-1", .zone = "z"};
  auto state = proxy::make_service_state(service, ports, node);
  check_state(state, service);
  check(proxy::make_service_state(service, ports, node) == state);
  check(cache.remove("a/1") == slice.service && cache.remove("a/1").empty());
  return 0;
}
