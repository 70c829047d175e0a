// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/verbs.h"

#include <algorithm>
#include <memory>
#include <set>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <sys/socket.h>

#include "cni-plugin/addresses.h"
#include "cni-plugin/attachment.h"
#include "cni-plugin/attachment_result.h"
#include "cni-plugin/version.h"
#include "lib/base/netns.h"
#include "lib/base/rollback.h"
#include "lib/base/sysctl.h"
#include "lib/netlink/rtnl_kernel.h"

namespace hawser::cni {
namespace {

namespace json = boost::json;
using netlink::KernelRtnl;

// Everything a verb works with, read and checked once.
struct Call {
  Environment env;
  NetConf conf;
  std::unique_ptr<NodeFile> node;  // its address is kept by `addresses`
  std::string node_fault;          // why `node` is empty
  std::unique_ptr<AddressSource> addresses;
  ipam::Owner owner;
  std::string host_name;
};

Outcome<Call> read_call(const Environment& env, std::string_view input) {
  Call c{.env = env};
  auto conf = parse_config(input, env);
  if (!conf) return std::unexpected(conf.error());
  c.conf = std::move(*conf);
  auto node = NodeFile::load(c.conf.node_file);
  if (node)
    c.node = std::make_unique<NodeFile>(std::move(*node));
  else
    c.node_fault = node.error().text;
  c.addresses = make_address_source(c.conf, c.env, c.node.get());
  c.owner = {env.container, env.ifname};
  c.host_name = host_link_name(c.conf.name, c.owner);
  return c;
}

// The pod's namespace, refused when it is the one we run in: that would take the node's own network apart.
Outcome<NetNs> open_pod_netns(const Environment& env) {
  auto ns = NetNs::open(env.netns);
  if (!ns) return failure(Code::kInvalidNetns, "CNI_NETNS: {}", ns.error().text);
  auto own = NetNs::current();
  if (!own) return as_failure(Code::kInternal, own);
  auto a = ns->inode();
  auto b = own->inode();
  if (!a || !b) return failure(Code::kInvalidNetns, "CNI_NETNS {}: cannot be identified", env.netns);
  if (*a == *b && !env.netns_override)
    return failure(Code::kInvalidNetns, "CNI_NETNS {}: is the plugin's own network namespace", env.netns);
  return std::move(*ns);
}

// Per-interface settings that need the namespace: a static IPv6 address must not wait for duplicate detection nor be
// joined by advertised ones (FEATURES C85).
Result<> prepare_interface(const NetNs& ns, const std::string& ifname) {
  auto inside = NetNsGuard::enter(ns);
  if (!inside) return propagate(inside);
  for (const char* key : {"disable_ipv6", "accept_ra", "accept_dad"}) {
    if (auto r = sysctl::ensure(fmt::format("net/ipv6/conf/{}/{}", ifname, key), "0"); !r) return propagate(r);
  }
  return {};
}

bool has_family(const std::vector<IpAddr>& list, int family) {
  return std::ranges::find(list, family, &IpAddr::family) != list.end();
}

// The node must forward what it attaches. Set here too, because others (docker, sysctl --system) switch it off behind
// overlayd's back.
Result<> forward(const std::vector<IpAddr>& addresses) {
  if (has_family(addresses, AF_INET)) {
    if (auto r = sysctl::ensure("net/ipv4/ip_forward", "1"); !r) return propagate(r);
  }
  if (has_family(addresses, AF_INET6)) {
    if (auto r = sysctl::ensure("net/ipv6/conf/all/forwarding", "1"); !r) return propagate(r);
  }
  return {};
}

std::vector<netlink::Route> extra_routes(const json::array& routes) {
  std::vector<netlink::Route> out;
  for (const auto& v : routes) {
    const auto* o = v.if_object();
    const auto* dst = o ? o->if_contains("dst") : nullptr;
    if (!dst || !dst->is_string()) continue;
    if (auto cidr = Cidr::parse(std::string_view(dst->get_string()))) out.push_back({.dst = *cidr});
  }
  return out;
}

AttachmentSpec attachment_spec(const Call& c, const NetNs& ns, const std::vector<IpAddr>& addresses,
                               const json::array& routes) {
  AttachmentSpec s;
  s.host_name = c.host_name;
  s.ifname = c.env.ifname;
  s.netns_fd = ns.fd();
  s.mtu = c.conf.mtu != 0 ? c.conf.mtu : c.node ? c.node->mtu : 0;
  s.addresses = addresses;
  s.extra_routes = extra_routes(routes);
  // A route of a family without an address would have no gateway.
  std::erase_if(s.extra_routes, [&](const netlink::Route& r) { return !has_family(addresses, r.dst.family()); });
  return s;
}

json::array& list(ResultJson& r, std::string_view key) {
  auto& v = r[key];
  if (!v.is_array()) v.emplace_array();
  return v.get_array();
}

// Our part, appended to what plugins before us made.
ResultJson add_result(ResultJson r, const Call& c, const AttachmentSpec& s, const GivenAddresses& given) {
  auto& interfaces = list(r, "interfaces");
  const auto pod_index = static_cast<std::int64_t>(interfaces.size()) + 1;
  interfaces.push_back({{"name", s.host_name}, {"mac", host_mac(s.addresses[0]).text()}});
  json::object pod{{"name", s.ifname}, {"mac", pod_mac(s.addresses[0]).text()}, {"sandbox", c.env.netns}};
  if (s.mtu != 0) pod["mtu"] = s.mtu;
  interfaces.push_back(pod);
  std::set<int> families;
  for (const auto& a : s.addresses) {
    auto gateway = link_local_gateway(a.family()).text();
    list(r, "ips").push_back({{"address", Cidr(a, a.bits()).text()}, {"gateway", gateway}, {"interface", pod_index}});
    if (families.insert(a.family()).second)
      list(r, "routes").push_back({{"dst", a.is_v4() ? "0.0.0.0/0" : "::/0"}, {"gw", gateway}});
  }
  for (const auto& route : s.extra_routes) {
    if (route.dst.prefix() != 0)
      list(r, "routes").push_back({{"dst", route.dst.text()}, {"gw", link_local_gateway(route.dst.family()).text()}});
  }
  if (!given.dns.empty() || !r.contains("dns")) r["dns"] = given.dns;
  return r;
}

Code link_code(const Error& e) {
  return is_exists(e) ? Code::kAlreadyAttached : Code::kInternal;
}

Outcome<std::string> do_add(Call& c) {
  auto ns = open_pod_netns(c.env);
  if (!ns) return std::unexpected(ns.error());
  ResultJson before;
  if (c.conf.prev_result) {
    auto prev = from_version(*c.conf.prev_result, c.conf.version);
    if (!prev) return std::unexpected(prev.error());
    before = std::move(*prev);
  }
  if (!c.node && c.conf.mtu == 0 && c.conf.ipam_type.empty() && c.conf.ranges.empty())
    return failure(Code::kTryAgainLater, "{}; is hawser-overlayd running and ready?", c.node_fault);
  auto node = KernelRtnl::open();
  auto pod = KernelRtnl::open(ns->fd());
  if (!node) return as_failure(Code::kInternal, node);
  if (!pod) return as_failure(Code::kInternal, pod);
  auto given = c.addresses->add(c.conf, c.owner);
  if (!given) return std::unexpected(given.error());
  Rollback undo;
  undo.push([&] { (void)c.addresses->del(c.conf, c.owner); });
  if (auto r = forward(given->addresses); !r) return as_failure(Code::kInternal, r);
  auto spec = attachment_spec(c, *ns, given->addresses, given->routes);
  if (has_family(given->addresses, AF_INET6)) spec.before_up = [&] { return prepare_interface(*ns, c.env.ifname); };
  if (auto r = attach(*node, *pod, spec); !r) return as_failure(link_code(r.error()), r);
  undo.commit();
  return json::serialize(to_version(add_result(std::move(before), c, spec, *given), c.conf.version));
}

// Best effort and to the end: the first failure is reported after everything has been tried.
Outcome<std::string> do_del(Call& c) {
  if (!c.env.netns.empty()) {
    auto ns = open_pod_netns(c.env);
    auto own = ns || !NetNs::open(c.env.netns);  // gone is fine; the node's own is not
    if (!own) return std::unexpected(ns.error());
  }
  Outcome<> result;
  auto node = KernelRtnl::open();
  if (!node) result = as_failure(Code::kInternal, node);
  if (node) {
    if (auto r = detach(*node, c.host_name); !r) result = as_failure(Code::kInternal, r);
  }
  auto released = c.addresses->del(c.conf, c.owner);
  if (!result) return std::unexpected(result.error());
  if (!released) return std::unexpected(released.error());
  return std::string();
}

// The addresses of our own interface as the runtime remembers them.
Outcome<std::vector<IpAddr>> remembered_addresses(const Call& c, const ResultJson& prev) {
  const auto* interfaces = prev.if_contains("interfaces");
  if (!interfaces || !interfaces->is_array()) return failure(Code::kInvalidConfig, "prevResult: interfaces is missing");
  int index = -1;
  const auto& items = interfaces->get_array();
  for (std::size_t i = 0; i < items.size(); i++) {
    const auto* o = items[i].if_object();
    const auto* name = o ? o->if_contains("name") : nullptr;
    const auto* sandbox = o ? o->if_contains("sandbox") : nullptr;
    if (name && name->is_string() && name->get_string() == c.env.ifname && sandbox && sandbox->is_string() &&
        !sandbox->get_string().empty())
      index = static_cast<int>(i);
  }
  if (index < 0) return failure(Code::kInvalidConfig, "prevResult: interfaces does not have {}", c.env.ifname);
  auto ips = result_ips(prev);
  if (!ips) return std::unexpected(ips.error());
  std::vector<IpAddr> out;
  for (const auto& ip : *ips) {
    if (ip.interface == index) out.push_back(ip.address.addr());
  }
  if (out.empty()) return failure(Code::kInvalidConfig, "prevResult: no address of {}", c.env.ifname);
  return out;
}

Outcome<std::string> do_check(Call& c) {
  if (!c.conf.prev_result) return failure(Code::kInvalidConfig, "prevResult: is required for CHECK");
  auto prev = from_version(*c.conf.prev_result, c.conf.version);
  if (!prev) return std::unexpected(prev.error());
  auto addresses = remembered_addresses(c, *prev);
  if (!addresses) return std::unexpected(addresses.error());
  auto ns = open_pod_netns(c.env);
  if (!ns) return std::unexpected(ns.error());
  auto node = KernelRtnl::open();
  auto pod = KernelRtnl::open(ns->fd());
  if (!node) return as_failure(Code::kInternal, node);
  if (!pod) return as_failure(Code::kInternal, pod);
  auto spec = attachment_spec(c, *ns, *addresses, c.conf.routes);
  spec.mtu =
      c.conf.mtu;  // node.json may have changed since ADD; a pod's MTU is right as long as nobody configured another
  auto fault = attachment_fault(*node, *pod, spec);
  if (!fault) return as_failure(Code::kInternal, fault);
  if (!fault->empty()) return failure(Code::kCheckFailed, "{}", *fault);
  if (auto r = c.addresses->check(c.conf, c.owner, *addresses); !r) return std::unexpected(r.error());
  return std::string();
}

// Removes the links of this network whose attachment is not in the list; continues past failures.
Outcome<> collect_links(const Call& c) {
  auto node = KernelRtnl::open();
  if (!node) return as_failure(Code::kInternal, node);
  auto links = node->list_links();
  if (!links) return as_failure(Code::kInternal, links);
  std::set<std::string> valid;
  for (const auto& owner : c.conf.valid_attachments) valid.insert(host_link_name(c.conf.name, owner));
  const auto prefix = host_link_prefix(c.conf.name);
  Outcome<> result;
  for (const auto& l : *links) {
    if (l.kind != "veth" || !l.name.starts_with(prefix) || l.name.size() != 15 || valid.contains(l.name)) continue;
    if (auto r = detach(*node, l.name); !r) result = as_failure(Code::kInternal, r);
  }
  return result;
}

Outcome<std::string> do_gc(Call& c) {
  auto links = collect_links(c);
  auto addresses = c.addresses->gc(c.conf);
  if (!links) return std::unexpected(links.error());
  if (!addresses) return std::unexpected(addresses.error());
  return std::string();
}

Outcome<std::string> do_status(Call& c) {
  if (!c.node && c.conf.ranges.empty())
    return failure(Code::kNotAvailable, "the network is not ready: {}", c.node_fault);
  auto r = c.addresses->status(c.conf);
  if (!r) return std::unexpected(r.error());
  return std::string();
}

std::string version_answer(std::string_view version) {
  json::object o;
  o["cniVersion"] = version.empty() ? kVersions.back() : version;
  auto& list = o["supportedVersions"].emplace_array();
  for (auto v : kVersions) list.emplace_back(v);
  return json::serialize(o);
}

// Loopback: `lo` of the pod, for runtimes that ask a plugin of that type to set it up.
Outcome<std::string> do_loopback(const Call& c) {
  bool del = c.env.verb == Verb::kDel;
  auto ns = open_pod_netns(c.env);
  // With the namespace gone, or not ours to touch, there is nothing to take back.
  if (!ns && del) return std::string();
  if (!ns) return std::unexpected(ns.error());
  auto pod = KernelRtnl::open(ns->fd());
  if (!pod) return as_failure(Code::kInternal, pod);
  auto lo = pod->get_link("lo");
  if (!lo) return as_failure(Code::kInternal, lo);
  if (c.env.verb == Verb::kCheck)
    return lo->up ? Outcome<std::string>(std::string()) : failure(Code::kCheckFailed, "interface lo is down");
  if (auto r = pod->change_link(lo->index, {.up = !del}); !r) return as_failure(Code::kInternal, r);
  if (del) return std::string();
  if (c.conf.prev_result) return json::serialize(*c.conf.prev_result);
  ResultJson r;
  list(r, "interfaces").push_back({{"name", "lo"}, {"mac", "00:00:00:00:00:00"}, {"sandbox", c.env.netns}});
  list(r, "ips").push_back({{"address", "127.0.0.1/8"}, {"interface", 0}});
  list(r, "ips").push_back({{"address", "::1/128"}, {"interface", 0}});
  r["dns"] = json::object();
  return json::serialize(to_version(r, c.conf.version));
}

struct VerbRow {
  Verb verb;
  std::string_view since;  // the version that introduced it
  Outcome<std::string> (*run)(Call&);
};
constexpr VerbRow kRows[] = {{Verb::kAdd, "0.1.0", do_add},
                             {Verb::kDel, "0.1.0", do_del},
                             {Verb::kCheck, "0.4.0", do_check},
                             {Verb::kGc, "1.1.0", do_gc},
                             {Verb::kStatus, "1.1.0", do_status}};

Outcome<std::string> dispatch(const Environment& env, std::string_view input) {
  auto call = read_call(env, input);
  if (!call) return std::unexpected(call.error());
  const auto* row = std::ranges::find(kRows, env.verb, &VerbRow::verb);
  if (!at_least(call->conf.version, row->since))
    return failure(Code::kIncompatibleVersion, "cniVersion {}: this verb exists since {}", call->conf.version,
                   row->since);
  bool attachment_verb = env.verb == Verb::kAdd || env.verb == Verb::kDel || env.verb == Verb::kCheck;
  if (call->conf.type == "loopback") return attachment_verb ? do_loopback(*call) : Outcome<std::string>(std::string());
  return row->run(*call);
}

Answer answer_failure(const Failure& f, std::string version) {
  json::object o;
  o["cniVersion"] = known_version(version) ? version : std::string(kVersions.back());
  o["code"] = static_cast<int>(f.code);
  o["msg"] = f.msg;
  if (!f.details.empty()) o["details"] = f.details;
  return {.exit_status = 1, .out = json::serialize(o) + "\n"};
}

}  // namespace

Answer run_plugin(const Invocation& in) {
  if (in.get_env("CNI_COMMAND").empty()) {
    std::string versions;
    for (auto v : kVersions) versions += fmt::format("{}{}", versions.empty() ? "" : ", ", v);
    return {.err = fmt::format("hawser: CNI plugin of the Hawser pod network\nCNI protocol versions supported: {}\n",
                               versions)};
  }
  auto env = read_environment(in.get_env);
  if (!env) return answer_failure(env.error(), peek_version(in.input));
  if (env->verb == Verb::kVersion) return {.out = version_answer(peek_version(in.input)) + "\n"};
  auto out = dispatch(*env, in.input);
  if (!out) return answer_failure(out.error(), peek_version(in.input));
  return {.out = out->empty() ? "" : *out + "\n"};
}

}  // namespace hawser::cni
