// SPDX-License-Identifier: Apache-2.0
// Back ends as a table of what each makes of a peer; the flannel compatibility layer; leases from a file; what probes
// say.
#include "cni-plugin/overlayd/backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "cni-plugin/overlayd/flannel_args.h"
#include "cni-plugin/overlayd/handover.h"
#include "cni-plugin/overlayd/kube_source.h"
#include "cni-plugin/overlayd/net_conf.h"
#include "cni-plugin/overlayd/static_source.h"
#include "lib/base/atomic_file.h"
#include "lib/testing/temp_dir.h"

namespace hawser::overlay {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

IpAddr ip(const std::string& t) {
  return *IpAddr::parse(t);
}
Cidr cidr(const std::string& t) {
  return *Cidr::parse(t);
}

Lease lease(const std::string& node, const std::string& backend, const std::string& address, int n) {
  return {.node = node,
          .pod_cidrs = {cidr(fmt::format("10.244.{}.0/24", n))},
          .backend = backend,
          .v4 = {ip(address), MacAddr{{2, 0, 0, 0, 0, static_cast<std::uint8_t>(n)}}, 1}};
}

// eth0 is link 2 with 192.0.2.11/24; everything else is behind 192.0.2.1.
Underlay underlay() {
  return {.index = 2,
          .mtu = 1500,
          .address = ip("192.0.2.11"),
          .routes = {{.dst = cidr("0.0.0.0/0"), .link = 2, .via = ip("192.0.2.1"), .protocol = 3},
                     {.dst = cidr("192.0.2.0/24"), .link = 2, .scope_link = true, .protocol = 2},
                     {.dst = cidr("192.0.2.64/26"), .link = 2, .via = ip("192.0.2.1"), .protocol = 3}}};
}

TEST(Adjacent, TheMostSpecificRouteDecides) {
  EXPECT_TRUE(adjacent(underlay(), ip("192.0.2.12")));
  EXPECT_FALSE(adjacent(underlay(), ip("203.0.113.1")));
  EXPECT_FALSE(adjacent(underlay(), ip("192.0.2.65"))) << "a part of the network that is behind a router";
}

TEST(Backends, WhatEachMakesOfAPeer) {
  struct Case {
    const char *ours, *theirs, *address;
    bool direct_routing;
    const char* want;  // "tunnel", "direct", "" for none, else part of the reason
  };
  const char *near = "192.0.2.12", *far = "203.0.113.12";
  for (const auto& c : {
           Case{"vxlan", "vxlan", near, false, "tunnel"},
           Case{"vxlan", "vxlan", far, false, "tunnel"},
           Case{"vxlan", "vxlan", near, true, "direct"},
           Case{"vxlan", "vxlan", far, true, "tunnel"},
           Case{"vxlan", "host-gw", near, false, "direct"},
           Case{"vxlan", "host-gw", far, false, "203.0.113.12 is not on our segment"},
           Case{"vxlan", "ipsec", near, false, "its back end is ipsec, ours vxlan"},
           Case{"vxlan", "", near, false, ""},
           Case{"host-gw", "host-gw", near, false, "direct"},
           Case{"host-gw", "host-gw", far, false, "is not on our segment"},
           Case{"host-gw", "vxlan", near, false, "direct"},
           Case{"host-gw", "none", near, false, "its back end is none"},
           Case{"none", "vxlan", near, false, ""},
       }) {
    SCOPED_TRACE(fmt::format("{} {} {} {}", c.ours, c.theirs, c.address, c.direct_routing));
    std::vector<std::string> skipped;
    auto s = make_spec(lease("a", c.ours, "192.0.2.11", 1), {lease("b", c.theirs, c.address, 2)}, underlay(),
                       {.backend = c.ours, .direct_routing = c.direct_routing}, skipped);
    std::string got = skipped.empty() ? "" : skipped[0];
    if (!s.peers.empty()) got = s.peers[0].direct ? "direct" : "tunnel";
    std::string want = c.want;
    if (want.empty() || !s.peers.empty())
      EXPECT_EQ(got, want);
    else
      EXPECT_THAT(got, HasSubstr(want));
    EXPECT_EQ(s.device.name, std::string(c.ours) == "vxlan" ? "flannel.1" : "");
    EXPECT_EQ(s.mtu, std::string(c.ours) == "vxlan" ? 1450 : 1500);
  }
}

TEST(Backends, ADirectPeerIsOneRouteAndMovesWithoutALeftover) {
  std::vector<std::string> skipped;
  Settings settings{.direct_routing = true};
  auto near = make_spec(lease("a", "vxlan", "192.0.2.11", 1), {lease("b", "vxlan", "192.0.2.12", 2)}, underlay(),
                        settings, skipped);
  near.unreachable_rest = false;
  Observed have{.device = 7};
  have.addresses = {{.link = 7, .cidr = cidr("10.244.1.0/32")}};
  auto ops = plan(near, have);
  ASSERT_EQ(ops.size(), 1u);
  EXPECT_EQ(ops[0].text(), "set route 10.244.2.0/24 via 192.0.2.12");
  // The peer moves behind a router: tunnel entries come, the route is overwritten, nothing of the old one stays.
  have.routes = {std::get<netlink::Route>(ops[0].object)};
  auto far = make_spec(lease("a", "vxlan", "192.0.2.11", 1), {lease("b", "vxlan", "203.0.113.12", 2)}, underlay(),
                       settings, skipped);
  far.unreachable_rest = false;
  std::vector<std::string> texts;
  for (const auto& op : plan(far, have)) texts.push_back(op.text());
  EXPECT_THAT(texts,
              ElementsAre("set neighbour entry 10.244.2.0 -> 02:00:00:00:00:02",
                          "set FDB entry 02:00:00:00:00:02 -> 203.0.113.12", "set route 10.244.2.0/24 via 10.244.2.0"));
  // Another's route by way of a gateway is nobody's business of ours; the plugin's routes to pods have none.
  have.routes = {{.dst = cidr("172.16.0.0/12"), .link = 2, .via = ip("192.0.2.1"), .protocol = 3},
                 {.dst = cidr("10.244.1.5/32"), .link = 9, .scope_link = true}};
  far.peers.clear();
  EXPECT_THAT(plan(far, have), IsEmpty());
}

TEST(NetConf, AcceptsWhatFlannelDocuments) {
  auto c = NetConf::parse(R"({"Network":"10.244.0.0/16","EnableNFTables":false,"Backend":{"Type":"vxlan"}})");
  ASSERT_TRUE(c) << c.error().text;
  EXPECT_EQ(c->v4->subnet_len, 24);
  EXPECT_EQ(c->v4->min, ip("10.244.1.0"));
  EXPECT_EQ(c->v4->max, ip("10.244.254.0"));
  EXPECT_EQ(c->v4->count(), 254u);
  EXPECT_EQ(c->v4->at(253), cidr("10.244.254.0/24"));
  EXPECT_FALSE(c->v6);
  c = NetConf::parse(R"({"Network":"10.0.0.0/8","SubnetLen":20,"SubnetMin":"10.10.0.0","SubnetMax":"10.99.0.0",
      "EnableIPv6":true,"IPv6Network":"fc00::/48","Backend":{"Type":"vxlan","VNI":7,"Port":4789,"MTU":1400,
      "DirectRouting":true}})");
  ASSERT_TRUE(c) << c.error().text;
  EXPECT_EQ(c->v4->count(), 89u * 16 + 1);
  EXPECT_TRUE(c->v4->offers(cidr("10.98.240.0/20")));
  EXPECT_FALSE(c->v4->offers(cidr("10.99.16.0/20")));
  EXPECT_EQ(c->v6->subnet_len, 64);
  EXPECT_EQ(c->v6->at(0), cidr("fc00:0:0:1::/64"));
  EXPECT_EQ(c->v6->at(c->v6->count() - 1), cidr("fc00:0:0:fffe::/64"));
  EXPECT_EQ(c->settings.vni, 7u);
  EXPECT_EQ(c->settings.port, 4789);
  EXPECT_EQ(c->settings.mtu, 1400);
  EXPECT_TRUE(c->settings.direct_routing);
  // Smaller than /22: four ranges.
  EXPECT_EQ(NetConf::parse(R"({"Network":"10.0.0.0/23"})")->v4->subnet_len, 25);
  EXPECT_TRUE(NetConf::parse(R"({"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/124"})"));
}

