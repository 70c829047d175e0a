// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/bridge_options.h"

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

#include "cni-plugin/environment.h"

namespace hawser::cni {
namespace {

namespace json = boost::json;

Outcome<> read_flag(const json::object& o, const char* key, bool& into) {
  const auto* v = o.if_contains(key);
  if (!v || v->is_null()) return {};
  if (!v->is_bool()) return failure(Code::kInvalidConfig, "{}: must be true or false", key);
  into = v->get_bool();
  return {};
}

// Switched on or non-zero, these change what a bridge does in ways we do not have.
Outcome<> refuse_unknown(const json::object& o) {
  for (const char* key :
       {"vlan", "vlanTrunk", "macspoofchk", "portIsolation", "disableContainerInterface", "enabledad"}) {
    const auto* v = o.if_contains(key);
    const bool off = !v || v->is_null() || (v->is_bool() && !v->get_bool()) || (v->is_int64() && v->get_int64() == 0) ||
                     (v->is_array() && v->get_array().empty());
    if (!off) return failure(Code::kUnsupportedField, "{}: {} is not supported", key, json::serialize(*v));
  }
  return {};
}

}  // namespace

Outcome<BridgeOptions> parse_bridge(const json::object& o) {
  BridgeOptions b;
  if (const auto* name = o.if_contains("bridge")) {
    if (!name->is_string() || !interface_name_fault(std::string_view(name->get_string())).empty())
      return failure(Code::kInvalidConfig, "bridge: {} is not an interface name", json::serialize(*name));
    b.name = std::string(name->get_string());
  }
  struct Flag {
    const char* key;
    bool* into;
  };
  for (const Flag& f :
       {Flag{"isGateway", &b.gateway}, Flag{"isDefaultGateway", &b.default_gateway},
        Flag{"forceAddress", &b.force_address}, Flag{"hairpinMode", &b.hairpin}, Flag{"promiscMode", &b.promiscuous}}) {
    if (auto r = read_flag(o, f.key, *f.into); !r) return std::unexpected(r.error());
  }
  if (b.hairpin && b.promiscuous)
    return failure(Code::kInvalidConfig, "hairpinMode: true and promiscMode true exclude each other");
  if (auto r = refuse_unknown(o); !r) return std::unexpected(r.error());
  return b;
}

}  // namespace hawser::cni
