// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/probe.h"

#include <array>
#include <cstring>

#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cni-plugin/overlayd/socket_address.h"
#include "lib/base/log.h"

namespace hawser::overlay {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

constexpr std::size_t kEchoHeaderBytes = 8;  // of ICMP and ICMPv6 alike
constexpr std::size_t kSmallPayloadBytes = 8;
// However many peers there are, no more echoes a second than this.
constexpr std::chrono::milliseconds kPerPeer{2};

std::size_t ip_header_bytes(int family) {
  return family == AF_INET ? sizeof(iphdr) : 40;
}

std::uint16_t internet_checksum(std::span<const std::uint8_t> bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); i++) sum += static_cast<std::uint32_t>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

// An echo request of `payload` zero bytes. The kernel fills in ICMPv6's checksum itself.
std::vector<std::uint8_t> echo_request(int family, std::uint16_t id, std::uint16_t sequence, std::size_t payload) {
  std::vector<std::uint8_t> p(kEchoHeaderBytes + payload);
  p[0] = family == AF_INET ? ICMP_ECHO : ICMP6_ECHO_REQUEST;
  p[4] = static_cast<std::uint8_t>(id >> 8), p[5] = static_cast<std::uint8_t>(id);
  p[6] = static_cast<std::uint8_t>(sequence >> 8), p[7] = static_cast<std::uint8_t>(sequence);
  if (family == AF_INET) {
    const auto sum = internet_checksum(p);
    p[2] = static_cast<std::uint8_t>(sum >> 8), p[3] = static_cast<std::uint8_t>(sum);
  }
  return p;
}

// A raw socket whose packets carry "do not fragment" whatever the kernel believes about the path's MTU.
Result<UniqueFd> open_socket(int family) {
  const bool v4 = family == AF_INET;
  UniqueFd fd(socket(family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
                     v4 ? static_cast<int>(IPPROTO_ICMP) : static_cast<int>(IPPROTO_ICMPV6)));
  if (!fd) return fail_errno(errno, "probe socket");
  const int probe = v4 ? IP_PMTUDISC_PROBE : IPV6_PMTUDISC_PROBE;
  if (setsockopt(fd.get(), v4 ? static_cast<int>(IPPROTO_IP) : static_cast<int>(IPPROTO_IPV6),
                 v4 ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER, &probe, sizeof probe) != 0)
    return fail_errno(errno, "probe socket");
  return fd;
}

}  // namespace

const char* state_name(PathState state) {
  switch (state) {
    case PathState::kUnknown:
      return "unknown";
    case PathState::kWorks:
      return "works";
    case PathState::kMtuBlackHole:
      return "mtu_black_hole";
    case PathState::kOneWay:
      return "one_way";
    case PathState::kUnreachable:
      return "unreachable";
    case PathState::kWrongChecksum:
      return "wrong_checksum";
  }
  return "";
}

PathState judge(const ProbeSeen& seen) {
  if (seen.small_back && !seen.full_back) return PathState::kMtuBlackHole;
  if (seen.small_back)
    return seen.computed_back && !seen.offloaded_back ? PathState::kWrongChecksum : PathState::kWorks;
  return seen.heard ? PathState::kOneWay : PathState::kUnreachable;
}

std::string path_text(PathState state, const ProbeTarget& t) {
  switch (state) {
    case PathState::kUnknown:
      return "not probed yet";
    case PathState::kWorks:
      return "works";
    case PathState::kMtuBlackHole:
      return fmt::format(
          "small packets to {} pass, packets of {} bytes do not: the underlay's MTU is smaller than its"
          " link says",
          t.node, t.mtu);
    case PathState::kOneWay:
      return fmt::format("packets of {} reach us, ours to it are lost: look for a filter in that direction", t.node);
    case PathState::kUnreachable:
      return fmt::format("nothing passes to or from {}", t.node);
    case PathState::kWrongChecksum:
      return fmt::format(
          "packets to {} are lost if their checksum is left to the network device, others pass: its checksum offload "
          "for "
          "tunnels is faulty",
          t.node);
  }
  return {};
}

