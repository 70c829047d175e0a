// SPDX-License-Identifier: Apache-2.0
// Base64: any bytes come back from their encoding; an accepted text is the encoding of what it decodes to, line breaks
// apart.
#include "lib/base/base64.h"

#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hawser;
  using fuzz::check;
  auto text = fuzz::Input(data, size).rest();
  auto back = base64_decode(base64_encode(text));
  check(back && *back == text, base64_encode(text));
  if (auto bytes = base64_decode(text)) {
    std::string compact(text);
    std::erase_if(compact, [](char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; });
    // All but the last group: its unused bits may be anything, as in Go's decoder.
    auto again = base64_encode(*bytes);
    check(again.size() == compact.size(), compact);
    if (compact.size() > 4) check(again.starts_with(compact.substr(0, compact.size() - 4)), compact);
  }
  return 0;
}
