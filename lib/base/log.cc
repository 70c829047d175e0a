// SPDX-License-Identifier: Apache-2.0
#include "lib/base/log.h"

#include <string>

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace hawser::log {
namespace {

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarn:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto l = std::make_shared<spdlog::logger>("hawser", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    l->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%L%$ %n: %v");
    return l;
  }();
  return *instance;
}

}  // namespace

void init(std::string_view program, Level level) {
  logger().set_pattern("%Y-%m-%dT%H:%M:%S.%e %L " + std::string(program) + ": %v");
  logger().set_level(to_spdlog(level));
}
bool enabled(Level level) {
  return logger().should_log(to_spdlog(level));
}
void write(Level level, std::string_view text) {
  logger().log(to_spdlog(level), "{}", text);
}

}  // namespace hawser::log
