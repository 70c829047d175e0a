// SPDX-License-Identifier: Apache-2.0
#include "tests/churn/traffic.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <random>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

namespace hawser::churn {
namespace {

using namespace std::chrono_literals;

constexpr auto kPatience = 10s;  // for TCP, which sends again what was lost
constexpr Nanos kUdpPatience = 5s;
constexpr Nanos kUdpPeriod = 10ms;  // of one flow
constexpr int kFlowsOfService = 4;
constexpr Nanos kPingPeriod = 5ms;  // of all lasting connections together
constexpr std::size_t kLasting = 20;
constexpr int kPingsOfConnection = 200;

MonoTime now() {
  return system_clock().now();
}

UniqueFd socket_to(const Service& s, int type) {
  UniqueFd fd(socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_in a{.sin_family = AF_INET, .sin_port = htons(s.port()), .sin_addr = {}, .sin_zero = {}};
  inet_pton(AF_INET, s.address().c_str(), &a.sin_addr);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof a) != 0 && errno != EINPROGRESS) fd.reset();
  return fd;
}

// Exactly `n` bytes; the error says what came instead.
Result<> receive(int fd, char* to, std::size_t n) {
  const auto deadline = now() + kPatience;
  for (std::size_t got = 0; got < n;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - now());
    pollfd p{fd, POLLIN, 0};
    if (left <= 0ms || poll(&p, 1, static_cast<int>(left.count())) != 1) return fail(ETIMEDOUT, "no answer");
    const ssize_t r = recv(fd, to + got, n - got, 0);
    if (r == 0) return fail(EPIPE, "closed before the answer");
    if (r < 0) return fail_errno(errno, "connection");
    got += static_cast<std::size_t>(r);
  }
  return {};
}

Result<IpAddr> endpoint_of(int fd) {
  std::array<char, 4> text{};
  if (auto r = receive(fd, text.data(), text.size()); !r) return propagate(r);
  std::array<std::uint8_t, 4> bytes{};
  std::memcpy(bytes.data(), text.data(), bytes.size());
  return *IpAddr::from_bytes(bytes);
}

// A flow of datagrams from one socket.
struct Flow {
  struct Sent {
    MonoTime at;
    IpAddr last;
    int lost_before;  // so many before it had no answer then
  };
  Service service;
  UniqueFd fd;
  std::uint64_t next = 0;
  IpAddr last{};
  std::map<std::uint64_t, Sent> open{};  // not answered

  void ask() {
    const std::uint64_t token = next++;
    open[token] = {now(), last, static_cast<int>(open.size())};
    (void)!send(fd.get(), &token, sizeof token, 0);
  }
  void take_answers(Ledger& ledger) {
    std::array<std::uint8_t, 12> data{};
    for (ssize_t n = 0; (n = recv(fd.get(), data.data(), data.size(), 0)) != -1 || errno != EAGAIN;) {
      if (n != static_cast<ssize_t>(data.size())) {
        ledger.failed(service.number, n < 0 ? std::strerror(errno) : "a strange datagram", now());
        return;
      }
      std::uint64_t token = 0;
      std::memcpy(&token, data.data(), sizeof token);
      const auto it = open.find(token);
      if (it == open.end()) continue;
      last = *IpAddr::from_bytes(std::span(data).subspan(sizeof token));
      ledger.answered(service.number, last, it->second.at);
      open.erase(it);
    }
  }
  void give_up(Ledger& ledger, MonoTime before) {
    while (!open.empty() && open.begin()->second.at < before) {
      const Sent& s = open.begin()->second;
      ledger.unanswered(service.number, s.last, s.at, s.lost_before);
      open.erase(open.begin());
    }
  }
};

}  // namespace

std::string Service::name() const {
  return fmt::format("{}-{}", udp ? "udp" : "tcp", number);
}
std::string Service::address() const {
  return IpAddr::v4(0x0a600100u + static_cast<std::uint32_t>(number)).text();  // 10.96.1.0
}

Traffic::Traffic(const Net& net, Ledger& ledger, std::vector<Service> services, int rate)
    : net_(net), ledger_(ledger), services_(std::move(services)), stop_(eventfd(0, EFD_CLOEXEC)) {
  const auto in = [](const NetNs& where, const std::function<void()>& work) {
    return std::thread([&where, work] {
      auto inside = NetNsGuard::enter(where);
      if (inside) work();
    });
  };
  threads_.push_back(in(net_.client(), [this, rate] { connect_often(net_.client(), rate, 1); }));
  threads_.push_back(in(net_.node(), [this, rate] { connect_often(net_.node(), rate, 2); }));
  threads_.push_back(in(net_.client(), [this] { keep_connections(net_.client()); }));
  threads_.push_back(in(net_.client(), [this] { send_datagrams(net_.client()); }));
}

