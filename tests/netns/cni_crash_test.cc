// SPDX-License-Identifier: Apache-2.0
// The plugin killed: at each of its system calls (ptrace), at random times, and its leftovers collected without a
// runtime. After a DEL or a GC nothing is left, and no address is ever held twice.
#include <array>
#include <map>
#include <random>
#include <set>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cni-plugin/collect/leak_collector.h"
#include "lib/base/unique_fd.h"
#include "lib/netlink/rtnl_kernel.h"
#include "lib/nft/kernel_nft.h"
#include "tests/netns/cni_fixture.h"
#include "tests/netns/overlayd_process.h"

namespace hawser {
namespace {

using hawser::testing::Host;
using ::testing::HasSubstr;

class CrashTest : public hawser::testing::CniFixture {
 protected:
  void SetUp() override {
    CniFixture::SetUp();
    if (IsSkipped()) return;
    input_ = conf_with(R"("portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"udp"}],)"
                       R"("bandwidth":{"egressRate":8000000,"egressBurst":320000})");
  }

  // A child that is about to become the plugin, in the node's namespace.
  pid_t start(const char* verb, const std::string& container, const std::string& netns, bool traced) {
    const auto in = dir_.file("crash.in");
    EXPECT_TRUE(write_file(in, input_));
    std::array<std::string, 5> env{fmt::format("CNI_COMMAND={}", verb), "CNI_CONTAINERID=" + container,
                                   "CNI_NETNS=" + netns, "CNI_IFNAME=eth0", "CNI_PATH=/usr/lib/cni"};
    std::array<char*, 6> envp{};
    for (std::size_t i = 0; i < env.size(); i++) envp[i] = env[i].data();
    pid_t pid = -1;
    node_->run([&] {
      pid = fork();
      if (pid != 0) return;
      const int null = open("/dev/null", O_WRONLY);
      const int config = open(in.c_str(), O_RDONLY);
      dup2(config, STDIN_FILENO);
      dup2(null, STDOUT_FILENO);
      dup2(null, STDERR_FILENO);
      if (traced) ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      char* argv[] = {const_cast<char*>(HAWSER_CNI), nullptr};
      execve(HAWSER_CNI, argv, envp.data());
      _exit(127);
    });
    return pid;
  }

  // Kills it as it enters its n-th system call. True: it was killed; false: it had ended before.
  bool kill_at(const char* verb, const std::string& container, const std::string& netns, int n) {
    const pid_t pid = start(verb, container, netns, true);
    int status = 0;
    waitpid(pid, &status, 0);
    ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    for (int stops = 0;;) {
      ptrace(PTRACE_SYSCALL, pid, nullptr, nullptr);
      waitpid(pid, &status, 0);
      if (WIFEXITED(status)) return false;
      if (WIFSIGNALED(status)) return true;
      // Each call stops twice, at its entry and at its end.
      if (WIFSTOPPED(status) && WSTOPSIG(status) == (SIGTRAP | 0x80) && stops++ == 2 * n) kill(pid, SIGKILL);
    }
  }

  // Everything of ours on the node, as text; "" when there is nothing. A killed DEL's child may still be at work.
  std::string left_over() {
    std::string s;
    for (int i = 0; i < 100; i++) {
      s = node_->sh("ip -o link show type veth; ip -o link show type ifb | grep ': hb'; nft list tables; ls " +
                    dir_.file("hostports") + " 2>/dev/null | grep 'json$'; ip route");
      if (s.empty()) return s;
      usleep(10'000);
    }
    return s;
  }
  std::set<std::string> held() {
    std::set<std::string> out;
    auto store = cni::ipam::Store::open(dir_.file("ipam") + "/net");
    const auto held = store->list();  // a temporary in the loop's head would die before its body
    for (const auto& h : *held) {
      EXPECT_TRUE(out.insert(h.address.text()).second) << h.address.text() << " is held twice";
    }
    return out;
  }
  std::string input_;
};

