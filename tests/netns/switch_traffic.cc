// SPDX-License-Identifier: Apache-2.0
#include "tests/netns/switch_traffic.h"

#include <algorithm>
#include <list>

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "tests/netns/sockets.h"

namespace hawser::proxy {
namespace {

using hawser::testing::Host;

// In an emulated guest on a busy machine an answer may take its time; a lost connection never comes.
constexpr std::chrono::seconds kPatience{30};
constexpr std::chrono::milliseconds kPace{10};

std::string name_of(const std::string& answer) {
  return answer.substr(0, answer.find(' '));
}

}  // namespace

StreamServer::StreamServer(const Host& host, std::uint16_t port)
    : listener_(hawser::testing::listen_in(host, SOCK_STREAM, port)), stop_(eventfd(0, EFD_CLOEXEC)) {
  thread_ = std::thread([this] { serve(); });
}

StreamServer::~StreamServer() {
  eventfd_write(stop_.get(), 1);
  thread_.join();
}

void StreamServer::serve() {
  std::list<UniqueFd> connections;
  for (;;) {
    std::vector<pollfd> fds{{listener_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    for (const auto& c : connections) fds.push_back({c.get(), POLLIN, 0});
    if (::poll(fds.data(), fds.size(), -1) < 0) continue;
    if (fds[1].revents != 0) return;
    std::size_t i = 2;
    for (auto it = connections.begin(); it != connections.end(); ++i) {
      char buf[64];
      const ssize_t n = fds[i].revents != 0 ? ::recv(it->get(), buf, sizeof buf, 0) : 1;
      if (fds[i].revents != 0 && n > 0) (void)!::send(it->get(), buf, static_cast<std::size_t>(n), MSG_NOSIGNAL);
      it = n <= 0 ? connections.erase(it) : std::next(it);
    }
    if (fds[0].revents != 0) {
      UniqueFd c(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (c) connections.push_back(std::move(c));
    }
  }
}

void SwitchTraffic::add(std::string what, std::function<Result<>()> once) {
  auto flow = std::make_unique<Flow>();
  flow->what = std::move(what);
  flow->thread = std::thread([this, f = flow.get(), once = std::move(once)] {
    while (!stopping_) {
      auto r = once();
      if (!r) {
        std::lock_guard l(mu_);
        failures_.push_back(fmt::format("{} after {} times: {}", f->what, f->done.load(), r.error().text));
        return;
      }
      ++f->done;
      // An emulated guest has to have time for the switch as well.
      std::unique_lock l(mu_);
      pace_.wait_for(l, kPace, [this] { return stopping_.load(); });
    }
  });
  flows_.push_back(std::move(flow));
}

void SwitchTraffic::add_short(const Host& from, const std::string& addr, std::uint16_t port) {
  add(fmt::format("short to {}:{}", addr, port), [&from, addr, port]() -> Result<> {
    auto r = ask(from, addr, port, kPatience);
    return r ? Result<>{} : propagate(r);
  });
}

void SwitchTraffic::add_sticky(const Host& from, const std::string& addr, std::uint16_t port) {
  add(fmt::format("sticky to {}:{}", addr, port), [&from, addr, port, first = std::string()]() mutable -> Result<> {
    auto r = ask(from, addr, port, kPatience);
    if (!r) return propagate(r);
    const auto name = name_of(*r);
    if (first.empty()) first = name;
    return name == first ? Result<>{} : fail(EIO, "went to {}, then to {}", first, name);
  });
}

void SwitchTraffic::add_long(const Host& from, const std::string& addr, std::uint16_t port) {
  auto fd = std::make_shared<UniqueFd>(hawser::testing::socket_in(from, SOCK_STREAM));
  const auto to = hawser::testing::v4(addr.c_str(), port);
  ASSERT_EQ(::connect(fd->get(), reinterpret_cast<const sockaddr*>(&to), sizeof to), 0) << strerror(errno);
  add(fmt::format("long to {}:{}", addr, port), [fd]() -> Result<> {
    char c = 0;
    if (::send(fd->get(), "x", 1, MSG_NOSIGNAL) != 1) return fail_errno(errno, "send");
    if (!hawser::testing::readable(*fd, static_cast<int>(std::chrono::milliseconds(kPatience).count())))
      return fail(ETIMEDOUT, "no answer");
    if (::recv(fd->get(), &c, 1, 0) != 1) return fail_errno(errno, "receive");
    return {};
  });
}

void SwitchTraffic::add_udp(const Host& from, const std::string& addr, std::uint16_t port) {
  auto client = std::make_shared<UdpClient>(from, addr, port);
  add(fmt::format("UDP to {}:{}", addr, port), [client, first = std::string()]() mutable -> Result<> {
    auto r = client->ask(kPatience);
    if (!r) return propagate(r);
    const auto name = name_of(*r);
    if (first.empty()) first = name;
    return name == first ? Result<>{} : fail(EIO, "answered by {}, then by {}", first, name);
  });
}

bool SwitchTraffic::go_on(int times) {
  std::vector<int> goal;
  for (const auto& f : flows_) goal.push_back(f->done + times);
  const bool all = eventually(
      [&] {
        std::lock_guard l(mu_);
        if (!failures_.empty()) return true;
        for (std::size_t i = 0; i < flows_.size(); ++i)
          if (flows_[i]->done < goal[i]) return false;
        return true;
      },
      std::chrono::minutes(2));
  std::lock_guard l(mu_);
  return all && failures_.empty();
}

void SwitchTraffic::stop() {
  stopping_ = true;
  pace_.notify_all();
  for (auto& f : flows_)
    if (f->thread.joinable()) f->thread.join();
}

std::string SwitchTraffic::failures() const {
  std::lock_guard l(mu_);
  return fmt::format("{}", fmt::join(failures_, "\n"));
}

std::string SwitchTraffic::summary() const {
  std::string out;
  for (const auto& f : flows_) out += fmt::format("{}: {} times\n", f->what, f->done.load());
  return out;
}

}  // namespace hawser::proxy
