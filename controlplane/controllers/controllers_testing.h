// SPDX-License-Identifier: Apache-2.0
// Short ways to write objects in the controllers' tests.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "controlplane/controllers/pod_state.h"
#include "lib/base/time_text.h"

namespace hawser::controllers {

// The object that `text` is, with ' for " so that tests can be read.
inline Object json(std::string text) {
  for (char& c : text)
    if (c == '\'') c = '"';
  boost::system::error_code err;
  Value v = boost::json::parse(text, err);
  return err || !v.is_object() ? Object() : v.get_object();
}
inline ObjectPtr shared(std::string text) {
  return std::make_shared<const Object>(json(std::move(text)));
}
inline ObjectPtr shared(Object o) {
  return std::make_shared<const Object>(std::move(o));
}
inline std::string dump(const Value& v) {
  return boost::json::serialize(v);
}
inline WallTime at(std::string_view time) {
  return parse_rfc3339(time).value_or(WallTime{});
}

}  // namespace hawser::controllers
