// SPDX-License-Identifier: Apache-2.0
#include "controlplane/schema/columns.h"

#include <algorithm>
#include <array>
#include <vector>

#include <boost/json/array.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "controlplane/schema/scalar.h"
#include "lib/kube/selector.h"

namespace hawser::schema {
namespace {

namespace json = boost::json;
using kube::arr;
using kube::as_obj;
using kube::num;
using kube::obj;
using kube::Object;
using kube::str;

constexpr std::string_view kNone = "<none>";
constexpr std::string_view kUnset = "<unset>";
constexpr std::size_t kMaxListed = 3;

json::value text(std::string_view s) {
  return json::string(s);
}

json::value age(const Object& o, std::int64_t now) {
  return text(since(str(o, {"metadata", "creationTimestamp"}), now));
}

std::int64_t size_of(const Object& o, std::string_view field) {
  return static_cast<std::int64_t>(obj(o, {field}).size());
}
json::value configmap_data(const Object& o, std::int64_t) {
  return size_of(o, "data") + size_of(o, "binaryData");
}
json::value secret_data(const Object& o, std::int64_t) {
  return size_of(o, "data");
}
json::value sa_secrets(const Object& o, std::int64_t) {
  return static_cast<std::int64_t>(arr(o, {"secrets"}).size());
}

json::value deployment_ready(const Object& o, std::int64_t) {
  return text(fmt::format("{}/{}", num(o, {"status", "readyReplicas"}), num(o, {"spec", "replicas"})));
}

json::value joined_of_containers(const Object& o, std::string_view field) {
  std::string out;
  for (const auto& c : arr(o, {"spec", "template", "spec", "containers"})) {
    if (!out.empty()) out += ',';
    out += str(as_obj(c), {field});
  }
  return text(out);
}
json::value template_containers(const Object& o, std::int64_t) {
  return joined_of_containers(o, "name");
}
json::value template_images(const Object& o, std::int64_t) {
  return joined_of_containers(o, "image");
}

json::value workload_selector(const Object& o, std::int64_t) {
  auto selector = kube::LabelSelector::from_object(obj(o, {"spec", "selector"}));
  if (!selector) return text("<error>");
  return text(selector->empty() ? std::string(kNone) : selector->text());
}

json::value node_status(const Object& o, std::int64_t) {
  std::string out = "Unknown";
  for (const auto& c : arr(o, {"status", "conditions"}))
    if (str(as_obj(c), {"type"}) == "Ready") out = str(as_obj(c), {"status"}) == "True" ? "Ready" : "NotReady";
  if (kube::flag(o, {"spec", "unschedulable"})) out += ",SchedulingDisabled";
  return text(out);
}

json::value node_roles(const Object& o, std::int64_t) {
  constexpr std::string_view kPrefix = "node-role.kubernetes.io/";
  std::vector<std::string_view> roles;
  for (const auto& [key, v] : obj(o, {"metadata", "labels"})) {
    std::string_view k = key;
    std::string_view role;
    if (k.starts_with(kPrefix))
      role = k.substr(kPrefix.size());
    else if (k == "kubernetes.io/role" && v.is_string())
      role = v.get_string();
    if (!role.empty()) roles.push_back(role);
  }
  if (roles.empty()) return text(kNone);
  std::ranges::sort(roles);
  return text(fmt::format("{}", fmt::join(roles, ",")));
}

json::value node_address(const Object& o, std::string_view type) {
  for (const auto& a : arr(o, {"status", "addresses"}))
    if (str(as_obj(a), {"type"}) == type) return text(str(as_obj(a), {"address"}));
  return text(kNone);
}
json::value node_internal_ip(const Object& o, std::int64_t) {
  return node_address(o, "InternalIP");
}
json::value node_external_ip(const Object& o, std::int64_t) {
  return node_address(o, "ExternalIP");
}

json::value service_ip(const Object& o, std::int64_t) {
  auto ip = str(o, {"spec", "clusterIP"});
  return text(ip.empty() ? kNone : ip);
}

json::value service_external(const Object& o, std::int64_t) {
  auto type = str(o, {"spec", "type"});
  if (type == "ExternalName") return text(str(o, {"spec", "externalName"}));
  std::vector<std::string_view> all;
  for (const auto& i : arr(o, {"status", "loadBalancer", "ingress"})) {
    auto ip = str(as_obj(i), {"ip"});
    if (type == "LoadBalancer") all.push_back(ip.empty() ? str(as_obj(i), {"hostname"}) : ip);
  }
  for (const auto& ip : arr(o, {"spec", "externalIPs"}))
    if (ip.is_string()) all.emplace_back(ip.get_string());
  if (all.empty()) return text(type == "LoadBalancer" ? "<pending>" : kNone);
  return text(fmt::format("{}", fmt::join(all, ",")));
}

json::value service_ports(const Object& o, std::int64_t) {
  std::string out;
  for (const auto& v : arr(o, {"spec", "ports"})) {
    const auto& p = as_obj(v);
    if (!out.empty()) out += ',';
    out += std::to_string(num(p, {"port"}));
    if (auto node = num(p, {"nodePort"})) out += fmt::format(":{}", node);
    out += '/';
    out += str(p, {"protocol"});
  }
  return text(out.empty() ? kNone : out);
}

json::value service_selector(const Object& o, std::int64_t) {
  const auto& selector = obj(o, {"spec", "selector"});
  return text(selector.empty() ? std::string(kNone) : kube::LabelSelector::from_map(selector).text());
}

// The first few of a list, and how many more there are.
class ShortList {
 public:
  void add(std::string s) {
    if (count_++ < kMaxListed) shown_.push_back(std::move(s));
  }
  [[nodiscard]] json::value cell(std::string_view nothing) const {
    if (count_ == 0) return text(nothing);
    auto out = fmt::format("{}", fmt::join(shown_, ","));
    if (count_ > kMaxListed) out += fmt::format(" + {} more...", count_ - kMaxListed);
    return text(out);
  }

