// SPDX-License-Identifier: Apache-2.0
// Both walks against the oracle, which shares no code with them: what `explain` says of made-up connections through
// made-up clusters is what the model says they get, and the kernel's side, read from the planned table, says the same.
#include <algorithm>
#include <map>
#include <set>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include "lib/netlink/ipvs_fake.h"
#include "lib/netlink/rtnl_fake.h"
#include "lib/nft/fake_nft.h"
#include "proxyd/inspect/compare.h"
#include "proxyd/inspect/explain.h"
#include "proxyd/inspect/inspector.h"
#include "proxyd/ipvs/ipvs_backend.h"
#include "proxyd/nft/nft_backend.h"
#include "proxyd/nft/oracle.h"

namespace hawser::proxy {
namespace {

constexpr int kClusters = 40, kSteps = 3, kQueriesPerStep = 400, kAnswersPerStep = 10;

std::vector<IpAddr> node_addresses() {
  std::vector<IpAddr> r;
  for (const char* a : {"192.0.2.11", "2001:db8::11", "198.51.100.11", "127.0.0.1", "::1"})
    r.push_back(*IpAddr::parse(a));
  return r;
}

bool is_local(const IpAddr& a) {
  static const auto kAddresses = node_addresses();
  return std::ranges::find(kAddresses, a) != kAddresses.end();
}

// A refused datagram of this host is sent to a port of loopback where nobody listens; that is a refusal.
bool is_refusal(const Expected& e) {
  static const Target kClosed4{*IpAddr::parse("127.0.0.1"), 1}, kClosed6{*IpAddr::parse("::1"), 1};
  return e.end == Trace::End::kReset || e.end == Trace::End::kReject ||
         (e.end == Trace::End::kTranslated && e.targets.size() == 1 &&
          (e.targets[0] == kClosed4 || e.targets[0] == kClosed6));
}

Fate fate_of(const Expected& e) {
  if (is_refusal(e)) return Fate::kReject;
  if (e.end == Trace::End::kDrop) return Fate::kDrop;
  return e.end == Trace::End::kTranslated ? Fate::kEndpoints : Fate::kPass;
}

class Cluster {
 public:
  explicit Cluster(unsigned seed) : objects_(seed), backend_(fake_, options_) {}

  void change() {
    facts_.model.state = objects_.next();
    ASSERT_TRUE(backend_.apply(facts_.model.state));
    auto found = read_back(fake_);
    ASSERT_TRUE(found);
    facts_.model.info = objects_.tracker.node();
    facts_.model.options = options_;
    facts_.model.applied = facts_.model.state->generation;
    facts_.kernel.found = std::move(*found);
    facts_.kernel.addresses = node_addresses();
    EXPECT_TRUE(drift(facts_).empty()) << drift(facts_).front();
  }

  void check(std::map<Fate, int>& seen) {
    const Packet p = random_packet(random_, *facts_.model.state);
    if (protocol_name(p.protocol).empty()) return;  // a ping
    const Query q{p.source, p.destination, p.destination_port, p.protocol, p.interface};
    const Expected want = expected(*facts_.model.state, options_, p, is_local);
    const Walk w = walk_model(q, facts_);
    const auto words = [&] { return boost::json::serialize(explain(q, facts_)); };
    ++seen[w.fate];
    ASSERT_TRUE(walk_kernel(q, facts_) == w) << words();
    ASSERT_EQ(w.fate, fate_of(want)) << words();
    if (w.fate != Fate::kEndpoints) return;
    ASSERT_EQ(w.targets, want.targets) << words();
    ASSERT_EQ(w.masquerade, want.masquerade) << words();
    const bool hairpin = std::ranges::any_of(
        want.targets, [&](const Target& t) { return is_hairpin(*facts_.model.state, p.source, t.addr); });
    ASSERT_EQ(w.hairpin, hairpin) << words();
  }

  // The whole answer, with every element: nobody touched the table.
  void check_answer() {
    const Packet p = random_packet(random_, *facts_.model.state);
    const auto answer = explain({p.source, p.destination, p.destination_port, p.protocol, p.interface}, facts_);
    ASSERT_TRUE(answer.at("agree").as_bool()) << boost::json::serialize(answer);
  }

