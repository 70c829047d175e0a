// SPDX-License-Identifier: Apache-2.0
// The planned table against the model: made-up clusters, changed step by step as the daemon would, and made-up
// connections run through the table by the tracer. What a connection gets must be what the model says.
#include <algorithm>
#include <map>
#include <set>

#include <gtest/gtest.h>
#include <netinet/in.h>

#include "proxyd/nft/nft_backend.h"
#include "proxyd/nft/oracle.h"

namespace hawser::proxy {
namespace {

constexpr int kClusters = 40, kSteps = 5, kFlowsPerStep = 600;

bool is_local(const IpAddr& a) {
  static const std::set<std::string> kAddresses = {"192.0.2.11", "2001:db8::11", "198.51.100.11", "127.0.0.1", "::1"};
  return kAddresses.contains(a.text());
}

const char* word(Trace::End e) {
  static constexpr const char* kWords[] = {"pass", "translated", "redirected", "drop", "reset", "reject"};
  return kWords[static_cast<std::size_t>(e)];
}

std::string describe(const Packet& p, const Trace& t, const Expected& want) {
  std::string r =
      fmt::format("{} > {} proto {} port {} by \"{}\": {} to {}{}, expected {}{}, one of", p.source, p.destination,
                  p.protocol, p.destination_port, p.interface, word(t.end), t.target ? t.target->addr.text() : "-",
                  t.masquerade ? " masqueraded" : "", word(want.end), want.masquerade ? " masqueraded" : "");
  for (const Target& x : want.targets) r += fmt::format(" {}:{}", x.addr, x.port);
  for (const auto& s : t.steps) r += "\n  " + s;
  return r;
}

// A cluster, an NftBackend on a model of the kernel, and what was made of them.
class Cluster {
 public:
  explicit Cluster(unsigned seed) : cluster_(seed), backend_(fake_, options_) {}

  void change() {
    state_ = cluster_.next();
    auto r = backend_.apply(state_);
    ASSERT_TRUE(r) << r.error().text;
  }

  void check_flow(std::map<Trace::End, int>& seen) {
    const Packet p = random_packet(random_, *state_);
    const Expected want = expected(*state_, options_, p, is_local);
    const Trace t = run(p, random_());
    ++seen[want.end];
    ASSERT_EQ(t.end, want.end) << describe(p, t, want);
    if (want.end != Trace::End::kTranslated) return;
    ASSERT_TRUE(t.target && std::ranges::binary_search(want.targets, *t.target)) << describe(p, t, want);
    // Only what leaves this host is masqueraded.
    const bool leaves = !is_local(t.target->addr);
    const bool masquerade = leaves && (want.masquerade || is_hairpin(*state_, p.source, t.target->addr));
    ASSERT_TRUE(!leaves || t.mark == 0) << describe(p, t, want);
    ASSERT_EQ(t.masquerade, masquerade) << describe(p, t, want);
  }

  // Each draw of the random number chooses a target as often as the model has it.
  void check_shares() {
    const Packet p = random_packet(random_, *state_);
    const Expected want = expected(*state_, options_, p, is_local);
    if (want.end != Trace::End::kTranslated) return;
    std::vector<Target> chosen;
    for (std::uint32_t n = 0; n < want.targets.size(); ++n) {
      const Trace t = run(p, n);
      ASSERT_TRUE(t.target);
      chosen.push_back(*t.target);
    }
    std::ranges::sort(chosen);
    ASSERT_EQ(chosen, want.targets) << describe(p, run(p, 0), want);
  }

 private:
  Trace run(const Packet& p, std::uint32_t draw) {
    return trace({fake_.tables().at({kTableFamily, kTable}), is_local, draw}, p);
  }

  RandomCluster cluster_;
  std::mt19937& random_ = cluster_.random;
  const TrafficOptions& options_ = cluster_.options;
  nft::FakeNft fake_;
  NftBackend backend_;
  DesiredStatePtr state_;
};

TEST(Equivalence, TheTableDoesWhatTheModelSays) {
  std::map<Trace::End, int> seen;
  for (unsigned seed = 0; seed < kClusters; ++seed) {
    Cluster c(seed);
    for (int step = 0; step < kSteps; ++step) {
      SCOPED_TRACE(fmt::format("cluster {} step {}", seed, step));
      ASSERT_NO_FATAL_FAILURE(c.change());
      for (int i = 0; i < kFlowsPerStep; ++i) ASSERT_NO_FATAL_FAILURE(c.check_flow(seen));
      for (int i = 0; i < 20; ++i) ASSERT_NO_FATAL_FAILURE(c.check_shares());
    }
  }
  int flows = 0;
  for (const auto& [end, n] : seen) {
    flows += n;
    EXPECT_GT(n, 100) << word(end) << ": such connections have to be among them";
  }
  EXPECT_EQ(seen.size(), 6u);
  EXPECT_GE(flows, 100000);
}

}  // namespace
}  // namespace hawser::proxy
