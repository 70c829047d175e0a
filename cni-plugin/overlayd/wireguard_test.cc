// SPDX-License-Identifier: Apache-2.0
// The wireguard back end: peers of each mode, the plan as a table, keys and leases in flannel's forms, and the whole on
// fakes.
#include "cni-plugin/overlayd/wireguard.h"

#include <boost/json/parse.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "cni-plugin/overlayd/etcd_lease.h"
#include "cni-plugin/overlayd/net_conf.h"
#include "cni-plugin/overlayd/static_source.h"
#include "lib/base/atomic_file.h"
#include "lib/netlink/wireguard_fake.h"
#include "lib/testing/temp_dir.h"

namespace hawser::overlay {
namespace {

using netlink::FakeRtnl;
using netlink::FakeWireguard;
using netlink::WgEndpoint;
using netlink::WgKey;
using netlink::WgPeer;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr const char* kKeyOfOnes = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

IpAddr ip(const std::string& t) {
  return t.empty() ? IpAddr() : *IpAddr::parse(t);
}
Cidr cidr(const std::string& t) {
  return *Cidr::parse(t);
}
WgKey key(int n) {
  WgKey k;
  k.bytes.fill(static_cast<std::uint8_t>(n));
  return k;
}
Lease lease(int n, const std::string& v4, const std::string& v6) {
  Lease l{.node = fmt::format("node-{}", n),
          .pod_cidrs = {cidr(fmt::format("10.244.{}.0/24", n)), cidr(fmt::format("fd00:{}::/64", n))},
          .backend = "wireguard"};
  l.v4 = {.address = ip(v4), .public_key = key(n)};
  l.v6 = {.address = ip(v6), .public_key = key(n)};
  return l;
}
Lease lease(int n) {
  return lease(n, fmt::format("192.0.2.{}", 10 + n), fmt::format("2001:db8::{}", 10 + n));
}
Settings settings(WireguardMode mode = WireguardMode::kSeparate) {
  Settings s{.backend = "wireguard"};
  s.wireguard.mode = mode;
  return s;
}
OverlaySpec spec(int family, const std::vector<Lease>& nodes, const Settings& s, std::vector<std::string>& skipped) {
  const bool one = s.wireguard.one_device();
  Underlay u{.pods = family, .index = 2, .mtu = 1500};
  u.address = ip(one || family == AF_INET ? "192.0.2.11" : "2001:db8::11");
  return make_spec(lease(1), nodes, u, s, skipped);
}

TEST(WireguardBackend, OneRouteAPeerAndNoEntries) {
  std::vector<std::string> skipped;
  auto s = spec(AF_INET, {lease(1), lease(2)}, settings(), skipped);
  EXPECT_THAT(skipped, IsEmpty());
  EXPECT_EQ(s.device.name, "flannel-wg");
  EXPECT_EQ(s.device.kind, "wireguard");
  EXPECT_EQ(s.mtu, 1420);
  std::vector<std::string> texts;
  for (const auto& op : plan(s, {.device = 7})) texts.push_back(op.text());
  EXPECT_THAT(texts, ElementsAre("set address 10.244.1.0/32", "set unreachable route 10.244.1.0/24",
                                 "set route 10.244.2.0/24 into the tunnel"));
  auto v6 = spec(AF_INET6, {lease(2)}, settings(), skipped);
  EXPECT_EQ(v6.device.name, "flannel-wg-v6");
  ASSERT_EQ(v6.peers.size(), 1u);
  EXPECT_EQ(v6.peers[0].vtep, ip("2001:db8::12"));
}

// Nothing that should be encrypted goes over a plain route.
TEST(WireguardBackend, WhoCannotBeAPeer) {
  struct Case {
    std::function<void(Lease&)> change;
    const char* want;  // part of the reason; "": has not published enough yet
  };
  for (const auto& c : {
           Case{[](Lease& l) { l.backend = "host-gw"; }, "its back end is host-gw, ours wireguard"},
           Case{[](Lease& l) { l.backend = "vxlan"; }, "its back end is vxlan, ours wireguard"},
           Case{[](Lease& l) { l.backend.clear(); }, ""},
           Case{[](Lease& l) { l.v4.public_key.reset(), l.v6.public_key.reset(); }, ""},
           Case{[](Lease& l) { l.v4.address = {}; }, ""},
           Case{[](Lease& l) { l.v4.public_key = key(1); }, "its public key is our own"},
           Case{[](Lease& l) { l.v4.public_key = key(3); }, "its public key is that of node node-3"},
           Case{[](Lease& l) { l.pod_cidrs = {cidr("10.244.1.0/24")}; }, "overlaps our own"},
       }) {
    Lease bad = lease(2);
    bad.node = "node-4";  // after node-3
    c.change(bad);
    std::vector<std::string> skipped;
    auto s = spec(AF_INET, {lease(3), bad}, settings(), skipped);
    EXPECT_EQ(s.peers.size(), 1u);
    if (*c.want) {
      ASSERT_EQ(skipped.size(), 1u) << c.want;
      EXPECT_THAT(skipped[0], HasSubstr(c.want));
    } else {
      EXPECT_THAT(skipped, IsEmpty());
    }
  }
  std::vector<std::string> skipped;
  Underlay u{.index = 2, .mtu = 1500, .address = ip("192.0.2.11")};
  EXPECT_THAT(make_spec(lease(1), {lease(2)}, u, {}, skipped).peers, IsEmpty());
  EXPECT_THAT(skipped, ElementsAre("node node-2: its back end is wireguard, ours vxlan"));
}

TEST(WireguardBackend, WhereAPeerIsReached) {
  using enum WireguardMode;
  struct Case {
    WireguardMode mode;
    const char *own_v4, *own_v6, *v4, *v6, *want;
  };
  for (const auto& c : {
           Case{kSeparate, "192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2", "192.0.2.2"},
           Case{kIpv4, "192.0.2.1", "", "192.0.2.2", "2001:db8::2", "192.0.2.2"},
           Case{kIpv6, "192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2", "2001:db8::2"},
           Case{kAuto, "192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2", "192.0.2.2"},
           Case{kAuto, "192.0.2.1", "", "192.0.2.2", "2001:db8::2", "192.0.2.2"},
           Case{kAuto, "", "2001:db8::1", "192.0.2.2", "2001:db8::2", "2001:db8::2"},
           // Both behind a translator of IPv4, both public over IPv6.
           Case{kAuto, "10.0.0.1", "2001:db8::1", "10.9.0.2", "2001:db8::2", "2001:db8::2"},
           Case{kAuto, "10.0.0.1", "fd00::1", "10.9.0.2", "2001:db8::2", "10.9.0.2"},
           Case{kAuto, "10.0.0.1", "2001:db8::1", "192.168.0.2", "", "192.168.0.2"},
           Case{kAuto, "10.0.0.1", "2001:db8::1", "", "", ""},
       }) {
    EXPECT_EQ(wireguard_address(lease(1, c.own_v4, c.own_v6), lease(2, c.v4, c.v6), AF_INET, c.mode), ip(c.want))
        << c.want;
  }
}

TEST(WireguardPlan, OneDeviceJoinsTheFamiliesOfAPeer) {
  std::vector<std::string> skipped;
  const auto one = settings(WireguardMode::kAuto);
  std::vector<OverlaySpec> specs{spec(AF_INET, {lease(2)}, one, skipped), spec(AF_INET6, {lease(2)}, one, skipped)};
  EXPECT_EQ(specs[0].device.name, specs[1].device.name);
  EXPECT_EQ(specs[0].device.mtu, specs[1].device.mtu);
  auto want = wanted_wireguard(specs, one, key(99));
  ASSERT_EQ(want.peers.size(), 1u);
  EXPECT_THAT(want.peers[0].allowed_ips, ElementsAre(cidr("10.244.2.0/24"), cidr("fd00:2::/64")));
  EXPECT_EQ(want.port, 51820);
  // Neither family deletes what the other has on the device.
  Observed have{.device = 7};
  have.addresses = {{.link = 7, .cidr = cidr("10.244.1.0/32")}, {.link = 7, .cidr = cidr("fd00:1::/128")}};
  for (auto& s : specs) {
    s.unreachable_rest = false;
    for (const auto& op : plan(s, have)) EXPECT_EQ(op.verb, netlink::Verb::kReplace) << op.text();
  }
  // Two devices do.
  auto two = spec(AF_INET, {}, settings(), skipped);
  two.unreachable_rest = false;
  ASSERT_EQ(plan(two, have).size(), 1u);
  EXPECT_EQ(plan(two, have)[0].text(), "delete address fd00:1::/128");
  EXPECT_EQ(wireguard_port(AF_INET6, settings().wireguard), 51821);
}

TEST(WireguardPlan, OnlyWhatDiffersIsWritten) {
  constexpr std::int64_t kNow = 1000000;
  const WgPeer wanted{.public_key = key(2),
                      .endpoint = {ip("192.0.2.12"), 51820},
                      .keepalive_seconds = 25,
                      .allowed_ips = {cidr("10.244.2.0/24"), cidr("fd00:2::/64")}};
  struct Case {
    const char* what;
    std::function<void(WireguardWanted&, netlink::WgDevice&, WireguardOrders&)> change;
    std::vector<std::string> texts;
  };
  const std::string peer = "set WireGuard peer " + key(2).text(), at = " at 192.0.2.12:51820";
  for (const auto& c : {
           Case{"all is right", [](auto&, auto&, auto&) {}, {}},
           Case{"ranges in another order",
                [](auto&, auto&have, auto&) { std::swap(have.peers[0].allowed_ips[0], have.peers[0].allowed_ips[1]); },
                {}},
           Case{"a range is missing", [](auto&, auto&have, auto&) { have.peers[0].allowed_ips.pop_back(); }, {peer}},
           Case{
               "another secret", [](auto&want, auto&, auto&) { want.private_key = key(8); }, {"set the WireGuard key"}},
           Case{"another port", [](auto&want, auto&, auto&) { want.port = 5; }, {"set WireGuard port 5"}},
           Case{"a preshared key", [](auto&want, auto&, auto&) { want.peers[0].preshared_key = key(7); }, {peer}},
           Case{"no keepalive", [](auto&want, auto&, auto&) { want.peers[0].keepalive_seconds = 0; }, {peer}},
           Case{"a peer that is gone",
                [](auto&want, auto&, auto&) { want.peers.clear(); },
                {"delete WireGuard peer " + key(2).text()}},
           Case{"a peer that changed its key",
                [](auto&want, auto&, auto&) { want.peers[0].public_key = key(3); },
                {"delete WireGuard peer " + key(2).text(), "set WireGuard peer " + key(3).text() + at}},
           Case{"it moved in a living session: WireGuard knows better",
                [](auto&, auto&have, auto&) {
                  have.peers[0].endpoint = {ip("203.0.113.1"), 1024};
                },
                {}},
           Case{"it moved and the session is dead",
                [](auto&, auto&have, auto&) {
                  have.peers[0].endpoint = {ip("203.0.113.1"), 1024};
                  have.peers[0].last_handshake = kNow - 181;
                },
                {peer + at}},
           Case{"the lease has another address than before",
                [](auto&, auto&have, auto&ordered) {
                  have.peers[0].endpoint = {ip("203.0.113.1"), 51820};
                  ordered[key(2)] = {ip("203.0.113.1"), 51820};
                },
                {peer + at}},
           Case{"nobody ever said where it is",
                [](auto&, auto&have, auto&) { have.peers[0].endpoint = {}; },
                {peer + at}},
       }) {
    WireguardWanted want{.private_key = key(9), .port = 51820, .peers = {wanted}};
    netlink::WgDevice have{.private_key = key(9), .port = 51820, .peers = {wanted}};
    have.peers[0].last_handshake = kNow - 10;
    WireguardOrders ordered{{key(2), wanted.endpoint}};
    c.change(want, have, ordered);
    std::vector<std::string> texts;
    for (const auto& change : wireguard_changes(plan_wireguard(want, have, ordered, kNow)))
      texts.push_back(change.text);
    EXPECT_EQ(texts, c.texts) << c.what;
  }
}

TEST(WireguardKeyFile, IsMadeOnceForItsOwnerOnly) {
  hawser::testing::TempDir dir;
  const auto path = dir.file("deep/wgkey");
  auto made = load_wireguard_key(path);
  ASSERT_TRUE(made) << made.error().text;
  struct stat st {};
  ASSERT_EQ(stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
  EXPECT_EQ(*load_wireguard_key(path), *made);
  ASSERT_TRUE(write_file(path, kKeyOfOnes));  // flannel's has no line end
  EXPECT_EQ(*load_wireguard_key(path), key(1).clamped()) << "as the kernel gives it back";
  ASSERT_TRUE(write_file(path, "secret"));
  auto bad = load_wireguard_key(path);
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().text, HasSubstr(path));
  EXPECT_THAT(bad.error().text, Not(HasSubstr("secret")));
}

TEST(WireguardDevice, RestartAdoptsAndPeersComeAndGo) {
  hawser::testing::TempDir dir;
  FakeRtnl rtnl;
  FakeWireguard wg(rtnl);
  auto s = settings();
  s.wireguard.key_file = dir.file("wgkey");
  std::vector<std::string> skipped;
  std::vector<OverlaySpec> specs{spec(AF_INET, {lease(2), lease(3)}, s, skipped)};
  auto first = WireguardDevice().sync(rtnl, wg, specs, s);
  ASSERT_TRUE(first) << first.error().text;
  EXPECT_EQ(first->public_key, FakeWireguard::public_of(*load_wireguard_key(s.wireguard.key_file)));
  EXPECT_EQ(wg.get("flannel-wg")->peers.size(), 2u);
  ASSERT_TRUE(sync(rtnl, specs[0]));
  const int index = rtnl.get_link("flannel-wg")->index, writes = wg.writes() + rtnl.writes();
  // A new process.
  auto again = WireguardDevice().sync(rtnl, wg, specs, s);
  ASSERT_TRUE(again && sync(rtnl, specs[0]));
  EXPECT_EQ(again->public_key, first->public_key);
  EXPECT_THAT(again->wrote, IsEmpty());
  EXPECT_EQ(wg.writes() + rtnl.writes(), writes);
  EXPECT_EQ(rtnl.get_link("flannel-wg")->index, index);
  specs[0].peers.pop_back();
  ASSERT_TRUE(WireguardDevice().sync(rtnl, wg, specs, s) && sync(rtnl, specs[0]));
  EXPECT_EQ(wg.get("flannel-wg")->peers.size(), 1u);
  // Back to VXLAN: the device goes, and with it the way into it.
  std::vector<Change> wrote;
  ASSERT_TRUE(remove_stale_device(rtnl, AF_INET, {}, wrote));
  ASSERT_EQ(wrote.size(), 1u);
  EXPECT_EQ(wrote[0].text, "delete device flannel-wg of the back end before");
  ASSERT_TRUE(remove_stale_device(rtnl, AF_INET6, s, wrote));
  EXPECT_EQ(wrote.size(), 1u);
}

TEST(WireguardLease, FlannelsAnnotations) {
  Publication p{.lease = lease(1), .network_available = false};
  auto patch = publication_patch({{"metadata", {{"name", "node-1"}}}}, p, {});
  ASSERT_TRUE(patch);
  const auto& a = patch->at("metadata").at("annotations").get_object();
  EXPECT_EQ(a.at("flannel.alpha.coreos.com/backend-type"), "wireguard");
  const std::string data = std::string(R"({"PublicKey":")") + kKeyOfOnes + "\"}";
  EXPECT_EQ(std::string(a.at("flannel.alpha.coreos.com/backend-data").get_string()), data);
  EXPECT_EQ(std::string(a.at("flannel.alpha.coreos.com/backend-v6-data").get_string()), data);
  kube::Object node{{"metadata", {{"name", "node-1"}, {"annotations", a}}},
                    {"spec", {{"podCIDRs", kube::Array{"10.244.1.0/24", "fd00:1::/64"}}}}};
  EXPECT_EQ(read_lease(node, kDefaultAnnotationPrefix), lease(1));
  // In etcd.
  auto record = lease_record(lease(1));
  EXPECT_THAT(record, HasSubstr("\"BackendData\":" + data));
  auto read = parse_lease_record("10.244.1.0-24&fd00:1::-64", record);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->v4, lease(1).v4);
  EXPECT_EQ(read->v6, lease(1).v6);
}

TEST(WireguardLease, FromAFile) {
  auto l = parse_static_leases(
      fmt::format(R"({{"nodes":[{{"name":"a","publicIP":"192.0.2.1","publicKey":"{}"}}]}})", kKeyOfOnes), settings());
  ASSERT_TRUE(l) << l.error().text;
  EXPECT_EQ((*l)[0].v4.public_key, key(1));
  auto bad = parse_static_leases(R"({"nodes":[{"name":"a","publicKey":"x"}]})", settings());
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().text, HasSubstr("node a: publicKey: is no key"));
}

