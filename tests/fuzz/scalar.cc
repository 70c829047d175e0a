// SPDX-License-Identifier: Apache-2.0
// Quantities, times and base64 of the API: the canonical text is a fixed point and keeps the value.
#include "controlplane/schema/scalar.h"

#include "lib/kube/quantity.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace hawser;
using fuzz::check;

void check_quantity(std::string_view text) {
  auto q = kube::Quantity::parse(text);
  if (!q) return;
  auto canonical = q->text();
  auto again = kube::Quantity::parse(canonical);
  check(again.has_value(), canonical);
  check(again->text() == canonical, canonical + " becomes " + again->text());
  check(again->nanos == q->nanos, canonical);
  // Rounded up, so never below; thousandths saturate.
  check(q->nanos <= static_cast<__int128>(q->value()) * 1'000'000'000, canonical);
  auto milli = static_cast<__int128>(q->milli_value()) * 1'000'000;
  check(q->nanos <= milli || q->milli_value() == std::numeric_limits<std::int64_t>::max(), canonical);
}

// Zeros in front of a number or behind its point do not change it.
void check_zeros(std::string_view text) {
  auto q = kube::Quantity::parse(text);
  if (!q) return;
  std::string longer(text);
  auto at = std::min(text.find_first_not_of("+-0123456789."), text.size());
  longer.insert(at, text.substr(0, at).contains('.') ? "0000000000000000000000000000000000000" : ".000");
  longer.insert(text[0] == '+' || text[0] == '-' ? 1 : 0, "0000");
  auto same = kube::Quantity::parse(longer);
  check(same && same->nanos == q->nanos && same->format == q->format, longer);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  auto text = fuzz::Input(data, size).rest();
  check_quantity(text);
  check_zeros(text);
  if (auto t = schema::parse_time_us(text)) {
    auto micro = schema::micro_time_text(*t);
    // A zone may push the first or last year out of the four digits.
    if (micro.size() == 27 && micro[0] != '-') check(schema::parse_time_us(micro) == *t, micro);
  }
  auto encoded = schema::base64_encode(text);
  check(!schema::base64_error(encoded), encoded);
  check(schema::base64_decoded_size(encoded) == text.size(), encoded);
  if (auto at = schema::base64_error(text)) check(*at <= text.size());
  return 0;
}
