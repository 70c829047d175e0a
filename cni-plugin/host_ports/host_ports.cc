// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/host_ports/host_ports.h"

#include <algorithm>
#include <filesystem>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <netinet/in.h>
#include <unistd.h>

namespace hawser::cni {
namespace {

namespace json = boost::json;
namespace fs = std::filesystem;

constexpr std::string_view kSuffix = ".json";
constexpr std::size_t kMaxRecordBytes = 1u << 20;

std::string record_text(const HostPortRecord& r) {
  json::array ports, addresses, bridged;
  for (const auto& m : r.ports) {
    json::object o{{"hostPort", m.host_port}, {"containerPort", m.container_port}, {"protocol", m.protocol}};
    if (m.host_ip) o["hostIP"] = m.host_ip.text();
    ports.push_back(o);
  }
  for (const auto& a : r.addresses) addresses.emplace_back(a.text());
  for (const auto& c : r.bridged) bridged.emplace_back(c.text());
  return json::serialize(json::object{{"network", r.network},
                                      {"container", r.owner.container},
                                      {"ifname", r.owner.ifname},
                                      {"ports", ports},
                                      {"addresses", addresses},
                                      {"bridged", bridged}});
}

std::string text_at(const json::object& o, const char* key) {
  const auto* v = o.if_contains(key);
  return v && v->is_string() ? std::string(v->get_string()) : std::string();
}
std::uint16_t number_at(const json::object& o, const char* key) {
  const auto* v = o.if_contains(key);
  return v && v->is_int64() ? static_cast<std::uint16_t>(v->get_int64()) : std::uint16_t{0};
}
template <class Fn>
void each_at(const json::object& o, const char* key, Fn fn) {
  const auto* v = o.if_contains(key);
  if (!v || !v->is_array()) return;
  for (const auto& item : v->get_array()) fn(item);
}

Result<HostPortRecord> parse_record(std::string_view text) {
  boost::system::error_code ec;
  auto v = json::parse(text, ec);
  const auto* o = ec ? nullptr : v.if_object();
  if (!o) return fail(EINVAL, "not a JSON object");
  HostPortRecord r{.network = text_at(*o, "network"), .owner = {text_at(*o, "container"), text_at(*o, "ifname")}};
  each_at(*o, "ports", [&](const json::value& item) {
    const auto* p = item.if_object();
    if (!p) return;
    r.ports.push_back({number_at(*p, "hostPort"), number_at(*p, "containerPort"),
                       static_cast<std::uint8_t>(number_at(*p, "protocol")),
                       IpAddr::parse(text_at(*p, "hostIP")).value_or(IpAddr())});
  });
  each_at(*o, "addresses", [&](const json::value& item) {
    if (!item.is_string()) return;
    if (auto a = IpAddr::parse(std::string_view(item.get_string()))) r.addresses.push_back(*a);
  });
  each_at(*o, "bridged", [&](const json::value& item) {
    if (!item.is_string()) return;
    if (auto c = Cidr::parse(std::string_view(item.get_string()))) r.bridged.push_back(*c);
  });
  return r;
}

bool has_udp(const HostPortRecord& r) {
  return std::ranges::find(r.ports, IPPROTO_UDP, &PortMapping::protocol) != r.ports.end();
}

// A flow of one of the record's ports. Going: one that leads to the container; coming: one that leads elsewhere.
bool is_stale(const HostPortRecord& r, const netlink::Flow& f, bool going) {
  const bool to_us = std::ranges::find(r.addresses, f.answers_from.addr) != r.addresses.end();
  if (to_us != going) return false;
  // Without a host IP a flow that passes through the node to another machine's port looks the same; to lose that entry
  // costs it nothing but a new one.
  return std::ranges::any_of(r.ports, [&](const PortMapping& m) {
    return m.protocol == IPPROTO_UDP && m.host_port == f.destination.port &&
           (!m.host_ip || m.host_ip == f.destination.addr);
  });
}

}  // namespace

std::string HostPorts::record_path(const std::string& folder, const std::string& name) {
  return fmt::format("{}/{}{}", folder, name, kSuffix);
}

Result<HostPorts> HostPorts::open(std::string folder, Kernel kernel) {
  if (auto r = make_folders(folder, 0700); !r) return propagate(r, "host ports");
  auto lock = FileLock::acquire(folder + "/lock");
  if (!lock) return propagate(lock, "host ports");
  return HostPorts(std::move(folder), std::move(*lock), kernel);
}

Result<std::vector<HostPorts::Named>> HostPorts::read_records() {
  std::vector<Named> out;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(folder_, ec)) {
    auto name = entry.path().filename().native();
    // Also passes over what a killed writer left half written, which has another ending.
    if (!name.ends_with(kSuffix)) continue;
    name.resize(name.size() - kSuffix.size());
    auto text = read_file(entry.path().native(), kMaxRecordBytes);
    if (!text) return propagate(text, "host ports");
    auto record = parse_record(*text);
    if (!record) return propagate(record, "{}", entry.path().native());
    out.push_back({std::move(name), std::move(*record)});
  }
  if (ec) return fail(ec.value(), "host ports: read {}: {}", folder_, ec.message());
  std::ranges::sort(out, {}, &Named::name);
  return out;
}

