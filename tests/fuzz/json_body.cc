// SPDX-License-Identifier: Apache-2.0
// The JSON reader of request bodies: it accepts what Boost's own parser accepts, with the same result.
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "controlplane/schema/parse.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hawser;
  using fuzz::check;
  auto text = fuzz::Input(data, size).rest();
  std::vector<std::string> duplicates;
  auto ours = schema::parse_json(text, duplicates);
  boost::system::error_code ec;
  auto theirs = boost::json::parse(text, ec, {}, {.max_depth = schema::kMaxDepth});
  if (ours) check(!ec, ec.message());
  // Numbers out of range are the one thing that we alone refuse.
  if (!ours && !ec) check(ours.error().text.starts_with("exponent overflow"), ours.error().text);
  if (ours) check(*ours == theirs, boost::json::serialize(*ours));
  return 0;
}
