// SPDX-License-Identifier: Apache-2.0
// FlannelCni: flannel's CNI configuration of a node, and ours that goes on where it ended: the same network name (under
// which a runtime remembers what it attached), the same bridge, the reservations of host-local. Pure but for
// find_flannel_cni().
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include "cni-plugin/node_file.h"

namespace hawser::overlay {

struct FlannelCni {
  std::string file, text;       // where it is and what it says
  std::string network;          // "cbr0"
  boost::json::object options;  // keys of the bridge plugin that ours has too: bridge, isDefaultGateway, ...
  std::string subnet_file;      // "/run/flannel/subnet.env"
  std::string reservations;     // host-local's folder of this network
  std::string scratch;          // where flannel's plugin keeps what it delegated, a file a container
  boost::json::array others;    // plugins of the chain that we do not replace
};

// A configuration list, or a single plugin. nullopt: it is not flannel's. EINVAL: it is, and cannot be taken over.
Result<std::optional<FlannelCni>> parse_flannel_cni(const std::string& file, const std::string& text);
// The first of the folder's files, in the runtimes' order.
Result<std::optional<FlannelCni>> find_flannel_cni(const std::string& folder);

// Our configuration in the place of flannel's.
[[nodiscard]] std::string adopted_conflist_text(const FlannelCni& flannel, const std::string& node_file);
// What flannel's plugin would have told its delegate for a pod of this node; its DEL asks for that.
[[nodiscard]] std::string delegate_text(const FlannelCni& flannel, const cni::NodeFile& node, bool ip_masq);

}  // namespace hawser::overlay
