// SPDX-License-Identifier: Apache-2.0
// Switching modes under traffic: proxyd is a process of its own (this program again), killed and started in the other
// mode. Where the kernel has no IPVS, tests/vm runs this in a guest that has.
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/atomic_file.h"
#include "lib/base/log.h"
#include "lib/base/sysctl.h"
#include "proxyd/switch/switch_backend.h"
#include "proxyd/takeover/adoption.h"
#include "tests/netns/switch_traffic.h"

namespace hawser::proxy {
namespace {

using hawser::testing::Host;
using ::testing::HasSubstr;
using ::testing::Not;

// Each has a port of its own on the endpoints: a client's port that leads to one endpoint through two Services of IPVS
// is one connection to it (its replies are known by endpoint and client alone).
const ServiceSpec kWeb{.name = "web", .cluster_ips = {"10.96.0.10"}, .node_port = 30080};
const ServiceSpec kSticky{
    .name = "sticky", .cluster_ips = {"10.96.0.20"}, .target_port = 8081, .node_port = 30081, .affinity_seconds = 3600};
const ServiceSpec kStream{
    .name = "stream", .cluster_ips = {"10.96.0.30"}, .port = 90, .target_port = 9090, .node_port = 30082};
const ServiceSpec kDns{.name = "dns",
                       .cluster_ips = {"10.96.0.53"},
                       .port = 53,
                       .target_port = 8082,
                       .node_port = 30083,
                       .protocol = "UDP"};
const std::vector<EndpointSpec> kAll{
    {.addr = "10.244.1.2"}, {.addr = "10.244.1.3"}, {.addr = "10.244.2.2", .node = "node-2"}};

// ---- the process ----

int run_proxyd(const char* netns, Mode mode, bool adopt) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  UniqueFd ns(::open(netns, O_RDONLY | O_CLOEXEC));
  if (!ns || setns(ns.get(), CLONE_NEWNET) != 0) return 1;
  kube::FakeClient api;
  for (const ServiceSpec& s : {kWeb, kSticky, kStream, kDns}) {
    if (!api.create(kube::kEndpointSlices, "default", slice_object(s, kAll))) return 1;
    if (!api.create(kube::kServices, "default", service_object(s))) return 1;
  }
  auto nft = nft::KernelNft::open();
  auto conntrack = KernelConntrack::open();
  auto flows = KernelConntrack::open();
  auto rtnl = netlink::KernelRtnl::open();
  auto ipvs = netlink::KernelIpvs::open();
  if (!nft || !conntrack || !flows || !rtnl || !ipvs) return 1;
  utsname name{};
  uname(&name);
  const auto set = [](const std::string& key, const std::string& value) { return sysctl::ensure(key, value); };
  metrics::Registry registry;
  SwitchBackend backend(
      {{*ipvs, *rtnl, **nft, set, name.release}, *flows, [] { return read_file("/proc/net/ip_vs_conn"); }},
      {.mode = mode, .traffic = pod_ranges(), .ipvs = {.adopt = adopt}}, registry);
  Daemon daemon({.node = "node-1", .traffic = pod_ranges(), .audit_interval = std::chrono::milliseconds(1000)}, api,
                {backend, *conntrack, *rtnl}, registry);
  auto monitor = nft::NftMonitor::start(kTable, (*nft)->port_id(), [&] { daemon.table_changed(); });
  if (!monitor) return 1;
  daemon.start();
  std::string said;
  for (;;) {  // until it is killed
    const auto s = backend.status();
    const auto now = daemon.health().generation() ? fmt::format("{}/{}\n", s.current, s.step) : "starting\n";
    if (std::exchange(said, now) != now) {
      std::fputs(now.c_str(), stdout);
      std::fflush(stdout);
    }
    pollfd none{-1, 0, 0};
    ::poll(&none, 1, 5);
  }
}

class ProxydProcess {
 public:
  ProxydProcess(const Host& node, Mode mode, bool adopt = false) {
    int fds[2] = {-1, -1};
    EXPECT_EQ(pipe2(fds, O_CLOEXEC), 0);
    out_ = UniqueFd(fds[0]);
    UniqueFd in(fds[1]);
    std::vector<std::string> args{"/proc/self/exe", "--proxyd", node.path(), std::string(mode_name(mode)),
                                  adopt ? "adopt" : "no"};
    std::vector<char*> argv;
    for (auto& a : args) argv.push_back(a.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in.get(), STDOUT_FILENO);
    EXPECT_EQ(posix_spawn(&pid_, args[0].c_str(), &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
  }
  ~ProxydProcess() {
    if (pid_ > 0) kill_it();
  }
  ProxydProcess(const ProxydProcess&) = delete;
  ProxydProcess& operator=(const ProxydProcess&) = delete;

  // Waits until it says that: "nftables/drain IPVS". False: it ended, or two minutes are over.
  bool says(std::string_view line) {
    while (text_.find(std::string(line) + "\n") == text_.npos) {
      pollfd p{out_.get(), POLLIN, 0};
      char buf[256];
      ssize_t n = 0;
      if (::poll(&p, 1, 120000) != 1 || (n = ::read(out_.get(), buf, sizeof buf)) <= 0) return false;
      text_.append(buf, static_cast<std::size_t>(n));
    }
    return true;
  }
  [[nodiscard]] const std::string& said() const { return text_; }
  void kill_it() {
    ::kill(pid_, SIGKILL);
    waitpid(std::exchange(pid_, -1), nullptr, 0);
  }

 private:
  pid_t pid_ = -1;
  UniqueFd out_;
  std::string text_;
};

// ---- the tests ----

class SwitchTrafficTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto n = ServiceNet::make();
    if (!n) GTEST_SKIP() << "needs the right to make network namespaces: " << n.error().text;
    net_ = std::move(*n);
    for (const auto& [host, name] : {std::pair{"a", "a"}, {"b", "b"}, {"far", "remote"}}) {
      // The servers close first. Where the kernel has one limit for all namespaces, tests/vm raises it.
      (void)(*net_)[host].sh("sysctl -qw net.ipv4.tcp_max_tw_buckets=131072");
      for (const std::uint16_t port : {8080, 8081, 8082})
        servers_.push_back(std::make_unique<EchoServer>((*net_)[host], name, port));
      streams_.push_back(std::make_unique<StreamServer>((*net_)[host], 9090));
    }
  }
  [[nodiscard]] const Host& host(const std::string& name) const { return (*net_)[name]; }
  void begin_traffic() {
    traffic_.add_short(host("client"), "10.96.0.10", 80);
    traffic_.add_short(host("outside"), "192.0.2.11", 30080);
    traffic_.add_short(host("node"), "10.96.0.10", 80);
    traffic_.add_sticky(host("client"), "10.96.0.20", 80);
    traffic_.add_sticky(host("a"), "10.96.0.20", 80);
    traffic_.add_sticky(host("outside"), "192.0.2.11", 30081);
    begin_established();
  }
  void begin_established() {
    for (const char* from : {"client", "node", "a"}) traffic_.add_long(host(from), "10.96.0.30", 90);
    traffic_.add_long(host("outside"), "192.0.2.11", 30082);
    traffic_.add_udp(host("client"), "10.96.0.53", 53);
    traffic_.add_udp(host("outside"), "192.0.2.11", 30083);
  }
  void end_traffic() {
    traffic_.stop();
    EXPECT_EQ(traffic_.failures(), "");
    std::printf("%s", traffic_.summary().c_str());
  }
  bool skip_without_ipvs() {
    auto ipvs = netlink::KernelIpvs::open();
    return !ipvs || !check_kernel(*ipvs);
  }