TEST(WireguardNetConf, FlannelsFields) {
  auto c = NetConf::parse(fmt::format(R"({{"Network":"10.244.0.0/16","Backend":{{"Type":"wireguard","ListenPort":5000,
      "ListenPortV6":5001,"PSK":"{}","PersistentKeepaliveInterval":25,"Mode":"auto","MTU":1400}}}})",
                                      kKeyOfOnes));
  ASSERT_TRUE(c) << c.error().text;
  EXPECT_EQ(c->settings.backend, "wireguard");
  const auto& w = c->settings.wireguard;
  EXPECT_EQ(w.port, 5000);
  EXPECT_EQ(w.port_v6, 5001);
  EXPECT_EQ(w.preshared_key, key(1));
  EXPECT_EQ(w.keepalive_seconds, 25);
  EXPECT_EQ(w.mode, WireguardMode::kAuto);
  auto plain = NetConf::parse(R"({"Network":"10.244.0.0/16","Backend":{"Type":"wireguard"}})");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->settings.wireguard.port, 51820);
  EXPECT_EQ(plain->settings.wireguard.mode, WireguardMode::kSeparate);
  for (auto [field, want] : {std::pair{R"("PSK":"hush")", "PSK: is no key"},
                             {R"("Mode":"both")", "Mode \"both\": is not one of separate"},
                             {R"("ListenPort":0)", "ListenPort 0"},
                             {R"("ListenPort":51821)", "ListenPortV6 51821: is ListenPort"},
                             {R"("PersistentKeepaliveInterval":-1)", "PersistentKeepaliveInterval -1"}}) {
    auto r = NetConf::parse(fmt::format(R"({{"Network":"10.244.0.0/16","Backend":{{{}}}}})", field));
    ASSERT_FALSE(r) << field;
    EXPECT_THAT(r.error().text, HasSubstr(want));
    EXPECT_THAT(r.error().text, Not(HasSubstr("hush")));
  }
}

}  // namespace
}  // namespace hawser::overlay
