// SPDX-License-Identifier: Apache-2.0
// IpAddr, Cidr and MacAddr: every text that is accepted comes back from text(), and the arithmetic agrees with itself.
#include "lib/base/ip.h"

#include "tests/fuzz/fuzz.h"

namespace {

using namespace hawser;
using fuzz::check;

void check_address(const IpAddr& a, std::string_view text) {
  auto again = IpAddr::parse(a.text());
  check(again && *again == a, a.text());
  check(IpAddr::from_bytes(a.bytes()) == a, a.text());
  check(a.plus(0) == a && a.plus(1) != a && a.plus(1).family() == a.family(), a.text());
  // The dotted quad has one spelling only.
  check(!a.is_v4() || text == a.text(), a.text());
  check(text.find('\0') == text.npos, a.text());
  if (a.is_v4()) check(IpAddr::v4(a.v4_host_order()) == a, a.text());
}

void check_cidr(const Cidr& c, std::string_view text) {
  auto again = Cidr::parse(c.text());
  check(again && *again == c, c.text());
  check(text.substr(text.find('/') + 1).find_first_not_of("0123456789") == text.npos, c.text());
  Cidr net = c.network();
  check(net.network() == net && net.contains(c.addr()) && net.contains(net.last()), c.text());
  check(c.contains(net) && net.contains(c) && c.overlaps(net), c.text());
  check(c.last() == net.last() && net.addr() <= c.addr() && c.addr() <= net.last(), c.text());
  int host_bits = c.addr().bits() - c.prefix();
  if (host_bits < 63) check(net.addr().plus(c.size() - 1) == net.last(), c.text());
  if (host_bits < 32) check(!net.contains(net.last().plus(1)), c.text());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view text = fuzz::Input(data, size).rest();
  if (auto a = IpAddr::parse(text)) check_address(*a, text);
  if (auto c = Cidr::parse(text)) check_cidr(*c, text);
  if (auto m = MacAddr::parse(text)) {
    auto again = MacAddr::parse(m->text());
    check(again && *again == *m, m->text());
  }
  return 0;
}
