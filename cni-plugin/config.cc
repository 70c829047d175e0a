// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/config.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

#include "cni-plugin/version.h"

namespace hawser::cni {
namespace {

namespace json = boost::json;

constexpr std::string_view kDefaultNodeFile = "/run/hawser/node.json";
constexpr std::string_view kHostLocalDataDir = "/var/lib/cni/networks";  // host-local's own default

Outcome<std::string> string_key(const json::object& o, const char* key, std::string_view otherwise) {
  const auto* v = o.if_contains(key);
  if (!v || v->is_null()) return std::string(otherwise);
  if (!v->is_string()) return failure(Code::kInvalidConfig, "{}: must be a string", key);
  return std::string(v->get_string());
}

const json::object* object_key(const json::object& o, const char* key) {
  const auto* v = o.if_contains(key);
  return v && v->is_object() ? &v->get_object() : nullptr;
}

// "10.0.0.5" or "10.0.0.5/24"; runtimes write both.
Outcome<IpAddr> requested_address(std::string_view text, const char* where) {
  auto a = IpAddr::parse(text.substr(0, text.find('/')));
  if (!a) return failure(Code::kInvalidConfig, "{}: {}", where, a.error().text);
  return *a;
}

Outcome<std::vector<IpAddr>> address_list(const json::object& o, const char* where) {
  std::vector<IpAddr> out;
  const auto* ips = o.if_contains("ips");
  if (!ips) return out;
  if (!ips->is_array()) return failure(Code::kInvalidConfig, "{}: must be a list", where);
  for (const auto& v : ips->get_array()) {
    if (!v.is_string()) return failure(Code::kInvalidConfig, "{}: must hold strings", where);
    auto a = requested_address(v.get_string(), where);
    if (!a) return std::unexpected(a.error());
    out.push_back(*a);
  }
  return out;
}

// The strongest source that names any address wins: runtimeConfig.ips, args.cni.ips, CNI_ARGS.
Outcome<std::vector<IpAddr>> requested_addresses(const json::object& o, const Environment& env) {
  if (const auto* rc = object_key(o, "runtimeConfig")) {
    auto list = address_list(*rc, "runtimeConfig.ips");
    if (!list || !list->empty()) return list;
  }
  if (const auto* args = object_key(o, "args")) {
    if (const auto* cni = object_key(*args, "cni")) {
      auto list = address_list(*cni, "args.cni.ips");
      if (!list || !list->empty()) return list;
    }
  }
  auto ip = env.args.find("IP");
  if (ip == env.args.end() || ip->second.empty()) return std::vector<IpAddr>{};
  auto a = requested_address(ip->second, "CNI_ARGS IP");
  if (!a) return std::unexpected(a.error());
  return std::vector{*a};
}

Outcome<> parse_import(const json::object& ipam, NetConf& c) {
  const auto* v = ipam.if_contains("importHostLocal");
  if (!v || v->is_null() || *v == json::value(false)) return {};
  if (*v == json::value(true))
    c.host_local = fmt::format("{}/{}", kHostLocalDataDir, c.name);
  else if (v->is_string() && v->get_string().starts_with('/'))
    c.host_local = std::string(v->get_string());
  else
    return failure(Code::kInvalidConfig, "ipam.importHostLocal: {} must be true, false or an absolute path",
                   json::serialize(*v));
  return {};
}

Outcome<> parse_ipam(const json::object& o, NetConf& c) {
  static const json::object kNone;
  const auto* given = object_key(o, "ipam");
  if (!given && o.contains("ipam")) return failure(Code::kInvalidConfig, "ipam: must be an object");
  const auto& ipam = given ? *given : kNone;
  auto type = string_key(ipam, "type", "");
  if (!type) return std::unexpected(type.error());
  if (type->find('/') != std::string::npos)
    return failure(Code::kInvalidConfig, "ipam.type: \"{}\" is not a plugin name", *type);
  c.ipam_type = *type == c.type ? "" : *type;
  auto folder = string_key(ipam, "dataDir", c.run_folder + "/ipam");
  if (!folder) return std::unexpected(folder.error());
  c.ipam_folder = *folder + "/" + c.name;
  if (const auto* routes = ipam.if_contains("routes"); routes && routes->is_array()) c.routes = routes->get_array();
  if (!c.ipam_type.empty()) return {};  // the rest of `ipam` is the delegate's
  if (const auto* ranges = ipam.if_contains("ranges")) {
    if (ipam.contains("exclude"))
      return failure(Code::kInvalidConfig, "ipam.exclude: belongs to an item of ipam.ranges where that is given");
    auto sets = ipam::parse_range_sets(*ranges);
    if (!sets) return failure(Code::kInvalidConfig, "ipam.{}", sets.error().text);
    c.ranges = std::move(*sets);
  } else if (ipam.contains("subnet")) {
    auto range = ipam::parse_range(ipam);
    if (!range) return failure(Code::kInvalidConfig, "ipam.{}", range.error().text);
    c.ranges = {{*range}};
  } else if (const auto* exclude = ipam.if_contains("exclude")) {
    auto list = ipam::parse_exclude(*exclude);
    if (!list) return failure(Code::kInvalidConfig, "ipam.{}", list.error().text);
    c.exclude = std::move(*list);
  }
  return parse_import(ipam, c);
}

Outcome<> parse_valid_attachments(const json::object& o, NetConf& c) {
  const auto* list = o.if_contains("cni.dev/valid-attachments");
  if (!list || !list->is_array()) return failure(Code::kInvalidConfig, "cni.dev/valid-attachments: must be a list");
  for (const auto& v : list->get_array()) {
    const auto* item = v.is_object() ? &v.get_object() : nullptr;
    const auto* id = item ? item->if_contains("containerID") : nullptr;
    const auto* ifname = item ? item->if_contains("ifname") : nullptr;
    if (!id || !ifname || !id->is_string() || !ifname->is_string())
      return failure(Code::kInvalidConfig, "cni.dev/valid-attachments: an item needs containerID and ifname");
    c.valid_attachments.push_back({std::string(id->get_string()), std::string(ifname->get_string())});
  }
  return {};
}

// Keys of ours, after version and name.
Outcome<> parse_own(const json::object& o, NetConf& c) {
  auto type = string_key(o, "type", "hawser");
  auto node_file = string_key(o, "nodeFile", kDefaultNodeFile);
  auto mode = string_key(o, "mode", "routed");
  for (const auto* s : {&type, &node_file, &mode}) {
    if (!*s) return std::unexpected(s->error());
  }
  if (*mode != "routed" && *mode != "bridge")
    return failure(Code::kUnsupportedField, "mode: \"{}\" is not supported, only \"routed\" and \"bridge\"", *mode);
  if (!node_file->starts_with('/'))
    return failure(Code::kInvalidConfig, "nodeFile: \"{}\" is not an absolute path", *node_file);
  c.type = *type;
  c.node_file = *node_file;
  c.run_folder = c.node_file.substr(0, c.node_file.rfind('/'));
  if (*mode == "bridge") {
    auto bridge = parse_bridge(o);
    if (!bridge) return std::unexpected(bridge.error());
    c.bridge = *bridge;
  }
  if (const auto* mtu = o.if_contains("mtu")) {
    if (!mtu->is_int64() || (mtu->get_int64() != 0 && (mtu->get_int64() < 576 || mtu->get_int64() > 65535)))
      return failure(Code::kInvalidConfig, "mtu: {} must be 0 (automatic) or 576 to 65535", json::serialize(*mtu));
    c.mtu = static_cast<int>(mtu->get_int64());
  }
  if (const auto* dns = object_key(o, "dns")) c.dns = *dns;
  return parse_ipam(o, c);
}

Outcome<> parse_prev_result(const json::object& o, NetConf& c) {
  const auto* prev = o.if_contains("prevResult");
  if (!prev || prev->is_null()) return {};
  if (!prev->is_object()) return failure(Code::kDecode, "prevResult: must be an object");
  c.prev_result = prev->get_object();
  return {};
}

}  // namespace

std::string peek_version(std::string_view text) {
  boost::system::error_code ec;
  auto v = json::parse(text, ec);
  if (ec || !v.is_object()) return {};
  const auto* version = v.get_object().if_contains("cniVersion");
  return version && version->is_string() ? std::string(version->get_string()) : std::string();
}

Outcome<NetConf> parse_config(std::string_view text, const Environment& env) {
  boost::system::error_code ec;
  auto v = json::parse(text, ec);
  if (ec) return failure(Code::kDecode, "network configuration: {}", ec.message());
  if (!v.is_object()) return failure(Code::kDecode, "network configuration: not a JSON object");
  const auto& o = v.get_object();
  NetConf c;
  c.raw = std::string(text);
  // The oldest version had no such key.
  auto version = string_key(o, "cniVersion", "0.1.0");
  if (!version) return std::unexpected(version.error());
  c.version = version->empty() ? "0.1.0" : *version;
  if (!known_version(c.version))
    return failure(Code::kIncompatibleVersion, "cniVersion: \"{}\" is not supported, only {} to {}", c.version,
                   kVersions.front(), kVersions.back());
  auto name = string_key(o, "name", "");
  if (!name) return std::unexpected(name.error());
  if (auto why = identifier_fault(*name); !why.empty())
    return failure(Code::kInvalidConfig, "name: \"{}\" {}", *name, why);
  c.name = *name;
  if (auto r = parse_own(o, c); !r) return std::unexpected(r.error());
  auto requested = requested_addresses(o, env);
  if (!requested) return std::unexpected(requested.error());
  c.requested = std::move(*requested);
  auto asked = parse_capabilities(o, env);
  if (!asked) return std::unexpected(asked.error());
  c.asked = std::move(*asked);
  if (!c.asked.dns.empty()) c.dns = c.asked.dns;
  if (auto r = parse_prev_result(o, c); !r) return std::unexpected(r.error());
  if (env.verb == Verb::kGc) {
    if (auto r = parse_valid_attachments(o, c); !r) return std::unexpected(r.error());
  }
  return c;
}

}  // namespace hawser::cni