// Appendix A 10: flannel's code falls back to udp, its documentation says vxlan.
TEST(NetConf, MissingBackendIsVxlan) {
  EXPECT_EQ(NetConf::parse(R"({"Network":"10.244.0.0/16"})")->settings.backend, "vxlan");
  EXPECT_EQ(NetConf::parse(R"({"Network":"10.244.0.0/16","Backend":{}})")->settings.backend, "vxlan");
}

TEST(NetConf, RefusesByNameOfTheField) {
  struct Case {
    const char *text, *want;
  };
  for (const auto& c : {
           Case{"{", "JSON"},
           Case{"[]", "object"},
           Case{"{}", "Network"},
           Case{R"({"Network":"fc00::/48"})", "Network fc00::/48: is of the other address family"},
           Case{R"({"Network":"10.0.0.0/29"})", "smaller than a /28"},
           Case{R"({"Network":"10.0.0.0/16","SubnetLen":17})", "SubnetLen 17: is not 18 to 30"},
           Case{R"({"Network":"10.0.0.0/16","SubnetLen":"24"})", "SubnetLen: is not a whole number"},
           Case{R"({"Network":"10.0.0.0/16","SubnetMin":"10.1.0.0"})", "SubnetMin 10.1.0.0: is not in the network"},
           Case{R"({"Network":"10.0.0.0/16","SubnetMin":"10.0.5.1"})", "SubnetMin 10.0.5.1: is not the first address"},
           Case{R"({"Network":"10.0.0.0/16","SubnetMin":"10.0.9.0","SubnetMax":"10.0.5.0"})", "is below SubnetMin"},
           Case{R"({"Network":"10.0.0.0/16","EnableIPv6":true})", "IPv6Network"},
           Case{R"({"EnableIPv4":false})", "both are false"},
           Case{R"({"Network":"10.0.0.0/16","Backend":{"Type":"udp"}})", "Backend.Type \"udp\": is not one of vxlan"},
           Case{R"({"Network":"10.0.0.0/16","Backend":{"VNI":0}})", "VNI 0"},
           Case{R"({"Network":"10.0.0.0/16","Backend":{"Port":65536}})", "Port 65536"},
           Case{R"({"Network":"10.0.0.0/16","Backend":{"MTU":100}})", "MTU 100"},
           Case{R"({"Network":"10.0.0.0/16","Backend":{"Learning":true}})", "Learning true"},
       }) {
    auto r = NetConf::parse(c.text);
    ASSERT_FALSE(r) << c.text;
    EXPECT_THAT(r.error().text, HasSubstr(c.want)) << c.text;
  }
}

