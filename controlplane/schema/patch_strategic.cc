// SPDX-License-Identifier: Apache-2.0
// Strategic merge patch. Source: "Strategic Merge Patch" in the Kubernetes API conventions.
#include <algorithm>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "controlplane/schema/patch.h"

namespace hawser::schema {
namespace {

namespace json = boost::json;

constexpr int kMalformed = 400;
constexpr int kUnprocessable = 422;
constexpr std::string_view kDirective = "$patch";
constexpr std::string_view kRetainKeys = "$retainKeys";
constexpr std::string_view kOrderPrefix = "$setElementOrder/";
constexpr std::string_view kDeletePrefix = "$deleteFromPrimitiveList/";

Result<> merge_object(const Type* t, json::object& target, const json::object& patch);

std::string_view directive_of(const json::value& v) {
  const auto* o = v.if_object();
  const auto* d = o ? o->if_contains(kDirective) : nullptr;
  return d && d->is_string() ? std::string_view(d->get_string()) : std::string_view();
}

const json::value* key_of(const json::value& item, std::string_view key) {
  const auto* o = item.if_object();
  return o ? o->if_contains(key) : nullptr;
}

// Two list elements are the same one: equal merge keys, or equal primitives if `key` is empty.
bool same_element(const json::value& a, const json::value& b, std::string_view key) {
  if (key.empty()) return a == b;
  const auto* left = key_of(a, key);
  const auto* right = key_of(b, key);
  return left && right && *left == *right;
}

json::value* find_element(json::array& list, const json::value& item, std::string_view key) {
  auto it = std::ranges::find_if(list, [&](const json::value& v) { return same_element(v, item, key); });
  return it == list.end() ? nullptr : &*it;
}

std::ptrdiff_t index_in(const json::array& list, const json::value& item, std::string_view key) {
  auto it = std::ranges::find_if(list, [&](const json::value& v) { return same_element(v, item, key); });
  return it == list.end() ? -1 : it - list.begin();
}

template <class F>
void erase_if(json::array& list, F drop) {
  for (auto it = list.begin(); it != list.end();) it = drop(*it) ? list.erase(it) : it + 1;
}

// `order` puts the elements it names in its order; the others keep the place they had on the server relative to those.
void reorder(json::array& merged, const json::array& before, const json::array& order, std::string_view key) {
  json::array named, others;
  for (const auto& o : order)
    if (auto* item = find_element(merged, o, key)) named.push_back(*item);
  for (const auto& item : merged)
    if (index_in(order, item, key) < 0) others.push_back(item);
  json::array out;
  auto left = named.begin();
  auto right = others.begin();
  while (left != named.end() || right != others.end()) {
    bool take_left = right == others.end();
    if (left != named.end() && right != others.end()) {
      auto l = index_in(before, *left, key);
      auto r = index_in(before, *right, key);
      take_left = l >= 0 && r >= 0 && l < r;
    }
    out.push_back(std::move(take_left ? *left++ : *right++));
  }
  merged = std::move(out);
}

Result<> merge_list_of_objects(const Field& f, json::array& target, const json::array& patch) {
  bool replace = std::ranges::any_of(patch, [](const json::value& v) { return directive_of(v) == "replace"; });
  if (replace) {
    target.clear();
    for (const auto& item : patch)
      if (directive_of(item).empty()) target.push_back(item);
    return {};
  }
  for (const auto& item : patch) {
    if (!item.is_object()) return fail(kUnprocessable, "list of field {} holds a value that is not an object", f.name);
    auto directive = directive_of(item);
    if (!key_of(item, f.merge_key))
      return fail(kUnprocessable, "map: {} does not contain declared merge key: {}", json::serialize(item),
                  f.merge_key);
    if (directive == "delete") {
      erase_if(target, [&](const json::value& v) { return same_element(v, item, f.merge_key); });
      continue;
    }
    if (!directive.empty() && directive != "merge") return fail(kMalformed, "Unknown patch type found: {}", directive);
    auto* existing = find_element(target, item, f.merge_key);
    if (!existing) existing = &target.emplace_back(json::object());
    if (!existing->is_object()) existing->emplace_object();
    if (auto ok = merge_object(f.type, existing->get_object(), item.get_object()); !ok) return ok;
  }
  return {};
}

void merge_set(json::array& target, const json::array& patch) {
  for (const auto& item : patch)
    if (!find_element(target, item, {})) target.push_back(item);
}

// What the directives of one object say about one of its lists.
struct ListPatch {
  const json::array* items = nullptr;
  const json::array* order = nullptr;
  const json::array* remove = nullptr;
};

Result<> merge_list(const Field& f, json::object& target, const ListPatch& p) {
  auto& slot = target[f.name];
  if (!slot.is_array()) slot.emplace_array();
  auto& list = slot.get_array();
  json::array before = p.order ? list : json::array();
  if (p.remove)
    erase_if(list, [&](const json::value& v) { return std::ranges::find(*p.remove, v) != p.remove->end(); });
  if (p.items && f.merge_key.empty())
    merge_set(list, *p.items);
  else if (p.items)
    if (auto ok = merge_list_of_objects(f, list, *p.items); !ok) return ok;
  if (p.order) reorder(list, before, *p.order, f.merge_key);
  return {};
}

const json::array* array_at(const json::object& o, const std::string& key) {
  const auto* v = o.if_contains(key);
  return v ? v->if_array() : nullptr;
}

Result<> retain_keys(json::object& target, const json::object& patch, const json::value& keys) {
  const auto* list = keys.if_array();
  if (!list) return fail(kMalformed, "invalid patch format of retainKeys");
  auto named = [&](std::string_view key) {
    return std::ranges::any_of(*list, [&](const json::value& v) { return v.is_string() && v.get_string() == key; });
  };
  for (const auto& [key, v] : patch)
    if (!key.starts_with('$') && !v.is_null() && !named(key))
      return fail(kMalformed, "invalid patch format of retainKeys");
  for (auto it = target.begin(); it != target.end();) it = named(it->key()) ? std::next(it) : target.stable_erase(it);
  return {};
}

Result<> merge_value(const Field* f, json::object& target, std::string_view key, const json::value& v) {
  if (const auto* changes = v.if_object()) {
    auto& slot = target[key];
    if (!slot.is_object()) slot.emplace_object();
    const Type* t = f && f->base == Base::kObject && f->shape == Shape::kOne ? f->type : nullptr;
    return merge_object(t, slot.get_object(), *changes);
  }
  target[key] = v;
  return {};
}

// Lists named only by a directive: `$setElementOrder/x` or `$deleteFromPrimitiveList/x` without `x`.
Result<> merge_directive_only(const Type* t, json::object& target, const json::object& patch, std::string_view key) {
  bool orders = key.starts_with(kOrderPrefix);
  auto name = key.substr(orders ? kOrderPrefix.size() : kDeletePrefix.size());
  const Field* f = t ? t->find(name) : nullptr;
  if (!f || !f->merge) return fail(kMalformed, "invalid patch format: {} is not a list that merges", name);
  if (patch.contains(name)) return {};  // done with the list itself
  auto remove_key = std::string(kDeletePrefix) + std::string(name);
  if (orders && patch.contains(remove_key)) return {};  // done with the other directive
  if (!target.contains(name)) return {};
  return merge_list(*f, target,
                    {.items = nullptr,
                     .order = array_at(patch, std::string(kOrderPrefix) + std::string(name)),
                     .remove = array_at(patch, remove_key)});
}

Result<> merge_field(const Type* t, json::object& target, const json::object& patch, const json::key_value_pair& pair) {
  std::string_view key = pair.key();
  const auto& v = pair.value();
  if (key.starts_with(kOrderPrefix) || key.starts_with(kDeletePrefix)) {
    if (!v.is_array()) return fail(kMalformed, "invalid patch format of {}", key);
    return merge_directive_only(t, target, patch, key);
  }
  if (v.is_null()) {
    if (auto it = target.find(key); it != target.end()) target.stable_erase(it);
    return {};
  }
  const Field* f = t ? t->find(key) : nullptr;
  if (f && f->merge && v.is_array()) {
    auto name = std::string(key);
    return merge_list(*f, target,
                      {.items = &v.get_array(),
                       .order = array_at(patch, std::string(kOrderPrefix) + name),
                       .remove = array_at(patch, std::string(kDeletePrefix) + name)});
  }
  return merge_value(f, target, key, v);
}

Result<> merge_object(const Type* t, json::object& target, const json::object& patch) {
  if (const auto* d = patch.if_contains(kDirective)) {
    auto directive = d->is_string() ? std::string_view(d->get_string()) : std::string_view();
    if (directive == "replace" || directive == "delete") target.clear();
    if (directive == "delete") return {};
    if (directive != "replace" && directive != "merge")
      return fail(kMalformed, "Unknown patch type found: {}", directive);
  }
  if (const auto* keys = patch.if_contains(kRetainKeys))
    if (auto ok = retain_keys(target, patch, *keys); !ok) return ok;
  for (const auto& pair : patch) {
    if (pair.key() == kDirective || pair.key() == kRetainKeys) continue;
    if (auto ok = merge_field(t, target, patch, pair); !ok) return ok;
  }
  return {};
}

}  // namespace

Result<> apply_strategic_patch(const Type& type, json::object& target, const json::object& patch) {
  return merge_object(&type, target, patch);
}

}  // namespace hawser::schema
