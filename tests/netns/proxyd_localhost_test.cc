// SPDX-License-Identifier: Apache-2.0
// Node ports on a node's loopback, with traffic. The programs are attached to a cgroup that this process makes and
// moves into, so that nobody else on the machine runs them.
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/netns/proxyd_fixture.h"

namespace hawser::proxy {
namespace {

using ::testing::HasSubstr;

constexpr std::chrono::seconds kLong{20};  // this runs in emulation too, which is slow

// The v2 cgroup of this process, below the tree's root.
std::string own_cgroup() {
  std::ifstream in("/proc/self/cgroup");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("0::")) return line.substr(3);
  return "/";
}

bool move_to(const std::string& cgroup) {
  std::ofstream out(cgroup + "/cgroup.procs");
  out << ::getpid() << std::flush;
  return out.good();
}

// An address with a port, of a socket call.
struct Name {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

Name name_of(const std::string& addr, std::uint16_t port) {
  Name n;
  if (auto* v6 = reinterpret_cast<sockaddr_in6*>(&n.storage); inet_pton(AF_INET6, addr.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    n.size = sizeof *v6;
    return n;
  }
  auto* v4 = reinterpret_cast<sockaddr_in*>(&n.storage);
  v4->sin_family = AF_INET;
  v4->sin_port = htons(port);
  inet_pton(AF_INET, addr.c_str(), &v4->sin_addr);
  n.size = sizeof *v4;
  return n;
}

std::string text_of(const Name& n) {
  char buf[INET6_ADDRSTRLEN] = {};
  const bool is_v6 = n.storage.ss_family == AF_INET6;
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&n.storage);
  const auto* v4 = reinterpret_cast<const sockaddr_in*>(&n.storage);
  inet_ntop(n.storage.ss_family, is_v6 ? static_cast<const void*>(&v6->sin6_addr) : &v4->sin_addr, buf, sizeof buf);
  return fmt::format("{} {}", buf, ntohs(is_v6 ? v6->sin6_port : v4->sin_port));
}

class LocalhostTraffic : public ProxydTest {
 protected:
  void SetUp() override {
    auto root = find_cgroup_root("");
    if (!root) GTEST_SKIP() << root.error().text;
    before_ = *root + own_cgroup();
    cgroup_ = *root + fmt::format("/hawser-test-{}", ::getpid());
    std::error_code ec;
    if (!std::filesystem::create_directory(cgroup_, ec) || !move_to(cgroup_))
      GTEST_SKIP() << "needs the right to make a cgroup: " << cgroup_;
    ProxydTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    serve();
  }
  void TearDown() override {
    p_.reset();
    if (before_.empty()) return;
    (void)move_to(before_);
    ::rmdir(cgroup_.c_str());  // with the programs at it
  }
  void serve() {
    p_.reset();
    p_ = std::make_unique<Proxyd>(host("node"), net_->api, options_, nullptr, cgroup_);
    ASSERT_TRUE(p_->wait_generation(0));
  }
  // After the sync that the test waited for comes this.
  void wait_ports(int n) {
    EXPECT_TRUE(eventually([&] { return p_->localhost().starts_with(fmt::format("serving {} ports", n)); }))
        << p_->localhost();
  }
  // Sends a datagram from a socket that stays unconnected: who answers, and from which address it seems to come.
  std::string ask_from(const UniqueFd& fd, const std::string& addr, std::uint16_t port) {
    Name to = name_of(addr, port), from;
    if (::sendto(fd.get(), "x", 1, 0, to.get(), to.size) < 0) return strerror(errno);
    timeval limit{.tv_sec = kLong.count(), .tv_usec = 0};
    setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    char buf[64];
    const ssize_t n = ::recvfrom(fd.get(), buf, sizeof buf, 0, from.get(), &from.size);
    if (n < 0) return strerror(errno);
    const std::string answer(buf, static_cast<std::size_t>(n));
    return answer.substr(0, answer.find(' ')) + " " + text_of(from);
  }
  UniqueFd node_socket(int family, int type) {
    UniqueFd fd;
    host("node").run([&] { fd = UniqueFd(::socket(family, type | SOCK_CLOEXEC, 0)); });
    return fd;
  }
  // As whom a connected socket sees its peer.
  std::string peer_of(int family, int type, const std::string& addr, std::uint16_t port) {
    const UniqueFd fd = node_socket(family, type);
    Name to = name_of(addr, port), peer;
    if (::connect(fd.get(), to.get(), to.size) != 0) return strerror(errno);
    if (::getpeername(fd.get(), peer.get(), &peer.size) != 0) return strerror(errno);
    return text_of(peer);
  }
  // Who answered how often.
  std::map<std::string, int> ask_many(const std::string& from, const std::string& addr, std::uint16_t port, int times) {
    std::map<std::string, int> r;
    for (int i = 0; i < times; ++i) {
      auto answer = ask(host(from), addr, port, kLong);
      ++r[answer ? answer->substr(0, answer->find(' ')) : answer.error().text];
    }
    return r;
  }
  // Identities of those at the cgroup, of each kind.
  std::vector<std::uint32_t> programs() {
    std::vector<std::uint32_t> all;
    const UniqueFd fd = std::move(*UniqueFd::open(cgroup_.c_str(), O_RDONLY | O_DIRECTORY));
    for (const HookKind& kind : hook_kinds()) {
      std::uint32_t ids[16];
      bpf_attr attr;
      std::memset(&attr, 0, sizeof attr);
      attr.query.target_fd = static_cast<std::uint32_t>(fd.get());
      attr.query.attach_type = kind.attach;
      attr.query.prog_ids = reinterpret_cast<std::uintptr_t>(ids);
      attr.query.prog_cnt = 16;
      EXPECT_EQ(::syscall(SYS_bpf, BPF_PROG_QUERY, &attr, sizeof attr), 0);
      all.insert(all.end(), ids, ids + attr.query.prog_cnt);
    }
    return all;
  }
  int refused(const std::string& from, const std::string& addr, std::uint16_t port) {
    return error_code(ask(host(from), addr, port, kLong));
  }