FlannelArgs translate(const std::vector<std::string>& args, std::map<std::string, std::string> env = {}) {
  return translate_flannel_args(args, [&](const char* name) {
    auto it = env.find(name);
    return it == env.end() ? nullptr : it->second.c_str();
  });
}

TEST(FlannelArgs, TheStockManifestsArguments) {
  auto t = translate({"--ip-masq", "--kube-subnet-mgr"});
  EXPECT_THAT(t.args, ElementsAre("--ip-masq", "--kube-subnet-mgr"));
  EXPECT_THAT(t.notes, IsEmpty());
}

TEST(FlannelArgs, GosFormsAndFlagsWithoutMeaning) {
  auto t =
      translate({"-iface=eth0", "-iface", "eth1", "-v", "4", "--v=0", "-kubeconfig-file=/k", "-public-ipv6=fd00::1",
                 "-logtostderr=false", "--iptables-resync", "5", "--node-name", "n", "--nonsense"});
  EXPECT_THAT(t.args, ElementsAre("--iface=eth0", "--iface=eth1", "-v", "--kubeconfig=/k", "--public-ip=fd00::1",
                                  "--node-name", "n", "--nonsense"));
  EXPECT_THAT(t.notes, ElementsAre(HasSubstr("--logtostderr has no meaning here"),
                                   HasSubstr("--iptables-resync has no meaning here: masquerading")));
}