Traffic::~Traffic() {
  stop();
}

void Traffic::stop() {
  eventfd_write(stop_.get(), 1);
  for (auto& t : threads_) t.join();
  threads_.clear();
}

bool Traffic::stopped(MonoTime until) const {
  const Nanos left = std::max<Nanos>(until - now(), 0ns);
  const timespec time{.tv_sec = static_cast<time_t>(left / 1s), .tv_nsec = (left % 1s).count()};
  pollfd p{stop_.get(), POLLIN, 0};
  return ppoll(&p, 1, &time, nullptr) == 1;
}

void Traffic::connect_often(const NetNs&, int rate, unsigned seed) {
  std::vector<Service> tcp;
  std::ranges::copy_if(services_, std::back_inserter(tcp), [](const Service& s) { return !s.udp; });
  std::mt19937 random(seed);
  const Nanos period = Nanos(1s) / rate;
  for (MonoTime next = now(); !stopped(next); next = std::max(next + period, now())) {
    const Service& s = tcp[random() % tcp.size()];
    const MonoTime asked = now();
    const UniqueFd fd = socket_to(s, SOCK_STREAM);
    auto endpoint = fd ? endpoint_of(fd.get()) : fail_errno(errno, "connect");
    if (endpoint)
      ledger_.answered(s.number, *endpoint, asked);
    else
      ledger_.failed(s.number, endpoint.error().text, asked);
    // A reset leaves nothing behind that would wait for a minute.
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  }
}

void Traffic::keep_connections(const NetNs&) {
  struct Lasting {
    UniqueFd fd;
    Service service;
    int pings = 0;
  };
  std::vector<Lasting> all(kLasting);
  std::mt19937 random(3);
  std::size_t i = 0;
  for (MonoTime next = now(); !stopped(next); next = std::max(next + kPingPeriod, now())) {
    Lasting& c = all[i++ % all.size()];
    if (!c.fd || c.pings == kPingsOfConnection) {
      c = {.fd = {}, .service = services_[random() % services_.size()], .pings = 0};
      if (c.service.udp) continue;
      const MonoTime asked = now();
      c.fd = socket_to(c.service, SOCK_STREAM);
      auto endpoint = c.fd ? endpoint_of(c.fd.get()) : fail_errno(errno, "connect");
      if (endpoint) {
        ledger_.answered(c.service.number, *endpoint, asked);
      } else {
        ledger_.failed(c.service.number, endpoint.error().text, asked);
        c.fd.reset();
      }
      continue;
    }
    char byte = 'x';
    const MonoTime asked = now();
    const bool sent = send(c.fd.get(), &byte, 1, MSG_NOSIGNAL) == 1;
    auto r = sent ? receive(c.fd.get(), &byte, 1) : fail_errno(errno, "send");
    ++c.pings;
    if (r) continue;
    ledger_.failed(c.service.number, "a lasting connection broke: " + r.error().text, asked);
    c.fd.reset();
  }
}

void Traffic::send_datagrams(const NetNs&) {
  std::vector<Flow> flows;
  for (const Service& s : services_) {
    for (int i = 0; s.udp && i < kFlowsOfService; ++i) flows.push_back({s, socket_to(s, SOCK_DGRAM)});
  }
  if (flows.empty()) return;
  const Nanos period = kUdpPeriod / flows.size();
  std::size_t i = 0;
  for (MonoTime next = now(); !stopped(next); next = std::max(next + period, now())) {
    Flow& f = flows[i++ % flows.size()];
    f.take_answers(ledger_);
    f.give_up(ledger_, now() - kUdpPatience);
    f.ask();
  }
  const MonoTime end = now() + kUdpPatience;
  while (now() < end && std::ranges::any_of(flows, [](const Flow& f) { return !f.open.empty(); })) {
    for (Flow& f : flows) f.take_answers(ledger_);
    pollfd p{flows.front().fd.get(), POLLIN, 0};
    poll(&p, 1, 5);
  }
  for (Flow& f : flows) f.give_up(ledger_, MonoTime::max());
}

}  // namespace hawser::churn
