// SPDX-License-Identifier: Apache-2.0
// What a runtime may ask of one attachment beside its addresses (FEATURES C31-C35): seen from outside, from the node
// and from pods, checked, and gone after DEL and GC.
#include <chrono>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/netns/cni_fixture.h"
#include "tests/netns/sockets.h"

namespace hawser {
namespace {

using hawser::testing::Host;
using hawser::testing::Ran;
using namespace hawser::testing;
using ::testing::HasSubstr;
using ::testing::Not;

class CapabilityTest : public hawser::testing::CniFixture {
 protected:
  void SetUp() override {
    CniFixture::SetUp();
    if (IsSkipped()) return;
    outside_.emplace(pod());
    ASSERT_TRUE(node_->wire("eth0", *outside_, "eth0"));
    ASSERT_TRUE(node_->ok("ip addr add 192.0.2.11/24 dev eth0; ip addr add 10.244.1.0/32 dev lo"));
    ASSERT_TRUE(outside_->ok("ip addr add 192.0.2.1/24 dev eth0"));
  }
  [[nodiscard]] std::string left_over() const {
    return node_->sh(
        "ip -o link show type veth | grep hw; ip -o link show type ifb | grep ': hb'; "
        "nft list tables | grep hawser; ls " +
        dir_.file("hostports") + " 2>/dev/null | grep json");
  }
  std::optional<Host> outside_;
};

constexpr const char* kTcp8080 = R"("portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}])";

TEST_F(CapabilityTest, HostPortFromEverywhere) {
  auto p = pod(), q = pod();
  const auto input = conf_with(kTcp8080);
  auto add = run("ADD", "c1", p.path(), input);
  ASSERT_EQ(add.status, 0) << add.out;
  ASSERT_EQ(run("ADD", "c2", q.path(), conf()).status, 0);
  auto server = listen_in(p, SOCK_STREAM, 80);
  std::string source;
  EXPECT_TRUE(connects(*outside_, "192.0.2.11", 8080, server, &source));
  EXPECT_EQ(source, "192.0.2.1") << "from outside the client's address is kept";
  EXPECT_TRUE(connects(*node_, "192.0.2.11", 8080, server)) << "from the node, its own address";
  EXPECT_TRUE(connects(*node_, "127.0.0.1", 8080, server)) << "from the node, loopback";
  EXPECT_TRUE(connects(q, "192.0.2.11", 8080, server, &source)) << "from another pod";
  EXPECT_EQ(source, "10.244.1.3");
  EXPECT_TRUE(connects(p, "192.0.2.11", 8080, server)) << "from the pod itself";
  const auto with = with_prev(input, add.out);
  EXPECT_EQ(run("CHECK", "c1", p.path(), with).status, 0) << run("CHECK", "c1", p.path(), with).out;
  ASSERT_EQ(run("DEL", "c1", p.path(), input).status, 0);
  ASSERT_EQ(run("DEL", "c2", q.path(), conf()).status, 0);
  EXPECT_FALSE(connects(*outside_, "192.0.2.11", 8080, server));
  EXPECT_EQ(left_over(), "");
}

TEST_F(CapabilityTest, CheckNamesWhatIsWrongWithHostPorts) {
  auto p = pod();
  const auto input = conf_with(kTcp8080);
  auto add = run("ADD", "c1", p.path(), input);
  ASSERT_EQ(add.status, 0) << add.out;
  const auto check = [&] { return run("CHECK", "c1", p.path(), with_prev(input, add.out)); };
  ASSERT_TRUE(node_->ok("nft 'delete element inet hawser-hostport any4 { tcp . 8080 }'"));
  EXPECT_THAT(check().out, HasSubstr("set any4"));
  ASSERT_TRUE(node_->ok("nft delete table inet hawser-hostport"));
  EXPECT_THAT(check().out, HasSubstr("hawser-hostport"));
  auto q = pod();
  // Whoever comes next repairs the table.
  ASSERT_EQ(
      run("ADD", "c2", q.path(), conf_with(R"("portMappings":[{"hostPort":8081,"containerPort":80,"protocol":"tcp"}])"))
          .status,
      0);
  EXPECT_EQ(check().status, 0) << check().out;
}

