// SPDX-License-Identifier: Apache-2.0
// The fast path's seam: what it is told of a pod's life, when, and what its failures do. The verbs run in this process,
// with a fast path that writes down what it is told.
#include <algorithm>
#include <map>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cni-plugin/verbs.h"
#include "tests/netns/cni_fixture.h"

namespace hawser {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// `links`: what the node had at that moment, so that the order is seen.
class Recorder final : public cni::FastPath {
 public:
  explicit Recorder(const hawser::testing::Host& node) : node_(node) {}
  Result<> attach(const cni::FastEndpoint& e) override {
    calls.push_back("attach with " + links());
    if (refuse) return fail(EIO, "the fast path refuses");
    known.push_back(e);
    return {};
  }
  Result<> detach(const std::string& name) override {
    calls.push_back("detach with " + links());
    if (refuse) return fail(EIO, "the fast path refuses");
    std::erase_if(known, [&](const auto& e) { return e.host_name == name; });
    return {};
  }
  Result<std::string> fault(const cni::FastEndpoint& e) override {
    const bool there = std::ranges::find(known, e) != known.end();
    return there ? std::string() : "fast path: " + e.host_name + " is missing";
  }
  Result<> keep_only(const std::function<bool(const std::string&)>& live) override {
    std::erase_if(known, [&](const auto& e) { return !live(e.host_name); });
    return {};
  }
  std::vector<cni::FastEndpoint> known;
  std::vector<std::string> calls;
  bool refuse = false;

 private:
  std::string links() { return node_.sh("ip -o link show type veth | wc -l | tr -d '\\n'"); }
  const hawser::testing::Host& node_;
};

class FastPathTest : public hawser::testing::CniFixture {
 protected:
  void SetUp() override {
    CniFixture::SetUp();
    if (!IsSkipped()) fast_.emplace(*node_);
  }
  cni::Answer call(const std::string& verb, const std::string& container, const std::string& netns,
                   const std::string& input) {
    std::map<std::string, std::string> vars{{"CNI_COMMAND", verb},
                                            {"CNI_CONTAINERID", container},
                                            {"CNI_NETNS", netns},
                                            {"CNI_IFNAME", "eth0"},
                                            {"CNI_PATH", "/usr/lib/cni"}};
    cni::Answer a;
    node_->run([&] {
      a = cni::run_plugin({.get_env = [&](const char* k) { return vars[k]; }, .input = input, .fast_path = &*fast_});
    });
    return a;
  }
  std::optional<Recorder> fast_;
};

TEST_F(FastPathTest, KnowsAPodFromTheEndOfAddToTheBeginningOfDel) {
  auto p = pod();
  const auto input = conf_with(R"("mac":"02:11:22:33:44:55")");
  auto add = call("ADD", "c1", p.path(), input);
  ASSERT_EQ(add.exit_status, 0) << add.out;
  ASSERT_EQ(fast_->known.size(), 1u);
  const auto& e = fast_->known[0];
  EXPECT_TRUE(node_->ok("ip link show " + e.host_name));
  EXPECT_EQ(e.pod_mac.text(), "02:11:22:33:44:55");
  EXPECT_THAT(e.addresses, ElementsAre(*IpAddr::parse("10.244.1.2"), *IpAddr::parse("fd00:1::2")));
  const auto check = [&] { return call("CHECK", "c1", p.path(), with_prev(input, add.out)); };
  EXPECT_EQ(check().exit_status, 0) << check().out;
  const auto known = std::exchange(fast_->known, {});
  EXPECT_THAT(check().out, ::testing::AllOf(HasSubstr("\"code\":102"), HasSubstr("fast path: hw")));
  fast_->known = known;
  ASSERT_EQ(call("DEL", "c1", p.path(), input).exit_status, 0);
  EXPECT_THAT(fast_->known, IsEmpty());
  EXPECT_THAT(fast_->calls, ElementsAre("attach with 1", "detach with 1"));
}

TEST_F(FastPathTest, IsToldOfBridgePortsToo) {
  auto p = pod();
  ASSERT_EQ(call("ADD", "c1", p.path(), conf(R"(,"mode":"bridge","isDefaultGateway":true)")).exit_status, 0);
  ASSERT_EQ(fast_->known.size(), 1u);
  EXPECT_EQ(fast_->known[0].pod_mac.text(), "0a:58:0a:f4:01:02");
  EXPECT_THAT(fast_->known[0].addresses, ElementsAre(*IpAddr::parse("10.244.1.2"), *IpAddr::parse("fd00:1::2")));
}

TEST_F(FastPathTest, WhatItRefusesIsNotAttached) {
  auto p = pod();
  fast_->refuse = true;
  const auto input = conf_with(R"("portMappings":[{"hostPort":8080,"containerPort":80}],)"
                               R"("bandwidth":{"egressRate":8000000,"egressBurst":320000})");
  auto add = call("ADD", "c1", p.path(), input);
  EXPECT_THAT(add.out, HasSubstr("the fast path refuses"));
  EXPECT_EQ(node_->sh("ip -o link show type veth; ip -o link show type ifb; nft list tables; ip route"), "");
  fast_->refuse = false;
  ASSERT_EQ(call("ADD", "c1", p.path(), conf()).exit_status, 0);
  fast_->refuse = true;
  EXPECT_EQ(call("DEL", "c1", p.path(), conf()).exit_status, 1);
  EXPECT_THAT(call("ADD", "c2", pod().path(), conf_with(R"("ips":["10.244.1.3"])")).out,
              HasSubstr("held by container c1"));
  fast_->refuse = false;
  EXPECT_EQ(call("DEL", "c1", p.path(), conf()).exit_status, 0) << "the next DEL does the rest";
}

TEST_F(FastPathTest, GcForgetsWhatIsNotListedOfThisNetworkOnly) {
  auto p = pod(), q = pod();
  ASSERT_EQ(call("ADD", "c1", p.path(), conf()).exit_status, 0);
  ASSERT_EQ(call("ADD", "c2", q.path(), conf()).exit_status, 0);
  fast_->known.push_back({.host_name = "hwzzzaaaaaaaaaa", .pod_mac = {}, .addresses = {}});
  const auto kept = fast_->known[1].host_name;
  auto gc = call("GC", "", "", conf(R"(,"cni.dev/valid-attachments":[{"containerID":"c2","ifname":"eth0"}])"));
  ASSERT_EQ(gc.exit_status, 0) << gc.out;
  ASSERT_EQ(fast_->known.size(), 2u);
  EXPECT_EQ(fast_->known[0].host_name, kept);
  EXPECT_EQ(fast_->known[1].host_name, "hwzzzaaaaaaaaaa") << "another network's";
}

}  // namespace
}  // namespace hawser
