// SPDX-License-Identifier: Apache-2.0
// Selectors. Line 1: a label selector in query form; line 2: a field selector; the rest: an object that serves as
// selector in API form and as labels. A parsed selector's text selects the same.
#include "lib/kube/selector.h"

#include <boost/json/parse.hpp>

#include "tests/fuzz/fuzz.h"

namespace {

using namespace hawser;
using fuzz::check;

std::string escaped(std::string_view value) {
  std::string out;
  for (char c : value) {
    if (c == '\\' || c == ',' || c == '=') out += '\\';
    out += c;
  }
  return out;
}

void check_fields(std::string_view text) {
  auto fields = kube::parse_field_selector(text);
  if (!fields) return check(fields.error().code == 400);
  std::string again_text;
  for (const auto& f : *fields)
    again_text += (again_text.empty() ? "" : ",") + f.path + (f.equal ? "=" : "!=") + escaped(f.value);
  auto again = kube::parse_field_selector(again_text);
  check(again && again->size() == fields->size(), again_text);
  for (std::size_t i = 0; i < fields->size(); i++) {
    const auto &a = (*fields)[i], &b = (*again)[i];
    check(a.path == b.path && a.equal == b.equal && a.value == b.value, again_text);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input in(data, size);
  auto query = in.line();
  check_fields(in.line());
  boost::system::error_code ec;
  auto value = boost::json::parse(in.rest(), ec);
  static const boost::json::object kNone;
  const auto& object = !ec && value.is_object() ? value.get_object() : kNone;

  if (auto s = kube::LabelSelector::parse(query)) {
    auto again = kube::LabelSelector::parse(s->text());
    check(again && again->text() == s->text(), s->text());
    check(again->matches(object) == s->matches(object) && again->empty() == s->empty(), s->text());
  } else {
    check(s.error().code == 400);
  }
  if (auto s = kube::LabelSelector::from_object(object)) (void)s->matches(object);
  // A map of strings selects itself.
  auto map = kube::LabelSelector::from_map(object);
  bool strings = true;
  for (const auto& [key, v] : object) strings = strings && v.is_string();
  check(!strings || map.matches(object), map.text());
  return 0;
}