TEST(FlannelArgs, EnvironmentWhereTheFlagIsNotGiven) {
  auto t = translate({"--ip-masq=false"},
                     {{"FLANNELD_IP_MASQ", "true"}, {"FLANNELD_IFACE", "eth7"}, {"FLANNELD_KUBE_SUBNET_MGR", "true"}});
  EXPECT_THAT(t.args, ElementsAre("--ip-masq=false", "--iface=eth7", "--kube-subnet-mgr=true"));
}

constexpr const char* kStockConflist =
    R"({"name":"cbr0","cniVersion":"0.3.1","plugins":[{"type":"flannel","delegate":{"hairpinMode":true,)"
    R"("isDefaultGateway":true}},{"type":"portmap","capabilities":{"portMappings":true}},{"type":"tuning"}]})";

TEST(FlannelCni, OursContinuesTheStockConfiguration) {
  auto f = parse_flannel_cni("/etc/cni/net.d/10-flannel.conflist", kStockConflist);
  ASSERT_TRUE(f && *f);
  EXPECT_EQ((*f)->reservations, "/var/lib/cni/networks/cbr0");
  EXPECT_EQ((*f)->subnet_file, "/run/flannel/subnet.env");
  EXPECT_EQ((*f)->scratch, "/var/lib/cni/flannel");
  EXPECT_EQ(adopted_conflist_text(**f, "/run/hawser/node.json"),
            R"({"cniVersion":"1.0.0","name":"cbr0","plugins":[{"type":"hawser","capabilities":{"portMappings":true,)"
            R"("bandwidth":true,"ips":true,"mac":true,"dns":true},"mode":"bridge","isGateway":true,)"
            R"("isDefaultGateway":true,"hairpinMode":true,"ipam":{"type":"hawser",)"
            R"("importHostLocal":"/var/lib/cni/networks/cbr0"}},{"type":"tuning"}]})"
            "\n");
  EXPECT_EQ(
      delegate_text(**f, {.pod_cidrs = {cidr("10.244.1.0/24")}, .cluster_cidrs = {cidr("10.244.0.0/16")}, .mtu = 1450},
                    true),
      R"({"isDefaultGateway":true,"hairpinMode":true,"cniVersion":"1.0.0","name":"cbr0","type":"bridge",)"
      R"("isGateway":true,"ipMasq":false,"mtu":1450,"ipam":{"type":"host-local",)"
      R"("ranges":[[{"subnet":"10.244.1.0/24"}]],"routes":[{"dst":"10.244.0.0/16"}]}})");
  const Adopted a{**f, "FLANNEL_MTU=1450\n"};
  auto again = Adopted::parse(a.text());
  ASSERT_TRUE(again);
  EXPECT_EQ(again->text(), a.text());
  EXPECT_EQ(again->subnet_env, a.subnet_env);
}

TEST(FlannelCni, OthersAreNoneOfFlannelsAndForeignDelegatesAreRefused) {
  auto parsed = [](const char* text) { return parse_flannel_cni("f", text); };
  EXPECT_FALSE(*parsed("{"));
  EXPECT_FALSE(*parsed(R"({"name":"x","type":"bridge"})"));
  EXPECT_TRUE(*parsed(R"({"name":"x","type":"flannel"})")) << "a single plugin";
  for (auto [text, want] :
       {std::pair{R"({"type":"flannel"})", "name"},
        {R"({"name":"../x","type":"flannel"})", "name"},
        {R"({"name":"x","type":"flannel","delegate":{"type":"macvlan"}})", "delegate.type \"macvlan\""},
        {R"({"name":"x","type":"flannel","ipam":{"type":"dhcp"}})", "ipam.type \"dhcp\""}}) {
    auto f = parsed(text);
    ASSERT_FALSE(f) << text;
    EXPECT_THAT(f.error().text, HasSubstr(want));
  }
}

