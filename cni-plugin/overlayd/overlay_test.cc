// SPDX-License-Identifier: Apache-2.0
// Lease, plan and files as tables; sync on the fake kernel, stopped at every write.
#include "cni-plugin/overlayd/overlay.h"

#include <algorithm>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "cni-plugin/overlayd/lease.h"
#include "cni-plugin/overlayd/masquerade.h"
#include "cni-plugin/overlayd/node_files.h"
#include "lib/base/atomic_file.h"
#include "lib/netlink/rtnl_fake.h"
#include "lib/nft/fake_nft.h"
#include "lib/testing/temp_dir.h"

namespace hawser::overlay {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Cidr cidr(const std::string& t) {
  return *Cidr::parse(t);
}
IpAddr ip(const std::string& t) {
  return *IpAddr::parse(t);
}
MacAddr mac(const std::string& t) {
  return *MacAddr::parse(t);
}
kube::Object object(const char* text) {
  return boost::json::parse(text).get_object();
}

Lease lease(int n) {
  return {.node = fmt::format("node-{}", n),
          .pod_cidrs = {cidr(fmt::format("10.244.{}.0/24", n)), cidr(fmt::format("fd00:{}::/64", n))},
          .backend = "vxlan",
          .v4 = {ip(fmt::format("192.0.2.{}", 10 + n)), mac(fmt::format("02:00:00:00:00:{:02x}", n)), 1},
          .v6 = {ip(fmt::format("2001:db8::{}", 10 + n)), mac(fmt::format("02:00:00:00:06:{:02x}", n)), 1}};
}

TEST(Overhead, IsThatOfTheUnderlaysFamily) {
  EXPECT_EQ(vxlan_overhead_bytes(true), 50);
  EXPECT_EQ(vxlan_overhead_bytes(false), 70);
}

TEST(ReadLease, FlannelsAnnotations) {
  auto l = read_lease(object(R"({"metadata":{"name":"n","annotations":{
      "flannel.alpha.coreos.com/backend-type":"vxlan","flannel.alpha.coreos.com/public-ip":"192.0.2.12",
      "flannel.alpha.coreos.com/backend-data":"{\"VNI\":1,\"VtepMAC\":\"02:00:00:00:00:02\"}"}},
      "spec":{"podCIDR":"10.244.2.0/24","podCIDRs":["10.244.2.0/24","fd00:2::/64"]}})"),
                      kDefaultAnnotationPrefix);
  EXPECT_EQ(l.node, "n");
  EXPECT_THAT(l.pod_cidrs, ElementsAre(cidr("10.244.2.0/24"), cidr("fd00:2::/64")));
  EXPECT_EQ(l.v4, (Vtep{ip("192.0.2.12"), mac("02:00:00:00:00:02"), 1}));
  EXPECT_FALSE(l.v6.address);
}

TEST(ReadLease, OverwriteWinsAndNonsenseReadsAsAbsent) {
  auto l = read_lease(
      object(
          R"({"metadata":{"name":"n","annotations":{"p/public-ip":"192.0.2.12","p/public-ip-overwrite":"198.51.100.7",
      "p/public-ipv6":"192.0.2.1","p/backend-data":"{nonsense"}},"spec":{"podCIDR":"10.244.2.0/24"}})"),
      "p");
  EXPECT_EQ(l.v4.address, ip("198.51.100.7"));
  EXPECT_FALSE(l.v4.mac);
  EXPECT_FALSE(l.v6.address) << "an IPv4 address is no public-ipv6";
  EXPECT_THAT(l.pod_cidrs, ElementsAre(cidr("10.244.2.0/24")));
}

TEST(TrimNode, KeepsWhatALeaseIsReadFrom) {
  auto node = object(R"({"kind":"Node","metadata":{"name":"n","uid":"u","resourceVersion":"7","labels":{"a":"b"},
      "annotations":{"p/public-ip":"192.0.2.12","other":"x"}},"spec":{"podCIDR":"10.244.2.0/24","taints":[]},
      "status":{"addresses":[{"type":"InternalIP","address":"192.0.2.12"}],"conditions":[{"type":"Ready"}],
      "images":[{}]}})");
  const auto before = read_lease(node, "p");
  auto own = node;
  trim_node(node, "p", false);
  trim_node(own, "p", true);
  EXPECT_EQ(read_lease(node, "p"), before);
  EXPECT_EQ(internal_ip(node, AF_INET), ip("192.0.2.12"));
  EXPECT_EQ(kube::resource_version(node), "7");
  for (const char* gone : {"labels", "other", "images", "conditions", "taints"})
    EXPECT_FALSE(boost::json::serialize(node).contains(gone)) << gone;
  EXPECT_TRUE(boost::json::serialize(own).contains("conditions"));
}

