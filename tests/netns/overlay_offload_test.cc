// SPDX-License-Identifier: Apache-2.0
// A network device whose transmit checksum offload is faulty for tunnels (FEATURES X05): ping works, connections do
// not. No such device is at hand, so a wire of ours stands for it: a checksum that the sender left to the device is
// written for plain packets, but not for those in a tunnel.
#include <array>
#include <cstring>

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cni-plugin/overlayd/checksum_probe.h"
#include "lib/base/endian.h"
#include "lib/netlink/ethtool.h"
#include "tests/netns/overlay_net.h"
#include "tests/netns/sockets.h"

namespace hawser::overlay {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The kernel's virtio_net_hdr, whose own header is no C++.
struct OffloadHeader {
  static constexpr std::uint8_t kNeedsChecksum = 1;
  std::uint8_t flags, gso_type;
  std::uint16_t header_length, gso_size, csum_start, csum_offset;
};
static_assert(sizeof(OffloadHeader) == 10);

// What arrives at `host` from one of two links is sent from the other, while this object lives.
class FaultyWire {
 public:
  FaultyWire(const Host& host, const char* a, const char* b) : stop_(eventfd(0, EFD_CLOEXEC)) {
    host.run([&] { ends_ = {open_end(a), open_end(b)}; });
    thread_ = std::thread([this] { pass_on(); });
  }
  ~FaultyWire() {
    const std::uint64_t one = 1;
    EXPECT_EQ(write(stop_.get(), &one, sizeof one), 8);
    thread_.join();
  }
  FaultyWire(const FaultyWire&) = delete;
  FaultyWire& operator=(const FaultyWire&) = delete;

 private:
  static UniqueFd open_end(const char* link) {
    UniqueFd fd(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1;
    for (int option : {PACKET_IGNORE_OUTGOING, PACKET_VNET_HDR})
      EXPECT_EQ(setsockopt(fd.get(), SOL_PACKET, option, &on, sizeof on), 0);
    sockaddr_ll at{};
    at.sll_family = AF_PACKET;
    at.sll_protocol = be16(ETH_P_ALL).network();
    at.sll_ifindex = static_cast<int>(if_nametoindex(link));
    EXPECT_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at), 0) << link;
    return fd;
  }
  // What the sender leaves to do, in front of each frame. Gone, the receiver takes the bytes as they are.
  static void forget_tunnel_checksum(char* frame) {
    OffloadHeader h{};
    std::memcpy(&h, frame, sizeof h);
    constexpr int kPlainTransport = ETH_HLEN + 20;  // of IPv4; a tunnel's inner one is further behind
    if ((h.flags & OffloadHeader::kNeedsChecksum) == 0 || h.csum_start <= kPlainTransport) return;
    h = {};
    std::memcpy(frame, &h, sizeof h);
  }
  void pass_on() {
    std::array<char, 65536 + sizeof(OffloadHeader)> frame{};
    for (;;) {
      std::array<pollfd, 3> p{pollfd{stop_.get(), POLLIN, 0}, pollfd{ends_[0].get(), POLLIN, 0},
                              pollfd{ends_[1].get(), POLLIN, 0}};
      if (poll(p.data(), p.size(), -1) < 0 && errno != EINTR) return;
      if (p[0].revents != 0) return;
      for (std::size_t i = 0; i < 2; i++) {
        const auto n = recv(ends_[i].get(), frame.data(), frame.size(), 0);
        if (n > 0) forget_tunnel_checksum(frame.data());
        // A frame that is too large for the other link is lost, as on any wire.
        if (n > 0 && send(ends_[1 - i].get(), frame.data(), static_cast<std::size_t>(n), 0) < 0) continue;
      }
    }
  }

  UniqueFd stop_;
  std::array<UniqueFd, 2> ends_;
  std::thread thread_;
};

bool offload(const Node& n) {
  Result<bool> on = false;
  n.host().run([&] { on = netlink::tx_checksum_offload(n.device()); });
  EXPECT_TRUE(on) << on.error().text;
  return on.value_or(false);
}

