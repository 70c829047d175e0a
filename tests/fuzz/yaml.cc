// SPDX-License-Identifier: Apache-2.0
// YAML out and in: every JSON value that is shown as YAML reads back as itself, and reading hostile YAML is total and
// bounded.
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "controlplane/apiserver/yaml_emit.h"
#include "controlplane/schema/parse.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace hawser;
using fuzz::check;

// YAML's limit for a key on one line; no key of the API comes near it.
bool has_long_key(const boost::json::value& v) {
  if (const auto* a = v.if_array()) return std::ranges::any_of(*a, [](const auto& item) { return has_long_key(item); });
  if (const auto* o = v.if_object())
    return std::ranges::any_of(*o, [](const auto& m) {
      return boost::json::serialize(boost::json::string(m.key())).size() > 1000 || has_long_key(m.value());
    });
  return false;
}

// boost::json reads most numbers with a fraction one unit in the last place off.
bool has_fraction(const boost::json::value& v) {
  if (const auto* a = v.if_array()) return std::ranges::any_of(*a, has_fraction);
  if (const auto* o = v.if_object())
    return std::ranges::any_of(*o, [](const auto& m) { return has_fraction(m.value()); });
  return v.is_double();
}

void check_emitted(const boost::json::value& v) {
  if (has_long_key(v)) return;
  auto yaml = apiserver::to_yaml(v);
  std::vector<std::string> duplicates;
  auto back = schema::parse_yaml(yaml, duplicates);
  check(back.has_value(), back ? "" : back.error().text + ":\n" + yaml);
  check(*back == v && duplicates.empty(),
        boost::json::serialize(*back) + "\nwas " + boost::json::serialize(v) + "\nby\n" + yaml);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  auto text = fuzz::Input(data, size).rest();
  std::vector<std::string> duplicates;
  if (auto value = schema::parse_json(text, duplicates)) check_emitted(*value);
  boost::system::error_code ec;
  // What YAML reads is shown as JSON, so it must be writable; bytes that are not UTF-8 are not, and are refused there.
  if (auto v = schema::parse_yaml(std::string(text), duplicates)) {
    auto again = boost::json::parse(boost::json::serialize(*v), ec, {}, {.max_depth = 200});
    if (!ec && !has_fraction(*v)) check(again == *v, boost::json::serialize(*v));
  }
  return 0;
}