 private:
  RandomCluster objects_;
  std::mt19937& random_ = objects_.random;
  const TrafficOptions& options_ = objects_.options;
  nft::FakeNft fake_;
  NftBackend backend_;
  Facts facts_;
};

// Mode ipvs, asked as a person asks.
class IpvsCluster {
 public:
  explicit IpvsCluster(unsigned seed) : objects_(seed) {
    for (const IpAddr& a : node_addresses())
      EXPECT_TRUE(rtnl_.change_address(netlink::Verb::kAdd, {.link = 1, .cidr = Cidr(a, a.bits())}));
  }

  void change() {
    state_ = objects_.next();
    auto r = backend_.apply(state_);
    ASSERT_TRUE(r) << r.error().text;
    health_.synced(state_->generation);
    const auto status = get("/inspect/status");
    ASSERT_TRUE(status.at("agree").as_bool()) << boost::json::serialize(status);
  }

  void check(std::map<std::string, int>& seen) {
    const Packet p = random_packet(objects_.random, *state_);
    if (protocol_name(p.protocol).empty()) return;  // a ping
    const std::string to = target_words({p.destination, p.destination_port});
    const auto answer = get(fmt::format("/inspect/explain?source={}&destination={}&protocol={}&interface={}", p.source,
                                        http::percent_encode(to), protocol_name(p.protocol), p.interface));
    ASSERT_TRUE(answer.at("agree").as_bool()) << boost::json::serialize(answer);
    const std::string verdict(answer.at("verdict").at("kernel").as_string());
    ++seen[verdict.substr(0, verdict.find(' '))];
  }

 private:
  boost::json::object get(const std::string& target) {
    const auto r = inspector_.answer({.method = "GET", .target = target});
    return r ? boost::json::parse(r->body).as_object() : boost::json::object();
  }

  RandomCluster objects_;
  nft::FakeNft nft_;
  netlink::FakeRtnl rtnl_;
  netlink::FakeIpvs ipvs_;
  netlink::FakeConntrack conntrack_;
  ProxyHealth health_{system_clock()};
  DesiredStatePtr state_;
  IpvsBackend backend_{
      {ipvs_, rtnl_, nft_, [](auto&&...) -> Result<bool> { return false; }, "6.1.0"}, objects_.options, {}};
  Inspector inspector_{{objects_.tracker, health_, nft_, conntrack_, rtnl_, &ipvs_}, objects_.options, IpvsOptions{}};
};

TEST(InspectEquivalence, ExplainSaysWhatTheModelMeans) {
  std::map<Fate, int> seen;
  for (unsigned seed = 0; seed < kClusters; ++seed) {
    Cluster c(seed);
    for (int step = 0; step < kSteps; ++step) {
      SCOPED_TRACE(fmt::format("cluster {} step {}", seed, step));
      ASSERT_NO_FATAL_FAILURE(c.change());
      for (int i = 0; i < kQueriesPerStep; ++i) ASSERT_NO_FATAL_FAILURE(c.check(seen));
      for (int i = 0; i < kAnswersPerStep; ++i) ASSERT_NO_FATAL_FAILURE(c.check_answer());
    }
  }
  EXPECT_EQ(seen.size(), 4u);
  for (const auto& [fate, n] : seen) EXPECT_GT(n, 100) << static_cast<int>(fate);
}

TEST(InspectEquivalence, ModelAndKernelAgreeUnderIpvs) {
  std::map<std::string, int> seen;
  for (unsigned seed = 0; seed < 8; ++seed) {
    IpvsCluster c(seed);
    for (int step = 0; step < kSteps; ++step) {
      SCOPED_TRACE(fmt::format("cluster {} step {}", seed, step));
      ASSERT_NO_FATAL_FAILURE(c.change());
      for (int i = 0; i < 50; ++i) ASSERT_NO_FATAL_FAILURE(c.check(seen));
    }
  }
  for (const char* verdict : {"to", "refused", "dropped", "goes"}) EXPECT_GT(seen[verdict], 20) << verdict;
}

}  // namespace
}  // namespace hawser::proxy