TEST_F(CapabilityTest, OnePortTwiceIsRefusedUnlessProtocolOrAddressDiffer) {
  ASSERT_TRUE(node_->ok("ip addr add 192.0.2.12/24 dev eth0"));
  auto p = pod(), q = pod(), r = pod();
  ASSERT_EQ(run("ADD", "c1", p.path(), conf_with(kTcp8080)).status, 0);
  auto again = run("ADD", "c2", q.path(), conf_with(kTcp8080));
  EXPECT_EQ(again.status, 1);
  EXPECT_THAT(again.out, ::testing::AllOf(HasSubstr("\"code\":104"), HasSubstr("*:8080/tcp"), HasSubstr("c1")));
  EXPECT_EQ(node_->sh("ip -o link show type veth | grep -c hw"), "1\n") << "the refused ADD left nothing";
  auto differ = run(
      "ADD", "c2", q.path(),
      conf_with(
          R"("portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"udp"},{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"192.0.2.12"}])"));
  ASSERT_EQ(differ.status, 0) << differ.out;
  auto first = listen_in(p, SOCK_STREAM, 80), second = listen_in(q, SOCK_STREAM, 80);
  EXPECT_TRUE(connects(*outside_, "192.0.2.11", 8080, first));
  EXPECT_TRUE(connects(*outside_, "192.0.2.12", 8080, second)) << "the narrower mapping wins";
  auto sctp = run("ADD", "c3", r.path(),
                  conf_with(R"("portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"sctp"}])"));
  ASSERT_EQ(sctp.status, 0) << sctp.out;
  EXPECT_THAT(node_->sh("nft list map inet hawser-hostport any4"), HasSubstr("sctp . 8080 : 10.244.1.5 . 80"));
}

// The client keeps one socket while the port's container is replaced (FEATURES X03, C74).
TEST_F(CapabilityTest, UdpClientFollowsToTheNextContainer) {
  const auto input = conf_with(R"("portMappings":[{"hostPort":5353,"containerPort":53,"protocol":"udp"}])");
  auto client = socket_in(*outside_, SOCK_DGRAM);
  ASSERT_TRUE(send_to(client, "192.0.2.11", 5353)) << "an entry from before there is a container";
  auto p = pod(), q = pod();
  ASSERT_EQ(run("ADD", "c1", p.path(), input).status, 0);
  auto first = listen_in(p, SOCK_DGRAM, 53);
  ASSERT_TRUE(send_to(client, "192.0.2.11", 5353));
  EXPECT_TRUE(arrives(first));
  ASSERT_EQ(run("DEL", "c1", p.path(), input).status, 0);
  ASSERT_EQ(run("ADD", "c2", q.path(), input).status, 0);
  auto second = listen_in(q, SOCK_DGRAM, 53);
  ASSERT_TRUE(send_to(client, "192.0.2.11", 5353));
  EXPECT_TRUE(arrives(second));
}

TEST_F(CapabilityTest, ForeignTablesAreLeftAlone) {
  ASSERT_TRUE(node_->ok("nft 'table ip theirs { chain c { type nat hook prerouting priority -100; }; }'"));
  const auto before = node_->sh("nft list ruleset");
  auto p = pod();
  ASSERT_EQ(run("ADD", "c1", p.path(), conf_with(kTcp8080)).status, 0);
  ASSERT_EQ(run("DEL", "c1", p.path(), conf_with(kTcp8080)).status, 0);
  EXPECT_EQ(node_->sh("nft list ruleset"), before);
}

TEST_F(CapabilityTest, MacAndDnsAreHonoured) {
  auto p = pod();
  const auto input = conf_with(
      R"("mac":"02:11:22:33:44:55","dns":{"servers":["10.96.0.10"],"searches":["a.b"],"options":["ndots:5"]},"ips":["10.244.1.77/24"])");
  auto add = run("ADD", "c1", p.path(), input);
  ASSERT_EQ(add.status, 0) << add.out;
  EXPECT_THAT(p.sh("ip link show eth0"), HasSubstr("02:11:22:33:44:55"));
  EXPECT_EQ(address(add), "10.244.1.77/32");
  EXPECT_THAT(add.out, HasSubstr(R"("dns":{"nameservers":["10.96.0.10"],"search":["a.b"],"options":["ndots:5"]})"));
  EXPECT_TRUE(node_->ok("ping -c1 -W5 10.244.1.77"));
  EXPECT_EQ(run("CHECK", "c1", p.path(), with_prev(input, add.out)).status, 0);
  ASSERT_TRUE(p.ok("ip link set eth0 address 02:11:22:33:44:56"));
  EXPECT_THAT(run("CHECK", "c1", p.path(), with_prev(input, add.out)).out, HasSubstr("has MAC"));
  EXPECT_THAT(run("ADD", "c2", pod().path(), conf_with(R"("mac":"01:00:5e:00:00:01")")).out,
              HasSubstr("runtimeConfig.mac"));
}

