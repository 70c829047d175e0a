// SPDX-License-Identifier: Apache-2.0
// hawser-traffic: one flow between two processes, for benchmarks.
//   hawser-traffic serve                       UDP and TCP sinks and a UDP echo on ports 7001-7003, until killed
//   hawser-traffic udp|tcp|rr ADDRESS SECONDS  one line: packets (or transactions) or bytes a second that arrived, and
//                                              CPU nanoseconds of sender and receiver for each packet or KiB
// The receiver's figures come back over TCP port 7004.
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/unique_fd.h"

namespace {

using hawser::UniqueFd;
using Clock = std::chrono::steady_clock;

constexpr std::uint16_t kUdpPort = 7001, kTcpPort = 7002, kEchoPort = 7003, kReportPort = 7004;
constexpr std::size_t kUdpPayload = 64 - 20 - 8 - 14;  // a 64-byte frame without its check sequence's four bytes
constexpr int kBurst = 32;

std::atomic<std::uint64_t> udp_packets, tcp_bytes;

sockaddr_in at(const char* address, std::uint16_t port) {
  sockaddr_in a{.sin_family = AF_INET};
  const std::array<std::uint8_t, 2> be{static_cast<std::uint8_t>(port >> 8), static_cast<std::uint8_t>(port)};
  std::memcpy(&a.sin_port, be.data(), be.size());
  inet_pton(AF_INET, address, &a.sin_addr);
  return a;
}

UniqueFd bound(int type, std::uint16_t port) {
  UniqueFd fd(socket(AF_INET, type | SOCK_CLOEXEC, 0));
  const int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  auto a = at("0.0.0.0", port);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof a) != 0) std::perror("bind");
  if (type == SOCK_STREAM && listen(fd.get(), 8) != 0) std::perror("listen");
  return fd;
}

UniqueFd connected(int type, const char* address, std::uint16_t port) {
  UniqueFd fd(socket(AF_INET, type | SOCK_CLOEXEC, 0));
  auto a = at(address, port);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof a) != 0) std::perror("connect");
  return fd;
}

double cpu_seconds() {
  rusage u{};
  getrusage(RUSAGE_SELF, &u);
  return static_cast<double>(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
         static_cast<double>(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

void take_udp() {
  auto fd = bound(SOCK_DGRAM, kUdpPort);
  std::array<std::array<char, 64>, kBurst> data{};
  std::array<iovec, kBurst> io{};
  std::array<mmsghdr, kBurst> m{};
  for (std::size_t i = 0; i < io.size(); i++)
    io[i] = {data[i].data(), data[i].size()}, m[i].msg_hdr = {.msg_iov = &io[i], .msg_iovlen = 1};
  for (int n; (n = recvmmsg(fd.get(), m.data(), kBurst, MSG_WAITFORONE, nullptr)) >= 0;)
    udp_packets += static_cast<unsigned>(n);
}

void take_tcp() {
  auto fd = bound(SOCK_STREAM, kTcpPort);
  std::vector<char> data(1 << 18);
  for (;;) {
    UniqueFd c(accept4(fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
    for (ssize_t n; c && (n = read(c.get(), data.data(), data.size())) > 0;) tcp_bytes += static_cast<std::uint64_t>(n);
  }
}

void echo() {
  auto fd = bound(SOCK_DGRAM, kEchoPort);
  std::array<char, 64> data{};
  for (;;) {
    sockaddr_in from{};
    socklen_t len = sizeof from;
    auto n = recvfrom(fd.get(), data.data(), data.size(), 0, reinterpret_cast<sockaddr*>(&from), &len);
    if (n >= 0) sendto(fd.get(), data.data(), static_cast<std::size_t>(n), 0, reinterpret_cast<sockaddr*>(&from), len);
  }
}

int serve() {
  std::vector<std::thread> threads;
  for (auto* work : {take_udp, take_tcp, echo}) threads.emplace_back(work);
  auto fd = bound(SOCK_STREAM, kReportPort);
  for (;;) {
    UniqueFd c(accept4(fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
    std::array<char, 128> text{};
    int n = std::snprintf(text.data(), text.size(), "%llu %llu %.6f\n", static_cast<unsigned long long>(udp_packets),
                          static_cast<unsigned long long>(tcp_bytes), cpu_seconds());
    if (c && write(c.get(), text.data(), static_cast<std::size_t>(n)) != n) std::perror("report");
  }
}

struct Remote {
  unsigned long long packets = 0, bytes = 0;
  double cpu = 0;
};
Remote ask(const char* address) {
  auto fd = connected(SOCK_STREAM, address, kReportPort);
  std::array<char, 128> text{};
  for (std::size_t at = 0; at + 1 < text.size();) {
    auto n = read(fd.get(), text.data() + at, text.size() - 1 - at);
    if (n <= 0) break;
    at += static_cast<std::size_t>(n);
  }
  Remote r;
  std::sscanf(text.data(), "%llu %llu %lf", &r.packets, &r.bytes, &r.cpu);
  return r;
}

void send_udp(const char* address, Clock::time_point end) {
  auto fd = connected(SOCK_DGRAM, address, kUdpPort);
  std::array<char, kUdpPayload> data{};
  iovec io{data.data(), data.size()};
  std::array<mmsghdr, kBurst> m{};
  for (auto& one : m) one.msg_hdr = {.msg_iov = &io, .msg_iovlen = 1};
  while (Clock::now() < end) sendmmsg(fd.get(), m.data(), kBurst, 0);
}

void send_tcp(const char* address, Clock::time_point end) {
  auto fd = connected(SOCK_STREAM, address, kTcpPort);
  std::vector<char> data(1 << 17);
  while (Clock::now() < end && write(fd.get(), data.data(), data.size()) > 0) {
  }
}

unsigned long long ask_and_answer(const char* address, Clock::time_point end) {
  auto fd = connected(SOCK_DGRAM, address, kEchoPort);
  timeval patience{.tv_usec = 200000};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  unsigned long long n = 0;
  char byte = 0;
  while (Clock::now() < end) {
    if (write(fd.get(), &byte, 1) == 1 && read(fd.get(), &byte, 1) == 1) n++;
  }
  return n;
}

int send(const std::string& what, const char* address, double seconds) {
  const auto before = ask(address);
  const double cpu = cpu_seconds();
  const auto begin = Clock::now();
  const auto end = begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  unsigned long long transactions = 0;
  if (what == "udp") send_udp(address, end);
  if (what == "tcp") send_tcp(address, end);
  if (what == "rr") transactions = ask_and_answer(address, end);
  const double took = std::chrono::duration<double>(Clock::now() - begin).count();
  const auto after = ask(address);
  const double units = what == "udp"   ? static_cast<double>(after.packets - before.packets)
                       : what == "tcp" ? static_cast<double>(after.bytes - before.bytes) / 1024
                                       : static_cast<double>(transactions);
  const double used = cpu_seconds() - cpu + after.cpu - before.cpu;
  std::printf("%.1f %.1f\n", units / took, units > 0 ? used / units * 1e9 : 0);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> args(argv + 1, argv + argc);
  if (args.size() == 1 && args[0] == "serve") return serve();
  if (args.size() == 3) return send(args[0], args[1].c_str(), std::stod(args[2]));
  std::fputs("usage: hawser-traffic serve | udp|tcp|rr ADDRESS SECONDS\n", stderr);
  return 2;
}
