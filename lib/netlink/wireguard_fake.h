// SPDX-License-Identifier: Apache-2.0
// FakeWireguard: keys and peers of the "wireguard" links of a FakeRtnl, for tests; a link that goes takes them along. A
// range belongs to one peer: given to another, it moves, as in the kernel. Test thread only.
#pragma once

#include <map>
#include <set>

#include "lib/netlink/rtnl_fake.h"
#include "lib/netlink/wireguard.h"

namespace hawser::netlink {

class FakeWireguard final : public Wireguard {
 public:
  // `rtnl` must outlive this.
  explicit FakeWireguard(FakeRtnl& rtnl) : rtnl_(rtnl) {}
  Result<WgDevice> get(const std::string& device) override;
  Result<> change(const std::string& device, const WgChange& change) override;

  // Not Curve25519, but as good as it for tests: different secrets have different public keys.
  static WgKey public_of(WgKey secret);
  // For the times of handshakes and endpoints that roamed. The device is there.
  WgDevice& device(const std::string& name) { return devices_.at(rtnl_.get_link(name)->index); }
  [[nodiscard]] int writes() const { return writes_; }

 private:
  Result<WgDevice*> find(const std::string& name);

  FakeRtnl& rtnl_;
  std::map<int, WgDevice> devices_;  // by link index
  int writes_ = 0;
};

}  // namespace hawser::netlink
