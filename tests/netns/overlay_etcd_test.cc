// SPDX-License-Identifier: Apache-2.0
// Leases in a real etcd (Debian's etcd-server), in a namespace of its own: flannel's keys, races, renewal, revocation,
// reservations, and what was missed while etcd was away and compacted.
#include <csignal>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cni-plugin/overlayd/etcd_source.h"
#include "lib/base/base64.h"
#include "tests/netns/overlay_net.h"

namespace hawser::overlay {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kFolder = "/coreos.com/network/subnets/";

class EtcdTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto h = Host::make();
    if (!h) GTEST_SKIP() << "needs the right to make network namespaces: " << h.error().text;
    host_.emplace(std::move(*h));
    if (system("command -v etcd curl >/dev/null") != 0) GTEST_SKIP() << "needs the packages etcd-server and curl";
    start_etcd();
  }
  void TearDown() override { stop_etcd(); }

  void start_etcd() {
    host_->run([&] {
      std::vector<std::string> args{"etcd",
                                    "--data-dir=" + dir_.file("etcd"),
                                    "--listen-client-urls=http://127.0.0.1:2379",
                                    "--advertise-client-urls=http://127.0.0.1:2379",
                                    "--listen-peer-urls=http://127.0.0.1:2380",
                                    "--logger=zap",
                                    "--log-outputs=" + dir_.file("log")};
      std::vector<char*> argv;
      for (auto& a : args) argv.push_back(a.data());
      argv.push_back(nullptr);
      ASSERT_EQ(posix_spawnp(&pid_, "etcd", nullptr, nullptr, argv.data(), environ), 0);
    });
    ASSERT_TRUE(eventually([&] { return host_->sh("curl -s http://127.0.0.1:2379/health").contains("true"); }));
  }
  void stop_etcd() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  std::string call(const std::string& path, const std::string& body) {
    return host_->sh(fmt::format("curl -s http://127.0.0.1:2379/v3/{} -d '{}'", path, body));
  }
  void put(const std::string& key, const std::string& value) {
    EXPECT_THAT(call("kv/put",
                     fmt::format(R"({{"key":"{}","value":"{}"}})", base64_encode(kFolder + key), base64_encode(value))),
                HasSubstr("revision"));
  }
  std::string value_of(const std::string& key) {
    auto c = client();
    std::string out;
    host_->run([&] {
      auto r = c->range(kFolder + key, false);
      if (r && !r->keys.empty()) out = r->keys[0].value;
    });
    return out;
  }
  static std::unique_ptr<EtcdClient> client() {
    auto c = EtcdClient::make({.endpoints = {"http://127.0.0.1:1", "http://127.0.0.1:2379"}});
    EXPECT_TRUE(c) << c.error().text;
    return std::move(*c);
  }
  static Lease self(int n) {
    return {.backend = "vxlan",
            .v4 = {*IpAddr::parse(fmt::format("192.0.2.{}", 10 + n)),
                   MacAddr{{2, 0, 0, 0, 0, static_cast<std::uint8_t>(n)}}, 1}};
  }
  EtcdSource& start_source(int n, const char* network = "10.244.0.0/16", std::chrono::seconds ttl = {},
                           std::vector<Cidr> previous = {}) {
    EtcdSourceOptions o{.conf = *NetConf::parse(fmt::format(R"({{"Network":"{}"}})", network)),
                        .previous = std::move(previous)};
    if (ttl.count()) o.ttl = ttl, o.renew_margin = ttl / 2;
    auto& s = *sources_.emplace_back(std::make_unique<EtcdSource>(o, client()));
    host_->run([&] { s.start([] {}); });
    s.publish(self(n), false);
    return s;
  }
  static std::string range_of(EtcdSource& s) {
    auto v = s.view();
    return v && !v->own.pod_cidrs.empty() ? v->own.pod_cidrs[0].text() : "";
  }

  hawser::testing::TempDir dir_;
  std::optional<Host> host_;
  pid_t pid_ = 0;
  std::vector<std::unique_ptr<EtcdSource>> sources_;
};

TEST_F(EtcdTest, TwoNodesTakeDifferentRangesOfThreeAndSeeEachOther) {
  auto& a = start_source(1, "10.9.0.0/22");
  auto& b = start_source(2, "10.9.0.0/22");
  ASSERT_TRUE(eventually([&] { return !range_of(a).empty() && !range_of(b).empty(); }));
  EXPECT_NE(range_of(a), range_of(b));
  ASSERT_TRUE(eventually([&] { return a.view()->nodes.size() == 1 && b.view()->nodes.size() == 1; }));
  EXPECT_EQ(a.view()->nodes[0].v4, self(2).v4);
  auto key = lease_key(b.view()->own.pod_cidrs);
  EXPECT_EQ(value_of(key), R"({"PublicIP":"192.0.2.12","PublicIPv6":null,"BackendType":"vxlan",)"
                           R"("BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}})");
}

TEST_F(EtcdTest, ARaceForTheLastRangeHasOneWinner) {
  // /28 in /26: four ranges, of which two may be given out; three nodes want one.
  for (int n = 1; n <= 3; n++) start_source(n, "10.9.0.0/26");
  auto winners = [&] { return std::ranges::count_if(sources_, [](auto& s) { return !range_of(*s).empty(); }); };
  ASSERT_TRUE(eventually([&] { return winners() == 2; }));
  EXPECT_FALSE(eventually([&] { return winners() > 2; }, std::chrono::milliseconds(1500)));
}

