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
#include <unordered_map>

#include "lib/netlink/ipvs.h"
#include "lib/netlink/rtnl.h"
#include "lib/nft/runner.h"
#include "proxyd/backend.h"
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
  DesiredStatePtr rules_state(const DesiredStatePtr& state);

  IpvsKernel kernel_;
  const TrafficOptions traffic_;
  const IpvsOptions options_;
  Clock& clock_;
  NftBackend rules_;

  int device_ = 0;                                  // 0: not set up
  std::optional<VirtualServices> image_;            // what IPVS has; none: to be read back
  std::vector<IpAddr> addresses_;                   // of our device, sorted; with image_
  NodeAddresses node_;                              // with image_
  DesiredStatePtr applied_;                         // with image_
  std::map<Draining::value_type, MonoTime> since_;  // draining targets
  // What the rules were last given, and what of: unchanged Services keep their pointers.
  DesiredStatePtr rules_given_, rules_given_for_;
  std::unordered_map<const ServiceState*, std::pair<ServiceStatePtr, ServiceStatePtr>> rules_cache_;
};

}  // namespace hawser::proxy
