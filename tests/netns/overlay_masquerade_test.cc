// SPDX-License-Identifier: Apache-2.0
// Which source address arrives, for every class of source and destination (FEATURES O60, O61, O64, O65), as seen by the
// receiver of a real packet. One node's tables decide; both nodes run, so the answers hold for the whole way.
//
//   pod-1, pod-1b -- node-1 --+-- fabric --+-- node-2 -- pod-2
//                             +-- outside (192.0.2.200, and 198.51.100.1, which is to see pod addresses)
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/netns/overlay_net.h"

namespace hawser::overlay {
namespace {

struct Place {
  const Host* host;
  std::string address;
};

UniqueFd udp_at(const Place& at, const std::string& address) {
  UniqueFd fd;
  at.host->run([&] {
    fd = UniqueFd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in a{.sin_family = AF_INET};
    EXPECT_EQ(inet_pton(AF_INET, address.c_str(), &a.sin_addr), 1);
    EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof a), 0) << address;
  });
  return fd;
}

// Sends one packet and says from whom it came where it arrived; "lost" if it did not.
std::string seen_source(const Place& from, const Place& to) {
  auto receiver = udp_at(to, to.address);
  auto sender = udp_at(from, from.address);
  timeval patience{.tv_sec = 5};
  EXPECT_EQ(setsockopt(receiver.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
  sockaddr_in at{}, who{};
  socklen_t len = sizeof at;
  EXPECT_EQ(getsockname(receiver.get(), reinterpret_cast<sockaddr*>(&at), &len), 0);
  if (sendto(sender.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&at), sizeof at) != 1) return "not sent";
  char byte = 0;
  len = sizeof who;
  if (recvfrom(receiver.get(), &byte, 1, 0, reinterpret_cast<sockaddr*>(&who), &len) != 1) return "lost";
  std::array<char, INET_ADDRSTRLEN> text{};
  inet_ntop(AF_INET, &who.sin_addr, text.data(), text.size());
  return text.data();
}

class MasqueradeTest : public OverlayNet {
 protected:
  void SetUp() override {
    build(false);
    if (IsSkipped()) return;
    node(1).options.non_masquerade = {*Cidr::parse("198.51.100.0/24")};
    start_all();
    for (auto* slot : {&pod1_, &pod1b_, &pod2_, &outside_}) {
      auto h = Host::make();
      ASSERT_TRUE(h);
      slot->emplace(std::move(*h));
    }
    ASSERT_TRUE(node(1).add_pod(*pod1_, 1450) && node(1).add_pod(*pod1b_, 1450, 6, "podb") &&
                node(2).add_pod(*pod2_, 1450));
    ASSERT_TRUE(outside_->wire("eth0", *fabric_, "portout") && fabric_->ok("ip link set portout master br0"));
    ASSERT_TRUE(
        outside_->ok("ip addr add 192.0.2.200/24 dev eth0; ip addr add 198.51.100.1/32 dev lo;"
                     "ip route add 10.244.0.0/16 via 192.0.2.11"));
    ASSERT_TRUE(node(1).host().ok("ip route add 198.51.100.0/24 via 192.0.2.200"));
    ASSERT_TRUE(eventually([&] { return node(1).status().ready && node(2).status().ready; }));
  }
  Place own_pod() { return {&*pod1_, "10.244.1.5"}; }
  Place other_own_pod() { return {&*pod1b_, "10.244.1.6"}; }
  Place remote_pod() { return {&*pod2_, "10.244.2.5"}; }
  Place this_node() { return {&node(1).host(), "192.0.2.11"}; }
  Place other_node() { return {&node(2).host(), "192.0.2.12"}; }
  Place outside() { return {&*outside_, "192.0.2.200"}; }
  Place keeping() { return {&*outside_, "198.51.100.1"}; }

  void check_all_pairs() {
    struct Case {
      const char* name;
      Place from, to;
      const char* want;
    };
    const std::string kDevice1 = "10.244.1.0";
    for (const auto& c : {
             Case{"own pod to own pod", own_pod(), other_own_pod(), "10.244.1.5"},
             Case{"own pod to remote pod", own_pod(), remote_pod(), "10.244.1.5"},
             Case{"own pod to its node", own_pod(), this_node(), "10.244.1.5"},
             Case{"own pod to another node", own_pod(), other_node(), "192.0.2.11"},
             Case{"own pod to outside", own_pod(), outside(), "192.0.2.11"},
             Case{"own pod to a --non-masquerade-cidr", own_pod(), keeping(), "10.244.1.5"},
             Case{"remote pod to own pod", remote_pod(), own_pod(), "10.244.2.5"},
             Case{"remote pod to this node", remote_pod(), this_node(), "192.0.2.12"},
             Case{"remote pod to outside", remote_pod(), outside(), "192.0.2.12"},
             Case{"node to own pod", this_node(), own_pod(), "192.0.2.11"},
             Case{"node to remote pod", this_node(), remote_pod(), "10.244.1.0"},
             Case{"node to remote pod, source by route", {&node(1).host(), "0.0.0.0"}, remote_pod(), "10.244.1.0"},
             Case{"node to another node", this_node(), other_node(), "192.0.2.11"},
             Case{"node to outside", this_node(), outside(), "192.0.2.11"},
             Case{"outside to own pod", outside(), own_pod(), "192.0.2.200"},
             Case{"outside to remote pod, through this node", outside(), remote_pod(), "10.244.1.0"},
             Case{"outside to this node", outside(), this_node(), "192.0.2.200"},
         })
      EXPECT_EQ(seen_source(c.from, c.to), c.want) << c.name;
  }

  std::optional<Host> pod1_, pod1b_, pod2_, outside_;
};

TEST_F(MasqueradeTest, EveryPairOfSourceAndDestination) {
  check_all_pairs();
}

// flannel's nftables rules give up on a packet with any mark bit beside 0x4000 (Appendix A 2).
TEST_F(MasqueradeTest, MarksOfOthersChangeNothing) {
  ASSERT_TRUE(
      node(1).host().ok("nft add table ip other; nft add chain ip other pre '{ type filter hook prerouting "
                        "priority 0; }'; nft add rule ip other pre meta mark set 0x14000"));
  check_all_pairs();
}

// firewalld, Docker and ufw flush what they call theirs; ours is put back if it was hit, and foreign tables stay.
TEST_F(MasqueradeTest, SurvivesFlushesAndLeavesOthersAlone) {
  const auto& host = node(1).host();
  ASSERT_TRUE(
      host.ok("nft add table inet firewalld; nft add chain inet firewalld x; nft add rule inet firewalld x "
              "counter"));
  const auto foreign = host.sh("nft list table inet firewalld");
  ASSERT_TRUE(host.ok("nft flush table inet firewalld; nft add rule inet firewalld x counter"));
  EXPECT_EQ(host.sh("nft list table inet firewalld"), foreign);
  const auto ours = host.sh("nft list table inet hawser-masq");
  for (const char* damage : {"nft flush table inet hawser-masq", "nft delete table inet hawser-masq",
                             "nft insert rule inet hawser-masq postrouting accept"}) {
    ASSERT_TRUE(host.ok(damage));
    EXPECT_TRUE(
        eventually([&] { return host.sh("nft list table inet hawser-masq") == ours; }, std::chrono::milliseconds(1000)))
        << damage;
  }
  EXPECT_EQ(host.sh("nft list table inet firewalld"), foreign);
  EXPECT_TRUE(
      eventually([&] { return node(1).metrics().contains("hawser_overlay_repairs_total{kind=\"masquerade\"} 3"); }));
  check_all_pairs();
}

}  // namespace
}  // namespace hawser::overlay
