// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/capabilities.h"

#include <algorithm>
#include <array>
#include <limits>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <netinet/in.h>

namespace hawser::cni {
namespace {

namespace json = boost::json;

struct ProtocolName {
  std::uint8_t number;
  const char* name;
};
constexpr std::array<ProtocolName, 3> kProtocols = {
    {{IPPROTO_TCP, "tcp"}, {IPPROTO_UDP, "udp"}, {IPPROTO_SCTP, "sctp"}}};

constexpr std::uint64_t kBitsPerByte = 8;
// tc keeps a bucket's size in 32 bits of bytes.
constexpr std::uint64_t kMaxBurstBits = std::uint64_t{std::numeric_limits<std::uint32_t>::max()} * kBitsPerByte;

// A member of a capability's value. containerd writes those in Go's spelling, "HostPort" for "hostPort", since the
// reference plugins' reader takes any case: the exact key wins, else one that differs in case only.
const json::value* value_of(const json::object& o, std::string_view key) {
  if (const auto* v = o.if_contains(key)) return v;
  auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; };
  for (const auto& m : o) {
    if (std::ranges::equal(std::string_view(m.key()), key, {}, lower, lower)) return &m.value();
  }
  return nullptr;
}

const json::object* member(const json::object& o, const char* key) {
  const auto* v = o.if_contains(key);
  return v ? v->if_object() : nullptr;
}

Outcome<std::optional<MacAddr>> mac_of(std::string_view text, const char* where) {
  if (text.empty()) return std::optional<MacAddr>();
  auto mac = MacAddr::parse(text);
  if (!mac) return failure(Code::kInvalidConfig, "{}: {}", where, mac.error().text);
  // The lowest bit of the first byte marks a group address, which no interface may have.
  if ((mac->bytes[0] & 1) != 0 || *mac == MacAddr{})
    return failure(Code::kInvalidConfig, "{}: \"{}\" is not an interface's address", where, text);
  return std::optional(*mac);
}

Outcome<std::optional<MacAddr>> json_mac(const json::object* o, const char* where) {
  const auto* v = o ? o->if_contains("mac") : nullptr;
  if (!v || v->is_null()) return std::optional<MacAddr>();
  if (!v->is_string()) return failure(Code::kInvalidConfig, "{}: must be a string", where);
  return mac_of(v->get_string(), where);
}

Outcome<std::optional<MacAddr>> parse_mac(const json::object& conf, const json::object* rc, const Environment& env) {
  auto mac = json_mac(rc, "runtimeConfig.mac");
  if (!mac || *mac) return mac;
  const auto* args = member(conf, "args");
  mac = json_mac(args ? member(*args, "cni") : nullptr, "args.cni.mac");
  if (!mac || *mac) return mac;
  auto it = env.args.find("MAC");
  return mac_of(it == env.args.end() ? "" : it->second, "CNI_ARGS MAC");
}

// The capability's keys and the result's differ.
Outcome<json::object> parse_dns(const json::object* rc) {
  json::object out;
  const auto* dns = rc ? member(*rc, "dns") : nullptr;
  if (!dns) return out;
  constexpr std::array<std::array<const char*, 2>, 3> kKeys = {
      {{"servers", "nameservers"}, {"searches", "search"}, {"options", "options"}}};
  for (const auto& [from, to] : kKeys) {
    const auto* v = value_of(*dns, from);
    if (!v || v->is_null()) continue;
    const auto* list = v->if_array();
    if (!list || !std::ranges::all_of(*list, [](const json::value& s) { return s.is_string(); }))
      return failure(Code::kInvalidConfig, "runtimeConfig.dns.{}: must be a list of strings", from);
    if (!list->empty()) out[to] = *list;
  }
  return out;
}

Outcome<std::uint64_t> whole_number(const json::object& o, const char* key, std::string_view where, std::uint64_t max) {
  const auto* v = value_of(o, key);
  if (!v || v->is_null()) return 0;
  const bool good = v->is_uint64() || (v->is_int64() && v->get_int64() >= 0);
  const auto n = !good ? 0 : v->is_uint64() ? v->get_uint64() : static_cast<std::uint64_t>(v->get_int64());
  if (!good || n > max)
    return failure(Code::kInvalidConfig, "{}.{}: {} must be a number from 0 to {}", where, key, json::serialize(*v),
                   max);
  return n;
}

Outcome<std::uint8_t> protocol_of(const json::object& o, std::string_view where) {
  const auto* v = value_of(o, "protocol");
  if (!v || v->is_null()) return IPPROTO_TCP;
  const std::string_view text = v->is_string() ? std::string_view(v->get_string()) : std::string_view();
  for (const auto& p : kProtocols) {
    if (std::ranges::equal(text, std::string_view(p.name), {}, [](char c) { return static_cast<char>(c | 0x20); }))
      return p.number;
  }
  return failure(Code::kInvalidConfig, "{}.protocol: {} is not tcp, udp or sctp", where, json::serialize(*v));
}

Outcome<IpAddr> host_ip_of(const json::object& o, std::string_view where) {
  const auto* v = value_of(o, "hostIP");
  if (!v || v->is_null()) return IpAddr();
  if (!v->is_string()) return failure(Code::kInvalidConfig, "{}.hostIP: must be a string", where);
  const std::string_view text = v->get_string();
  if (text.empty()) return IpAddr();
  auto a = IpAddr::parse(text);
  if (!a) return failure(Code::kInvalidConfig, "{}.hostIP: {}", where, a.error().text);
  // "0.0.0.0" or "::", in whatever spelling: every address.
  return std::ranges::all_of(a->bytes(), [](std::uint8_t b) { return b == 0; }) ? IpAddr() : *a;
}

Outcome<PortMapping> parse_port(const json::object& o, std::string_view where) {
  constexpr std::uint64_t kMaxPort = 65535;
  auto host = whole_number(o, "hostPort", where, kMaxPort);
  auto container = whole_number(o, "containerPort", where, kMaxPort);
  if (!host) return std::unexpected(host.error());
  if (!container) return std::unexpected(container.error());
  if (*container == 0) return failure(Code::kInvalidConfig, "{}.containerPort: is missing", where);
  auto protocol = protocol_of(o, where);
  if (!protocol) return std::unexpected(protocol.error());
  auto ip = host_ip_of(o, where);
  if (!ip) return std::unexpected(ip.error());
  return PortMapping{static_cast<std::uint16_t>(*host), static_cast<std::uint16_t>(*container), *protocol, *ip};
}

Outcome<std::vector<PortMapping>> parse_ports(const json::object* rc) {
  std::vector<PortMapping> out;
  const auto* v = rc ? rc->if_contains("portMappings") : nullptr;
  if (!v || v->is_null()) return out;
  if (!v->is_array()) return failure(Code::kInvalidConfig, "runtimeConfig.portMappings: must be a list");
  for (const auto& item : v->get_array()) {
    const auto where = fmt::format("runtimeConfig.portMappings[{}]", out.size());
    if (!item.is_object()) return failure(Code::kInvalidConfig, "{}: must be an object", where);
    auto m = parse_port(item.get_object(), where);
    if (!m) return std::unexpected(m.error());
    auto same = [&](const PortMapping& o) {
      return o.host_port == m->host_port && o.protocol == m->protocol && o.host_ip == m->host_ip;
    };
    // A container's port that the node does not publish.
    if (m->host_port == 0) continue;
    if (std::ranges::any_of(out, same))
      return failure(Code::kInvalidConfig, "{}: {} is given twice", where, text_of(*m));
    out.push_back(*m);
  }
  return out;
}

Outcome<RateLimit> parse_rate(const json::object& o, const char* rate_key, const char* burst_key) {
  constexpr std::string_view kWhere = "runtimeConfig.bandwidth";
  auto rate = whole_number(o, rate_key, kWhere, std::numeric_limits<std::int64_t>::max());
  auto burst = whole_number(o, burst_key, kWhere, std::numeric_limits<std::int64_t>::max());
  if (!rate) return std::unexpected(rate.error());
  if (!burst) return std::unexpected(burst.error());
  if ((*rate == 0) != (*burst == 0))
    return failure(Code::kInvalidConfig, "{}: {} and {} must be given together", kWhere, rate_key, burst_key);
  if (*burst >= kMaxBurstBits)
    return failure(Code::kInvalidConfig, "{}.{}: {} must be less than 4 GiB", kWhere, burst_key, *burst);
  if (*rate != 0 && (*rate < kBitsPerByte || *burst < kBitsPerByte))
    return failure(Code::kInvalidConfig, "{}.{}: less than a byte", kWhere,
                   *rate < kBitsPerByte ? rate_key : burst_key);
  return RateLimit{*rate, *burst};
}

Outcome<Bandwidth> parse_bandwidth(const json::object* rc) {
  Bandwidth b;
  const auto* v = rc ? rc->if_contains("bandwidth") : nullptr;
  if (!v || v->is_null()) return b;
  if (!v->is_object()) return failure(Code::kInvalidConfig, "runtimeConfig.bandwidth: must be an object");
  auto in = parse_rate(v->get_object(), "ingressRate", "ingressBurst");
  if (!in) return std::unexpected(in.error());
  auto out = parse_rate(v->get_object(), "egressRate", "egressBurst");
  if (!out) return std::unexpected(out.error());
  return Bandwidth{*in, *out};
}

}  // namespace

const char* protocol_text(std::uint8_t protocol) {
  const auto* p = std::ranges::find(kProtocols, protocol, &ProtocolName::number);
  return p == kProtocols.end() ? "?" : p->name;
}

std::string text_of(const PortMapping& m) {
  const auto ip = m.host_ip ? m.host_ip.text() : "*";
  return fmt::format("{}:{}/{}", m.host_ip.is_v6() ? "[" + ip + "]" : ip, m.host_port, protocol_text(m.protocol));
}

Outcome<Capabilities> parse_capabilities(const json::object& conf, const Environment& env) {
  const auto* rc = member(conf, "runtimeConfig");
  auto mac = parse_mac(conf, rc, env);
  if (!mac) return std::unexpected(mac.error());
  auto dns = parse_dns(rc);
  if (!dns) return std::unexpected(dns.error());
  auto ports = parse_ports(rc);
  if (!ports) return std::unexpected(ports.error());
  auto bandwidth = parse_bandwidth(rc);
  if (!bandwidth) return std::unexpected(bandwidth.error());
  return Capabilities{*mac, std::move(*dns), std::move(*ports), *bandwidth};
}

}  // namespace hawser::cni
