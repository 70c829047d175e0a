// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/node_file.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

#include "cni-plugin/environment.h"
#include "lib/base/atomic_file.h"

namespace hawser::cni {
namespace {

namespace json = boost::json;

Result<std::vector<Cidr>> parse_cidrs(const json::object& o, const char* key) {
  std::vector<Cidr> out;
  const auto* list = o.if_contains(key);
  if (!list) return out;
  if (!list->is_array()) return fail(EINVAL, "{}: must be a list", key);
  for (const auto& item : list->get_array()) {
    if (!item.is_string()) return fail(EINVAL, "{}: must hold strings", key);
    auto c = Cidr::parse(std::string_view(item.get_string()));
    if (!c) return propagate(c, "{}", key);
    out.push_back(c->network());
  }
  return out;
}

Result<std::vector<std::string>> parse_devices(const json::object& o) {
  std::vector<std::string> out;
  const auto* list = o.if_contains("devices");
  if (!list) return out;
  if (!list->is_array()) return fail(EINVAL, "devices: must be a list");
  for (const auto& item : list->get_array()) {
    const auto name = item.is_string() ? std::string_view(item.get_string()) : std::string_view();
    if (auto why = interface_name_fault(name); !why.empty()) return fail(EINVAL, "devices: \"{}\" {}", name, why);
    out.emplace_back(name);
  }
  return out;
}

json::array cidr_list(const std::vector<Cidr>& cidrs) {
  json::array a;
  for (const auto& c : cidrs) a.emplace_back(c.text());
  return a;
}

}  // namespace

Result<NodeFile> NodeFile::parse(std::string_view text) {
  boost::system::error_code ec;
  auto v = json::parse(text, ec);
  if (ec || !v.is_object()) return fail(EINVAL, "not a JSON object");
  const auto& o = v.get_object();
  NodeFile n;
  if (const auto* name = o.if_contains("node"); name && name->is_string()) n.node = std::string(name->get_string());
  auto pods = parse_cidrs(o, "podCIDRs");
  if (!pods) return propagate(pods);
  if (pods->empty()) return fail(EINVAL, "podCIDRs: is missing");
  auto cluster = parse_cidrs(o, "clusterCIDRs");
  if (!cluster) return propagate(cluster);
  const auto* mtu = o.if_contains("mtu");
  if (!mtu || !mtu->is_int64() || mtu->get_int64() < 576 || mtu->get_int64() > 65535)
    return fail(EINVAL, "mtu: must be a number from 576 to 65535");
  auto devices = parse_devices(o);
  if (!devices) return propagate(devices);
  n.devices = std::move(*devices);
  n.pod_cidrs = std::move(*pods);
  n.cluster_cidrs = std::move(*cluster);
  n.mtu = static_cast<int>(mtu->get_int64());
  return n;
}

Result<NodeFile> NodeFile::load(const std::string& path) {
  auto text = read_file(path, 1u << 20);
  if (!text) return propagate(text);
  auto n = parse(*text);
  if (!n) return propagate(n, "{}", path);
  return n;
}

std::string NodeFile::text() const {
  json::object o;
  o["version"] = 1;
  o["node"] = node;
  o["podCIDRs"] = cidr_list(pod_cidrs);
  o["clusterCIDRs"] = cidr_list(cluster_cidrs);
  o["mtu"] = mtu;
  if (!devices.empty()) o["devices"] = json::array(devices.begin(), devices.end());
  return json::serialize(o) + "\n";
}

}  // namespace hawser::cni
