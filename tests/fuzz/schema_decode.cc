// SPDX-License-Identifier: Apache-2.0
// Request bodies. Line 1: the kind, with " yaml" behind it for YAML; the rest: the body. A decoded object decodes
// strictly to itself, defaulting is idempotent and keeps the shape, and validation and tables are total.
#include <boost/json/serialize.hpp>

#include "controlplane/schema/schema.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/kind.h"

namespace {

using namespace hawser;
using fuzz::check;
using schema::FieldValidation;
using schema::MediaType;

void check_shape(const schema::Kind& k, const schema::Object& o) {
  auto text = boost::json::serialize(o);
  auto again = schema::decode(k, text, MediaType::kJson, FieldValidation::kStrict);
  check(again.has_value(), again ? "" : again.error().message + " in " + text);
  check(again->object == o, boost::json::serialize(again->object) + " was " + text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input in(data, size);
  auto first = in.line();
  bool yaml = first.ends_with(" yaml");
  const auto& k = fuzz::kind_of(yaml ? first.substr(0, first.size() - 5) : first);
  auto decoded = schema::decode(k, in.rest(), yaml ? MediaType::kYaml : MediaType::kJson, FieldValidation::kWarn);
  if (!decoded) {
    check(decoded.error().code == 400 && !decoded.error().message.empty());
    return 0;
  }
  auto o = std::move(decoded->object);
  check_shape(k, o);
  schema::set_defaults(k, o);
  auto once = o;
  schema::set_defaults(k, o);
  check(o == once, "defaulting twice changes " + boost::json::serialize(once));
  check_shape(k, o);
  auto shared = std::make_shared<const kube::Object>(o);
  bool valid = schema::validate_create(k, o).empty();
  // An object that may be created may be left as it is.
  if (valid) check(schema::validate_update(k, o, o, "").empty(), boost::json::serialize(o));
  for (auto include : {schema::IncludeObject::kNone, schema::IncludeObject::kMetadata}) {
    auto table = schema::table(k, std::span(&shared, 1), include, 1'700'000'000, true);
    check(table.at("rows").as_array().size() == 1 &&
          table.at("rows").as_array()[0].as_object().at("cells").as_array().size() ==
              table.at("columnDefinitions").as_array().size());
  }
  return 0;
}
