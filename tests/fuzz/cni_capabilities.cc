// SPDX-License-Identifier: Apache-2.0
// What a runtime asks for one attachment. Line 1: CNI_ARGS; the rest: the value of runtimeConfig. What is accepted can
// be done, and written out in full it is read as the same.
#include <algorithm>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <netinet/in.h>

#include "cni-plugin/config.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace hawser;
using fuzz::check;
namespace json = boost::json;

void check_ports(const std::vector<cni::PortMapping>& ports) {
  for (auto p = ports.begin(); p != ports.end(); ++p) {
    check(p->host_port != 0 && p->container_port != 0, cni::text_of(*p));
    check(p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP || p->protocol == IPPROTO_SCTP, cni::text_of(*p));
    auto same = [&](const cni::PortMapping& o) {
      return o.host_port == p->host_port && o.protocol == p->protocol && o.host_ip == p->host_ip;
    };
    check(std::none_of(ports.begin(), p, same), cni::text_of(*p));
  }
}

void check_limit(const cni::RateLimit& l) {
  constexpr std::uint64_t kBurst = std::uint64_t{0xffffffff} * 8;
  check((l.bits_per_second == 0) == (l.burst_bits == 0));
  // A bucket is counted in whole bytes, in 32 bits.
  check(l.bits_per_second == 0 || (l.bits_per_second >= 8 && l.burst_bits >= 8));
  check(l.burst_bits < kBurst);
}

void check_dns(const json::object& dns) {
  for (const auto& [key, value] : dns) {
    check(key == "nameservers" || key == "search" || key == "options", std::string(key));
    const auto* list = value.if_array();
    check(list && !list->empty() && std::ranges::all_of(*list, [](const auto& v) { return v.is_string(); }));
  }
}

// The same wishes in the specification's spelling.
json::object in_full(const cni::NetConf& c) {
  json::object rc;
  auto& ports = rc["portMappings"].emplace_array();
  for (const auto& p : c.asked.ports) {
    json::object o{{"hostPort", p.host_port}, {"containerPort", p.container_port}};
    o["protocol"] = cni::protocol_text(p.protocol);
    if (p.host_ip) o["hostIP"] = p.host_ip.text();
    ports.push_back(o);
  }
  const auto& b = c.asked.bandwidth;
  rc["bandwidth"] = {{"ingressRate", b.ingress.bits_per_second},
                     {"ingressBurst", b.ingress.burst_bits},
                     {"egressRate", b.egress.bits_per_second},
                     {"egressBurst", b.egress.burst_bits}};
  if (c.asked.mac) rc["mac"] = c.asked.mac->text();
  json::object dns;
  for (const auto& [from, to] : {std::pair("nameservers", "servers"), {"search", "searches"}, {"options", "options"}}) {
    if (const auto* v = c.asked.dns.if_contains(from)) dns[to] = *v;
  }
  rc["dns"] = dns;
  auto& ips = rc["ips"].emplace_array();
  for (const auto& a : c.requested) ips.emplace_back(a.text());
  return rc;
}

std::string config(std::string_view runtime_config) {
  return fmt::format(R"({{"cniVersion":"1.1.0","name":"n","runtimeConfig":{}}})", runtime_config);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input in(data, size);
  const std::string args(in.line());
  auto env = cni::read_environment([&](const char* variable) -> std::string {
    const std::string_view v(variable);
    return v == "CNI_COMMAND" ? "ADD" : v == "CNI_ARGS" ? args : v == "CNI_NETNS_OVERRIDE" ? "" : "a";
  });
  if (!env) {
    check(env.error().code == cni::Code::kInvalidEnvironment && env.error().msg.contains("CNI_ARGS"), env.error().msg);
    return 0;
  }
  for (const auto& [key, value] : env->args) check(!key.empty() && args.contains(key + "=" + value), key);
  auto conf = cni::parse_config(config(in.rest()), *env);
  if (!conf) {
    check(!conf.error().msg.empty());
    return 0;
  }
  check_ports(conf->asked.ports);
  check_limit(conf->asked.bandwidth.ingress);
  check_limit(conf->asked.bandwidth.egress);
  check(!conf->asked.mac || (conf->asked.mac->bytes[0] & 1) == 0);
  check_dns(conf->asked.dns);
  for (const auto& a : conf->requested) check(static_cast<bool>(a));
  const auto text = config(json::serialize(in_full(*conf)));
  auto again = cni::parse_config(text, *env);
  check(again && again->asked.ports == conf->asked.ports && again->asked.bandwidth == conf->asked.bandwidth &&
            again->asked.mac == conf->asked.mac && again->asked.dns == conf->asked.dns &&
            again->requested == conf->requested,
        text);
  return 0;
}