Prober::Prober(ProberOptions options, Targets targets, OnReport on_report, metrics::Registry& registry)
    : options_(options),
      targets_(std::move(targets)),
      on_report_(std::move(on_report)),
      paths_(registry.gauge("hawser_overlay_peer_paths",
                            "Peers by what small and MTU-sized packets through the tunnel to them showed.",
                            {"state"})) {}

Result<> Prober::start() {
  auto v4 = open_socket(AF_INET);
  if (!v4) return propagate(v4);
  auto v6 = open_socket(AF_INET6);
  if (!v6 && v6.error().code != EAFNOSUPPORT) return propagate(v6);
  for (auto& [family, probe] : {std::pair{AF_INET, &checksum4_}, std::pair{AF_INET6, &checksum6_}}) {
    auto opened = ChecksumProbe::open(family);
    if (opened)
      *probe = std::move(*opened);
    else if (opened.error().code != EAFNOSUPPORT)
      return propagate(opened);
  }
  v4_ = std::move(*v4);
  if (v6) v6_ = std::move(*v6);
  stop_ = UniqueFd(eventfd(0, EFD_CLOEXEC));
  id_ = static_cast<std::uint16_t>(getpid() ^ (reinterpret_cast<std::uintptr_t>(this) >> 6));
  thread_ = std::thread([this] { loop(); });
  return {};
}

void Prober::stop() {
  if (!thread_.joinable()) return;
  const std::uint64_t one = 1;
  if (write(stop_.get(), &one, sizeof one) < 0) log::error("stop: {}", strerror(errno));
  thread_.join();
}

void Prober::loop() {
  while (one_round()) {
  }
}

bool Prober::one_round() {
  const auto begin = std::chrono::steady_clock::now();
  Round round;
  for (auto& t : targets_()) round.sent[t.address].target = t;
  send_all(round);
  if (!wait_until(round, begin + options_.answer_within)) return false;
  conclude(round);
  return wait_until(round,
                    begin + std::max<std::chrono::milliseconds>(options_.interval, kPerPeer * round.sent.size()));
}

void Prober::send_all(Round& round) {
  for (auto& [address, s] : round.sent) {
    const int family = address.family();
    const int fd = family == AF_INET ? v4_.get() : v6_.get();
    const auto full = static_cast<std::size_t>(s.target.mtu) - ip_header_bytes(family) - kEchoHeaderBytes;
    const auto to = socket_address(address);
    s.at = std::chrono::steady_clock::now();
    s.small = ++sequence_, s.full = ++sequence_;
    for (auto [sequence, payload] : {std::pair{s.small, kSmallPayloadBytes}, std::pair{s.full, full}}) {
      const auto packet = echo_request(family, id_, sequence, payload);
      // What cannot be sent is not answered either, and shows as such.
      if (sendto(fd, packet.data(), packet.size(), 0, reinterpret_cast<const sockaddr*>(&to.storage), to.length) < 0)
        log::debug("probe {}: {}", address, strerror(errno));
    }
    if (s.target.offload_device.empty()) continue;
    s.checksum = ++sequence_;
    (family == AF_INET ? checksum4_ : checksum6_).send(address, s.checksum);
  }
}

void Prober::receive(Round& round, int family) {
  const bool v4 = family == AF_INET;
  std::array<std::uint8_t, 128> head{};  // of the packet; the rest is not looked at
  for (;;) {
    sockaddr_storage from{};
    socklen_t length = sizeof from;
    auto n =
        recvfrom(v4 ? v4_.get() : v6_.get(), head.data(), head.size(), 0, reinterpret_cast<sockaddr*>(&from), &length);
    if (n < 0) return;
    // IPv4 gives its header too.
    const std::size_t skip = v4 ? static_cast<std::size_t>(head[0] & 15) * 4 : 0;
    if (static_cast<std::size_t>(n) < skip + kEchoHeaderBytes) continue;
    auto it = round.sent.find(address_of(from));
    if (it == round.sent.end()) continue;
    const std::uint8_t* p = head.data() + skip;
    auto& s = it->second;
    if (p[0] == (v4 ? ICMP_ECHO : ICMP6_ECHO_REQUEST)) heard_.insert(it->first);
    if (p[0] != (v4 ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY) || (p[4] << 8 | p[5]) != id_) continue;
    const auto sequence = static_cast<std::uint16_t>(p[6] << 8 | p[7]);
    if (sequence == s.full) s.seen.full_back = true;
    if (sequence != s.small || s.seen.small_back) continue;
    s.seen.small_back = true;
    s.round_trip = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - s.at);
  }
}

