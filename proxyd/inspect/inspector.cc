// SPDX-License-Identifier: Apache-2.0
#include "proxyd/inspect/inspector.h"

#include <algorithm>
#include <charconv>
#include <memory>
#include <set>

#include <boost/json/serialize.hpp>
#include <netinet/in.h>
#include <sys/socket.h>

#include "proxyd/inspect/explain.h"
#include "proxyd/inspect/listing.h"
#include "proxyd/ipvs/ipvs_backend.h"
#include "proxyd/kernel.h"
#include "proxyd/nft/nft_backend.h"

namespace hawser::proxy {
namespace {

constexpr int kReadings = 5;
constexpr std::string_view kPrefix = "/inspect/";

http::Response response(int status, std::string body) {
  http::Response r{.status = status, .headers = {}, .body = std::move(body)};
  r.headers.set("Content-Type", "application/json");
  return r;
}

http::Response refusal(const Error& e) {
  const int status = e.code == ENOENT ? 404 : e.code == EINVAL ? 400 : 500;
  return response(status, boost::json::serialize(boost::json::object{{"error", e.text}}) + "\n");
}

std::optional<std::uint16_t> port_number(std::string_view s) {
  std::uint16_t n = 0;
  const auto [end, ec] = std::from_chars(s.data(), s.data() + s.size(), n);
  if (ec != std::errc() || end != s.data() + s.size() || n == 0) return std::nullopt;
  return n;
}

// "web" is default/web.
std::string service_key(std::string_view name) {
  return name.find('/') == name.npos ? fmt::format("default/{}", name) : std::string(name);
}

Result<std::vector<Remembered>> remembered_of(nft::NftRunner& nft, const IpAddr& client, const Found& found) {
  std::vector<Remembered> r;
  const int family = client.family();
  const std::size_t n = client.bytes().size();
  for (const SetRole role : {SetRole::kAffinity, SetRole::kNodePortAffinity}) {
    const nft::Set set = set_spec(role, family);
    if (!found.table.sets.contains(set.name)) continue;
    SideId like{.v6 = family == AF_INET6};
    if (role == SetRole::kAffinity) like.addr = client;  // any of the family
    std::vector<Remembered> list;
    auto done = nft.read_elements(
        kTableFamily, kTable, set,
        [&](const nft::Element& e) {
          const auto* data = std::get_if<nft::Bytes>(&e.data);
          if (data == nullptr || e.key.size() < n || !std::ranges::equal(e.key.sub(0, n), client.bytes())) return;
          const auto key = parts_of(nft::Bytes(e.key.sub(n, e.key.size() - n)), like, KeyTail::kNone);
          const auto target = target_of(*data, family);
          if (key && target) list.push_back({client, key->id, *target});
        },
        [&] { list.clear(); });
    if (!done) return propagate(done, "read {}", set.name);
    r.insert(r.end(), list.begin(), list.end());
  }
  return r;
}

}  // namespace

Result<HostPort> split_host_port(std::string_view text) {
  const auto colon = text.rfind(':');
  if (colon == text.npos || colon == 0 || colon + 1 == text.size())
    return fail(EINVAL, "destination \"{}\": want ADDRESS:PORT or [NAMESPACE/]SERVICE:PORT", text);
  auto host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != host.npos) {
    return fail(EINVAL, "destination \"{}\": an IPv6 address stands in brackets before its port", text);
  }
  return HostPort{std::string(host), std::string(text.substr(colon + 1))};
}

ModelFacts Inspector::read_model(const Asked& asked) const {
  const Tracker& t = from_.tracker;
  ModelFacts m{.node = {}, .info = t.node(), .options = options_, .state = t.state()};
  m.node = m.info.name;
  m.applied = from_.health.generation();
  const PendingCounts p = t.pending();
  m.pending = p.service_changes + p.endpoint_changes > 0;
  const auto add = [&](const std::string& key) {
    if (auto view = t.view(key)) m.services.emplace(key, std::move(*view));
  };
  if (asked.service == "*") {
    for (const auto& s : m.state->services) add(s->key);
  } else if (!asked.service.empty()) {
    add(asked.service);
  }
  return m;
}

