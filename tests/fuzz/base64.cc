// SPDX-License-Identifier: Apache-2.0
// Base64: any bytes come back from their encoding; an accepted text is the encoding of what it decodes to, line breaks apart.
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
    check(base64_encode(*bytes) == compact, compact);
  }
  return 0;
}