TEST(Publication, WritesOnceAndThenNothing) {
  Publication p{.lease = lease(1)};
  auto node = object(R"({"metadata":{"name":"node-1"},"spec":{}})");
  auto patch = publication_patch(node, p, {});
  ASSERT_TRUE(patch);
  auto text = boost::json::serialize(*patch);
  EXPECT_THAT(text,
              HasSubstr(R"("flannel.alpha.coreos.com/backend-data":"{\"VNI\":1,\"VtepMAC\":\"02:00:00:00:00:01\"}")"));
  EXPECT_THAT(text, HasSubstr(R"("type":"NetworkUnavailable","status":"False","reason":"FlannelIsUp")"));
  auto& o = patch->get_object();
  node["metadata"].get_object()["annotations"] = o.at("metadata").at("annotations");
  EXPECT_FALSE(publication_patch(node, p, {})->get_object().contains("metadata"));
  node["status"] = o.at("status");
  EXPECT_FALSE(publication_patch(node, p, {}));
}

class SyncTest : public ::testing::Test {
 protected:
  SyncTest() {
    eth0_ = k_.add_hardware("eth0", 1500);
    give_addresses();
    k_.take_log();
  }
  // As the kernel does, with the connected routes.
  void give_addresses() {
    for (const char* text : {"192.0.2.11/24", "2001:db8::11/64"}) {
      EXPECT_TRUE(k_.change_address(netlink::Verb::kAdd, {.link = eth0_, .cidr = cidr(text)}));
      EXPECT_TRUE(k_.change_route(netlink::Verb::kAdd,
                                  {.dst = cidr(text).network(), .link = eth0_, .scope_link = true, .protocol = 2}));
    }
  }
  OverlaySpec spec(std::vector<Lease> nodes, int family = AF_INET) {
    nodes.push_back(lease(1));
    auto underlay = find_underlay(k_, family, {.names = {"eth0"}}, {});
    EXPECT_TRUE(underlay) << underlay.error().text;
    skipped_.clear();
    return make_spec(lease(1), nodes, *underlay, settings_, skipped_);
  }
  // Our routes: what the fake has beside the connected ones.
  std::size_t our_routes() {
    auto all = *k_.list_routes(0);
    return static_cast<std::size_t>(std::ranges::count(all, netlink::kRouteProtocol, &netlink::Route::protocol));
  }
  netlink::FakeRtnl k_;
  int eth0_ = 0;
  Settings settings_;
  std::vector<std::string> skipped_;
};

TEST_F(SyncTest, OrderIsNeighbourFdbRouteAndTheReverse) {
  ASSERT_TRUE(sync(k_, spec({lease(2)})));
  EXPECT_THAT(k_.take_log(), ElementsAre("link+ flannel.1", "address= 10.244.1.0/32", "route= 10.244.1.0/24",
                                         "neigh= 10.244.2.0>02:00:00:00:00:02", "fdb= 02:00:00:00:00:02>192.0.2.12",
                                         "route= 10.244.2.0/24"));
  ASSERT_TRUE(sync(k_, spec({})));
  EXPECT_THAT(k_.take_log(), ElementsAre("route- 10.244.2.0/24", "fdb- 02:00:00:00:00:02>192.0.2.12",
                                         "neigh- 10.244.2.0>02:00:00:00:00:02"));
}

TEST_F(SyncTest, SecondSyncWritesNothing) {
  for (int family : {AF_INET, AF_INET6}) {
    ASSERT_TRUE(sync(k_, spec({lease(2), lease(3)}, family)));
    k_.take_log();
    auto again = sync(k_, spec({lease(2), lease(3)}, family));
    ASSERT_TRUE(again);
    EXPECT_THAT(again->wrote, IsEmpty());
    EXPECT_THAT(k_.take_log(), IsEmpty());
  }
}

TEST_F(SyncTest, StoppedAtAnyWriteItConverges) {
  for (int k = 1;; k++) {
    SCOPED_TRACE(k);
    netlink::FakeRtnl other;
    k_ = other;
    k_.add_hardware("eth0", 1500);
    give_addresses();
    ASSERT_TRUE(sync(k_, spec({lease(2)})));
    k_.fail_write(k);
    bool whole = sync(k_, spec({lease(3)})).has_value();
    k_.fail_write(0);
    ASSERT_TRUE(sync(k_, spec({lease(3)})));
    int device = k_.get_link("flannel.1")->index;
    EXPECT_EQ(k_.list_neighs(netlink::NeighTable::kFdb, device)->size(), 1u);
    EXPECT_EQ(k_.list_neighs(netlink::NeighTable::kNeighbor, device)->size(), 1u);
    EXPECT_EQ(k_.list_routes(device)->size(), 1u);
    if (whole) return;
  }
}

TEST_F(SyncTest, PeerChangesLeaveNoEntryBehind) {
  struct Case {
    const char* name;
    std::function<void(Lease&)> change;
    std::vector<std::string> want;
  };
  for (const auto& c : {
           Case{"mac",
                [](Lease& l) { l.v4.mac = mac("02:00:00:00:00:99"); },
                {"neigh= 10.244.2.0>02:00:00:00:00:99", "fdb= 02:00:00:00:00:99>192.0.2.12",
                 "fdb- 02:00:00:00:00:02>192.0.2.12"}},
           Case{"address", [](Lease& l) { l.v4.address = ip("192.0.2.99"); }, {"fdb= 02:00:00:00:00:02>192.0.2.99"}},
           Case{"podCIDR",
                [](Lease& l) { l.pod_cidrs[0] = cidr("10.244.9.0/24"); },
                {"neigh= 10.244.9.0>02:00:00:00:00:02", "route= 10.244.9.0/24", "route- 10.244.2.0/24",
                 "neigh- 10.244.2.0>02:00:00:00:00:02"}},
       }) {
    SCOPED_TRACE(c.name);
    ASSERT_TRUE(sync(k_, spec({lease(2)})));
    k_.take_log();
    auto changed = lease(2);
    c.change(changed);
    ASSERT_TRUE(sync(k_, spec({changed})));
    EXPECT_EQ(k_.take_log(), c.want);
  }
}

TEST_F(SyncTest, PeersThatCannotBeAreNamed) {
  auto overlaps_us = lease(2), overlaps_them = lease(4), other_vni = lease(5), same_mac = lease(6), no_mac = lease(7),
       none = lease(8);
  overlaps_us.pod_cidrs[0] = cidr("10.244.1.128/25");
  overlaps_them.pod_cidrs[0] = cidr("10.244.3.0/28");
  other_vni.v4.vni = 7;
  same_mac.v4.mac = lease(3).v4.mac;
  no_mac.v4.mac.reset();
  none.backend = "wireguard";
  auto s = spec({overlaps_us, lease(3), overlaps_them, other_vni, same_mac, no_mac, none});
  ASSERT_EQ(s.peers.size(), 1u);
  EXPECT_EQ(s.peers[0].node, "node-3");
  EXPECT_THAT(skipped_,
              ElementsAre(HasSubstr("node-2: its pod CIDR 10.244.1.128/25 overlaps our own"), HasSubstr("node-4"),
                          HasSubstr("node-5: its VNI is 7, ours 1"), HasSubstr("node-6: its VTEP MAC"),
                          HasSubstr("node-8: its back end is wireguard, ours vxlan")));
}

TEST_F(SyncTest, AForeignLinkOfOurNameIsNotTouched) {
  ASSERT_TRUE(k_.add_link({.name = "flannel.1", .kind = "bridge"}));
  auto r = sync(k_, spec({}));
  ASSERT_FALSE(r);
  EXPECT_THAT(r.error().text, HasSubstr("\"bridge\""));
  ASSERT_TRUE(remove(k_, AF_INET, 1));
  EXPECT_TRUE(k_.get_link("flannel.1"));
}

TEST_F(SyncTest, MtuFollowsTheUnderlayInPlace) {
  auto first = sync(k_, spec({}));
  ASSERT_TRUE(k_.change_link(eth0_, {.mtu = 9000}));
  auto second = sync(k_, spec({}));
  ASSERT_TRUE(second);
  EXPECT_EQ(second->device, first->device);
  EXPECT_EQ(k_.get_link("flannel.1")->mtu, 8950);
}

TEST_F(SyncTest, RemoveLeavesOnlyWhatWasThere) {
  ASSERT_TRUE(sync(k_, spec({lease(2)})));
  ASSERT_TRUE(remove(k_, AF_INET, 1));
  ASSERT_TRUE(remove(k_, AF_INET, 1));
  EXPECT_EQ(k_.list_links()->size(), 2u);
  EXPECT_EQ(our_routes(), 0u);
}

TEST_F(SyncTest, UnderlayErrorsNameTheFlagOrTheInterface) {
  auto text = [&](int family, const IfaceChoice& c) { return find_underlay(k_, family, c, {}).error().text; };
  EXPECT_THAT(text(AF_INET, {.names = {"eth9"}}), HasSubstr("--iface eth9"));
  EXPECT_THAT(text(AF_INET, {.regexes = {"^wlan"}}), HasSubstr("--iface-regex ^wlan"));
  EXPECT_THAT(text(AF_INET, {.regexes = {"("}}), HasSubstr("no regular expression"));
  EXPECT_THAT(text(AF_INET, {.can_reach = ip("203.0.113.1")}), HasSubstr("--iface-can-reach 203.0.113.1: no route"));
  EXPECT_THAT(text(AF_INET, {}), HasSubstr("--iface"));
  k_.add_hardware("bare", 1500);
  EXPECT_THAT(text(AF_INET6, {.names = {"bare"}}), HasSubstr("bare has no IPv6"));
}

// Three links: eth0 with the default route, eth1 with both families and two IPv4 addresses, six with IPv6 and its
// default route only.
TEST_F(SyncTest, TheInterfaceIsFoundByEachRule) {
  const int eth1 = k_.add_hardware("eth1", 9000), six = k_.add_hardware("six", 1400);
  auto give = [&](int link, const char* text) {
    ASSERT_TRUE(k_.change_address(netlink::Verb::kAdd, {.link = link, .cidr = cidr(text)}));
  };
  give(eth1, "198.51.100.7/24"), give(eth1, "198.51.100.8/24"), give(eth1, "2001:db8:1::7/64");
  give(eth1, "fe80::7/64"), give(six, "2001:db8:6::6/64"), give(six, "169.254.3.3/16");
  auto route = [&](const char* dst, int link, const char* via, const char* source) {
    netlink::Route r{.dst = cidr(dst), .link = link, .via = ip(via), .protocol = 3};
    if (source) r.source = ip(source);
    ASSERT_TRUE(k_.change_route(netlink::Verb::kAdd, r));
  };
  route("0.0.0.0/0", eth0_, "192.0.2.1", nullptr);
  route("::/0", six, "2001:db8:6::1", nullptr);
  route("203.0.113.0/24", eth1, "198.51.100.1", "198.51.100.8");
  struct Case {
    const char* what;
    int family;
    IfaceChoice choice;
    IpAddr preferred;
    int link;
    const char* address;
  };
  for (const Case& c : {
           Case{"default route", AF_INET, {}, {}, eth0_, "192.0.2.11"},
           Case{"default route of that family", AF_INET6, {}, {}, six, "2001:db8:6::6"},
           Case{"the node's own address", AF_INET, {}, ip("198.51.100.8"), eth1, "198.51.100.8"},
           Case{"an address nobody has", AF_INET, {}, ip("192.0.2.200"), eth0_, "192.0.2.11"},
           Case{"name", AF_INET, {.names = {"eth1"}}, {}, eth1, "198.51.100.7"},
           Case{"name, and which address", AF_INET, {.names = {"eth1"}}, ip("198.51.100.8"), eth1, "198.51.100.8"},
           Case{"address", AF_INET, {.names = {"198.51.100.8"}}, {}, eth1, "198.51.100.8"},
           Case{"address over the node's own",
                AF_INET,
                {.names = {"198.51.100.8"}},
                ip("192.0.2.11"),
                eth1,
                "198.51.100.8"},
           Case{"the first that exists", AF_INET, {.names = {"eth9", "eth1", "eth0"}}, {}, eth1, "198.51.100.7"},
           Case{"the first with that family", AF_INET, {.names = {"six", "eth1"}}, {}, eth1, "198.51.100.7"},
           Case{"and with the other", AF_INET6, {.names = {"six", "eth1"}}, {}, six, "2001:db8:6::6"},
           Case{"no link-local address", AF_INET6, {.names = {"eth1"}}, {}, eth1, "2001:db8:1::7"},
           Case{"regular expression of a name", AF_INET, {.regexes = {"^wl", "^eth[1-9]$"}}, {}, eth1, "198.51.100.7"},
           Case{"of an address", AF_INET, {.regexes = {"^198[.]51[.].*8$"}}, {}, eth1, "198.51.100.8"},
           Case{"of many names", AF_INET6, {.regexes = {"six|eth"}}, {}, eth0_, "2001:db8::11"},
           Case{"name before expression", AF_INET, {.names = {"eth0"}, .regexes = {"eth1"}}, {}, eth0_, "192.0.2.11"},
           Case{"expression if no name is there",
                AF_INET,
                {.names = {"eth9"}, .regexes = {"eth1"}},
                {},
                eth1,
                "198.51.100.7"},
           Case{"can reach, with the route's source",
                AF_INET,
                {.can_reach = ip("203.0.113.5")},
                {},
                eth1,
                "198.51.100.8"},
           Case{"can reach by the default route", AF_INET, {.can_reach = ip("8.8.8.8")}, {}, eth0_, "192.0.2.11"},
           Case{"can reach says nothing of the other family",
                AF_INET6,
                {.can_reach = ip("203.0.113.5")},
                {},
                six,
                "2001:db8:6::6"},
       }) {
    auto u = find_underlay(k_, c.family, c.choice, c.preferred);
    ASSERT_TRUE(u) << c.what << ": " << u.error().text;
    EXPECT_EQ(u->index, c.link) << c.what;
    EXPECT_EQ(u->address.text(), c.address) << c.what;
  }
  auto none = find_underlay(k_, AF_INET, {.names = {"six"}}, {});
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().text, HasSubstr("interface six has no IPv4 address"));
}

TEST(Masquerade, RulesReadAsTheTableInTheHeader) {
  MasqueradeSpec s{.own_pods = {cidr("10.244.1.0/24")},
                   .cluster = {cidr("10.244.0.0/16")},
                   .not_masqueraded = {cidr("203.0.113.0/24")}};
  std::vector<std::string> texts;
  for (const auto& r : masquerade_rules(s)) texts.push_back(r.text);
  EXPECT_THAT(
      texts,
      ElementsAre("ip daddr 10.244.1.0/24 return", "ip saddr 10.244.0.0/16 ip daddr 10.244.0.0/16 return",
                  "ip saddr 10.244.0.0/16 ip daddr 203.0.113.0/24 return",
                  "ip saddr 10.244.0.0/16 ip daddr 224.0.0.0/4 return",
                  "ip saddr 10.244.0.0/16 masquerade fully-random", "ip daddr 10.244.0.0/16 masquerade fully-random"));
}

TEST(Masquerade, EnsuredOnceRepairedAndRemoved) {
  nft::FakeNft k;
  MasqueradeSpec s{.own_pods = {cidr("10.244.1.0/24")}, .cluster = {cidr("10.244.0.0/16"), cidr("fd00::/16")}};
  EXPECT_TRUE(*ensure_masquerade(k, s));
  EXPECT_FALSE(*ensure_masquerade(k, s));
  nft::Transaction t(nft::Family::kInet, kMasqueradeTable);
  t.flush_chain("postrouting");
  ASSERT_TRUE(k.apply(t));
  EXPECT_TRUE(*ensure_masquerade(k, s));
  EXPECT_TRUE(*remove_masquerade(k));
  EXPECT_FALSE(*remove_masquerade(k));
}

TEST(NodeFiles, TextsAndAtomicWrites) {
  hawser::testing::TempDir dir;
  cni::NodeFile n{.node = "node-1",
                  .pod_cidrs = {cidr("10.244.1.0/24"), cidr("fd00:1::/64")},
                  .cluster_cidrs = {cidr("10.244.0.0/16"), cidr("fd00::/16")},
                  .mtu = 1450};
  EXPECT_EQ(subnet_env_text(n, true),
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_NETWORK=fd00::/16\n"
            "FLANNEL_IPV6_SUBNET=fd00:1::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n");
  EXPECT_EQ(conflist_text("/run/hawser/node.json"),
            "{\"cniVersion\":\"1.0.0\",\"name\":\"hawser\",\"plugins\":[{\"type\":\"hawser\",\"capabilities\":{"
            "\"portMappings\":true,\"bandwidth\":true,\"ips\":true,\"mac\":true,\"dns\":true}}]}\n");
  EXPECT_THAT(conflist_text("/x/node.json"), HasSubstr("\"nodeFile\":\"/x/node.json\""));
  FilePaths paths{.run_dir = dir.file("run"), .cni_conf_dir = dir.file("cni")};
  EXPECT_EQ(write_files(paths, {n})->size(), 3u);
  EXPECT_THAT(*write_files(paths, {n}), IsEmpty());
  ASSERT_TRUE(remove_files(paths));
  ASSERT_TRUE(remove_files(paths));
  EXPECT_FALSE(read_file(paths.node_file()));
}

TEST(Mac, FollowsFromTheNameAndIsLocal) {
  EXPECT_EQ(mac_for("node-1", 1, AF_INET), mac_for("node-1", 1, AF_INET));
  EXPECT_NE(mac_for("node-1", 1, AF_INET), mac_for("node-2", 1, AF_INET));
  EXPECT_NE(mac_for("node-1", 1, AF_INET), mac_for("node-1", 1, AF_INET6));
  EXPECT_EQ(mac_for("node-1", 1, AF_INET).bytes[0] & 3, 2);
}

}  // namespace
}  // namespace hawser::overlay
