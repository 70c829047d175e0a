// SPDX-License-Identifier: Apache-2.0
// What other nodes say of themselves. Line 1: the key of a lease in etcd; line 2: its record; the rest: a Node. Reading
// is total; what came out is of the right family, is published as it was read, and any set of such peers gives a plan
// whose entries are disjoint.
#include <set>

#include <boost/json/parse.hpp>
#include <sys/socket.h>

#include "cni-plugin/overlayd/backend.h"
#include "cni-plugin/overlayd/etcd_lease.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace hawser;
using namespace hawser::overlay;
using fuzz::check;

kube::Object parse(std::string_view text) {
  boost::system::error_code ec;
  auto v = boost::json::parse(text, ec);
  return !ec && v.is_object() ? v.get_object() : kube::Object();
}

void check_lease(const Lease& l) {
  check(l.pod_cidrs.size() <= 2, l.node);
  for (const auto& c : l.pod_cidrs) check(c.network() == c && l.pod_cidr(c.family()) == c, c.text());
  for (int family : {AF_INET, AF_INET6}) {
    const auto& v = l.vtep(family);
    check(!v.address || v.address.family() == family, v.address.text());
  }
}

void check_record(std::string_view key, std::string_view record) {
  auto l = parse_lease_record(key, record);
  if (!l) return;
  check_lease(*l);
  check(!l->pod_cidrs.empty() && (l->v4.address || l->v6.address), l->node);
  // A family without an address has no data to write.
  if (!l->v4.address) l->v4 = {};
  if (!l->v6.address) l->v6 = {};
  for (auto* v : {&l->v4, &l->v6}) {
    if (!v->mac) v->vni = 0;
  }
  auto again = parse_lease_record(lease_key(l->pod_cidrs), lease_record(*l));
  check(again && *again == *l, lease_record(*l));
}

// Published on an empty Node it reads as the same, and nothing is left to publish.
void check_publication(const Lease& lease) {
  Publication p{.lease = lease, .network_available = false};
  for (auto* v : {&p.lease.v4, &p.lease.v6}) {
    if (!v->address) *v = {};
    if (!v->mac) v->vni = 0;
  }
  kube::Object node{{"metadata", kube::Object{{"name", lease.node}}}};
  auto patch = publication_patch(node, p, WallTime{});
  check(patch.has_value(), "flannel's marks are always wanted");
  node["metadata"].get_object()["annotations"] = kube::obj(patch->get_object(), {"metadata", "annotations"});
  auto again = read_lease(node, p.prefix);
  check(again.backend == p.lease.backend && again.v4 == p.lease.v4 && again.v6 == p.lease.v6, lease.node);
  check(!publication_patch(node, p, WallTime{}), lease.node);
}

void check_spec(const std::vector<Lease>& nodes) {
  Lease own{.node = "fuzz-own", .pod_cidrs = {*Cidr::parse("10.244.1.0/24")}, .backend = "vxlan"};
  own.v4 = {*IpAddr::parse("192.0.2.11"), MacAddr{{2, 0, 0, 0, 0, 1}}, 1};
  Underlay underlay{.index = 2, .mtu = 1500, .address = own.v4.address};
  std::vector<std::string> skipped;
  auto spec = make_spec(own, nodes, underlay, {}, skipped);
  std::set<MacAddr> macs;
  for (std::size_t i = 0; i < spec.peers.size(); i++) {
    const auto& p = spec.peers[i];
    check(p.pod_cidr.family() == AF_INET && p.vtep.is_v4() && !p.pod_cidr.overlaps(spec.own_cidr), p.node);
    check(p.direct || macs.insert(p.mac).second, p.node);
    for (std::size_t j = 0; j < i; j++) check(!p.pod_cidr.overlaps(spec.peers[j].pod_cidr), p.node);
  }
  Observed nothing{.device = 7};
  for (const auto& op : plan(spec, nothing)) check(op.verb == netlink::Verb::kReplace && !op.text().empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input in(data, size);
  const auto key = in.line();
  const auto record = in.line();
  check_record(key, record);

  auto node = parse(in.rest());
  auto lease = read_lease(node, kDefaultAnnotationPrefix);
  check_lease(lease);
  check_publication(lease);
  trim_node(node, kDefaultAnnotationPrefix, true);
  check(read_lease(node, kDefaultAnnotationPrefix) == lease, lease.node);

  std::vector<Lease> nodes{lease};
  if (auto l = parse_lease_record(key, record)) nodes.push_back(*l);
  check_spec(nodes);
  return 0;
}
