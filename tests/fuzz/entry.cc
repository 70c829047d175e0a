// SPDX-License-Identifier: Apache-2.0
// The stored form of objects: a revision put into the bytes is the revision of the object that is read from them.
#include "controlplane/apiserver/entry.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hawser;
  using fuzz::check;
  auto text = fuzz::Input(data, size).rest();
  (void)apiserver::parse_entry(text, 7);
  boost::system::error_code ec;
  auto value = boost::json::parse(text, ec);
  if (ec || !value.is_object()) return 0;
  const auto& o = value.get_object();
  // What conform() guarantees of every object that is stored.
  for (const char* field : {"kind", "apiVersion"})
    if (const auto* v = o.if_contains(field); !v || !v->is_string()) return 0;
  if (const auto* v = o.if_contains("metadata"); !v || !v->is_object()) return 0;

  auto stored = apiserver::to_stored(o);
  auto entry = apiserver::parse_entry(stored, 42);
  check(entry.has_value(), stored);
  check(kube::resource_version(*(*entry)->object) == "42", stored);
  auto shown = boost::json::parse(*(*entry)->json, ec);
  check(!ec && shown.is_object() && shown.get_object() == *(*entry)->object, *(*entry)->json);
  check(apiserver::to_stored(*(*entry)->object) == stored, stored);
  auto later = apiserver::at_revision(**entry, 43);
  check(kube::resource_version(*later->object) == "43" && later->key == (*entry)->key, *later->json);
  check(*later->json == apiserver::with_revision(stored, 43), *later->json);
  return 0;
}