  std::unique_ptr<ServiceNet> net_;
  std::vector<std::unique_ptr<EchoServer>> servers_;
  std::vector<std::unique_ptr<StreamServer>> streams_;
  SwitchTraffic traffic_;
};

// The table remembers clients of before.
constexpr const char* kIpvs = "ipvs/ipvs, clients of before by nftables";
constexpr int kTimes = 10;  // of each kind of traffic between two events

TEST_F(SwitchTrafficTest, ThereAndBackAgainWithKills) {
  if (skip_without_ipvs()) GTEST_SKIP() << "this kernel has no IPVS";
  auto p = std::make_unique<ProxydProcess>(host("node"), Mode::kNftables);
  ASSERT_TRUE(p->says("nftables/"));
  begin_traffic();
  ASSERT_TRUE(traffic_.go_on(kTimes)) << traffic_.failures();
  for (int round = 0; round < 2; ++round) {
    for (const Mode to : {Mode::kIpvs, Mode::kNftables}) {
      p->kill_it();
      // Killed somewhere on the way, another place each time, and finished by the next one.
      for (int n = 1; n <= 2; ++n) {
        p = std::make_unique<ProxydProcess>(host("node"), to);
        pollfd none{-1, 0, 0};
        ::poll(&none, 1, (round * 2 + n) * 40);
        p->kill_it();
        ASSERT_TRUE(traffic_.go_on(2)) << traffic_.failures();
      }
      p = std::make_unique<ProxydProcess>(host("node"), to);
      // Clients that are remembered and connections that are open keep both from the end.
      ASSERT_TRUE(p->says(to == Mode::kIpvs ? kIpvs : "nftables/drain IPVS")) << p->said();
      ASSERT_TRUE(traffic_.go_on(kTimes)) << traffic_.failures();
    }
    // Turned round half way.
    p->kill_it();
    p = std::make_unique<ProxydProcess>(host("node"), Mode::kIpvs);
    ASSERT_TRUE(p->says(kIpvs)) << p->said();
    p->kill_it();
    p = std::make_unique<ProxydProcess>(host("node"), Mode::kNftables);
    ASSERT_TRUE(p->says("nftables/drain IPVS")) << p->said();
    ASSERT_TRUE(traffic_.go_on(kTimes)) << traffic_.failures();
  }
  end_traffic();
}

// ---- from kube-proxy ----

// A Service as kube-proxy's mode iptables has it: its cluster IP and node port.
std::string kube_service(const ServiceSpec& s, const std::string& id, std::vector<std::string>& chains) {
  const std::string proto = s.protocol == "TCP" ? "tcp" : "udp";
  const std::string svc = "KUBE-SVC-" + id, ext = "KUBE-EXT-" + id;
  chains.insert(chains.end(), {svc, ext});
  std::string out = fmt::format(
      "-A KUBE-SERVICES -d {0}/32 -p {1} -m {1} --dport {2} -j {3}\n"
      "-A KUBE-NODEPORTS -p {1} -m {1} --dport {4} -j {5}\n-A {5} -j KUBE-MARK-MASQ\n-A {5} -j {3}\n"
      "-A {3} ! -s 10.244.0.0/16 -d {0}/32 -p {1} -m {1} --dport {2} -j KUBE-MARK-MASQ\n",
      s.cluster_ips[0], proto, s.port, svc, s.node_port, ext);
  for (std::size_t n = 0; n < kAll.size(); ++n) {
    const std::string sep = fmt::format("KUBE-SEP-{}{}", id, n);
    chains.push_back(sep);
    const auto left = kAll.size() - n;
    const std::string chance =
        left > 1 ? fmt::format(" -m statistic --mode random --probability {:.10f}", 1.0 / static_cast<double>(left))
                 : "";
    out += fmt::format(
        "-A {0}{1} -j {2}\n-A {2} -s {3}/32 -j KUBE-MARK-MASQ\n"
        "-A {2} -p {4} -m {4} -j DNAT --to-destination {3}:{5}\n",
        svc, chance, sep, kAll[n].addr, proto, s.target_port);
  }
  return out;
}

std::string kube_iptables() {
  std::vector<std::string> chains{"KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"};
  std::string rules;
  for (const auto& [spec, id] : {std::pair{kWeb, "WEB"}, {kStream, "STREAM"}, {kDns, "DNS"}})
    rules += kube_service(spec, id, chains);
  std::string head =
      "*filter\n:KUBE-FORWARD - [0:0]\n-A FORWARD -j KUBE-FORWARD\n"
      "-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\nCOMMIT\n*nat\n";
  for (const auto& c : chains) head += fmt::format(":{} - [0:0]\n", c);
  return head +
         "-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n-A POSTROUTING -j KUBE-POSTROUTING\n"
         "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n"
         "-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0\n-A KUBE-POSTROUTING -j MASQUERADE\n"
         "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n" +
         rules + "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT\n";
}

struct Told {
  std::vector<std::string> reasons, messages;
  Adoption::Tell tell() {
    return [this](const char* reason, const std::string& message, bool) {
      reasons.emplace_back(reason);
      messages.push_back(message);
    };
  }
};

TEST_F(SwitchTrafficTest, TakesOverFromKubeProxysIptables) {
  const auto restore = [&] {
    Result<std::optional<std::string>> r;
    host("node").run([&] { r = run_program({"iptables-restore", "--noflush"}, kube_iptables()); });
    return r;
  };
  auto made = restore();
  if (!made || !*made) GTEST_SKIP() << "no iptables here: " << (made ? "not installed" : made.error().text);
  traffic_.add_short(host("client"), "10.96.0.10", 80);
  traffic_.add_short(host("outside"), "192.0.2.11", 30080);
  traffic_.add_short(host("node"), "10.96.0.10", 80);
  begin_established();
  ASSERT_TRUE(traffic_.go_on(kTimes)) << "by kube-proxy's rules: " << traffic_.failures();
  ProxydProcess p(host("node"), Mode::kNftables, true);
  ASSERT_TRUE(p.says("nftables/"));
  ASSERT_TRUE(traffic_.go_on(kTimes)) << traffic_.failures();
  std::unique_ptr<nft::KernelNft> nft;
  std::optional<netlink::KernelRtnl> rtnl;
  std::optional<netlink::KernelIpvs> ipvs;
  host("node").run([&] {
    nft = std::move(*nft::KernelNft::open());
    rtnl.emplace(std::move(*netlink::KernelRtnl::open()));
    ipvs.emplace(std::move(*netlink::KernelIpvs::open()));
  });
  Told told;
  FakeClock clock;
  Adoption adoption({*nft, *rtnl, *ipvs}, told.tell(), clock);
  const auto step = [&](const std::string& runs) { host("node").run([&] { adoption.step(runs, true, false); }); };
  const auto saved = [&] { return host("node").sh("iptables-save"); };
  step("kube-proxy runs as process 1");
  step("kube-proxy runs as process 1");
  EXPECT_THAT(saved(), HasSubstr("-A PREROUTING -j KUBE-SERVICES")) << "not while it runs";
  EXPECT_EQ(told.reasons, std::vector<std::string>{"KubeProxyNotAdopted"});
  step("");
  EXPECT_THAT(saved(), Not(HasSubstr("KUBE-")));
  EXPECT_EQ(told.reasons.back(), "KubeProxyAdopted");
  ASSERT_TRUE(traffic_.go_on(kTimes)) << traffic_.failures();
  // Somebody runs it unseen: no fight.
  ASSERT_TRUE(restore());
  clock.advance(std::chrono::minutes(1));
  step("");
  step("");
  EXPECT_THAT(saved(), HasSubstr("-A PREROUTING -j KUBE-SERVICES"));
  EXPECT_THAT(told.messages.back(), HasSubstr("have come back"));
  EXPECT_EQ(told.reasons.size(), 3u);
  end_traffic();
}

// Under mode ipvs of kube-proxy its iptables rules only mark and accept.
TEST_F(SwitchTrafficTest, TakesOverFromKubeProxysIpvs) {
  if (skip_without_ipvs()) GTEST_SKIP() << "this kernel has no IPVS";
  const Host& node = host("node");
  ASSERT_TRUE(node.ok(
      "ip link add kube-ipvs0 type dummy; sysctl -qw net.ipv4.vs.conntrack=1 net.ipv4.vs.expire_nodest_conn=1"));
  std::optional<netlink::KernelIpvs> ipvs;
  node.run([&] { ipvs.emplace(std::move(*netlink::KernelIpvs::open())); });
  for (const ServiceSpec& s : {kWeb, kSticky, kStream, kDns}) {
    ASSERT_TRUE(node.ok(fmt::format("ip addr add {}/32 dev kube-ipvs0", s.cluster_ips[0])));
    const std::uint8_t protocol = s.protocol == "TCP" ? IPPROTO_TCP : IPPROTO_UDP;
    for (const auto& [addr, port] : {std::pair{s.cluster_ips[0], s.port}, {std::string("192.0.2.11"), s.node_port}}) {
      const netlink::IpvsKey key{protocol, *IpAddr::parse(addr), static_cast<std::uint16_t>(port)};
      ASSERT_TRUE(
          ipvs->change_service(netlink::IpvsVerb::kAdd,
                               {.key = key, .persistence_seconds = static_cast<std::uint32_t>(s.affinity_seconds)}));
      for (const auto& e : kAll)
        ASSERT_TRUE(ipvs->change_destination(
            netlink::IpvsVerb::kAdd, key,
            {.address = *IpAddr::parse(e.addr), .port = static_cast<std::uint16_t>(s.target_port)}));
    }
  }
  // Its iptables rules: who is masqueraded.
  ASSERT_TRUE(
      node.ok("nft add table ip kp; nft add chain ip kp post '{ type nat hook postrouting priority 100 ; }';"
              "nft add rule ip kp post ip saddr != 10.244.0.0/16 ip daddr 10.244.0.0/16 masquerade;"
              "nft add rule ip kp post ip saddr 10.244.1.2 ip daddr 10.244.1.2 masquerade"));
  begin_traffic();
  ASSERT_TRUE(traffic_.go_on(kTimes)) << "by kube-proxy's services: " << traffic_.failures();
  ProxydProcess p(node, Mode::kNftables, true);
  ASSERT_TRUE(p.says("nftables/drain IPVS")) << p.said();
  ASSERT_TRUE(traffic_.go_on(kTimes)) << traffic_.failures();
  p.kill_it();
  ProxydProcess q(node, Mode::kIpvs, true);
  ASSERT_TRUE(q.says(kIpvs)) << q.said();
  ASSERT_TRUE(traffic_.go_on(kTimes)) << traffic_.failures();
  ASSERT_TRUE(node.ok("ip link del kube-ipvs0")) << "what --adopt does in mode ipvs";
  ASSERT_TRUE(traffic_.go_on(kTimes)) << traffic_.failures();
  end_traffic();
}

}  // namespace
}  // namespace hawser::proxy

int main(int argc, char** argv) {
  using namespace hawser;
  if (argc == 5 && std::string_view(argv[1]) == "--proxyd") {
    log::init("proxyd", log::Level::kInfo);
    return proxy::run_proxyd(argv[2], std::string_view(argv[3]) == "ipvs" ? proxy::Mode::kIpvs : proxy::Mode::kNftables,
                             std::string_view(argv[4]) == "adopt");
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