constexpr const char* kGcNothingLives = R"(,"cni.dev/valid-attachments":[])";
constexpr int kMostCalls = 2000;

TEST_F(CrashTest, AddKilledAtEachSystemCallLeavesNothingAfterGc) {
  auto p = pod();
  for (int n = 0;; n++) {
    SCOPED_TRACE(n);
    ASSERT_LT(n, kMostCalls);
    const bool killed = kill_at("ADD", "c1", p.path(), n);
    // The runtime's answer to a failed ADD is DEL; here it is dead as well, and the next one does GC.
    auto gc = run("GC", "x", "''", conf(kGcNothingLives));
    ASSERT_EQ(gc.status, 0) << gc.out;
    ASSERT_EQ(left_over(), "");
    ASSERT_THAT(held(), ::testing::IsEmpty());
    if (!killed) {
      EXPECT_GT(n, 100);
      break;
    }
  }
}

TEST_F(CrashTest, DelKilledAtEachSystemCallIsFinishedByTheNext) {
  auto p = pod();
  for (int n = 0;; n++) {
    SCOPED_TRACE(n);
    ASSERT_LT(n, kMostCalls);
    auto add = run("ADD", "c1", p.path(), input_);
    ASSERT_EQ(add.status, 0) << add.out;
    const bool killed = kill_at("DEL", "c1", p.path(), n);
    // What another pod gets meanwhile is never what the half-removed one may still have.
    auto before = held();
    auto q = pod();
    auto other = run("ADD", "c2", q.path(), conf());
    ASSERT_EQ(other.status, 0) << other.out;
    EXPECT_FALSE(before.contains(address(other).substr(0, address(other).find('/'))));
    ASSERT_EQ(run("DEL", "c2", q.path(), conf()).status, 0);
    ASSERT_EQ(run("DEL", "c1", p.path(), input_).status, 0);
    ASSERT_EQ(left_over(), "");
    ASSERT_THAT(held(), ::testing::IsEmpty());
    if (!killed) break;
  }
}

// The first ADD after host-local takes its reservations over; DEL of such a pod gives one back.
TEST_F(CrashTest, ImportAndReleaseKilledAtEachSystemCallAreFinishedByTheNext) {
  const auto folder = dir_.file("hl"), first = folder + "/10.244.1.2", second = folder + "/10.244.1.3";
  ASSERT_TRUE(make_folders(folder));
  input_ = conf(fmt::format(R"(,"ipam":{{"importHostLocal":"{}"}})", folder));
  auto p = pod();
  bool add_killed = true, del_killed = true;
  for (int n = 0; add_killed || del_killed; n++) {
    SCOPED_TRACE(n);
    ASSERT_LT(n, kMostCalls);
    ASSERT_TRUE(write_file(first, "old1\r\neth0") && write_file(second, "old2\r\neth0"));
    ASSERT_TRUE(write_file(folder + "/last_reserved_ip.0", "10.244.1.3"));
    if (add_killed) add_killed = kill_at("ADD", "c1", p.path(), n);
    ASSERT_EQ(run("DEL", "c1", p.path(), input_).status, 0);
    auto add = run("ADD", "c2", p.path(), input_);
    ASSERT_EQ(add.status, 0) << add.out;
    ASSERT_THAT(held(), ::testing::IsSupersetOf({"10.244.1.2", "10.244.1.3"}));
    ASSERT_EQ(run("DEL", "c2", p.path(), input_).status, 0);
    if (del_killed) del_killed = kill_at("DEL", "old1", "/nonexistent", n);
    ASSERT_EQ(run("DEL", "old1", "''", input_).status, 0);
    ASSERT_NE(access(first.c_str(), F_OK), 0);
    ASSERT_EQ(access(second.c_str(), F_OK), 0);
    ASSERT_THAT(held(), ::testing::ElementsAre("10.244.1.3"));
    ASSERT_TRUE(node_->ok("rm -r " + dir_.file("ipam")));
  }
}

