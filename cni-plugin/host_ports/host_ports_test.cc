// SPDX-License-Identifier: Apache-2.0
// Host ports on models of nftables and conntrack: records and table after every step, flushed tables, failures.
#include "cni-plugin/host_ports/host_ports.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include "lib/nft/fake_nft.h"
#include "lib/testing/temp_dir.h"

namespace hawser::cni {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

IpAddr ip(std::string_view s) {
  return *IpAddr::parse(s);
}

HostPortRecord record(const std::string& container, std::string_view address, std::vector<PortMapping> ports) {
  return {.network = "net", .owner = {container, "eth0"}, .ports = std::move(ports), .addresses = {ip(address)}};
}

class HostPortsTest : public ::testing::Test {
 protected:
  // Opened for each use, as each plugin process does.
  HostPorts open() { return std::move(*HostPorts::open(dir_.file("hostports"), {nft_, conntrack_})); }
  [[nodiscard]] std::string table() const { return nft_.list(nft::Family::kInet, kHostPortTable); }

  hawser::testing::TempDir dir_;
  nft::FakeNft nft_;
  netlink::FakeConntrack conntrack_;
  const PortMapping tcp_{8080, 80, IPPROTO_TCP, {}};
  const PortMapping udp_{5353, 53, IPPROTO_UDP, {}};
};

TEST_F(HostPortsTest, TableFollowsRecordsAndGoesWithTheLast) {
  ASSERT_TRUE(open().put("a", record("a", "10.0.0.2", {tcp_})));
  ASSERT_TRUE(open().put("b", record("b", "fd00::3", {{8080, 80, IPPROTO_TCP, ip("2001:db8::1")}})));
  EXPECT_THAT(table(), ::testing::AllOf(HasSubstr("tcp . 8080 : 10.0.0.2 . 80"), HasSubstr("fd00::3 . 80")));
  EXPECT_EQ(*open().fault("a", {tcp_}), "");
  EXPECT_THAT(*open().fault("a", {udp_}), HasSubstr("other ports"));
  ASSERT_TRUE(open().drop("a"));
  EXPECT_THAT(table(), Not(HasSubstr("10.0.0.2")));
  EXPECT_TRUE(open().drop("a")) << "again";
  ASSERT_TRUE(open().drop("b"));
  EXPECT_EQ(table(), "");
}

TEST_F(HostPortsTest, NothingToDoWritesNothing) {
  ASSERT_TRUE(open().put("a", record("a", "10.0.0.2", {tcp_})));
  const int before = nft_.applied();
  EXPECT_THAT(*open().keep_only([](const std::string&, const HostPortRecord&) { return true; }), IsEmpty());
  EXPECT_EQ(nft_.applied(), before);
}

TEST_F(HostPortsTest, FlushedTableIsMadeAgain) {
  ASSERT_TRUE(open().put("a", record("a", "10.0.0.2", {tcp_})));
  const auto before = table();
  nft::Transaction flush(nft::Family::kInet, kHostPortTable);
  flush.delete_table();
  ASSERT_TRUE(nft_.apply(flush));
  EXPECT_THAT(*open().fault("a", {tcp_}), HasSubstr(kHostPortTable));
  ASSERT_TRUE(open().keep_only([](const std::string&, const HostPortRecord&) { return true; }));
  EXPECT_EQ(table(), before);
}

TEST_F(HostPortsTest, TakenPortIsRefusedNamingTheHolder) {
  ASSERT_TRUE(open().put("a", record("a", "10.0.0.2", {tcp_})));
  auto r = open().put("b", record("b", "10.0.0.3", {udp_, tcp_}));
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, EADDRINUSE);
  EXPECT_THAT(r.error().text, ::testing::AllOf(HasSubstr("*:8080/tcp"), HasSubstr("container a")));
  EXPECT_THAT(table(), Not(HasSubstr("10.0.0.3")));
}

TEST_F(HostPortsTest, KernelThatRefusesLeavesNoRecord) {
  nft_.fail_next({EPERM, "no", {}});
  EXPECT_FALSE(open().put("a", record("a", "10.0.0.2", {tcp_})));
  EXPECT_EQ(table(), "");
  EXPECT_THAT(*open().fault("a", {tcp_}), HasSubstr("record is missing"));
}

TEST_F(HostPortsTest, KeepOnlyDropsWhatIsDead) {
  ASSERT_TRUE(open().put("a", record("a", "10.0.0.2", {tcp_})));
  ASSERT_TRUE(open().put("b", record("b", "10.0.0.3", {udp_})));
  auto dropped = open().keep_only([](const std::string& name, const HostPortRecord&) { return name == "b"; });
  EXPECT_THAT(*dropped, ElementsAre("a"));
  EXPECT_THAT(table(), ::testing::AllOf(HasSubstr("10.0.0.3"), Not(HasSubstr("10.0.0.2"))));
}

TEST_F(HostPortsTest, UdpFlowsThatLeadElsewhereAreForgotten) {
  const netlink::FlowEnd client{ip("192.0.2.1"), 4000}, node{ip("192.0.2.11"), 5353};
  const netlink::Flow untranslated{
      .protocol = IPPROTO_UDP, .source = client, .destination = node, .answers_from = node};
  auto other_port = untranslated;
  other_port.destination.port = 5354;
  conntrack_.flows = {untranslated, other_port};
  ASSERT_TRUE(open().put("a", record("a", "10.0.0.2", {udp_})));
  EXPECT_THAT(conntrack_.flows, ElementsAre(other_port)) << "from before there was a container";
  auto translated = untranslated;
  translated.answers_from = {ip("10.0.0.2"), 53};
  conntrack_.flows = {translated, other_port};
  ASSERT_TRUE(open().drop("a"));
  EXPECT_THAT(conntrack_.flows, ElementsAre(other_port));
  conntrack_.lists = 0;
  ASSERT_TRUE(open().put("b", record("b", "10.0.0.3", {tcp_})));
  EXPECT_EQ(conntrack_.lists, 0) << "without UDP the flows are not even read";
}

}  // namespace
}  // namespace hawser::cni