class OffloadTest : public OverlayNet {
 protected:
  void build_nodes(bool v6_underlay) {
    build(v6_underlay);
    if (IsSkipped()) return;
    // Probes that follow each other as fast as here would wait for answers.
    for (auto& n : nodes_) ASSERT_TRUE(n->host().ok("sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0"));
  }
  void start_probing() {
    for (auto& n : nodes_) {
      n->stop();
      n->probe = {.interval = std::chrono::milliseconds(150),
                  .answer_within = std::chrono::milliseconds(100),
                  .rounds_to_fault = 2};
      n->start(api_);
    }
  }
  std::string line(int n) {
    auto lines = node(n).path_lines();
    return lines.empty() ? std::string() : lines[0];
  }
  // Both datagrams of a probe from node-1 to node-2, and what was refused.
  std::vector<bool> answers() {
    std::vector<bool> offloaded;
    node(1).host().run([&] {
      auto probe = ChecksumProbe::open(v6_ ? AF_INET6 : AF_INET);
      ASSERT_TRUE(probe) << probe.error().text;
      const auto to = gateway_of(*Cidr::parse(node(2).cidr()));
      probe->send(to, 4711);
      EXPECT_TRUE(eventually([&] {
        while (auto answer = probe->next_answer()) {
          EXPECT_EQ(answer->from, to);
          EXPECT_EQ(answer->sequence, 4711);
          offloaded.push_back(answer->offloaded);
        }
        return !offloaded.empty() && !offloaded.back();
      }));
    });
    return offloaded;
  }
};

TEST_F(OffloadTest, APeerRefusesBothDatagrams) {
  build_nodes(false);
  if (IsSkipped()) return;
  start_all();
  EXPECT_THAT(answers(), ElementsAre(true, false));
}

TEST_F(OffloadTest, APeerRefusesBothDatagramsOverIpv6) {
  build_nodes(true);
  if (IsSkipped()) return;
  start_all();
  EXPECT_THAT(answers(), ElementsAre(true, false));
}

TEST_F(OffloadTest, ADeviceThatWorksKeepsItsOffload) {
  build_nodes(false);
  if (IsSkipped()) return;
  start_all();
  start_probing();
  const auto refused = [&] {
    return std::stoi("0" + node(2).host().sh("awk '/^Udp:/ && n++ {print $3}' /proc/net/snmp | tr -d '\\n'"));
  };
  EXPECT_TRUE(eventually([&] { return refused() >= 10; })) << refused();
  EXPECT_TRUE(eventually([&] { return line(1).contains("works"); })) << line(1);
  EXPECT_TRUE(offload(node(1)) && offload(node(2)));
  EXPECT_THAT(node(1).metrics(), HasSubstr("hawser_overlay_offload_faults_total 0"));
  EXPECT_THAT(node(1).device_lines(), ElementsAre());
}

TEST_F(OffloadTest, AFaultyOffloadIsFoundAndSwitchedOff) {
  build_nodes(false);
  if (IsSkipped()) return;
  start_all();
  auto pod1 = Host::make(), pod2 = Host::make();
  ASSERT_TRUE(pod1 && pod2);
  ASSERT_TRUE(node(1).add_pod(*pod1, 1450) && node(2).add_pod(*pod2, 1450));
  ASSERT_TRUE(
      fabric_->ok("ip link add inside type veth peer name outside; ip link set port1 nomaster; ip link set outside "
                  "master br0; ip link set inside up; ip link set outside up"));
  const FaultyWire wire(*fabric_, "port1", "inside");
  auto server = hawser::testing::listen_in(*pod2, SOCK_STREAM, 80);
  EXPECT_TRUE(eventually([&] {
    int status = 0;
    pod1->sh("ping -c1 -W1 10.244.2.5", &status);
    return status == 0;
  })) << "ping knows nothing of it";
  EXPECT_FALSE(hawser::testing::connects(*pod1, "10.244.2.5", 80, server)) << "is the wire a faulty device at all?";
  EXPECT_THAT(answers(), ElementsAre(false));

  start_probing();
  for (int i : {1, 2}) {
    EXPECT_TRUE(eventually([&] { return !offload(node(i)); })) << line(i);
    EXPECT_TRUE(eventually([&] { return node(i).metrics().contains("hawser_overlay_offload_faults_total 1"); }));
    EXPECT_TRUE(eventually([&] { return !node(i).device_lines().empty(); }));
    EXPECT_THAT(node(i).device_lines(),
                ElementsAre(HasSubstr(fmt::format("device flannel.1: transmit checksum offload is off: what node "
                                                  "node-{} got had wrong checksums",
                                                  3 - i))));
    EXPECT_TRUE(eventually([&] { return line(i).contains(": works"); })) << line(i);
  }
  EXPECT_TRUE(eventually([&] { return hawser::testing::connects(*pod1, "10.244.2.5", 80, server); }));
  EXPECT_THAT(answers(), ElementsAre(true, false));

  // A new device has the offload again; the fault is remembered.
  ASSERT_TRUE(node(1).host().ok("ip link del flannel.1"));
  EXPECT_TRUE(eventually([&] { return node(1).metrics().contains("hawser_overlay_offload_faults_total 2"); }));
  EXPECT_FALSE(offload(node(1)));
}

}  // namespace
}  // namespace hawser::overlay
