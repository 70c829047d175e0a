// SPDX-License-Identifier: Apache-2.0
#include "cli/address.h"

#include <charconv>

#include "lib/base/ip.h"
#include "lib/http/message.h"

namespace hawser::cli {
namespace {

// A Service's name gets its namespace; addresses and names that have one stay.
std::string with_namespace(std::string_view ns, std::string_view name) {
  const auto host = name.substr(0, name.rfind(':'));
  const bool address = name.starts_with('[') || IpAddr::parse(host) || IpAddr::parse(name);
  if (ns.empty() || address || name.find('/') != name.npos) return std::string(name);
  return fmt::format("{}/{}", ns, name);
}

}  // namespace

std::string Server::text() const {
  return host.find(':') == host.npos ? fmt::format("{}:{}", host, port) : fmt::format("[{}]:{}", host, port);
}

Result<Server> parse_server(std::string_view text) {
  constexpr std::string_view kScheme = "http://";
  std::string_view rest = text;
  if (rest.starts_with(kScheme)) rest.remove_prefix(kScheme.size());
  while (rest.ends_with('/')) rest.remove_suffix(1);
  const auto colon = rest.rfind(':');
  Server s;
  bool good = colon != rest.npos && colon > 0;
  if (good) {
    const auto digits = rest.substr(colon + 1);
    const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), s.port);
    good = ec == std::errc() && end == digits.data() + digits.size() && s.port != 0;
    auto host = rest.substr(0, colon);
    const bool brackets = host.starts_with('[') && host.ends_with(']');
    if (brackets) host = host.substr(1, host.size() - 2);
    good = good && !host.empty() && host.find('/') == host.npos && (brackets || host.find(':') == host.npos);
    s.host = host;
  }
  if (!good) return fail(EINVAL, "--server \"{}\": want http://HOST:PORT", text);
  return s;
}

std::string services_target(std::string_view ns) {
  return ns.empty() ? "/inspect/services" : "/inspect/services?namespace=" + http::percent_encode(ns);
}

std::string endpoints_target(std::string_view ns, std::string_view name) {
  return "/inspect/endpoints?service=" + http::percent_encode(with_namespace(ns, name));
}

std::string explain_target(const ExplainArguments& a) {
  std::string t = "/inspect/explain?source=" + http::percent_encode(a.source) +
                  "&destination=" + http::percent_encode(with_namespace(a.ns, a.destination)) +
                  "&protocol=" + http::percent_encode(a.protocol);
  if (!a.interface.empty()) t += "&interface=" + http::percent_encode(a.interface);
  return t;
}

}  // namespace hawser::cli
