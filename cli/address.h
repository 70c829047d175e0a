// SPDX-License-Identifier: Apache-2.0
// Where proxyd is and what it is asked: --server texts and request targets. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/base/result.h"

namespace hawser::cli {

inline constexpr const char* kDefaultServer = "http://127.0.0.1:10249";

struct Server {
  std::string host;
  std::uint16_t port = 0;
  [[nodiscard]] std::string text() const;  // "127.0.0.1:10249"
};
// "http://HOST:PORT" or "HOST:PORT"; IPv6 in brackets.
[[nodiscard]] Result<Server> parse_server(std::string_view text);

// What each command asks for.
[[nodiscard]] std::string services_target(std::string_view ns);
// `name` as the person wrote it: NAME (of `ns`, or of "default") or NAMESPACE/NAME.
[[nodiscard]] std::string endpoints_target(std::string_view ns, std::string_view name);
struct ExplainArguments {
  std::string source, destination, protocol, interface, ns;
};
[[nodiscard]] std::string explain_target(const ExplainArguments& a);

}  // namespace hawser::cli
