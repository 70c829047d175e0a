// SPDX-License-Identifier: Apache-2.0
// What a full load and one endpoint change cost with many Services: printed, and bounded loosely so that a change of
// order is seen.
#include <cstdio>
#include <fstream>

#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>

#include "lib/nft/kernel_nft.h"
#include "lib/testing/netns_fixture.h"
#include "proxyd/model/tracker.h"
#include "proxyd/nft/nft_backend.h"

namespace hawser::proxy {
namespace {

using Ms = std::chrono::duration<double, std::milli>;

double resident_mib() {
  std::ifstream f("/proc/self/statm");
  long total = 0, resident = 0;
  f >> total >> resident;
  return static_cast<double>(resident * sysconf(_SC_PAGESIZE)) / (1 << 20);
}

ServiceStatePtr service(int i, int endpoints, int first = 0) {
  Service s{.key = fmt::format("default/s{:05}", i),
            .ports = {{.name = "", .protocol = 6, .port = 80}},
            .cluster_ips = {IpAddr::v4(0x0a600000u + 256u + static_cast<std::uint32_t>(i))}};
  PortEndpoints p{.port = s.ports[0]};
  for (int e = first; e < first + endpoints; ++e) {
    p.endpoints.push_back(
        {.target = {IpAddr::v4(0x0af40000u + static_cast<std::uint32_t>((i * 7 + e) % 60000)), 8080}});
  }
  return std::make_shared<const ServiceState>(make_service_state(s, {p}, {.name = "node-1"}));
}

std::shared_ptr<DesiredState> state(int services) {
  auto d = std::make_shared<DesiredState>();
  std::vector<ServiceStatePtr> list;
  for (int i = 0; i < services; ++i) list.push_back(service(i, 5));
  d->services = ServiceList(std::move(list));
  return d;
}

class ScaleTest : public hawser::testing::NetNsTest {
 protected:
  static double timed(const std::function<void()>& fn) {
    const auto start = std::chrono::steady_clock::now();
    fn();
    return Ms(std::chrono::steady_clock::now() - start).count();
  }
};

TEST_F(ScaleTest, FullLoadAndOneChange) {
  for (const int n : {1000, 10000}) {
    auto nft = nft::KernelNft::open();
    ASSERT_TRUE(nft) << nft.error().text;
    NftBackend b(**nft, {{*Cidr::parse("10.244.0.0/16")}});
    auto d = state(n);
    const double before = resident_mib();
    const double load = timed([&] {
      auto r = b.apply(d);
      ASSERT_TRUE(r) << r.error().text;
    });
    const double peak = resident_mib();
    malloc_trim(0);
    const double kept = resident_mib();
    std::vector<double> changes;
    for (int i = 0; i < 41; ++i) {
      auto next = std::make_shared<DesiredState>(*d);
      // One of five endpoints replaced; then one less or more, which is another pick chain.
      const ServiceStatePtr changed = service(i * 17 % n, i % 2 == 0 ? 5 : 4, 1 + i % 3);
      next->services = d->services.with({{changed->key, changed}});
      changes.push_back(timed([&] {
        auto r = b.apply(next);
        ASSERT_TRUE(r) << r.error().text;
        ASSERT_FALSE(r->full);
      }));
      d = next;
    }
    std::sort(changes.begin(), changes.end());
    NftBackend again(**nft, {{*Cidr::parse("10.244.0.0/16")}});
    const double adopt = timed([&] {
      auto r = again.apply(d);
      ASSERT_TRUE(r) << r.error().text;
      EXPECT_LE(r->changes, 4u) << "only unused chains";
    });
    std::printf(
        "%d services x 5: load %.0f ms, one change median %.2f max %.2f ms, adopt %.0f ms, RSS before %.0f peak %.0f "
        "after %.0f MiB\n",
        n, load, changes[20], changes[40], adopt, before, peak, kept);
    EXPECT_LT(load, 10000);
    EXPECT_LT(changes[20], 200);
    ASSERT_TRUE(b.cleanup());
  }
}

}  // namespace
}  // namespace hawser::proxy
