// SPDX-License-Identifier: Apache-2.0
// What the fuzz targets share. A target is one file with LLVMFuzzerTestOneInput: it takes the input apart with Input,
// calls one parser, and states with check() what must hold of what came out. A broken check() aborts, which libFuzzer
// reports with the input. Targets keep no state between inputs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <source_location>
#include <string>
#include <string_view>

namespace hawser::fuzz {

inline void check(bool holds, const std::string& what = {}, std::source_location at = std::source_location::current()) {
  if (holds) return;
  std::fprintf(stderr, "%s:%u: broken invariant: %s\n", at.file_name(), static_cast<unsigned>(at.line()), what.c_str());
  std::abort();
}

// The input as lines and a rest, so that the seeds are text files a person can write.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : rest_(reinterpret_cast<const char*>(data), size) {}
  std::string_view line() {
    auto line = rest_.substr(0, rest_.find('\n'));
    rest_.remove_prefix(line.size() < rest_.size() ? line.size() + 1 : line.size());
    return line;
  }
  [[nodiscard]] std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

}  // namespace hawser::fuzz
