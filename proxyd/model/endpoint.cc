// SPDX-License-Identifier: Apache-2.0
#include "proxyd/model/endpoint.h"

#include <fmt/format.h>

#include "proxyd/model/service_port.h"

namespace hawser::proxy {
namespace {

std::vector<std::string> names(const kube::Array& a) {
  std::vector<std::string> r;
  for (const auto& v : a) {
    const auto n = kube::str(kube::as_obj(v), {"name"});
    if (!n.empty()) r.emplace_back(n);
  }
  return r;
}

std::shared_ptr<const Hints> read_hints(const kube::Object& e) {
  const auto& h = kube::obj(e, {"hints"});
  if (h.empty()) return nullptr;
  return std::make_shared<const Hints>(Hints{names(kube::arr(h, {"forZones"})), names(kube::arr(h, {"forNodes"}))});
}

Endpoint read_conditions(const kube::Object& e, std::string_view this_node) {
  Endpoint r;
  // Absent means: ready true, serving as ready, terminating false [P41].
  r.ready = kube::flag(e, {"conditions", "ready"}, true);
  r.serving = kube::flag(e, {"conditions", "serving"}, r.ready);
  r.terminating = kube::flag(e, {"conditions", "terminating"}, false);
  auto node = kube::str(e, {"nodeName"});
  if (node.empty()) node = kube::str(e, {"topology", "kubernetes.io/hostname"});
  r.local = !node.empty() && node == this_node;
  r.hints = read_hints(e);
  return r;
}

}  // namespace

bool Endpoint::operator==(const Endpoint& o) const {
  const bool same_hints = hints == o.hints || (hints && o.hints && *hints == *o.hints);
  return target == o.target && ready == o.ready && serving == o.serving && terminating == o.terminating &&
         weight == o.weight && local == o.local && same_hints;
}

Slice parse_slice(const kube::Object& o, std::string_view this_node, std::vector<std::string>& problems) {
  Slice s;
  const auto name = kube::str(o, {"metadata", "labels", "kubernetes.io/service-name"});
  const auto type = kube::str(o, {"addressType"});
  if (name.empty() || (type != "IPv4" && type != "IPv6")) return s;
  s.service = fmt::format("{}/{}", kube::ns(o), name);
  const auto problem = [&](std::string text) {
    problems.push_back(fmt::format("EndpointSlice {}: {}", kube::key(o), text));
  };
  for (const auto& v : kube::arr(o, {"ports"})) {
    const auto& p = kube::as_obj(v);
    const std::int64_t port = kube::num(p, {"port"});
    const auto proto = kube::str(p, {"protocol"});
    const std::uint8_t number = protocol_number(proto.empty() ? "TCP" : proto);
    if (port < 1 || port > 65535 || number == 0) {
      problem(fmt::format("ports: {} {} is not usable", proto, port));
      continue;
    }
    s.ports.push_back({std::string(kube::str(p, {"name"})), number, static_cast<std::uint16_t>(port)});
  }
  const auto weights = parse_weights(o, problem);
  for (const auto& v : kube::arr(o, {"endpoints"})) {
    const auto& e = kube::as_obj(v);
    const auto& addresses = kube::arr(e, {"addresses"});
    // Several addresses of one endpoint are the same pod: the API says to use the first.
    if (addresses.empty() || !addresses[0].is_string()) {
      problem("endpoints: one without an address");
      continue;
    }
    auto a = IpAddr::parse(addresses[0].get_string());
    if (!a || a->is_v4() != (type == "IPv4")) {
      problem(fmt::format("endpoints: \"{}\" is not an {} address", std::string_view(addresses[0].get_string()), type));
      continue;
    }
    Endpoint r = read_conditions(e, this_node);
    r.target.addr = *a;
    for (const auto& w : weights) {
      if (w.addr == *a) r.weight = w.weight;
    }
    s.endpoints.push_back(std::move(r));
  }
  return s;
}

}  // namespace hawser::proxy
