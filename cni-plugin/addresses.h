// SPDX-License-Identifier: Apache-2.0
// Where a pod's addresses come from: our own store, or a delegate (`ipam.type`). One interface for the verbs. Main
// thread.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include "cni-plugin/config.h"
#include "cni-plugin/environment.h"
#include "cni-plugin/node_file.h"

namespace hawser::cni {

struct GivenAddress {
  Cidr address;    // with its subnet's prefix
  IpAddr gateway;  // of the subnet; invalid: none
};

struct GivenAddresses {
  std::vector<GivenAddress> addresses;  // not empty
  boost::json::array routes;            // beside the default routes
  boost::json::object dns;
};

class AddressSource {
 public:
  virtual ~AddressSource() = default;
  virtual Outcome<GivenAddresses> add(const NetConf& conf, const ipam::Owner& owner) = 0;
  virtual Outcome<> del(const NetConf& conf, const ipam::Owner& owner) = 0;
  // The owner holds exactly `addresses`.
  virtual Outcome<> check(const NetConf& conf, const ipam::Owner& owner, const std::vector<IpAddr>& addresses) = 0;
  // Forwards the verb; our own records are swept with everything else (collect/sweep.h) afterwards.
  virtual Outcome<> gc(const NetConf& conf) = 0;
  virtual Outcome<> status(const NetConf& conf) = 0;
  // Whole subnets we gave addresses of and do not any more. Empty where that is not known.
  [[nodiscard]] virtual std::vector<ipam::Range> former_subnets(const NetConf&) const { return {}; }
  // One of these: Store::retire().
  virtual Result<bool> retire(const NetConf&, const ipam::Range&, const std::function<Result<>()>&) { return false; }
};

// `node` is null where the node file could not be read.
std::unique_ptr<AddressSource> make_address_source(const NetConf& conf, const Environment& env, const NodeFile* node);

}  // namespace hawser::cni
