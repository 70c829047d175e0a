// SPDX-License-Identifier: Apache-2.0
#include "lib/kube/json_patch.h"

#include <charconv>
#include <string>

#include <boost/json/array.hpp>

#include "lib/kube/object.h"

namespace hawser::kube {
namespace {

std::string_view merge_key(const Array& a) {
  for (std::string_view key : {"type", "name"}) {
    bool all = !a.empty();
    for (const auto& v : a) all = all && v.is_object() && v.get_object().contains(key);
    if (all) return key;
  }
  return {};
}

void merge(Value& target, const Value& patch, bool strategic);

void merge_list(Array& target, const Array& patch, std::string_view key) {
  for (const auto& item : patch) {
    const Value& id = item.get_object().at(key);
    bool removing = str(item.get_object(), {"$patch"}) == "delete";
    auto* at = target.begin();
    while (at != target.end() && !(at->is_object() && at->get_object().contains(key) && at->get_object().at(key) == id))
      at++;
    if (removing) {
      if (at != target.end()) target.erase(at);
    } else if (at != target.end()) {
      merge(*at, item, true);
    } else {
      target.push_back(item);
    }
  }
}

void merge(Value& target, const Value& patch, bool strategic) {
  const auto* p = patch.if_object();
  if (!p) {
    const auto* list = patch.if_array();
    auto key = strategic && list ? merge_key(*list) : std::string_view();
    if (!key.empty() && target.is_array()) return merge_list(target.get_array(), *list, key);
    target = patch;
    return;
  }
  if (!target.is_object()) target.emplace_object();
  for (const auto& [name, value] : *p) {
    if (value.is_null())
      target.get_object().erase(name);
    else
      merge(target.get_object()[name], value, strategic);
  }
}

std::string unescape(std::string_view token) {
  std::string out;
  for (std::size_t i = 0; i < token.size(); i++) {
    if (token[i] == '~' && i + 1 < token.size())
      out += token[++i] == '1' ? '/' : '~';
    else
      out += token[i];
  }
  return out;
}

Result<> apply_operation(Value& root, const Object& op) {
  auto path = str(op, {"path"});
  auto slash = path.rfind('/');
  if (slash == path.npos) return fail(422, "patch path \"{}\"", path);
  boost::system::error_code ec;
  Value* parent = root.find_pointer({path.data(), slash}, ec);
  if (!parent) return fail(422, "patch path \"{}\": not there", path);
  std::string last = unescape(path.substr(slash + 1));
  auto verb = str(op, {"op"});
  const Value* value = op.if_contains("value");
  if (auto* o = parent->if_object()) {
    bool there = o->contains(last);
    if (verb != "add" && !there) return fail(422, "patch path \"{}\": not there", path);
    if (verb == "remove")
      o->erase(last);
    else if (verb == "test")
      return o->at(last) == (value ? *value : Value()) ? Result<>() : fail(422, "patch test of {} failed", path);
    else
      (*o)[last] = value ? *value : Value();
    return {};
  }
  auto* a = parent->if_array();
  std::size_t at = a ? a->size() : 0;
  if (a && last != "-") std::from_chars(last.data(), last.data() + last.size(), at);
  if (!a || at > a->size() || (verb != "add" && at == a->size()))
    return fail(422, "patch path \"{}\": not there", path);
  if (verb == "add")
    a->insert(a->begin() + at, value ? *value : Value());
  else if (verb == "remove")
    a->erase(a->begin() + at);
  else if (verb == "test")
    return (*a)[at] == (value ? *value : Value()) ? Result<>() : fail(422, "patch test of {} failed", path);
  else
    (*a)[at] = value ? *value : Value();
  return {};
}

}  // namespace

Result<> apply_patch(Value& target, PatchType type, const Value& patch) {
  if (type != PatchType::kJson) {
    merge(target, patch, type == PatchType::kStrategic);
    return {};
  }
  const auto* ops = patch.if_array();
  if (!ops) return fail(400, "a JSON patch must be an array");
  for (const auto& op : *ops)
    if (auto r = apply_operation(target, as_obj(op)); !r) return r;
  return {};
}

}  // namespace hawser::kube
