// SPDX-License-Identifier: Apache-2.0
#include "lib/nft/text.h"

#include <cstring>

#include <fmt/format.h>
#include <netinet/in.h>

namespace hawser::nft {
namespace {

const char* hook_text(BaseHook::Hook h) {
  switch (h) {
    case BaseHook::Hook::kPrerouting:
      return "prerouting";
    case BaseHook::Hook::kInput:
      return "input";
    case BaseHook::Hook::kForward:
      return "forward";
    case BaseHook::Hook::kOutput:
      return "output";
    case BaseHook::Hook::kPostrouting:
      return "postrouting";
  }
  return "";
}

std::string proto_text(std::uint8_t p) {
  switch (p) {
    case IPPROTO_TCP:
      return "tcp";
    case IPPROTO_UDP:
      return "udp";
    case IPPROTO_SCTP:
      return "sctp";
    default:
      return fmt::format("{}", p);
  }
}

std::string value_text(DataType t, std::span<const std::uint8_t> b) {
  switch (t) {
    case DataType::kIpv4Addr:
    case DataType::kIpv6Addr: {
      auto a = IpAddr::from_bytes(b);
      return a ? a->text() : "?";
    }
    case DataType::kInetProto:
      return proto_text(b[0]);
    case DataType::kInetService:
      return fmt::format("{}", (b[0] << 8) | b[1]);
    case DataType::kMark: {
      std::uint32_t v = 0;
      std::memcpy(&v, b.data(), sizeof v);
      return fmt::format("0x{:08x}", v);
    }
  }
  return "?";
}

std::string concat_text(const std::vector<DataType>& types, const Bytes& b) {
  std::string out;
  std::size_t at = 0;
  for (const DataType t : types) {
    const std::size_t n = type_bytes(t);
    if (at + n > b.size()) return out + "?";
    if (at > 0) out += " . ";
    out += value_text(t, b.sub(at, n));
    at += (n + 3) & ~std::size_t{3};
  }
  return out;
}

std::string hex(const Bytes& b) {
  std::string out;
  for (std::size_t i = 0; i < b.size(); ++i)
    out += fmt::format("{}{:02x}", i > 0 && i % 4 == 0 ? "." : "", b.view()[i]);
  return out;
}

std::string types_text(const std::vector<DataType>& types) {
  std::string out;
  for (const DataType t : types) out += (out.empty() ? "" : " . ") + std::string(type_text(t));
  return out;
}

}  // namespace

std::string chain_text(const Chain& c) {
  if (!c.base) return c.name;
  return fmt::format("{} type {} hook {} priority {}", c.name, c.base->type, hook_text(c.base->hook), c.base->priority);
}

std::string rule_text(const Rule& r) {
  return r.comment.empty() ? r.text : fmt::format("{} comment \"{}\"", r.text, r.comment);
}

std::string set_type_text(const Set& s) {
  if (s.verdict_map) return types_text(s.key) + " : verdict";
  return s.data.empty() ? types_text(s.key) : types_text(s.key) + " : " + types_text(s.data);
}

std::string element_text(const Set& s, const Element& e) {
  std::string out = concat_text(s.key, e.key);
  if (const auto* end = std::get_if<RangeEnd>(&e.data)) out += " - " + concat_text(s.key, end->key);
  if (e.interval_end) out += " interval-end";
  if (const auto* v = std::get_if<Verdict>(&e.data)) out += " : " + verdict_text(*v);
  if (const auto* d = std::get_if<Bytes>(&e.data)) out += " : " + concat_text(s.data, *d);
  return out;
}

std::string raw_element_text(const Element& e) {
  std::string out = hex(e.key);
  if (const auto* end = std::get_if<RangeEnd>(&e.data)) out += " - " + hex(end->key);
  if (e.interval_end) out += " interval-end";
  if (const auto* v = std::get_if<Verdict>(&e.data)) out += " : " + verdict_text(*v);
  if (const auto* d = std::get_if<Bytes>(&e.data)) out += " : " + hex(*d);
  return out;
}

}  // namespace hawser::nft