void Prober::receive_refusals(Round& round, const ChecksumProbe& probe) {
  while (auto answer = probe.next_answer()) {
    auto it = round.sent.find(answer->from);
    if (it == round.sent.end() || it->second.checksum != answer->sequence) continue;
    auto& seen = it->second.seen;
    (answer->offloaded ? seen.offloaded_back : seen.computed_back) = true;
  }
}

bool Prober::wait_until(Round& round, SteadyTime deadline) {
  for (;;) {
    auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    if (left <= 0) return true;
    std::array<pollfd, 5> p{pollfd{stop_.get(), POLLIN, 0}, pollfd{v4_.get(), POLLIN, 0}, pollfd{v6_.get(), POLLIN, 0},
                            pollfd{checksum4_.fd(), 0, 0}, pollfd{checksum6_.fd(), 0, 0}};
    if (poll(p.data(), p.size(), static_cast<int>(left)) < 0 && errno != EINTR) return false;
    if (p[0].revents != 0) return false;
    if (p[1].revents != 0) receive(round, AF_INET);
    if (p[2].revents != 0) receive(round, AF_INET6);
    if (p[3].revents != 0) receive_refusals(round, checksum4_);
    if (p[4].revents != 0) receive_refusals(round, checksum6_);
  }
}

PathReport Prober::next_report(const Sent& s, const PathReport& before) const {
  PathReport r = before;
  r.target = s.target;
  auto seen = s.seen;
  seen.heard = heard_.contains(s.target.address);
  const auto state = judge(seen);
  r.bad_rounds = state == PathState::kWorks ? 0 : r.bad_rounds + 1;
  r.checksum_rounds = state == PathState::kWrongChecksum ? r.checksum_rounds + 1 : 0;
  if (state == PathState::kWorks) r.round_trip = s.round_trip;
  if (state != PathState::kWorks && r.bad_rounds < options_.rounds_to_fault) return r;
  if (state == PathState::kWrongChecksum && r.checksum_rounds < options_.rounds_to_fault) return r;
  if (state != r.state && (r.state != PathState::kUnknown || state != PathState::kWorks))
    log::warn("path to {} ({}): {}", s.target.node, s.target.address, path_text(state, s.target));
  r.state = state;
  return r;
}

void Prober::conclude(const Round& round) {
  std::map<IpAddr, PathReport> next;
  std::map<PathState, int> count;
  std::vector<PathReport> faults;
  for (const auto& [address, s] : round.sent) {
    auto old = reports_.find(address);  // written by this thread only
    auto& r = next[address] = next_report(s, old == reports_.end() ? PathReport{} : old->second);
    count[r.state]++;
    if (r.state != PathState::kWorks && r.state != PathState::kUnknown) faults.push_back(r);
  }
  heard_.clear();
  {
    std::lock_guard l(mu_);
    reports_.swap(next);
  }
  for (auto state : {PathState::kUnknown, PathState::kWorks, PathState::kMtuBlackHole, PathState::kOneWay,
                     PathState::kUnreachable, PathState::kWrongChecksum})
    paths_.with({state_name(state)}).set(count[state]);
  on_report_(faults, round.sent.size());
}

std::vector<std::string> Prober::lines() const {
  std::lock_guard l(mu_);
  std::vector<std::string> out;
  for (const auto& [address, r] : reports_) {
    auto rtt = r.state == PathState::kWorks
                   ? fmt::format(", {:.2f} ms", static_cast<double>(r.round_trip.count()) / 1000)
                   : std::string();
    out.push_back(fmt::format("{} {}: {}{}", r.target.node, address, path_text(r.state, r.target), rtt));
  }
  return out;
}

}  // namespace hawser::overlay