 private:
  std::vector<std::string> shown_;
  std::size_t count_ = 0;
};

std::string host_port(std::string_view ip, std::int64_t port) {
  return ip.find(':') == std::string_view::npos ? fmt::format("{}:{}", ip, port) : fmt::format("[{}]:{}", ip, port);
}

json::value endpoints_list(const Object& o, std::int64_t) {
  ShortList list;
  for (const auto& subset : arr(o, {"subsets"})) {
    const auto& addresses = arr(as_obj(subset), {"addresses"});
    const auto& ports = arr(as_obj(subset), {"ports"});
    for (const auto& p : ports)
      for (const auto& a : addresses) list.add(host_port(str(as_obj(a), {"ip"}), num(as_obj(p), {"port"})));
    if (ports.empty())
      for (const auto& a : addresses) list.add(std::string(str(as_obj(a), {"ip"})));
  }
  return list.cell(kNone);
}

json::value slice_ports(const Object& o, std::int64_t) {
  ShortList list;
  for (const auto& p : arr(o, {"ports"})) {
    const auto* port = kube::find(as_obj(p), {"port"});
    list.add(port ? std::to_string(num(as_obj(p), {"port"})) : "*");
  }
  return list.cell(kUnset);
}

json::value slice_endpoints(const Object& o, std::int64_t) {
  ShortList list;
  for (const auto& e : arr(o, {"endpoints"}))
    for (const auto& a : arr(as_obj(e), {"addresses"}))
      if (a.is_string()) list.add(std::string(a.get_string()));
  return list.cell(kUnset);
}

std::string first_seen(const Object& o, std::int64_t now) {
  auto first = str(o, {"firstTimestamp"});
  return since(first.empty() ? str(o, {"eventTime"}) : first, now);
}
json::value event_first(const Object& o, std::int64_t now) {
  return text(first_seen(o, now));
}
json::value event_last(const Object& o, std::int64_t now) {
  if (kube::find(o, {"series"})) return text(since(str(o, {"series", "lastObservedTime"}), now));
  auto last = str(o, {"lastTimestamp"});
  return text(last.empty() ? first_seen(o, now) : since(last, now));
}
json::value event_count(const Object& o, std::int64_t) {
  auto count = kube::find(o, {"series"}) ? num(o, {"series", "count"}) : num(o, {"count"});
  return count == 0 ? std::int64_t{1} : count;
}
json::value event_object(const Object& o, std::int64_t) {
  std::string out(str(o, {"involvedObject", "kind"}));
  std::ranges::transform(out, out.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  auto name = str(o, {"involvedObject", "name"});
  if (!name.empty()) out += "/" + std::string(name);
  return text(out);
}
json::value event_source(const Object& o, std::int64_t) {
  auto component = str(o, {"source", "component"});
  auto host = str(o, {"source", "host"});
  if (component.empty()) component = str(o, {"reportingComponent"});
  if (host.empty()) host = str(o, {"reportingInstance"});
  return text(host.empty() ? std::string(component) : fmt::format("{}, {}", component, host));
}
json::value event_message(const Object& o, std::int64_t) {
  auto message = str(o, {"message"});
  constexpr std::string_view kSpace = " \t\r\n";
  auto first = message.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return text("");
  return text(message.substr(first, message.find_last_not_of(kSpace) - first + 1));
}

struct NamedCell {
  std::string_view name;
  CellFunction function;
};
constexpr std::array<NamedCell, 29> kCells{{
    {"age", age},
    {"configmap_data", configmap_data},
    {"deployment_ready", deployment_ready},
    {"endpoints_list", endpoints_list},
    {"event_count", event_count},
    {"event_first", event_first},
    {"event_last", event_last},
    {"event_message", event_message},
    {"event_object", event_object},
    {"event_source", event_source},
    {"node_external_ip", node_external_ip},
    {"node_internal_ip", node_internal_ip},
    {"node_roles", node_roles},
    {"node_status", node_status},
    {"pod_gates", cells::pod_gates},
    {"pod_ready", cells::pod_ready},
    {"pod_restarts", cells::pod_restarts},
    {"pod_status", cells::pod_status},
    {"sa_secrets", sa_secrets},
    {"secret_data", secret_data},
    {"service_external", service_external},
    {"service_ip", service_ip},
    {"service_ports", service_ports},
    {"service_selector", service_selector},
    {"slice_endpoints", slice_endpoints},
    {"slice_ports", slice_ports},
    {"template_containers", template_containers},
    {"template_images", template_images},
    {"workload_selector", workload_selector},
}};

}  // namespace

CellFunction find_cell(std::string_view name) {
  const auto* found = std::ranges::find(kCells, name, &NamedCell::name);
  return found == kCells.end() ? nullptr : found->function;
}

std::string human_duration(std::int64_t seconds) {
  constexpr std::int64_t kMinute = 60, kHour = 3600, kDay = 24 * kHour, kYear = 365 * kDay;
  // A small difference between two clocks is not an error.
  if (seconds < -1) return "<invalid>";
  if (seconds < 0) return "0s";
  auto two = [&](std::int64_t big, std::string_view big_unit, std::int64_t small, std::string_view small_unit) {
    return small == 0 ? fmt::format("{}{}", big, big_unit) : fmt::format("{}{}{}{}", big, big_unit, small, small_unit);
  };
  if (seconds < 2 * kMinute) return fmt::format("{}s", seconds);
  if (seconds < 10 * kMinute) return two(seconds / kMinute, "m", seconds % kMinute, "s");
  if (seconds < 3 * kHour) return fmt::format("{}m", seconds / kMinute);
  if (seconds < 8 * kHour) return two(seconds / kHour, "h", seconds % kHour / kMinute, "m");
  if (seconds < 2 * kDay) return fmt::format("{}h", seconds / kHour);
  if (seconds < 8 * kDay) return two(seconds / kDay, "d", seconds % kDay / kHour, "h");
  if (seconds < 2 * kYear) return fmt::format("{}d", seconds / kDay);
  if (seconds < 8 * kYear) return two(seconds / kYear, "y", seconds % kYear / kDay, "d");
  return fmt::format("{}y", seconds / kYear);
}

std::string since(std::string_view time, std::int64_t now) {
  auto us = parse_time_us(time);
  return us ? human_duration(now - *us / 1'000'000) : "<unknown>";
}

}  // namespace hawser::schema
