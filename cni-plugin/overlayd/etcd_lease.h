// SPDX-License-Identifier: Apache-2.0
// flannel's leases as etcd has them (FEATURES O35): the key names the ranges, "10.5.52.0-24" or for dual stack
// "10.5.52.0-24&fc00::-64", and the value how the node is reached:
//   {"PublicIP":"192.0.2.11","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:..."}}
// Pure. What cannot be read is nullopt: one bad record must not stop the others.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "cni-plugin/overlayd/lease.h"
#include "cni-plugin/overlayd/net_conf.h"

namespace hawser::overlay {

[[nodiscard]] std::string lease_key(const std::vector<Cidr>& pod_cidrs);  // without the prefix
[[nodiscard]] std::optional<std::vector<Cidr>> parse_lease_key(std::string_view key);
[[nodiscard]] std::string lease_record(const Lease& lease);
// The lease's node is its public address, for etcd knows no names.
[[nodiscard]] std::optional<Lease> parse_lease_record(std::string_view key, std::string_view value);

// A free range of each family: the n-th, counted by `pick(count)`, of the first 100 that are free. nullopt: all taken.
[[nodiscard]] std::optional<std::vector<Cidr>> pick_free(const NetConf& conf, const std::vector<Cidr>& taken,
                                                         const std::function<std::size_t(std::size_t)>& pick);

}  // namespace hawser::overlay