// Pods come and go; plugin and overlayd are killed at any time. Nobody repeats a killed verb or calls GC: a pod whose
// ADD was killed dies with its namespace, and what it leaves is for overlayd to find.
class CyclesTest : public CrashTest {
 protected:
  struct Pod {
    Host host;
    std::string input;  // of ADD and of DEL
    int host_port = 0;
    bool limited = false;
  };
  static constexpr int kGraceSeconds = 5;  // much longer than any ADD, also on a busy machine
  static constexpr std::size_t kMostAlive = 8;

  void SetUp() override {
    CrashTest::SetUp();
    if (IsSkipped()) return;
    ASSERT_TRUE(node_->ok(hawser::testing::OverlaydProcess::underlay_command()));
    overlayd_.emplace(HAWSER_OVERLAYD, dir_.path(), kGraceSeconds);
    restart_overlayd();
    ASSERT_TRUE(overlayd_->wait_until_up()) << overlayd_->log();
  }
  void restart_overlayd() {
    overlayd_->kill();
    node_->run([&] { overlayd_->start(); });
  }
  Pod new_pod(int i) {
    Pod p{.host = pod()};
    std::string asked;
    if (i % 3 == 0) {
      p.host_port = 20'000 + i % 10'000;
      asked = fmt::format(R"("portMappings":[{{"hostPort":{},"containerPort":80,"protocol":"udp"}}])", p.host_port);
    }
    p.limited = i % 5 == 0;
    if (p.limited)
      asked += fmt::format(R"({}"bandwidth":{{"egressRate":8000000,"egressBurst":320000}})", asked.empty() ? "" : ",");
    p.input = conf_with(asked);
    return p;
  }
  // True: the verb ended well. Half of all are killed some time in the first milliseconds.
  bool run_or_kill(const char* verb, const std::string& name, const Pod& p) {
    input_ = p.input;
    const pid_t pid = start(verb, name, p.host.path(), false);
    if (random_() % 2 == 0) {
      usleep(random_() % 3000);
      kill(pid, SIGKILL);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
  // What the node holds for pods, and what it should hold for the living.
  std::string in_use() {
    return fmt::format("addresses {}\n", held().size()) +
           node_->sh(
               "echo links $(ip -o link show type veth | grep -c ': hw'); echo ifbs $(ip -o link show type ifb | grep "
               "-c ': hb')\n"
               "echo routes $(ip route | grep -c 'dev hw') $(ip -6 route | grep -c '^fd00:1:.* dev hw')\n"
               "echo records $(ls " +
               dir_.file("hostports") +
               " 2>/dev/null | grep -c 'json$')\n"
               "echo rules $(nft list ruleset | grep -oE '\\b2[0-9]{4}\\b' | sort -u)");
  }
  std::string should_be() const {
    std::set<int> ports;
    std::size_t limited = 0;
    for (const auto& [name, p] : live_) {
      if (p.host_port != 0) ports.insert(p.host_port);
      limited += p.limited;
    }
    return fmt::format("addresses {}\nlinks {}\nifbs {}\nroutes {} {}\nrecords {}\nrules{}{}\n", 2 * live_.size(),
                       live_.size(), limited, live_.size(), live_.size(), ports.size(), ports.empty() ? "" : " ",
                       fmt::join(ports, " "));
  }
  // Collection comes after the grace time, and the kernel takes its own to reap namespaces.
  void expect_exactly_the_living() {
    for (int i = 0; i < 600 && in_use() != should_be(); i++) usleep(100'000);
    EXPECT_EQ(in_use(), should_be());
  }

  std::mt19937 random_{42};
  std::map<std::string, Pod> live_;
  std::optional<hawser::testing::OverlaydProcess> overlayd_;
};

// HAWSER_CNI_CYCLES sets how many; 10,000 by hand.
TEST_F(CyclesTest, RandomKillsOfPluginAndOverlaydEndWithExactlyTheLivePods) {
  const char* set = getenv("HAWSER_CNI_CYCLES");
  const int cycles = set ? std::atoi(set) : 300;
  int added = 0, restarts = 0;
  for (int i = 0; i < cycles; i++) {
    const auto name = fmt::format("c{}", i);
    auto p = new_pod(i);
    if (run_or_kill("ADD", name, p)) {
      added++;
      live_.emplace(name, std::move(p));
    }
    if (live_.size() > kMostAlive) {
      auto victim = std::next(live_.begin(), static_cast<std::ptrdiff_t>(random_() % live_.size()));
      run_or_kill("DEL", victim->first, victim->second);
      live_.erase(victim);  // its namespace goes, whatever DEL has done
    }
    if (random_() % 20 == 0) {
      restarts++;
      restart_overlayd();
    }
  }
  EXPECT_GT(added, cycles / 3) << "else little was tested";
  restart_overlayd();
  expect_exactly_the_living();
  const auto log = overlayd_->log();
  std::size_t collected = 0;
  for (auto at = log.find("leak collected"); at != log.npos; at = log.find("leak collected", at + 1)) collected++;
  std::printf("%d ADDs whole, overlayd killed %d times, %zu leaks collected\n", added, restarts, collected);
  for (const auto& [name, p] : live_) EXPECT_EQ(run("DEL", name, p.host.path(), p.input).status, 0);
  live_.clear();
  expect_exactly_the_living();
}

// The node's collector, with no runtime at all (FEATURES X07).
TEST_F(CrashTest, CollectorTakesBackWhatDeadPodsHeld) {
  auto alive = pod();
  ASSERT_EQ(run("ADD", "alive", alive.path(), conf()).status, 0);
  {
    auto dying = pod();
    ASSERT_EQ(run("ADD", "dead", dying.path(), input_).status, 0);
  }
  // The kernel reaps a namespace some time after its last user has gone.
  for (int i = 0; i < 500 && node_->sh("ip -o link show type veth | wc -l") != "1\n"; i++) usleep(10'000);
  metrics::Registry registry;
  FakeClock clock;
  node_->run([&] {
    auto rtnl = netlink::KernelRtnl::open();
    auto nft = nft::KernelNft::open();
    auto conntrack = netlink::KernelConntrack::open();
    ASSERT_TRUE(rtnl && nft && conntrack);
    cni::LeakCollector patient({.run_dir = dir_.path(), .grace = std::chrono::hours(1)}, *rtnl, {**nft, *conntrack},
                               registry);
    auto early = patient.run_once();
    EXPECT_TRUE(early.error);
    EXPECT_EQ(early.removed.size(), 2u) << "rules and ifb need no grace";
    EXPECT_EQ(held().size(), 4u) << "addresses do: an ADD may be on its way";
    cni::LeakCollector collector({.run_dir = dir_.path(), .grace = Nanos(0)}, *rtnl, {**nft, *conntrack}, registry);
    auto late = collector.run_once();
    EXPECT_TRUE(late.error);
    EXPECT_EQ(late.removed.size(), 2u);
    EXPECT_TRUE(collector.run_once().removed.empty()) << "a second run has nothing to do";
  });
  EXPECT_EQ(held().size(), 2u) << "the living pod keeps its own";
  EXPECT_EQ(node_->sh("nft list tables"), "");
  EXPECT_THAT(registry.text(), HasSubstr(R"(hawser_cni_leaks_collected_total{kind="address"} 2)"));
  EXPECT_TRUE(alive.ok("ip addr show eth0"));
}

// Of pods that the fast path knows, by their host links.
class FakeFastPath final : public cni::FastPath {
 public:
  Result<> attach(const cni::FastEndpoint&) override { return {}; }
  Result<> detach(const std::string&) override { return {}; }
  Result<std::string> fault(const cni::FastEndpoint&) override { return std::string(); }
  Result<> keep_only(const std::function<bool(const std::string&)>& live) override {
    if (refuse) return fail(EIO, "refuses");
    std::erase_if(known, [&](const auto& name) { return !live(name); });
    return {};
  }
  std::vector<std::string> known;
  bool refuse = false;
};

TEST_F(CrashTest, CollectorTellsTheFastPathBeforeAddressesBecomeFree) {
  auto alive = pod();
  ASSERT_EQ(run("ADD", "alive", alive.path(), conf()).status, 0);
  FakeFastPath fast;
  fast.known = {node_->sh("ip -o link show type veth | sed 's/.*: \\(.*\\)@.*/\\1/' | tr -d '\\n'"), "hwzzzaaaaaaaaaa"};
  const auto kept = fast.known[0];
  {
    auto dying = pod();
    ASSERT_EQ(run("ADD", "dead", dying.path(), conf()).status, 0);
  }
  for (int i = 0; i < 500 && node_->sh("ip -o link show type veth | wc -l") != "1\n"; i++) usleep(10'000);
  metrics::Registry registry;
  node_->run([&] {
    auto rtnl = netlink::KernelRtnl::open();
    auto nft = nft::KernelNft::open();
    auto conntrack = netlink::KernelConntrack::open();
    ASSERT_TRUE(rtnl && nft && conntrack);
    cni::LeakCollector collector({.run_dir = dir_.path(), .grace = Nanos(0), .fast_path = &fast}, *rtnl,
                                 {**nft, *conntrack}, registry);
    fast.refuse = true;
    auto refused = collector.run_once();
    EXPECT_FALSE(refused.error);
    EXPECT_TRUE(refused.removed.empty());
    EXPECT_EQ(held().size(), 4u) << "packets may still be led to the dead pod";
    fast.refuse = false;
    auto done = collector.run_once();
    EXPECT_TRUE(done.error);
    EXPECT_EQ(done.removed.size(), 3u) << "both addresses and the fast path's";
    EXPECT_TRUE(collector.run_once().removed.empty());
  });
  EXPECT_THAT(fast.known, ::testing::ElementsAre(kept));
  EXPECT_EQ(held().size(), 2u);
  EXPECT_THAT(registry.text(), HasSubstr(R"(hawser_cni_leaks_collected_total{kind="fast_path"} 1)"));
}

// An address that host-local gave out has no link of ours.
TEST_F(CrashTest, CollectorLeavesImportedPodsAlone) {
  const auto reservation = dir_.file("hl") + "/10.244.1.9";
  ASSERT_TRUE(make_folders(dir_.file("hl")));
  ASSERT_TRUE(write_file(reservation, "c9\r\neth0"));
  auto p = pod();
  ASSERT_EQ(
      run("ADD", "c1", p.path(), conf(fmt::format(R"(,"ipam":{{"importHostLocal":"{}"}})", dir_.file("hl")))).status,
      0);
  metrics::Registry registry;
  node_->run([&] {
    auto rtnl = netlink::KernelRtnl::open();
    auto nft = nft::KernelNft::open();
    auto conntrack = netlink::KernelConntrack::open();
    ASSERT_TRUE(rtnl && nft && conntrack);
    cni::LeakCollector collector({.run_dir = dir_.path(), .grace = Nanos(0)}, *rtnl, {**nft, *conntrack}, registry);
    EXPECT_TRUE(collector.run_once().removed.empty());
    EXPECT_THAT(held(), ::testing::Contains("10.244.1.9"));
    ASSERT_EQ(unlink(reservation.c_str()), 0);
    EXPECT_EQ(collector.run_once().removed.size(), 1u) << "host-local has freed it";
  });
}

}  // namespace
}  // namespace hawser
