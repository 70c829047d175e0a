// SPDX-License-Identifier: Apache-2.0
// RFC 3339 times: what is read can be written and read again, at the precision of the form.
#include "lib/base/time_text.h"

#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hawser;
  using fuzz::check;
  auto t = parse_rfc3339(fuzz::Input(data, size).rest());
  if (!t) return 0;
  auto micro = parse_rfc3339(rfc3339_micro(*t));
  check(micro && *micro == std::chrono::floor<std::chrono::microseconds>(*t), rfc3339_micro(*t));
  auto second = parse_rfc3339(rfc3339(*t));
  check(second && *second == std::chrono::floor<std::chrono::seconds>(*t), rfc3339(*t));
  return 0;
}
