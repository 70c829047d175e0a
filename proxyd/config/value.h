// SPDX-License-Identifier: Apache-2.0
// Values of kube-proxy's settings: the types that its configuration file and its flags know, as text that is checked
// when it is set. A scalar is one text, a list is its items, a map is items "name=true". Pure, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/result.h"

namespace hawser::proxy {

enum class Type : std::uint8_t {
  kBool,
  kInt,
  kNumber,
  kText,
  kDuration,  // Go's: "1h30m", "500ms", "0"
  kList,      // of texts
  kSwitches,  // map of names to booleans
  kAny,       // read over: a part of the file that has no meaning here
};

using Value = std::vector<std::string>;

// Go's time.ParseDuration, to the nanosecond.
Result<Nanos> parse_duration(std::string_view text);
Result<bool> parse_bool(std::string_view text);  // Go's strconv.ParseBool
Result<std::int64_t> parse_int(std::string_view text);

// Whether one text can be of this type; the error says what is wanted.
Result<> check_text(Type type, std::string_view text);
// The parts of a flag's list, "a,b": without spaces around them, without empty ones.
[[nodiscard]] Value split_list(std::string_view text);

}  // namespace hawser::proxy
