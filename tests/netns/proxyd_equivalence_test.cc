// SPDX-License-Identifier: Apache-2.0
// The kernel against the model: made-up Services are served by proxyd, and connections from a pod, the node and outside
// must get what the oracle says. The tracer does the same with many more connections and no kernel.
#include <algorithm>
#include <array>
#include <random>

#include <netinet/in.h>

#include "proxyd/nft/oracle.h"
#include "tests/netns/proxyd_fixture.h"

namespace hawser::proxy {
namespace {

constexpr auto kShort = std::chrono::milliseconds(150);

class KernelEquivalenceTest : public ProxydTest {
 protected:
  static bool is_local(const IpAddr& a) {
    return a.text() == "192.0.2.11" || a.text() == "2001:db8::11" || a.text() == "127.0.0.1" || a.text() == "::1";
  }

  // `round` makes sure that it is not the one before.
  ServiceSpec random_spec(int n, int round) {
    ServiceSpec s{
        .name = fmt::format("s{}", n),
        .cluster_ips = {fmt::format("10.96.0.{}", 10 + n), fmt::format("fd00:96::{}", 10 + n)},
        .external_ips = {fmt::format("203.0.113.{}", 10 + n), fmt::format("203.0.113.{}", 200 + 10 * round + n)},
        .node_port = 30080 + n,
        .protocol = one_in(3) ? "UDP" : "TCP",
        .external_local = one_in(3),
        .internal_local = one_in(4)};
    if (one_in(2)) s.load_balancer_ips = {fmt::format("203.0.113.{}", 110 + n), fmt::format("2001:db8:1::{}", 10 + n)};
    if (one_in(2)) s.source_ranges = {one_in(2) ? "192.0.2.0/24" : "10.244.0.0/16", "fd00::/16"};
    return s;
  }

  // Those that answer; none is weighted, so that the target does not matter here.
  std::vector<EndpointSpec> random_endpoints(bool v4) {
    std::vector<EndpointSpec> r;
    constexpr std::array kV4{"10.244.1.2", "10.244.1.3", "10.244.2.2"};
    constexpr std::array kV6{"fd00:1::2", "fd00:1::3", "fd00:2::2"};
    for (const char* addr : v4 ? kV4 : kV6) {
      if (one_in(2)) continue;
      const bool far = std::string_view(addr).starts_with("10.244.2") || std::string_view(addr).starts_with("fd00:2");
      const bool ready = !one_in(3);
      r.push_back({.addr = addr,
                   .node = far ? "node-2" : "node-1",
                   .ready = ready,
                   .serving = ready || one_in(2),
                   .terminating = !ready});
    }
    return r;
  }

  // The state that proxyd has, from the same objects.
  DesiredStatePtr model() {
    Tracker t({.name = "node-1", .zone = {}}, [](const std::string&) {});
    for (const auto& [kind, fold] :
         {std::pair{kube::kServices, &Tracker::on_service}, std::pair{kube::kEndpointSlices, &Tracker::on_slice}}) {
      auto list = net_->api.list(kind, {});
      EXPECT_TRUE(list);
      for (const auto& o : list->items) (t.*fold)(nullptr, o);
    }
    return t.take().state;
  }

  struct From {
    const char *host, *v4, *v6, *interface;
  };

  void check(const DesiredState& state, const From& from, const Frontend& f) {
    Packet p{.source = *IpAddr::parse(f.family == AF_INET ? from.v4 : from.v6),
             .destination = f.addr,
             .protocol = f.protocol,
             .destination_port = f.port,
             .interface = from.interface};
    if (f.is_node_port()) p.destination = *IpAddr::parse(f.family == AF_INET ? "192.0.2.11" : "2001:db8::11");
    const Expected want = expected(state, options_, p, is_local);
    const std::string to = p.destination.text();
    // An answer has time; only silence is not waited for.
    const auto limit = want.end == Trace::End::kDrop ? kShort : std::chrono::milliseconds(5000);
    auto got = f.protocol == IPPROTO_TCP ? ask(host(from.host), to, p.destination_port, limit)
                                         : UdpClient(host(from.host), to, p.destination_port).ask(limit);
    const std::string what =
        fmt::format("{} to {} port {} proto {}: {}", from.host, to, f.port, f.protocol, got ? *got : got.error().text);
    ++checked_;
    if (want.end == Trace::End::kDrop) {
      // What a host's own firewall drops fails at once, by UDP.
      EXPECT_TRUE(error_code(got) == ETIMEDOUT || error_code(got) == EPERM) << what;
    } else if (want.end != Trace::End::kTranslated || want.targets[0].port == 1) {
      EXPECT_EQ(error_code(got), ECONNREFUSED) << what;
    } else {
      ASSERT_TRUE(got) << what << list_table();
      const std::string name = got->substr(0, got->find(' '));
      const std::map<std::string, std::string> pods = {{"10.244.1.2", "a"},      {"10.244.1.3", "b"},
                                                       {"10.244.2.2", "remote"}, {"fd00:1::2", "a"},
                                                       {"fd00:1::3", "b"},       {"fd00:2::2", "remote"}};
      EXPECT_TRUE(std::ranges::any_of(want.targets, [&](const Target& t) { return pods.at(t.addr.text()) == name; }))
          << what;
      EXPECT_EQ(got->substr(got->find(' ') + 1) == p.source.text(), !want.masquerade || from_here(from)) << what;
    }
  }
  // A masquerade may well give a node's own packet the source that it had; only others can be told.
  static bool from_here(const From& f) { return *f.interface == 0; }

  bool one_in(unsigned n) { return random_() % n == 0; }
  std::mt19937 random_{20261121};
  int checked_ = 0;
};

TEST_F(KernelEquivalenceTest, ConnectionsGetWhatTheModelSays) {
  ASSERT_TRUE(
      host("outside").ok("ip route add 203.0.113.0/24 via 192.0.2.11; ip route add 10.96.0.0/16 via 192.0.2.11;"
                         "ip -6 route add 2001:db8:1::/64 via 2001:db8::11;"
                         "ip -6 route add fd00:96::/64 via 2001:db8::11"));
  // Refusals are many here, and the kernel would send one a second.
  ASSERT_TRUE(host("node").ok("sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0"));
  const From from[] = {{"client", "10.244.1.9", "fd00:1::9", "vclient"},
                       {"outside", "192.0.2.100", "2001:db8::100", "eth0"}};
  for (int round = 0; round < 4; ++round) {
    for (int n = 0; n < 5; ++n) {
      const ServiceSpec s = random_spec(n, round);
      apply(s, random_endpoints(true));
      if (auto six = random_endpoints(false); !six.empty()) apply(s, six);
    }
    const auto state = model();
    for (const auto& s : state->services) {
      for (const Frontend& f : s->frontends) {
        for (const From& who : from) ASSERT_NO_FATAL_FAILURE(check(*state, who, f));
      }
    }
  }
  EXPECT_GT(checked_, 200);
}

}  // namespace
}  // namespace hawser::proxy