TEST_F(EtcdTest, ComesBackToTheRangeItHad) {
  auto& a = start_source(1);
  ASSERT_TRUE(eventually([&] { return !range_of(a).empty(); }));
  const auto first = range_of(a);
  a.stop();
  EXPECT_EQ(range_of(start_source(1)), "") << "before etcd answered";
  ASSERT_TRUE(eventually([&] { return range_of(*sources_[1]) == first; }));
  // Without the key it is subnet.env that tells.
  auto& c = start_source(3, "10.244.0.0/16", {}, {*Cidr::parse("10.244.77.0/24")});
  ASSERT_TRUE(eventually([&] { return range_of(c) == "10.244.77.0/24"; }));
}

TEST_F(EtcdTest, AReservationIsUsedAndStaysOne) {
  put("10.244.9.0-24", R"({"PublicIP":"192.0.2.11"})");
  auto& a = start_source(1);
  ASSERT_TRUE(eventually([&] { return range_of(a) == "10.244.9.0/24"; }));
  auto c = client();
  host_->run([&] {
    auto r = c->range(std::string(kFolder) + "10.244.9.0-24", false);
    ASSERT_TRUE(r && r->keys.size() == 1);
    EXPECT_EQ(r->keys[0].lease, 0);
    EXPECT_THAT(r->keys[0].value, HasSubstr("VtepMAC"));
  });
}

TEST_F(EtcdTest, RenewsInTimeAndTakesARevokedLeaseAgain) {
  auto& a = start_source(1, "10.244.0.0/16", std::chrono::seconds(2));
  ASSERT_TRUE(eventually([&] { return !range_of(a).empty(); }));
  const auto key = lease_key(a.view()->own.pod_cidrs);
  EXPECT_FALSE(eventually([&] { return value_of(key).empty(); }, std::chrono::milliseconds(4500))) << "it ran out";
  auto c = client();
  std::int64_t id = 0;
  host_->run([&] { id = c->range(kFolder + key, false)->keys[0].lease; });
  ASSERT_NE(id, 0);
  EXPECT_THAT(call("lease/revoke", fmt::format(R"({{"ID":"{}"}})", id)), HasSubstr("header"));
  EXPECT_TRUE(eventually([&] {
    std::int64_t now = 0;
    host_->run([&] {
      auto r = c->range(kFolder + key, false);
      now = r && !r->keys.empty() ? r->keys[0].lease : 0;
    });
    return now != 0 && now != id;
  })) << "the same range under a new lease";
}

// Appendix A 8: flannel compares by range after a re-list; a peer that changed meanwhile stays wrong for ever.
TEST_F(EtcdTest, WhatChangedWhileTheWatchWasGoneIsSeen) {
  put("10.244.7.0-24", lease_record(self(7)));
  auto& a = start_source(1);
  ASSERT_TRUE(eventually([&] { return a.view() && a.view()->nodes.size() == 1; }));
  stop_etcd();
  start_etcd();
  auto changed = self(7);
  changed.v4.mac = MacAddr{{2, 0, 0, 0, 0, 0x99}};
  changed.v4.address = *IpAddr::parse("192.0.2.99");
  put("10.244.7.0-24", lease_record(changed));
  auto revision = host_->sh(
      "curl -s http://127.0.0.1:2379/v3/kv/range -d '{\"key\":\"YQ==\"}' | sed 's/.*revision\":\"//; s/\".*//' | tr -d "
      "'\\n'");
  call("kv/compaction", fmt::format(R"({{"revision":"{}"}})", revision));
  EXPECT_TRUE(eventually([&] {
    auto v = a.view();
    return v && v->nodes.size() == 1 && v->nodes[0].v4 == changed.v4;
  }));
  // And a watch from before is told that it is too old.
  auto c = client();
  host_->run([&] {
    ASSERT_TRUE(c->range("x", false));  // finds the endpoint that answers
    auto r = c->watch(kFolder, 1, [](const auto&, std::int64_t) { return true; }, {});
    ASSERT_FALSE(r);
    EXPECT_TRUE(is_gone(r.error())) << r.error().text;
  });
}

TEST(EtcdLease, KeysAndRecordsComeBack) {
  Lease l{.pod_cidrs = {*Cidr::parse("10.5.52.0/24"), *Cidr::parse("fc00::/64")}, .backend = "vxlan"};
  l.v4 = {*IpAddr::parse("192.0.2.11"), MacAddr{{2, 0, 0, 0, 0, 1}}, 1};
  l.v6 = {*IpAddr::parse("2001:db8::11"), MacAddr{{2, 0, 0, 0, 0, 6}}, 1};
  l.node = "192.0.2.11";
  EXPECT_EQ(lease_key(l.pod_cidrs), "10.5.52.0-24&fc00::-64");
  EXPECT_EQ(parse_lease_record(lease_key(l.pod_cidrs), lease_record(l)), l);
  for (const char* bad : {"", "10.5.52.0", "10.5.52.1-24", "10.5.52.0-24&10.6.0.0-24", "x-24", "&"})
    EXPECT_FALSE(parse_lease_key(bad)) << bad;
  EXPECT_FALSE(parse_lease_record("10.5.52.0-24", "{}"));
  EXPECT_FALSE(parse_lease_record("10.5.52.0-24", "nonsense"));
}

}  // namespace
}  // namespace hawser::overlay
