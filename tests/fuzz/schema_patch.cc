// SPDX-License-Identifier: Apache-2.0
// Patches. Line 1: the kind, with " json", " merge" or " strategic" behind it; line 2: the object; the rest: the patch.
// Patching is total; the empty patch changes nothing; a merge patch applied twice is the same as once, and an object
// merged into itself stays.
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "controlplane/schema/schema.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/kind.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hawser;
  using fuzz::check;
  fuzz::Input in(data, size);
  auto first = in.line();
  auto space = std::min(first.rfind(' '), first.size());
  auto how = first.substr(space);
  auto type = how == " json"    ? kube::PatchType::kJson
              : how == " merge" ? kube::PatchType::kMerge
                                : kube::PatchType::kStrategic;
  const auto& k = fuzz::kind_of(first.substr(0, space));
  auto decoded = schema::decode(k, in.line(), schema::MediaType::kJson, schema::FieldValidation::kIgnore);
  boost::system::error_code ec;
  auto patch = boost::json::parse(in.rest(), ec);
  if (!decoded || ec) return 0;
  const auto& o = decoded->object;

  static const boost::json::value kNothing = boost::json::object();
  auto text = [](const auto& v) { return boost::json::serialize(v); };
  if (type != kube::PatchType::kJson) {
    auto same = schema::apply_patch(k, type, o, kNothing);
    check(same && *same == o, text(o));
    auto self = schema::apply_patch(k, type, o, o);
    // A list element without its merge key, or a key that is a directive, may be refused.
    check(self || type == kube::PatchType::kStrategic, text(o));
    if (type == kube::PatchType::kMerge) check(*self == o, text(o));
  }
  auto once = schema::apply_patch(k, type, o, patch);
  if (!once) {
    check(once.error().code >= 400 && once.error().code < 500 && !once.error().message.empty(), once.error().message);
    return 0;
  }
  if (type == kube::PatchType::kMerge) {
    auto twice = schema::apply_patch(k, type, *once, patch);
    check(twice && *twice == *once, text(*once));
  }
  (void)schema::conform(k, std::move(*once), schema::FieldValidation::kStrict);
  return 0;
}
