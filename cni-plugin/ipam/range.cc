// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/ipam/range.h"

#include <algorithm>

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

#include "cni-plugin/ipam/record.h"

namespace hawser::cni::ipam {
namespace {

// b - a for addresses of one family, capped at 2^63.
std::uint64_t distance(const IpAddr& a, const IpAddr& b) {
  auto x = a.bytes();
  auto y = b.bytes();
  std::uint64_t high = 0;
  std::uint64_t d = 0;
  int borrow = 0;
  for (std::size_t i = x.size(); i-- > 0;) {
    int digit = y[i] - x[i] - borrow;
    borrow = digit < 0 ? 1 : 0;
    auto byte = static_cast<std::uint64_t>(digit & 0xff);
    std::size_t place = x.size() - 1 - i;
    if (place < 8)
      d |= byte << (8 * place);
    else
      high |= byte;
  }
  constexpr std::uint64_t kCap = std::uint64_t{1} << 63;
  return high != 0 ? kCap : std::min(d, kCap);
}

Result<IpAddr> address_in(const boost::json::object& o, const char* key, const Cidr& subnet, const IpAddr& otherwise) {
  const auto* v = o.if_contains(key);
  if (!v) return otherwise;
  if (!v->is_string()) return fail(EINVAL, "{}: must be a string", key);
  auto a = IpAddr::parse(std::string_view(v->get_string()));
  if (!a) return propagate(a, "{}", key);
  if (!subnet.contains(*a)) return fail(EINVAL, "{}: {} is not in subnet {}", key, *a, subnet);
  return a;
}

// "10.1.2.3" or "10.1.2.64/26".
Result<Cidr> parse_excluded(std::string_view text) {
  if (text.find('/') == text.npos) {
    auto a = IpAddr::parse(text);
    if (!a) return propagate(a);
    return Cidr(*a, a->bits());
  }
  auto c = Cidr::parse(text);
  if (c && c->network() != *c) return fail(EINVAL, "{} has host bits set", *c);
  return c;
}

Result<std::vector<Cidr>> excluded_in(const boost::json::object& o, const Range& range) {
  const auto* v = o.if_contains("exclude");
  if (!v) return std::vector<Cidr>();
  auto list = parse_exclude(*v);
  if (!list) return list;
  for (const auto& c : *list) {
    if (!c.overlaps(range.subnet)) return fail(EINVAL, "exclude: {} is not in subnet {}", c, range.subnet);
  }
  return list;
}

}  // namespace

bool Range::gives(const IpAddr& a) const {
  return a != gateway && std::ranges::none_of(exclude, [&](const Cidr& c) { return c.contains(a); });
}
std::uint32_t Range::capacity() const {
  std::uint32_t n = 0;
  for (std::uint32_t slot = 0; slot < slots(); slot++) n += gives(at(slot)) ? 1 : 0;
  return n;
}
bool Range::contains(const IpAddr& a) const {
  return a.family() == first.family() && first <= a && a <= last;
}
std::uint32_t Range::slots() const {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(distance(first, last), kMaxSlots - 1) + 1);
}
std::uint64_t Range::slot_of(const IpAddr& a) const {
  return distance(first, a);
}
std::string Range::file_name() const {
  return fmt::format("{}-{}", first, last);
}

Result<Range> whole_subnet(const Cidr& s) {
  Cidr net = s.network();
  if (net.addr().bits() - net.prefix() < 2)
    return fail(EINVAL, "subnet: {} is too small, it must be a /{} or larger", net, net.addr().bits() - 2);
  Range r;
  r.subnet = net;
  r.gateway = net.addr().plus(1);
  r.first = net.addr().plus(1);
  // The last IPv4 address is the broadcast address; IPv6 has none.
  r.last = net.addr().is_v4() ? net.addr().plus(net.size() - 2) : net.last();
  return r;
}

std::optional<Range> whole_subnet_between(const IpAddr& first, const IpAddr& last) {
  if (first.family() != last.family()) return std::nullopt;
  for (int prefix = 0; prefix <= first.bits() - 2; prefix++) {
    auto r = whole_subnet(Cidr(first, prefix));
    if (r && r->first == first && r->last == last) return *r;
  }
  return std::nullopt;
}

Result<std::vector<Cidr>> parse_exclude(const boost::json::value& v) {
  const auto* items = v.if_array();
  if (!items) return fail(EINVAL, "exclude: must be a list");
  std::vector<Cidr> out;
  for (const auto& item : *items) {
    if (!item.is_string()) return fail(EINVAL, "exclude: must hold strings");
    auto c = parse_excluded(item.get_string());
    if (!c) return propagate(c, "exclude");
    out.push_back(*c);
  }
  return out;
}

Result<Range> parse_range(const boost::json::object& o) {
  const auto* subnet = o.if_contains("subnet");
  if (!subnet || !subnet->is_string()) return fail(EINVAL, "subnet: is missing");
  auto cidr = Cidr::parse(std::string_view(subnet->get_string()));
  if (!cidr) return propagate(cidr, "subnet");
  if (cidr->network() != *cidr) return fail(EINVAL, "subnet: {} has host bits set", *cidr);
  auto r = whole_subnet(*cidr);
  if (!r) return r;
  auto first = address_in(o, "rangeStart", *cidr, r->first);
  if (!first) return propagate(first);
  auto last = address_in(o, "rangeEnd", *cidr, r->last);
  if (!last) return propagate(last);
  auto gateway = address_in(o, "gateway", *cidr, r->gateway);
  if (!gateway) return propagate(gateway);
  if (*last < *first) return fail(EINVAL, "rangeEnd: {} is before rangeStart {}", *last, *first);
  r->first = *first;
  r->last = *last;
  r->gateway = *gateway;
  auto exclude = excluded_in(o, *r);
  if (!exclude) return propagate(exclude);
  r->exclude = std::move(*exclude);
  if (!r->exclude.empty() && r->capacity() == 0)
    return fail(EINVAL, "exclude: leaves no address of {}", r->file_name());
  return r;
}

Result<std::vector<RangeSet>> parse_range_sets(const boost::json::value& v) {
  if (!v.is_array()) return fail(EINVAL, "ranges: must be a list of lists");
  std::vector<RangeSet> sets;
  std::vector<Range> seen;
  for (const auto& set : v.get_array()) {
    if (!set.is_array() || set.get_array().empty()) return fail(EINVAL, "ranges: must be a list of non-empty lists");
    sets.emplace_back();
    for (const auto& item : set.get_array()) {
      if (!item.is_object()) return fail(EINVAL, "ranges: an item must be an object");
      auto r = parse_range(item.get_object());
      if (!r) return propagate(r, "ranges");
      if (!sets.back().empty() && sets.back()[0].first.family() != r->first.family())
        return fail(EINVAL, "ranges: one set mixes IPv4 and IPv6");
      for (const auto& other : seen) {
        if (other.contains(r->first) || other.contains(r->last) || r->contains(other.first))
          return fail(EINVAL, "ranges: {} and {} overlap", other.file_name(), r->file_name());
      }
      seen.push_back(*r);
      sets.back().push_back(*r);
    }
  }
  return sets;
}

}  // namespace hawser::cni::ipam