Result<KernelFacts> Inspector::read_kernel(const std::optional<Query>& q) {
  KernelFacts k;
  auto ruleset = from_.nft.generation();
  if (!ruleset) return propagate(ruleset, "read the ruleset's generation");
  k.ruleset = *ruleset;
  auto found = read_back(from_.nft);
  if (!found) return propagate(found, "read the table");
  k.found = std::move(*found);
  auto addresses = from_.rtnl.list_addresses(0);
  if (!addresses) return propagate(addresses, "read the node's addresses");
  for (const auto& a : *addresses) k.addresses.push_back(a.cidr.addr());
  if (!q) return k;
  auto remembered = remembered_of(from_.nft, q->source, k.found);
  if (!remembered) return propagate(remembered);
  k.remembered = std::move(*remembered);
  auto flows = from_.conntrack.list(q->destination.family(), q->protocol);
  if (!flows) return propagate(flows, "read the flows");
  for (const auto& f : *flows) {
    if (f.source.addr == q->source && f.destination == netlink::FlowEnd{q->destination, q->port}) k.flows.push_back(f);
  }
  return k;
}

Result<> Inspector::add_ipvs(const Asked& asked, Facts& f) {
  if (!ipvs_) return {};
  IpvsFacts out{.exclude = ipvs_->exclude};
  auto addresses = from_.rtnl.list_addresses(0);
  if (!addresses) return propagate(addresses);
  const auto device = from_.rtnl.get_link(kIpvsDevice);
  if (!device && !is_not_found(device.error())) return std::unexpected(device.error());
  std::vector<IpAddr> others;
  for (const auto& a : *addresses)
    (device && a.link == device->index ? out.addresses : others).push_back(a.cidr.addr());
  std::ranges::sort(out.addresses);
  out.node = node_addresses(std::move(others), options_);
  const DesiredState& state = *f.model.state;
  out.wanted = virtual_services(state, out.node, *ipvs_);
  out.wanted_addresses = device_addresses(state, out.node);
  auto rules = std::make_shared<DesiredState>();
  rules->generation = state.generation;
  std::vector<ServiceStatePtr> list;
  std::set<netlink::IpvsKey> keys;
  for (const auto& s : state.services) {
    list.push_back(std::make_shared<const ServiceState>(rules_of(*s, out.node)));
    if (s->key != asked.service) continue;
    for (const Frontend& fe : s->frontends)
      for (const auto& key : keys_of(fe, out.node)) keys.insert(key);
  }
  rules->services = ServiceList(std::move(list));
  f.model.rules = std::move(rules);
  if (asked.query) keys.insert({asked.query->protocol, asked.query->destination, asked.query->port});
  const bool all = !asked.query && (asked.service.empty() || asked.service == "*");
  auto found = read_virtual_services(*from_.ipvs, [&](const auto& key) { return all || keys.contains(key); });
  if (!found) return propagate(found);
  out.found = std::move(*found);
  f.ipvs = std::move(out);
  return {};
}

Result<Facts> Inspector::gather(const Asked& asked) {
  for (int i = 1;; ++i) {
    Asked now = asked;
    Facts f{.model = read_model(now), .kernel = {}};
    auto kernel = read_kernel(asked.query);
    if (!kernel) return propagate(kernel);
    f.kernel = std::move(*kernel);
    if (auto r = add_ipvs(asked, f); !r) return propagate(r, "read IPVS");
    if (asked.query) {
      const Hit hit = find_frontend(*asked.query, f.model.rules_state(), f.model.options, f.kernel.addresses);
      if (hit.service != nullptr) now.service = hit.service->key;
      f.model.services = read_model(now).services;
    }
    const ModelFacts after = read_model({});
    if (after.state != f.model.state || after.applied != f.model.applied) f.model.pending = true;
    if (f.model.settled() || i == kReadings) return f;
  }
}

