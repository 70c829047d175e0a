// SPDX-License-Identifier: Apache-2.0
// Conntrack: the kernel's table of flows, as far as stale UDP flows need it: those of Services (proxyd) and those of
// host ports (cni-plugin). KernelConntrack speaks ctnetlink (nfnetlink_conntrack.h, Linux 5.8 for the filtered dump);
// tests use FakeConntrack. One thread at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "lib/base/ip.h"
#include "lib/netlink/socket.h"

namespace hawser::netlink {

// One end of a flow.
struct FlowEnd {
  IpAddr addr;
  std::uint16_t port = 0;
  auto operator<=>(const FlowEnd&) const = default;
};

// One entry. `source` and `destination` are the packet's as the client sent it; `answers_from` is where the answers
// really come from, which differs from `destination` when the flow is translated.
struct Flow {
  std::uint8_t protocol = 0;
  FlowEnd source, destination, answers_from;
  std::uint32_t id = 0;  // tells this entry from a later one with the same addresses
  std::uint16_t zone = 0;
  auto operator<=>(const Flow&) const = default;
};

class Conntrack {
 public:
  virtual ~Conntrack() = default;
  // Flows of `family` (AF_INET, AF_INET6) and `protocol`.
  virtual Result<std::vector<Flow>> list(int family, std::uint8_t protocol) = 0;
  // This very entry; one that is gone is success.
  virtual Result<> remove(const Flow& f) = 0;
};

class KernelConntrack final : public Conntrack {
 public:
  // In the calling thread's network namespace.
  static Result<KernelConntrack> open();
  Result<std::vector<Flow>> list(int family, std::uint8_t protocol) override;
  Result<> remove(const Flow& f) override;

 private:
  explicit KernelConntrack(Socket s) : socket_(std::move(s)) {}
  Socket socket_;
};

class FakeConntrack final : public Conntrack {
 public:
  std::vector<Flow> flows;
  int lists = 0;
  Result<std::vector<Flow>> list(int family, std::uint8_t protocol) override {
    lists++;
    std::vector<Flow> out;
    for (const auto& f : flows) {
      if (f.protocol == protocol && f.destination.addr.family() == family) out.push_back(f);
    }
    return out;
  }
  Result<> remove(const Flow& f) override {
    std::erase(flows, f);
    return {};
  }
};

}  // namespace hawser::netlink