TEST(StaticLeases, ReadsAndDerives) {
  auto l = parse_static_leases(R"({"nodes":[
      {"name":"a","podCIDRs":["10.244.1.0/24","fd00:1::/64"],"publicIP":"192.0.2.11"},
      {"name":"b","podCIDRs":["10.244.2.0/24"],"publicIP":"192.0.2.12","backendType":"host-gw",
       "vtepMAC":"02:00:00:00:00:02"}]})",
                               {});
  ASSERT_TRUE(l) << l.error().text;
  EXPECT_EQ((*l)[0].backend, "vxlan");
  EXPECT_TRUE((*l)[0].v4.mac);
  EXPECT_EQ((*l)[1].backend, "host-gw");
  EXPECT_EQ((*l)[1].v4.mac->text(), "02:00:00:00:00:02");
  for (auto [text, want] : {std::pair{"x", "JSON"},
                            {"{}", "nodes: a list is required"},
                            {R"({"nodes":[{}]})", "nodes[0]: name: is required"},
                            {R"({"nodes":[{"name":"a","podCIDRs":["x"]}]})", "node a: podCIDRs"},
                            {R"({"nodes":[{"name":"a","publicIP":"fd00::1"}]})", "other address family"},
                            {R"({"nodes":[{"name":"a","vtepMAC":"x"}]})", "vtepMAC"}}) {
    auto r = parse_static_leases(text, {});
    ASSERT_FALSE(r) << text;
    EXPECT_THAT(r.error().text, HasSubstr(want)) << text;
  }
}

TEST(StaticSource, FollowsTheFileAndKeepsTheLastGoodState) {
  hawser::testing::TempDir dir;
  const auto path = dir.file("subnets.json");
  StaticSource s(path, "a", {});
  std::mutex mu;
  std::condition_variable cv;
  int changes = 0;
  s.start([&] {
    std::lock_guard l(mu);
    changes++;
    cv.notify_all();
  });
  auto changed = [&](int n) {
    std::unique_lock l(mu);
    return cv.wait_for(l, std::chrono::seconds(20), [&] { return changes >= n; });
  };
  ASSERT_TRUE(changed(1));
  EXPECT_THAT(s.view().error(), HasSubstr("subnets.json"));
  ASSERT_TRUE(write_file(path, R"({"nodes":[{"name":"a","podCIDRs":["10.244.1.0/24"],"publicIP":"192.0.2.11"}]})"));
  ASSERT_TRUE(changed(2));
  ASSERT_TRUE(s.view());
  EXPECT_EQ(s.view()->own.pod_cidrs[0], cidr("10.244.1.0/24"));
  ASSERT_TRUE(write_file(path, "{"));
  ASSERT_TRUE(write_file(path, R"({"nodes":[{"name":"a","podCIDRs":["10.244.7.0/24"]}]})"));
  ASSERT_TRUE(changed(3));
  EXPECT_EQ(s.view()->own.pod_cidrs[0], cidr("10.244.7.0/24"));
  s.stop();
}

TEST(Probe, WhatWasSeenTellsTheFault) {
  EXPECT_EQ(judge({.small_back = true, .full_back = true}), PathState::kWorks);
  EXPECT_EQ(judge({.small_back = true, .full_back = true, .computed_back = true}), PathState::kWrongChecksum);
  EXPECT_EQ(judge({.small_back = true, .full_back = true, .offloaded_back = true, .computed_back = true}),
            PathState::kWorks);
  EXPECT_EQ(judge({.small_back = true, .full_back = true, .offloaded_back = true}), PathState::kWorks)
      << "the peer answers only so many a second";
  EXPECT_EQ(judge({.small_back = true, .computed_back = true}), PathState::kMtuBlackHole);
  EXPECT_EQ(judge({.small_back = true}), PathState::kMtuBlackHole);
  EXPECT_EQ(judge({.heard = true}), PathState::kOneWay);
  EXPECT_EQ(judge({}), PathState::kUnreachable);
  const ProbeTarget t{"node-2", ip("10.244.2.0"), 1450};
  EXPECT_EQ(path_condition({}).status, "False");
  auto c = path_condition({{.target = t, .state = PathState::kMtuBlackHole}});
  EXPECT_EQ(c.status, "True");
  EXPECT_THAT(c.message, HasSubstr("small packets to node-2 pass, packets of 1450 bytes do not"));
}

}  // namespace
}  // namespace hawser::overlay
