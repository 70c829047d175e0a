// SPDX-License-Identifier: Apache-2.0
// KubeProxyConfiguration files: what is accepted can be written and reads the same; what is refused has a reason.
#include "proxyd/config/options.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hawser;
  using fuzz::check;
  // The first line is a flag, "name=text"; the rest is the file.
  fuzz::Input in(data, size);
  const std::string flag(in.line());
  const auto at = flag.find('=');
  std::vector<proxy::GivenFlag> flags;
  if (at != flag.npos) flags.emplace_back(flag.substr(0, at), flag.substr(at + 1));
  if (auto alone = proxy::resolve_config(std::nullopt, flags)) {
    if (auto o = proxy::make_options(*alone); !o) check(!o.error().text.empty());
  }
  auto c = proxy::resolve_config(std::string(in.rest()), flags);
  if (!c) {
    check(!c.error().text.empty());
    return 0;
  }
  auto options = proxy::make_options(*c);
  check(options || !options.error().text.empty());
  const std::string written = proxy::config_yaml(*c);
  auto again = proxy::resolve_config(written, {});
  check(again.has_value(), again ? "" : again.error().text + ":\n" + written);
  check(proxy::config_yaml(*again) == written, written);
  return 0;
}
