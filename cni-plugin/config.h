// SPDX-License-Identifier: Apache-2.0
// NetConf: the network configuration from standard input, checked. Unknown keys are ignored (SPEC.md section 1); a key
// of ours with a value we cannot honour is refused by name. Pure.
//
//   {"cniVersion":"1.0.0","name":"hawser","type":"hawser",
//    "mode":"routed",                    or "bridge" (bridge_options.h has its keys)
//    "mtu":1450,                         else that of node.json
//    "nodeFile":"/run/hawser/node.json", where overlayd describes the node
//    "ipam":{"type":"hawser",            or any plugin on CNI_PATH; without it our own
//            "dataDir":"/run/hawser/ipam", "ranges":[[{"subnet":...}]], "routes":[{"dst":...}],
//            "exclude":["10.244.1.64/26"],     of the node's pod CIDRs; a range has its own
//            "importHostLocal":true}}          or the folder of its reservations
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include "cni-plugin/bridge_options.h"
#include "cni-plugin/capabilities.h"
#include "cni-plugin/environment.h"
#include "cni-plugin/failure.h"
#include "cni-plugin/ipam/range.h"
#include "cni-plugin/ipam/record.h"

namespace hawser::cni {

struct NetConf {
  std::string version;  // cniVersion; a known one
  std::string name;
  std::string type;
  std::string node_file;
  std::string run_folder;               // that of node_file; what we remember is kept there
  std::optional<BridgeOptions> bridge;  // mode "bridge"
  Capabilities asked;
  int mtu = 0;                         // 0: node.json's
  std::string ipam_type;               // empty: built in
  std::string ipam_folder;             // of this network
  std::vector<ipam::RangeSet> ranges;  // empty: the node's pod CIDRs without `exclude`
  std::vector<Cidr> exclude;
  std::string host_local;     // folder of host-local's reservations to import; empty: none
  boost::json::array routes;  // extra ones for the pod, as given
  boost::json::object dns;
  std::vector<IpAddr> requested;
  std::optional<boost::json::object> prev_result;  // as given, in `version`
  std::vector<ipam::Owner> valid_attachments;      // GC
  std::string raw;                                 // for delegates
};

// The version alone; what VERSION and error objects need. "" if there is none to read.
[[nodiscard]] std::string peek_version(std::string_view stdin_text);

// `env` gives the requested address of CNI_ARGS (IP=...), which yields to args.cni.ips and runtimeConfig.ips.
Outcome<NetConf> parse_config(std::string_view stdin_text, const Environment& env);

}  // namespace hawser::cni