  std::string before_, cgroup_;
};

const ServiceSpec kWeb{.cluster_ips = {"10.96.0.10", "fd00:96::10"}, .node_port = 30080};
const ServiceSpec kDns{
    .name = "dns", .cluster_ips = {"10.96.0.53", "fd00:96::53"}, .port = 53, .node_port = 30053, .protocol = "UDP"};
const EndpointSpec kA6{.addr = "fd00:1::2"};

TEST_F(LocalhostTraffic, TcpReachesTheService) {
  apply(kWeb, {kA, kB, kRemote});
  wait_ports(2);  // one a family
  EXPECT_EQ(ask_many("node", "127.0.0.1", 30080, 60).size(), 3u);
  EXPECT_EQ(ask_many("node", "127.8.9.1", 30080, 40).size(), 3u) << "all of 127/8";
  EXPECT_EQ(ask_many("node", "::ffff:127.0.0.1", 30080, 40).size(), 3u) << "by an IPv6 socket";
  EXPECT_EQ(peer_of(AF_INET, SOCK_STREAM, "127.0.0.1", 30080), "127.0.0.1 30080");
  EXPECT_EQ(peer_of(AF_INET6, SOCK_STREAM, "::ffff:127.0.0.1", 30080), "::ffff:127.0.0.1 30080");
  EXPECT_EQ(peer_of(AF_INET, SOCK_STREAM, "192.0.2.11", 30080), "192.0.2.11 30080") << "who asks for the node gets it";
  EXPECT_EQ(refused("node", "127.0.0.1", 30081), ECONNREFUSED) << "no node port";
  EXPECT_EQ(refused("client", "127.0.0.1", 30080), ECONNREFUSED) << "a pod's loopback is its own";
  EXPECT_EQ(host("node").sh("cat /proc/sys/net/ipv4/conf/*/route_localnet | sort -u"), "0\n");

  apply(kWeb, {});
  EXPECT_EQ(refused("node", "127.0.0.1", 30080), ECONNREFUSED) << "no endpoints";
  apply(kWeb, {kA});
  EXPECT_EQ(ask_many("node", "127.0.0.1", 30080, 3)["a"], 3);
  net_->remove(kWeb);
  wait_ports(0);
  EXPECT_EQ(refused("node", "127.0.0.1", 30080), ECONNREFUSED);
}

TEST_F(LocalhostTraffic, TcpByIpv6) {
  apply(kWeb, {kA6});
  EXPECT_EQ(ask_many("node", "::1", 30080, 3)["a"], 3);
  EXPECT_EQ(peer_of(AF_INET6, SOCK_STREAM, "::1", 30080), "::1 30080");
  EXPECT_EQ(peer_of(AF_INET6, SOCK_STREAM, "2001:db8::11", 30080), "2001:db8::11 30080");
  EXPECT_EQ(refused("client", "::1", 30080), ECONNREFUSED);
}

TEST_F(LocalhostTraffic, ABoundSocketIsRefusedAtOnce) {
  apply(kWeb, {kA});
  for (const char* loopback : {"127.0.0.1", "::1"}) {
    Name own = name_of(loopback, 0), to = name_of(loopback, 30080);
    const UniqueFd fd = node_socket(own.storage.ss_family, SOCK_STREAM);
    ASSERT_EQ(::bind(fd.get(), own.get(), own.size), 0);
    EXPECT_NE(::connect(fd.get(), to.get(), to.size), 0);
    EXPECT_EQ(errno, ECONNREFUSED) << loopback;
  }
}

TEST_F(LocalhostTraffic, Udp) {
  apply(kDns, {kA});
  apply(kDns, {kA, kB});
  for (const char* loopback : {"127.0.0.1", "::ffff:127.0.0.1"}) {
    UdpClient connected(host("node"), loopback, 30053);
    auto answer = connected.ask(kLong);
    ASSERT_TRUE(answer) << loopback << ": " << answer.error().text;
  }
  EXPECT_EQ(peer_of(AF_INET, SOCK_DGRAM, "127.0.0.1", 30053), "127.0.0.1 30053");
  const UniqueFd v4 = node_socket(AF_INET, SOCK_DGRAM), mapped = node_socket(AF_INET6, SOCK_DGRAM);
  EXPECT_THAT(ask_from(v4, "127.0.0.1", 30053), HasSubstr(" 127.0.0.1 30053"));
  EXPECT_THAT(ask_from(v4, "127.0.0.3", 30053), HasSubstr(" 127.0.0.3 30053"));
  EXPECT_THAT(ask_from(mapped, "::ffff:127.0.0.1", 30053), HasSubstr(" ::ffff:127.0.0.1 30053"));
  const UniqueFd plain = node_socket(AF_INET, SOCK_DGRAM);
  EXPECT_THAT(ask_from(plain, "192.0.2.11", 30053), HasSubstr(" 192.0.2.11 30053"));
}

TEST_F(LocalhostTraffic, UdpByIpv6) {
  apply(kDns, {kA6});
  EXPECT_TRUE(UdpClient(host("node"), "::1", 30053).ask(kLong));
  EXPECT_EQ(ask_from(node_socket(AF_INET6, SOCK_DGRAM), "::1", 30053), "a ::1 30053");
  EXPECT_EQ(ask_from(node_socket(AF_INET6, SOCK_DGRAM), "2001:db8::11", 30053), "a 2001:db8::11 30053");
}

TEST_F(LocalhostTraffic, OutlivesTheProcessAndIsTakenOver) {
  apply(kWeb, {kA});
  wait_ports(2);  // one a family
  const auto first = programs();
  EXPECT_EQ(first.size(), hook_kinds().size());
  p_.reset();
  EXPECT_EQ(ask_many("node", "127.0.0.1", 30080, 3)["a"], 3) << "nobody runs";
  serve();
  wait_ports(2);  // one a family
  EXPECT_EQ(programs(), first) << "taken over as they were";
  EXPECT_EQ(ask_many("node", "127.0.0.1", 30080, 3)["a"], 3);
  // Another network namespace's are apart.
  auto other = std::make_unique<Proxyd>(host("remote"), net_->api, options_, nullptr, cgroup_);
  EXPECT_TRUE(eventually([&] { return other->localhost().starts_with("serving"); })) << other->localhost();
  EXPECT_EQ(programs().size(), 2 * first.size());
  EXPECT_TRUE(other->detach_localhost());
  EXPECT_EQ(programs(), first);
  p_->stop();
  ASSERT_TRUE(p_->detach_localhost());
  EXPECT_TRUE(programs().empty());
  EXPECT_EQ(refused("node", "127.0.0.1", 30080), ECONNREFUSED);
}

TEST_F(LocalhostTraffic, PutBackWhenSomebodyDetaches) {
  p_.reset();
  host("node").run([&] {
    auto hooks = KernelHooks::make(cgroup_), others = KernelHooks::make(cgroup_);
    ASSERT_TRUE(hooks && others);
    ASSERT_TRUE(hooks->open() && hooks->attach());
    EXPECT_EQ(programs().size(), hook_kinds().size());
    ASSERT_TRUE(others->detach());
    EXPECT_TRUE(programs().empty());
    ASSERT_TRUE(hooks->attach());
    const auto back = programs();
    EXPECT_EQ(back.size(), hook_kinds().size());
    ASSERT_TRUE(hooks->attach());
    EXPECT_EQ(programs(), back) << "what is right stays";
    ASSERT_TRUE(hooks->add({AF_INET6, IPPROTO_UDP, 30053}));
    EXPECT_EQ(hooks->ports().value(), (std::set<LoopbackPort>{{AF_INET6, IPPROTO_UDP, 30053}}));
    ASSERT_TRUE(hooks->remove({AF_INET6, IPPROTO_UDP, 30053}) && hooks->remove({AF_INET, IPPROTO_UDP, 30053}));
    EXPECT_TRUE(hooks->ports().value().empty());
    ASSERT_TRUE(hooks->detach());
  });
}

TEST_F(LocalhostTraffic, NodePortAddressesDecide) {
  apply(kWeb, {kA});
  options_.node_port_addresses = {*Cidr::parse("192.0.2.0/24")};
  serve();
  EXPECT_TRUE(eventually([&] { return p_->localhost().starts_with("serving"); }));
  EXPECT_EQ(refused("node", "127.0.0.1", 30080), ECONNREFUSED) << "127/8 is not in them";
  options_.node_port_addresses = {*Cidr::parse("192.0.2.0/24"), *Cidr::parse("127.0.0.0/8")};
  serve();
  wait_ports(2);  // one a family
  EXPECT_EQ(ask_many("node", "127.0.0.1", 30080, 3)["a"], 3);
}

}  // namespace
}  // namespace hawser::proxy
