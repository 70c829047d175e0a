// SPDX-License-Identifier: Apache-2.0
// Results of every CNI version. Line 1: the version; the rest: the result as a plugin of it printed it. Converting to a
// version and back loses nothing that the version can hold.
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "cni-plugin/attachment_result.h"
#include "cni-plugin/version.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hawser;
  using fuzz::check;
  fuzz::Input in(data, size);
  auto version = in.line();
  if (!cni::known_version(version)) return 0;
  boost::system::error_code ec;
  auto value = boost::json::parse(in.rest(), ec);
  if (ec || !value.is_object()) return 0;
  auto result = cni::from_version(value.get_object(), version);
  if (!result) {
    check(result.error().code == cni::Code::kDecode && !result.error().msg.empty());
    return 0;
  }
  auto ips = cni::result_ips(*result);
  check(ips.has_value());
  for (auto to : cni::kVersions) {
    auto shown = cni::to_version(*result, to);
    auto text = boost::json::serialize(shown);
    check(shown.at("cniVersion").as_string() == to, text);
    auto back = cni::from_version(shown, to);
    check(back.has_value(), text);
    check(cni::to_version(*back, to) == shown, text);
    auto back_ips = cni::result_ips(*back);
    check(back_ips.has_value(), text);
    if (cni::at_least(to, "0.3.0")) check(back_ips->size() == ips->size(), text);
    if (to == cni::kVersions.back()) check(*back == *result, text);
  }
  return 0;
}
