// SPDX-License-Identifier: Apache-2.0
// net-conf.json: what is accepted can be used: ranges lie in their network and a node can be given any of them.
#include <sys/socket.h>

#include "cni-plugin/overlayd/etcd_lease.h"
#include "cni-plugin/overlayd/net_conf.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace hawser;
using fuzz::check;

void check_pool(const overlay::SubnetPool& p, int family) {
  const auto name = p.network.text();
  check(p.network.family() == family && p.network.network() == p.network, name);
  check(p.subnet_len > p.network.prefix() && p.subnet_len < p.network.addr().bits(), name);
  check(p.min <= p.max && p.network.contains(p.min) && p.network.contains(p.max), name);
  const auto count = p.count();
  check(count >= 1 && count <= 1ULL << 31, name);
  for (auto n : {std::uint64_t{0}, count / 2, count - 1}) {
    const auto c = p.at(n);
    check(p.network.contains(c) && p.offers(c), name + " " + c.text());
    check(n == 0 || p.at(n - 1).last().plus(1) == c.addr(), name + " " + c.text());
  }
  check(p.at(0).addr() == p.min, name);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  auto conf = overlay::NetConf::parse(fuzz::Input(data, size).rest());
  if (!conf) {
    check(!conf.error().text.empty());
    return 0;
  }
  check(conf->v4 || conf->v6);
  check(conf->networks().size() == static_cast<std::size_t>(conf->v4.has_value() + conf->v6.has_value()));
  if (conf->v4) check_pool(*conf->v4, AF_INET);
  if (conf->v6) check_pool(*conf->v6, AF_INET6);
  const auto& s = conf->settings;
  check(overlay::find_backend(s.backend) && s.vni >= 1 && s.vni <= 0xffffff && s.port != 0, s.backend);
  check(s.mtu == 0 || s.mtu >= overlay::kSmallestMtu, s.backend);

  std::vector<Cidr> taken;
  for (int i = 0; i < 3; i++) {
    auto picked = overlay::pick_free(*conf, taken, [](std::size_t n) { return n - 1; });
    if (!picked) break;
    auto again = overlay::parse_lease_key(overlay::lease_key(*picked));
    check(again && *again == *picked, overlay::lease_key(*picked));
    for (const auto& c : *picked) {
      for (const auto& t : taken) check(c != t, c.text());
      taken.push_back(c);
    }
  }
  return 0;
}