Result<Target> Inspector::destination_of(std::string_view text, const IpAddr& source, std::uint8_t protocol) const {
  auto parts = split_host_port(text);
  if (!parts) return propagate(parts);
  const auto number = port_number(parts->port);
  if (auto a = IpAddr::parse(parts->host)) {
    if (!number)
      return fail(EINVAL, "destination \"{}\": port \"{}\" is not a number from 1 to 65535", text, parts->port);
    return Target{*a, *number};
  }
  const auto view = from_.tracker.view(service_key(parts->host));
  if (!view)
    return fail(ENOENT, "destination \"{}\": no address, and no Service {} with a cluster IP", text,
                service_key(parts->host));
  const auto ip = std::ranges::find(view->service.cluster_ips, source.family(), &IpAddr::family);
  if (ip == view->service.cluster_ips.end())
    return fail(EINVAL, "Service {} has no cluster IP of the source's family", view->service.key);
  if (number) return Target{*ip, *number};
  for (const ServicePort& p : view->service.ports) {
    if (p.name == parts->port && p.protocol == protocol) return Target{*ip, p.port};
  }
  return fail(EINVAL, "Service {} has no {} port named \"{}\"", view->service.key, protocol_name(protocol),
              parts->port);
}

Result<Query> Inspector::parse_query(const http::Request& r) const {
  Query q;
  const std::string source = r.query("source");
  std::string protocol = r.query("protocol");
  if (protocol.empty()) protocol = "tcp";
  std::ranges::transform(protocol, protocol.begin(),
                         [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  q.protocol = protocol_number(protocol);
  if (q.protocol == 0) return fail(EINVAL, "protocol \"{}\": want tcp, udp or sctp", r.query("protocol"));
  auto address = IpAddr::parse(source);
  if (!address) return fail(EINVAL, "source \"{}\": want an address", source);
  q.source = *address;
  auto to = destination_of(r.query("destination"), q.source, q.protocol);
  if (!to) return propagate(to);
  q.destination = to->addr;
  q.port = to->port;
  q.interface = r.query("interface");
  if (q.source.family() != q.destination.family())
    return fail(EINVAL, "source {} and destination {} are of different families", q.source, q.destination);
  return q;
}

Result<std::string> Inspector::answer_text(std::string_view what, const http::Request& r) {
  Asked asked;
  const std::string service = service_key(r.query("service"));
  if (what == "services") asked.service = "*";
  if (what == "endpoints") {
    if (!from_.tracker.view(service)) return fail(ENOENT, "there is no Service {} with a cluster IP", service);
    asked.service = service;
  }
  if (what == "explain") {
    auto q = parse_query(r);
    if (!q) return propagate(q);
    asked.query = *q;
  }
  auto facts = gather(asked);
  if (!facts) return propagate(facts);
  boost::json::object out;
  if (what == "services") out = list_services(*facts, r.query("namespace"));
  if (what == "endpoints") out = list_endpoints(*facts, service);
  if (what == "explain") out = explain(*asked.query, *facts);
  if (what == "status") out = status(*facts);
  return boost::json::serialize(out) + "\n";
}

Result<std::function<std::optional<http::Response>(const http::Request&)>> inspect_kernel(
    const std::optional<IpvsOptions>& ipvs_options, const Tracker& tracker, const ProxyHealth& health,
    const TrafficOptions& options) {
  struct Open {
    KernelSockets kernel;
    netlink::KernelConntrack conntrack;
    std::optional<Inspector> inspector;
  };
  auto kernel = KernelSockets::open();
  if (!kernel) return propagate(kernel);
  auto conntrack = netlink::KernelConntrack::open();
  if (!conntrack) return propagate(conntrack);
  auto open = std::make_shared<Open>(Open{std::move(*kernel), std::move(*conntrack), std::nullopt});
  KernelSockets& sockets = open->kernel;
  open->inspector.emplace(InspectSources{tracker, health, *sockets.nft, open->conntrack, *sockets.rtnl, &*sockets.ipvs},
                          options, ipvs_options);
  return [open](const http::Request& r) { return open->inspector->answer(r); };
}

std::optional<http::Response> Inspector::answer(const http::Request& r) {
  if (!r.path().starts_with(kPrefix)) return std::nullopt;
  const auto what = r.path().substr(kPrefix.size());
  if (r.method != "GET") return response(405, "{\"error\": \"only GET is answered here\"}\n");
  static constexpr std::string_view kKnown[] = {"status", "services", "endpoints", "explain"};
  if (std::ranges::find(kKnown, what) == std::end(kKnown))
    return refusal({ENOENT, "there are /inspect/status, /services, /endpoints and /explain", {}});
  auto text = answer_text(what, r);
  return text ? response(200, std::move(*text)) : refusal(text.error());
}

}  // namespace hawser::proxy
