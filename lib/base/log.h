// SPDX-License-Identifier: Apache-2.0
// Logging to standard error, one line an event: time, level, text. A thin front that keeps spdlog out of our headers.
// Any thread. `log::init` once in main() before other threads start; without it the level is info.
#pragma once

#include <string_view>

#include <fmt/format.h>

namespace hawser::log {

enum class Level { kDebug, kInfo, kWarn, kError };

void init(std::string_view program, Level level);
[[nodiscard]] bool enabled(Level level);
void write(Level level, std::string_view text);

template <class... A>
void debug(fmt::format_string<A...> f, A&&... a) {
  if (enabled(Level::kDebug)) write(Level::kDebug, fmt::format(f, std::forward<A>(a)...));
}
template <class... A>
void info(fmt::format_string<A...> f, A&&... a) {
  if (enabled(Level::kInfo)) write(Level::kInfo, fmt::format(f, std::forward<A>(a)...));
}
template <class... A>
void warn(fmt::format_string<A...> f, A&&... a) {
  if (enabled(Level::kWarn)) write(Level::kWarn, fmt::format(f, std::forward<A>(a)...));
}
template <class... A>
void error(fmt::format_string<A...> f, A&&... a) {
  if (enabled(Level::kError)) write(Level::kError, fmt::format(f, std::forward<A>(a)...));
}

}  // namespace hawser::log
