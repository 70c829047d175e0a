// SPDX-License-Identifier: Apache-2.0
// hawser-proxy-connect SERVICES SECONDS: what a new TCP connection through a cluster IP costs, with one Service and
// with SERVICES, beside one straight to the endpoint through the same kind of node, which tracks connections but has no
// rules of ours, and one through a single rule that translates the address and no more: the least that this can cost.
// Four networks, measured in turn in short slices. Prints one JSON object with, of each slice:
// connections a second, CPU microseconds and instructions a connection, of client and server with the kernel's part.
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <vector>

#include <arpa/inet.h>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <linux/perf_event.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/sysctl.h"
#include "lib/nft/kernel_nft.h"
#include "proxyd/nft/nft_backend.h"
#include "tests/churn/net.h"

namespace {

using namespace hawser;
using Clock = std::chrono::steady_clock;

constexpr int kSlices = 10;                   // a second, over all subjects
constexpr int kStraight = 0, kBareRule = -1;  // in place of a number of Services

constexpr std::uint32_t kPod = 0x0af48001, kClusterIp = 0x0a600100;  // 10.244.128.1, 10.96.1.0
constexpr const char* kTracking =
    "nft 'add table ip t; add chain ip t c { type filter hook forward priority 0; }; add rule ip t c ct state new "
    "accept'";
constexpr const char* kTranslation =
    "nft 'add table ip t; add chain ip t c { type nat hook prerouting priority -100; }; "
    "add rule ip t c ip daddr 10.96.1.0 tcp dport 80 dnat to 10.244.128.1:8080'";

double cpu_us() {
  rusage u{};
  getrusage(RUSAGE_SELF, &u);
  const auto us = [](const timeval& t) { return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_usec); };
  return us(u.ru_utime) + us(u.ru_stime);
}

// Instructions of this process and its later threads; where the machine does not count them, nothing.
class Instructions {
 public:
  Instructions() {
    perf_event_attr a{};
    a.type = PERF_TYPE_HARDWARE;
    a.size = sizeof a;
    a.config = PERF_COUNT_HW_INSTRUCTIONS;
    a.inherit = 1;
    fd_ = UniqueFd(static_cast<int>(syscall(SYS_perf_event_open, &a, 0, -1, -1, PERF_FLAG_FD_CLOEXEC)));
  }
  [[nodiscard]] std::optional<double> read() const {
    std::uint64_t n = 0;
    if (!fd_ || ::read(fd_.get(), &n, sizeof n) != sizeof n) return std::nullopt;
    return static_cast<double>(n);
  }

 private:
  UniqueFd fd_;
};

proxy::ServiceStatePtr service(int i) {
  const IpAddr address = IpAddr::v4(kClusterIp + static_cast<std::uint32_t>(i));
  proxy::ServiceState s{.key = fmt::format("default/s{:05}", i), .cluster_ips = {address}};
  proxy::Frontend f{.addr = address, .family = AF_INET, .protocol = IPPROTO_TCP, .port = 80};
  for (std::uint32_t e = 0; e < 5; ++e)
    f.targets.push_back({churn::pod(static_cast<std::uint32_t>(i) * 5 + e), churn::kPodPort});
  std::ranges::sort(f.targets);
  s.frontends.push_back(std::move(f));
  return std::make_shared<const proxy::ServiceState>(std::move(s));
}

// One network and what is connected to in it.
struct Subject {
  const char* name;
  std::unique_ptr<churn::Net> net;
  std::unique_ptr<nft::KernelNft> nft;
  sockaddr_in to{};
  boost::json::array rates{}, cpu{}, instructions{};

  Result<> set_up(int services) {
    auto made = churn::Net::make();
    if (!made) return propagate(made);
    net = std::move(*made);
    auto inside = NetNsGuard::enter(net->node());
    if (!inside) return propagate(inside);
    auto opened = nft::KernelNft::open();
    if (!opened) return propagate(opened);
    nft = std::move(*opened);
    const bool straight = services == kStraight;
    to = {.sin_family = AF_INET, .sin_port = htons(straight ? churn::kPodPort : 80), .sin_addr = {}, .sin_zero = {}};
    to.sin_addr.s_addr = htonl(straight ? kPod : kClusterIp + static_cast<std::uint32_t>(std::max(services, 0) / 2));
    if (straight && std::system(kTracking) != 0) return fail(EIO, "nft: failed");
    if (services == kBareRule && std::system(kTranslation) != 0) return fail(EIO, "nft: failed");
    if (services > 0) {
      auto state = std::make_shared<proxy::DesiredState>();
      std::vector<proxy::ServiceStatePtr> all;
      for (int i = 0; i < services; ++i) all.push_back(service(i));
      state->services = proxy::ServiceList(std::move(all));
      auto r = proxy::NftBackend(*nft, {{*Cidr::parse("10.244.0.0/16")}}).apply(state);
      if (!r) return propagate(r);
    }
    auto short_lived = sysctl::ensure("net.netfilter.nf_conntrack_tcp_timeout_close", "1");
    return short_lived ? Result<>() : propagate(short_lived);
  }

  bool connect_once() const {
    UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    std::array<char, 4> data{};
    return connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0 &&
           recv(fd.get(), data.data(), data.size(), MSG_WAITALL) == static_cast<ssize_t>(data.size());
  }

  bool slice(const Instructions& counter) {
    auto inside = NetNsGuard::enter(net->client());
    if (!inside) return false;
    const auto begin = Clock::now();
    const auto end = begin + std::chrono::milliseconds(1000 / kSlices);
    const double used = cpu_us();
    const auto before = counter.read();
    int n = 0;
    for (; Clock::now() < end; ++n) {
      if (!connect_once()) return std::perror(name), false;
    }
    const auto after = counter.read();
    rates.emplace_back(n / std::chrono::duration<double>(Clock::now() - begin).count());
    cpu.emplace_back((cpu_us() - used) / n);
    if (before && after) instructions.emplace_back((*after - *before) / n);
    return true;
  }
};

}  // namespace

int main(int argc, char** argv) {
  const int services = argc == 3 ? std::atoi(argv[1]) : 0, seconds = argc == 3 ? std::atoi(argv[2]) : 0;
  if (services < 2 || services > 60000 || seconds < 1) {
    std::fputs("usage: hawser-proxy-connect SERVICES SECONDS\n", stderr);
    return 2;
  }
  const Instructions counter;  // before the servers' threads
  std::array<Subject, 4> subjects{Subject{.name = "direct"}, Subject{.name = "bare_rule"}, Subject{.name = "one"},
                                  Subject{.name = "many"}};
  const int counts[] = {kStraight, kBareRule, 1, services};
  for (std::size_t i = 0; i < subjects.size(); ++i) {
    if (auto r = subjects[i].set_up(counts[i]); !r)
      return std::fprintf(stderr, "hawser-proxy-connect: %s\n", r.error().text.c_str()), 1;
  }
  for (int i = 0; i < seconds * kSlices / static_cast<int>(subjects.size()) + 1; ++i) {
    for (auto& s : subjects) {
      if (!s.slice(counter)) return 1;
    }
  }
  boost::json::object out;
  for (auto& s : subjects) out[s.name] = {{"per_second", s.rates}, {"cpu_us", s.cpu}, {"instructions", s.instructions}};
  std::printf("%s\n", boost::json::serialize(out).c_str());
  return 0;
}
