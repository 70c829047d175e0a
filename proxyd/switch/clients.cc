// SPDX-License-Identifier: Apache-2.0
#include "proxyd/switch/clients.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <set>

#include <netinet/in.h>
#include <sys/socket.h>

namespace hawser::proxy {
namespace {

constexpr int kFamilies[] = {AF_INET, AF_INET6};
constexpr int kTries = 5;

std::vector<std::string_view> words(std::string_view line) {
  std::vector<std::string_view> out;
  while (true) {
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    if (line.empty()) return out;
    const auto n = std::min(line.find(' '), line.size());
    out.push_back(line.substr(0, n));
    line.remove_prefix(n);
  }
}

template <typename T>
bool number(std::string_view s, int base, T& out) {
  const auto [end, ec] = std::from_chars(s.data(), s.data() + s.size(), out, base);
  return ec == std::errc() && end == s.data() + s.size();
}

// "0A600001", or IPv6 in full.
IpAddr address(std::string_view s) {
  std::uint32_t v4 = 0;
  if (s.size() == 8 && number(s, 16, v4)) return IpAddr::v4(v4);
  return IpAddr::parse(s).value_or(IpAddr());
}

std::uint8_t protocol(std::string_view s) {
  if (s == "TCP") return IPPROTO_TCP;
  if (s == "UDP") return IPPROTO_UDP;
  return s == "SCTP" ? IPPROTO_SCTP : 0;
}

SetRole role_of(const SideId& id) {
  return id.node_port() ? SetRole::kNodePortAffinity : SetRole::kAffinity;
}

nft::Element element_of(const Client& c) {
  nft::Element e{.timeout_ms = std::uint64_t{std::max(c.seconds, 1u)} * 1000};
  e.key = nft::Bytes::ip(c.address);
  const SideId& id = c.frontend;
  if (!id.node_port()) e.key.field(nft::Bytes::ip(id.addr));
  e.key.field(nft::Bytes::u8(id.protocol)).field(nft::Bytes::be16(id.port));
  e.data = bytes_of(c.target);
  return e;
}

Result<std::set<nft::Bytes>> read_keys(nft::NftRunner& nft, SetRole role, int family) {
  std::set<nft::Bytes> keys;
  auto r = nft.read_elements(
      kTableFamily, kTable, set_spec(role, family), [&](const nft::Element& e) { keys.insert(e.key.padded()); },
      [&] { keys.clear(); });
  if (!r) return propagate(r, "read {}", set_name(role, family));
  return keys;
}

Result<std::size_t> add_new(nft::NftRunner& nft, const std::vector<Client>& clients) {
  nft::Transaction t(kTableFamily, kTable);
  std::size_t n = 0;
  for (const int family : kFamilies) {
    for (const SetRole role : {SetRole::kAffinity, SetRole::kNodePortAffinity}) {
      const auto here = [&](const Client& c) { return c.address.family() == family && role_of(c.frontend) == role; };
      if (std::ranges::none_of(clients, here)) continue;
      auto keys = read_keys(nft, role, family);
      if (!keys) return propagate(keys);
      for (const Client& c : clients) {
        if (!here(c)) continue;
        auto e = element_of(c);
        if (!keys->insert(e.key.padded()).second) continue;
        t.add_element(set_name(role, family), std::move(e));
        ++n;
      }
    }
  }
  if (auto r = nft.apply(t); !r) return propagate(r);
  return n;
}

}  // namespace

std::vector<IpvsConnection> parse_connections(std::string_view text) {
  std::vector<IpvsConnection> out;
  while (!text.empty()) {
    const auto line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    // Pro FromIP FPrt ToIP TPrt DestIP DPrt State Expires
    const auto w = words(line);
    if (w.size() < 9) continue;
    IpvsConnection t{.service = {protocol(w[0]), address(w[3]), 0},
                     .client = address(w[1]),
                     .client_port = 0,
                     .target = {address(w[5]), 0},
                     .seconds = 0};
    if (!number(w[2], 16, t.client_port) || !number(w[4], 16, t.service.port) || !number(w[6], 16, t.target.port) ||
        !number(w[8], 10, t.seconds))
      continue;
    if (t.service.protocol != 0 && t.service.address && t.client && t.target.addr) out.push_back(t);
  }
  return out;
}

std::vector<Client> clients_of(const std::vector<IpvsConnection>& connections, const DesiredState& state,
                               const NodeAddresses& node) {
  std::map<SideId, const Frontend*> frontends;
  for (const auto& s : state.services)
    for (const Frontend& f : s->frontends) frontends.emplace(main_side(f), &f);
  std::vector<Client> out;
  for (const IpvsConnection& t : connections) {
    if (t.client_port != 0) continue;
    SideId id{.addr = t.service.address,
              .protocol = t.service.protocol,
              .port = t.service.port,
              .v6 = t.service.address.family() == AF_INET6};
    auto it = frontends.find(id);
    if (it == frontends.end() && std::ranges::binary_search(node.node_ports, t.service.address)) {
      id.addr = {};
      it = frontends.find(id);
    }
    if (it == frontends.end() || it->second->affinity_seconds == 0) continue;
    const Frontend& f = *it->second;
    const auto has = [&](const std::vector<Target>& list) { return std::ranges::find(list, t.target) != list.end(); };
    if (!has(f.targets) && !has(f.local)) continue;
    out.push_back({t.client, id, t.target, std::min(t.seconds, f.affinity_seconds)});
  }
  return out;
}

Result<std::size_t> remember_clients(nft::NftRunner& nft, const std::vector<Client>& clients) {
  // The rules may remember one of them between reading and writing.
  Result<std::size_t> r = std::size_t{0};
  for (int i = 0; i < kTries; ++i) {
    r = add_new(nft, clients);
    if (r || (!is_exists(r.error()) && r.error().code != EBUSY)) break;
  }
  return r;
}

Result<std::size_t> count_clients(nft::NftRunner& nft) {
  std::size_t n = 0;
  for (const int family : kFamilies) {
    for (const SetRole role : {SetRole::kAffinity, SetRole::kNodePortAffinity}) {
      auto keys = read_keys(nft, role, family);
      if (!keys) return propagate(keys);
      n += keys->size();
    }
  }
  return n;
}

}  // namespace hawser::proxy
