// SPDX-License-Identifier: Apache-2.0
// NetConf: flannel's network configuration (net-conf.json, or etcd's <prefix>/config; FEATURES O30): the cluster's
// ranges, how large a node's part is, and the back end. What is accepted can be used; the error names field and reason.
// A missing Backend is vxlan, as flannel's documentation says and its code does not. Pure, any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cni-plugin/overlayd/backend.h"

namespace hawser::overlay {

// One family of the cluster's network and how it is cut into the nodes' ranges.
struct SubnetPool {
  Cidr network;
  int subnet_len = 0;
  IpAddr min, max;  // network addresses of the first and the last range that may be given out
  // How many ranges there are, at most 2^31.
  [[nodiscard]] std::uint64_t count() const;
  [[nodiscard]] Cidr at(std::uint64_t n) const;  // n < count()
  // A whole range of this pool.
  [[nodiscard]] bool offers(const Cidr& c) const;
  bool operator==(const SubnetPool&) const = default;
};

struct NetConf {
  std::optional<SubnetPool> v4, v6;  // at least one
  Settings settings;                 // of the back end; the rest is as by default
  [[nodiscard]] std::vector<Cidr> networks() const;
  static Result<NetConf> parse(std::string_view json);
};

}  // namespace hawser::overlay
