// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/template_hash.h"

#include <algorithm>
#include <map>

#include <boost/json/serialize.hpp>

namespace hawser::controllers {
namespace {

// FNV-1a, 32 bits (the hash's own reference constants).
class Fnv {
 public:
  void add(std::string_view bytes) {
    for (const char c : bytes) h_ = (h_ ^ static_cast<unsigned char>(c)) * 16777619u;
  }
  [[nodiscard]] std::uint32_t value() const { return h_; }

 private:
  std::uint32_t h_ = 2166136261u;
};

// Objects in key order, and each part closed, so that the bytes say the structure.
void add_value(Fnv& h, const Value& v) {
  if (v.is_object()) {
    std::map<std::string_view, const Value*> sorted;
    for (const auto& [k, member] : v.get_object()) sorted.emplace(std::string_view(k), &member);
    h.add("{");
    for (const auto& [k, member] : sorted) {
      h.add(k);
      h.add(":");
      add_value(h, *member);
    }
    h.add("}");
  } else if (v.is_array()) {
    h.add("[");
    for (const Value& e : v.get_array()) add_value(h, e);
    h.add("]");
  } else {
    h.add(boost::json::serialize(v));
    h.add(",");
  }
}

Object without_hash(const Object& t) {
  Object out = t;
  const Value* found = kube::find(out, {"metadata", "labels"});
  if (found == nullptr || !found->is_object()) return out;
  Object& l = kube::ensure(out, {"metadata", "labels"});
  l.erase(kHashLabel);
  return out;
}

}  // namespace

std::string template_hash(const Object& pod_template, std::int64_t collisions) {
  Fnv h;
  add_value(h, Value(pod_template));
  if (collisions != 0) h.add(std::to_string(collisions));
  constexpr std::string_view kLetters = "bcdfghjklmnpqrstvwxz2456789";
  std::string out = std::to_string(h.value());
  std::ranges::transform(out, out.begin(),
                         [&](char c) { return kLetters[static_cast<unsigned char>(c) % kLetters.size()]; });
  return out;
}

bool same_template(const Object& a, const Object& b) {
  return without_hash(a) == without_hash(b);
}

}  // namespace hawser::controllers