Result<Elements> HostPorts::read_elements(const nft::TableState& table) {
  Elements out;
  for (const auto& s : host_port_sets()) {
    if (!table.sets.contains(s.name)) continue;
    auto& list = out[s.name];
    auto r = kernel_.nft.read_elements(
        nft::Family::kInet, kHostPortTable, s, [&](const nft::Element& e) { list.push_back(e); },
        [&] { list.clear(); });
    if (!r) return propagate(r, "host ports");
  }
  return out;
}

Result<> HostPorts::sync(const std::string& without) {
  auto records = read_records();
  if (!records) return propagate(records);
  std::vector<HostPortRecord> all;
  for (auto& n : *records) {
    if (n.name != without) all.push_back(std::move(n.record));
  }
  auto table = kernel_.nft.read_table(nft::Family::kInet, kHostPortTable);
  if (!table) return propagate(table, "host ports");
  auto have = read_elements(*table);
  if (!have) return propagate(have);
  auto plan = host_port_plan(*table, *have, host_port_elements(all));
  if (plan.empty()) return {};
  auto r = kernel_.nft.apply(plan);
  if (!r) return propagate(r, "host ports");
  return {};
}

Result<> HostPorts::forget_flows(const HostPortRecord& record, bool going) {
  if (!has_udp(record)) return {};
  for (const auto& a : record.addresses) {
    auto flows = kernel_.conntrack.list(a.family(), IPPROTO_UDP);
    if (!flows) return propagate(flows, "host ports");
    for (const auto& f : *flows) {
      if (!is_stale(record, f, going)) continue;
      if (auto r = kernel_.conntrack.remove(f); !r) return propagate(r, "host ports");
    }
  }
  return {};
}

Result<> HostPorts::put(const std::string& name, const HostPortRecord& record) {
  auto others = read_records();
  if (!others) return propagate(others);
  std::vector<HostPortRecord> held;
  for (const auto& n : *others) held.push_back(n.record);
  if (auto why = host_port_conflict(record, held); !why.empty()) return fail(EADDRINUSE, "{}", why);
  auto written = write_file(record_path(folder_, name), record_text(record), {.mode = 0600});
  if (!written) return propagate(written, "host ports");
  auto done = sync();
  if (done) done = forget_flows(record, false);
  if (!done) (void)drop(name);  // what stopped us says more than what tidying up meets
  return done;
}

Result<> HostPorts::drop(const std::string& name) {
  const auto path = record_path(folder_, name);
  auto text = read_file(path, kMaxRecordBytes);
  if (!text && is_not_found(text.error())) return {};
  if (!text) return propagate(text, "host ports");
  auto record = parse_record(*text);
  if (auto r = sync(name); !r) return r;
  if (record) {
    if (auto r = forget_flows(*record, true); !r) return r;
  }
  // Last, so that whoever finds it after a kill does the rest too.
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "host ports: remove {}", path);
  return {};
}

Result<std::string> HostPorts::fault(const std::string& name, const std::vector<PortMapping>& ports) {
  auto records = read_records();
  if (!records) return propagate(records);
  auto own = std::ranges::find(*records, name, &Named::name);
  if (own == records->end()) return std::string("host ports: the record is missing");
  if (own->record.ports != ports) return std::string("host ports: the record has other ports");
  auto table = kernel_.nft.read_table(nft::Family::kInet, kHostPortTable);
  if (!table) return propagate(table);
  if (!host_port_table_right(*table))
    return fmt::format("host ports: nftables table {} is missing or changed", kHostPortTable);
  auto have = read_elements(*table);
  if (!have) return propagate(have);
  for (const auto& [set, elements] : host_port_elements({own->record})) {
    // Subnets of several networks are merged.
    if (set.starts_with("bridged")) continue;
    for (const auto& e : elements) {
      if (std::ranges::find((*have)[set], e) == (*have)[set].end())
        return fmt::format("host ports: an element of set {} in nftables table {} is missing", set, kHostPortTable);
    }
  }
  return std::string();
}

Result<std::vector<std::string>> HostPorts::keep_only(
    const std::function<bool(const std::string&, const HostPortRecord&)>& live) {
  auto records = read_records();
  if (!records) return propagate(records);
  std::vector<std::string> dropped;
  Result<> first;
  for (const auto& n : *records) {
    if (live(n.name, n.record)) continue;
    auto r = drop(n.name);
    if (r) dropped.push_back(n.name);
    if (!r && first) first = r;
  }
  // Also when nothing was dropped: the table may have been flushed, or a killed plugin has not come so far.
  auto synced = sync();
  if (!first) return propagate(first);
  if (!synced) return propagate(synced);
  return dropped;
}

}  // namespace hawser::cni
