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
#include "lib/base/atomic_file.h"
#include "lib/base/base64.h"
#include "lib/http/tls.h"
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
    prepare();
    if (!IsSkipped()) start_etcd();
  }
  virtual void prepare() {}
  void TearDown() override { stop_etcd(); }

  void start_etcd() {
    pid_ = spawn(
        {"etcd", "--data-dir=" + dir_.file("etcd"), "--listen-client-urls=" + url(), "--advertise-client-urls=" + url(),
         "--listen-peer-urls=http://127.0.0.1:2380", "--logger=zap", "--log-outputs=" + dir_.file("log")},
        tls_args_);
    ASSERT_TRUE(eventually([&] { return host_->sh(curl_ + " " + url() + "/health").contains("true"); }))
        << host_->sh("cat " + dir_.file("log"));
  }
  // In the namespace; ended by end().
  pid_t spawn(std::vector<std::string> args, const std::vector<std::string>& more = {}) {
    args.insert(args.end(), more.begin(), more.end());
    std::vector<char*> argv;
    for (auto& a : args) argv.push_back(a.data());
    argv.push_back(nullptr);
    pid_t pid = 0;
    host_->run([&] { EXPECT_EQ(posix_spawnp(&pid, argv[0], nullptr, nullptr, argv.data(), environ), 0); });
    return pid;
  }
  static void end(pid_t& pid, int signal = SIGKILL) {
    if (pid <= 0) return;
    kill(pid, signal);
    waitpid(pid, nullptr, 0);
    pid = 0;
  }
  void stop_etcd() { end(pid_); }
  [[nodiscard]] std::string url() const {
    return fmt::format("{}://127.0.0.1:2379", tls_args_.empty() ? "http" : "https");
  }
  std::string call(const std::string& path, const std::string& body) {
    return host_->sh(fmt::format("{} {}/v3/{} -d '{}'", curl_, url(), path, body));
  }
  void put(const std::string& key, const std::string& value) { put_at(kFolder + key, value); }
  void put_at(const std::string& key, const std::string& value) {
    EXPECT_THAT(call("kv/put", fmt::format(R"({{"key":"{}","value":"{}"}})", base64_encode(key), base64_encode(value))),
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
  std::unique_ptr<EtcdClient> client() {
    access_.endpoints = {"http://127.0.0.1:1", url()};
    auto c = EtcdClient::make(access_);
    EXPECT_TRUE(c) << c.error().text;
    return std::move(*c);
  }
  EtcdOptions access_;
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
  std::vector<std::string> tls_args_;
  std::string curl_ = "curl -s";
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

// A node of both families takes a range of each, under one key.
TEST_F(EtcdTest, DualStackIsOneKeyWithBothRanges) {
  auto conf = NetConf::parse(R"({"Network":"10.9.0.0/16","EnableIPv6":true,"IPv6Network":"fd09::/48"})");
  ASSERT_TRUE(conf) << conf.error().text;
  auto wanted = self(1);
  wanted.v6 = {*IpAddr::parse("2001:db8::11"), MacAddr{{2, 0, 0, 0, 6, 1}}, 1};
  EtcdSource s({.conf = *conf}, client());
  host_->run([&] { s.start([] {}); });
  s.publish(wanted, false);
  ASSERT_TRUE(eventually([&] { return s.view() && s.view()->own.pod_cidrs.size() == 2; }));
  const auto own = s.view()->own;
  EXPECT_TRUE(conf->v4->offers(own.pod_cidrs[0]) && conf->v6->offers(own.pod_cidrs[1]));
  const auto key = lease_key(own.pod_cidrs);
  EXPECT_THAT(key, HasSubstr("-24&fd09:"));
  auto read = parse_lease_record(key, value_of(key));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->v4, wanted.v4);
  EXPECT_EQ(read->v6, wanted.v6);
}

// An etcd as production has it: TLS with client certificates, and users.
class SecureEtcdTest : public EtcdTest {
 protected:
  void prepare() override {
    if (system("command -v openssl >/dev/null") != 0) GTEST_SKIP() << "needs the package openssl";
    auto ca = http::make_ca("etcd");
    ASSERT_TRUE(ca);
    ASSERT_TRUE(write_file(dir_.file("ca"), ca->cert) && write_file(dir_.file("ca.key"), ca->key));
    // etcd's JSON gateway is a client of etcd's own, with the server's certificate. With users it refuses certificates
    // that have a common name.
    for (const char* name : {"server", "own"})
      ASSERT_TRUE(host_->ok(fmt::format(
          "cd {0}; openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {1}.key -subj /O=etcd "
          "-out csr 2>/dev/null; printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth,clientAuth' > ext; "
          "openssl x509 -req -in csr -CA ca -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out {1}.crt 2>&1",
          dir_.path(), name)));
    tls_args_ = {"--cert-file=" + dir_.file("server.crt"), "--key-file=" + dir_.file("server.key"),
                 "--trusted-ca-file=" + dir_.file("ca"), "--client-cert-auth"};
    curl_ = fmt::format("curl -s --cacert {0}/ca --cert {0}/own.crt --key {0}/own.key", dir_.path());
    access_ = {.ca_file = dir_.file("ca"), .cert_file = dir_.file("own.crt"), .key_file = dir_.file("own.key")};
  }
  void add_user() {
    for (auto [path, body] : {std::pair{"auth/user/add", R"({"name":"root","password":"secret"})"},
                              {"auth/role/add", R"({"name":"root"})"},
                              {"auth/user/grant", R"({"user":"root","role":"root"})"},
                              {"auth/enable", "{}"}})
      EXPECT_THAT(call(path, body), HasSubstr("header")) << path;
  }
};

TEST_F(SecureEtcdTest, CertificatesAndLogin) {
  auto c = client();
  host_->run([&] { EXPECT_TRUE(c->range("x", false)); });
  add_user();
  host_->run([&] {
    auto nobody = c->range("x", false);
    ASSERT_FALSE(nobody);
    EXPECT_THAT(nobody.error().text, HasSubstr("--etcd-username"));
  });
  access_.user = "root", access_.password = "wrong";
  auto wrong = client();
  host_->run([&] {
    auto r = wrong->range("x", false);
    ASSERT_FALSE(r);
    EXPECT_THAT(r.error().text, HasSubstr("log in as root"));
  });
  access_.password = "secret";
  auto& s = start_source(1);
  ASSERT_TRUE(eventually([&] { return !range_of(s).empty(); }));
  auto& other = start_source(2);
  ASSERT_TRUE(eventually([&] { return !range_of(other).empty() && s.view()->nodes.size() == 1; })) << "the watch too";
  // The token dies with the server that gave it.
  stop_etcd();
  start_etcd();
  auto& third = start_source(3);
  ASSERT_TRUE(eventually([&] { return !range_of(third).empty() && s.view()->nodes.size() == 2; }));
  access_.ca_file = dir_.file("own.crt");
  auto stranger = client();
  host_->run([&] { EXPECT_FALSE(stranger->range("x", false)) << "a server that another authority vouches for"; });
}

// The daemon itself with flannel's etcd flags.
TEST_F(SecureEtcdTest, TheDaemonStartsFromEtcd) {
  ASSERT_TRUE(
      host_->ok("ip link add eth0 type veth peer name wire; ip link set wire up; ip link set eth0 up; ip addr add "
                "192.0.2.11/24 dev eth0"));
  put_at("/coreos.com/network/config", R"({"Network":"10.9.0.0/16","Backend":{"Type":"vxlan","VNI":7,"Port":4789}})");
  put("10.9.8.0-24", R"({"PublicIP":"192.0.2.12","BackendType":"vxlan",)"
                     R"("BackendData":{"VNI":7,"VtepMAC":"02:00:00:00:00:12"}})");
  add_user();
  const auto env = dir_.file("flannel/subnet.env");
  auto overlayd =
      spawn({HAWSER_OVERLAYD, "-etcd-endpoints=" + url(), "-etcd-cafile=" + dir_.file("ca"),
             "-etcd-certfile=" + dir_.file("own.crt"), "-etcd-keyfile=" + dir_.file("own.key"), "-etcd-username=root",
             "-etcd-password=secret", "-iface=eth0", "-subnet-file=" + env, "--run-dir=" + dir_.file("run")});
  EXPECT_TRUE(eventually([&] { return access(env.c_str(), F_OK) == 0; }));
  EXPECT_THAT(read_file(env).value_or(""), HasSubstr("FLANNEL_NETWORK=10.9.0.0/16\nFLANNEL_SUBNET=10.9."));
  EXPECT_THAT(host_->sh("ip -d link show dev flannel.7"), HasSubstr("dstport 4789"));
  EXPECT_THAT(host_->sh("bridge fdb show dev flannel.7"), HasSubstr("02:00:00:00:00:12 dst 192.0.2.12"));
  EXPECT_THAT(host_->sh("ip route"), HasSubstr("10.9.8.0/24 via 10.9.8.0 dev flannel.7"));
  end(overlayd, SIGTERM);
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
