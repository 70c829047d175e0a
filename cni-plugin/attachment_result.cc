// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/attachment_result.h"

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

#include "cni-plugin/version.h"

namespace hawser::cni {
namespace {

namespace json = boost::json;

json::array& list(ResultJson& r, std::string_view key) {
  auto& v = r[key];
  if (!v.is_array()) v.emplace_array();
  return v.get_array();
}

// 0.1.0 and 0.2.0: {"ip4":{"ip","gateway","routes"},"ip6":{...},"dns"}.
ResultJson from_oldest(const ResultJson& in) {
  ResultJson out;
  for (const char* key : {"ip4", "ip6"}) {
    const auto* family = in.if_contains(key);
    if (!family || !family->is_object()) continue;
    const auto& o = family->get_object();
    json::object ip;
    if (const auto* a = o.if_contains("ip")) ip["address"] = *a;
    if (const auto* g = o.if_contains("gateway")) ip["gateway"] = *g;
    list(out, "ips").push_back(ip);
    if (const auto* routes = o.if_contains("routes"); routes && routes->is_array()) {
      for (const auto& r : routes->get_array()) list(out, "routes").push_back(r);
    }
  }
  if (const auto* dns = in.if_contains("dns")) out["dns"] = *dns;
  return out;
}

bool is_v6_text(const json::value& v) {
  return v.is_string() && v.get_string().find(':') != json::string::npos;
}

const json::object* as_object(const json::value& v) {
  return v.if_object();
}

ResultJson to_oldest(const ResultJson& in) {
  ResultJson out;
  const auto* ips = in.if_contains("ips");
  if (ips && ips->is_array()) {
    for (const auto& v : ips->get_array()) {
      const auto* ip = as_object(v);
      const auto* address = ip ? ip->if_contains("address") : nullptr;
      if (!address) continue;
      const char* key = is_v6_text(*address) ? "ip6" : "ip4";
      if (out.contains(key)) continue;
      json::object family;
      family["ip"] = *address;
      if (const auto* g = ip->if_contains("gateway")) family["gateway"] = *g;
      out[key] = family;
    }
  }
  const auto* routes = in.if_contains("routes");
  if (routes && routes->is_array()) {
    for (const auto& v : routes->get_array()) {
      const auto* route = as_object(v);
      const auto* dst = route ? route->if_contains("dst") : nullptr;
      auto* family = dst ? out.if_contains(is_v6_text(*dst) ? "ip6" : "ip4") : nullptr;
      if (family) list(family->get_object(), "routes").push_back(v);
    }
  }
  if (const auto* dns = in.if_contains("dns")) out["dns"] = *dns;
  return out;
}

// 0.3.0 to 0.4.0 name the family of each address; 1.0.0 dropped that.
void add_ip_versions(ResultJson& r) {
  auto* ips = r.if_contains("ips");
  if (!ips || !ips->is_array()) return;
  for (auto& v : ips->get_array()) {
    if (!v.is_object()) continue;
    const auto* address = v.get_object().if_contains("address");
    if (address) v.get_object()["version"] = is_v6_text(*address) ? "6" : "4";
  }
}

// Keys that came with 1.1.0.
void drop_new_keys(ResultJson& r) {
  struct {
    const char* list;
    std::initializer_list<const char*> keys;
  } const kNew[] = {{"interfaces", {"mtu", "socketPath", "pciID"}},
                    {"routes", {"mtu", "advmss", "priority", "table", "scope"}}};
  for (const auto& n : kNew) {
    auto* items = r.if_contains(n.list);
    if (!items || !items->is_array()) continue;
    for (auto& v : items->get_array()) {
      for (const char* key : n.keys) {
        if (v.is_object()) v.get_object().erase(key);
      }
    }
  }
}

}  // namespace

Outcome<ResultJson> from_version(const ResultJson& in, std::string_view version) {
  ResultJson out = at_least(version, "0.3.0") ? in : from_oldest(in);
  out.erase("cniVersion");
  for (const char* key : {"interfaces", "ips", "routes"}) {
    const auto* v = out.if_contains(key);
    if (v && !v->is_array() && !v->is_null()) return failure(Code::kDecode, "result: {} must be a list", key);
  }
  for (auto& v : list(out, "ips")) {
    if (!v.is_object()) return failure(Code::kDecode, "result: an item of ips must be an object");
    v.get_object().erase("version");
  }
  if (auto ips = result_ips(out); !ips) return std::unexpected(ips.error());
  return out;
}

ResultJson to_version(const ResultJson& in, std::string_view version) {
  ResultJson body = at_least(version, "0.3.0") ? in : to_oldest(in);
  if (!at_least(version, "1.0.0")) add_ip_versions(body);
  if (!at_least(version, "1.1.0")) drop_new_keys(body);
  ResultJson out;
  out["cniVersion"] = version;
  for (auto& [key, value] : body) out[key] = value;
  return out;
}

Outcome<std::vector<ResultIp>> result_ips(const ResultJson& r) {
  std::vector<ResultIp> out;
  const auto* ips = r.if_contains("ips");
  if (!ips || !ips->is_array()) return out;
  for (const auto& v : ips->get_array()) {
    const auto* o = as_object(v);
    const auto* address = o ? o->if_contains("address") : nullptr;
    if (!address || !address->is_string()) return failure(Code::kDecode, "result: an item of ips has no address");
    auto cidr = Cidr::parse(std::string_view(address->get_string()));
    if (!cidr) return failure(Code::kDecode, "result: ips.address: {}", cidr.error().text);
    ResultIp ip{.address = *cidr};
    if (const auto* g = o->if_contains("gateway"); g && g->is_string() && !g->get_string().empty()) {
      auto gateway = IpAddr::parse(std::string_view(g->get_string()));
      if (!gateway) return failure(Code::kDecode, "result: ips.gateway: {}", gateway.error().text);
      ip.gateway = *gateway;
    }
    if (const auto* i = o->if_contains("interface"); i && i->is_int64())
      ip.interface = static_cast<int>(i->get_int64());
    out.push_back(ip);
  }
  return out;
}

}  // namespace hawser::cni