// Bits a second at which a bucket of kBurstBytes lets UDP from one host to another through. More than the bucket and
// its queue hold is sent at once; what comes after the burst then comes at the kernel's pace, however busy the machine
// is.
constexpr std::size_t kBurstBytes = 750'000;
double drain_rate(const Host& from, const Host& to, const char* addr) {
  auto server = listen_in(to, SOCK_DGRAM, 5001);
  auto client = socket_in(from, SOCK_DGRAM);
  const int room = 16 << 20;
  setsockopt(server.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
  setsockopt(client.get(), SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
  auto a = v4(addr, 5001);
  const std::string payload(1000, 'x');
  constexpr std::size_t kFrame = 1000 + 14 + 20 + 8;
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  for (std::size_t sent = 0; sent < 2 * kBurstBytes; sent += kFrame)
    (void)sendto(client.get(), payload.data(), payload.size(), 0, reinterpret_cast<sockaddr*>(&a), sizeof a);
  std::size_t bytes = 0;
  auto end = begin;
  std::string buf(2000, 0);
  while (readable(server, 500) && recv(server.get(), buf.data(), buf.size(), MSG_DONTWAIT) > 0) {
    bytes += kFrame;
    end = Clock::now();
  }
  // A full bucket passes at once; tokens that nobody was quick enough to use are not lost.
  return bytes < kBurstBytes
             ? 0
             : static_cast<double>(bytes - kBurstBytes) * 8 / std::chrono::duration<double>(end - begin).count();
}

TEST_F(CapabilityTest, BandwidthIsLimitedBothWays) {
  auto p = pod();
  const auto input = conf_with(
      R"("bandwidth":{"ingressRate":4000000,"ingressBurst":6000000,"egressRate":3000000,"egressBurst":6000000})");
  auto add = run("ADD", "c1", p.path(), input);
  ASSERT_EQ(add.status, 0) << add.out;
  EXPECT_NEAR(drain_rate(*node_, p, "10.244.1.2"), 4e6, 0.05 * 4e6);
  EXPECT_NEAR(drain_rate(p, *node_, "10.244.1.0"), 3e6, 0.05 * 3e6);
  const auto check = [&] { return run("CHECK", "c1", p.path(), with_prev(input, add.out)); };
  EXPECT_EQ(check().status, 0) << check().out;
  const std::string link = "$(ip -o link show type veth | grep -o 'hw[^@]*')";
  ASSERT_TRUE(node_->ok("tc qdisc del dev " + link + " clsact"));
  EXPECT_THAT(check().out, HasSubstr("filter"));
  ASSERT_TRUE(node_->ok("tc qdisc del dev " + link + " root"));
  EXPECT_THAT(check().out, HasSubstr("bucket"));
  ASSERT_EQ(run("DEL", "c1", p.path(), input).status, 0);
  EXPECT_EQ(left_over(), "");
}

TEST_F(CapabilityTest, BadValuesAreNamed) {
  struct Case {
    int line;
    const char *runtime, *msg;
  };
  for (const Case& c : {
           Case{__LINE__, R"("bandwidth":{"ingressRate":1000})", "given together"},
           Case{__LINE__, R"("bandwidth":{"egressBurst":1000})", "given together"},
           Case{__LINE__, R"("bandwidth":{"ingressRate":1000,"ingressBurst":34359738360})", "less than 4 GiB"},
           Case{__LINE__, R"("bandwidth":{"ingressRate":-1,"ingressBurst":1})", "ingressRate: -1"},
           Case{__LINE__, R"("portMappings":[{"hostPort":70000,"containerPort":1}])", "hostPort: 70000"},
           Case{__LINE__, R"("portMappings":[{"hostPort":7}])", "containerPort"},
           Case{__LINE__, R"("portMappings":[{"hostPort":7,"containerPort":1,"protocol":"icmp"}])", "icmp"},
           Case{__LINE__, R"("portMappings":[{"hostPort":7,"containerPort":1,"hostIP":"x"}])", "hostIP"},
           Case{__LINE__, R"("portMappings":[{"hostPort":7,"containerPort":1},{"hostPort":7,"containerPort":2}])",
                "given twice"},
           Case{__LINE__, R"("dns":{"servers":"x"})", "dns.servers"},
       }) {
    SCOPED_TRACE(c.line);
    auto r = run("ADD", "c1", outside_->path(), conf_with(c.runtime));
    EXPECT_EQ(r.status, 1);
    EXPECT_THAT(r.out, ::testing::AllOf(HasSubstr("\"code\":7"), HasSubstr(c.msg)));
  }
  EXPECT_EQ(left_over(), "");
}

TEST_F(CapabilityTest, GcRemovesThemAll) {
  auto p = pod(), q = pod();
  const auto all = R"("bandwidth":{"egressRate":8000000,"egressBurst":320000},)";
  ASSERT_EQ(run("ADD", "c1", p.path(), conf_with(std::string(all) + kTcp8080)).status, 0);
  ASSERT_EQ(run("ADD", "c2", q.path(),
                conf_with(std::string(all) + R"("portMappings":[{"hostPort":9090,"containerPort":80}])"))
                .status,
            0);
  auto gc = run("GC", "x", "''", conf(R"(,"cni.dev/valid-attachments":[{"containerID":"c2","ifname":"eth0"}])"));
  ASSERT_EQ(gc.status, 0) << gc.out;
  EXPECT_EQ(node_->sh("ip -o link show type ifb | grep -c ': hb'"), "1\n");
  EXPECT_THAT(node_->sh("nft list map inet hawser-hostport any4"),
              ::testing::AllOf(HasSubstr("tcp . 9090"), Not(HasSubstr("8080"))));
  ASSERT_EQ(run("GC", "x", "''", conf(R"(,"cni.dev/valid-attachments":[])")).status, 0);
  EXPECT_EQ(left_over(), "");
}

}  // namespace
}  // namespace hawser
