// SPDX-License-Identifier: Apache-2.0
// Key ranges. Line 1: a prefix; the rest: a key. prefix_end() bounds exactly the keys that start with the prefix.
#include "controlplane/store/log.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hawser;
  fuzz::Input in(data, size);
  std::string prefix(in.line());
  std::string key(in.rest());
  if (prefix.empty()) return 0;
  auto end = store::prefix_end(prefix);
  // Above a prefix of 0xff bytes alone there is no key to end with.
  if (prefix.find_first_not_of('\xff') == std::string::npos) return 0;
  auto span = store::KeySpan::of(prefix, end);
  fuzz::check(span.contains(prefix + key), prefix);
  fuzz::check(span.contains(key) == key.starts_with(prefix), key);
  return 0;
}
