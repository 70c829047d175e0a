// SPDX-License-Identifier: Apache-2.0
// IpvsBackend: Services as virtual services of IPVS, their addresses on a device of ours, and rules in the table `inet
// hawser-proxy` for what IPVS does not do (plan.h). The sync thread is its only caller.
//
// The kernel tells nobody when IPVS is changed, so every apply() of a state that is in the kernel already reads all
// back and repairs. That is also when endpoints without connections left are taken out.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "lib/netlink/ipvs.h"
#include "lib/netlink/rtnl.h"
#include "lib/nft/runner.h"
#include "proxyd/backend.h"
#include "proxyd/ipvs/mapped_state.h"
#include "proxyd/ipvs/plan.h"
#include "proxyd/nft/nft_backend.h"

namespace hawser::proxy {

// What it works on, owned by main (or a test).
struct IpvsKernel {
  netlink::Ipvs& ipvs;
  netlink::Rtnl& rtnl;
  nft::NftRunner& nft;
  std::function<Result<bool>(const std::string& key, const std::string& value)> sysctl;  // ensures; true: wrote
  std::string release;  // of the kernel, as uname gives it
};

// Whether this kernel can do it; the error names what it lacks.
Result<> check_kernel(netlink::Ipvs& ipvs);

// Those of the kernel that are `wanted`, with their destinations.
Result<VirtualServices> read_virtual_services(netlink::Ipvs& ipvs,
                                              const std::function<bool(const netlink::IpvsKey&)>& wanted);

class IpvsBackend final : public Backend {
 public:
  IpvsBackend(IpvsKernel kernel, TrafficOptions traffic, IpvsOptions options, Clock& clock = system_clock());

  [[nodiscard]] std::string_view name() const override { return "ipvs"; }
  Result<SyncReport> apply(const DesiredStatePtr& state) override;
  void invalidate() override;
  Result<> cleanup() override;

  // ---- the parts that a switch of modes puts together (switch/) ----
  // Adds to IPVS and to the device what they lack for `state`. Changes nothing else.
  Result<> fill(const DesiredStatePtr& state);
  // How much they lack, by a new reading.
  Result<std::size_t> lacking(const DesiredStatePtr& state);
  // The rules alone, as they are while both IPVS and the table may have connections.
  enum class Decides : std::uint8_t { kIpvs, kTable };
  Result<SyncReport> apply_beside(const DesiredStatePtr& state, Decides who);
  // True: apply() keeps those rules, which know the clients that the table remembers.
  void keep_clients(bool keep) { keep_clients_ = keep; }
  // Whether a device of this mode is there.
  Result<bool> present();
  Result<std::size_t> connections();
  // Of this node and of our devices, by a new reading.
  Result<std::vector<IpAddr>> own_addresses();
  Result<NodeAddresses> read_addresses();
  // Takes out the virtual services and then the devices.
  Result<> remove();

 private:
  Result<> set_up_kernel();
  Result<int> ensure_device();
  Result<SyncReport> sync(const DesiredStatePtr& state, bool read);
  Result<> read_kernel();
  Result<> write_services(const IpvsPlan& p);
  Result<> write_destination(const DestinationChange& c);
  Result<> retire(const IpvsPlan& p);
  Result<> drain(const VirtualServices& want);
  Result<std::size_t> change_addresses(netlink::Verb verb, const std::vector<IpAddr>& addresses);
  Result<std::vector<netlink::Link>> devices();
  Result<SyncReport> apply_rules(const DesiredStatePtr& state);

  IpvsKernel kernel_;
  const TrafficOptions traffic_;
  const IpvsOptions options_;
  Clock& clock_;
  NftBackend rules_;                  // as this mode has them alone
  NftBackend beside_, beside_table_;  // apply_beside()
  bool keep_clients_ = false;

  int device_ = 0;                                  // 0: not set up
  std::optional<VirtualServices> image_;            // what IPVS has; none: to be read back
  std::vector<IpAddr> addresses_;                   // of our device, sorted; with image_
  NodeAddresses node_;                              // with image_
  DesiredStatePtr applied_;                         // with image_
  std::map<Draining::value_type, MonoTime> since_;  // draining targets
  MappedState rules_state_{[this](const ServiceState& s) { return rules_of(s, node_); }};
  MappedState beside_state_{[this](const ServiceState& s) { return beside_of(s, node_); }};
};

}  // namespace hawser::proxy
