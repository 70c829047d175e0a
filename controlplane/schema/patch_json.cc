// SPDX-License-Identifier: Apache-2.0
#include <charconv>
#include <optional>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "controlplane/schema/patch.h"

namespace hawser::schema {
namespace {

namespace json = boost::json;

constexpr int kMalformed = 400;
constexpr int kTooLarge = 413;
constexpr int kUnprocessable = 422;

using Tokens = std::vector<std::string>;

// "/a/b~1c" as {"a", "b/c"}; nothing if it is not a pointer.
std::optional<Tokens> tokens_of(std::string_view pointer) {
  Tokens out;
  if (pointer.empty()) return out;
  if (pointer.front() != '/') return {};
  for (std::size_t i = 0; i < pointer.size(); i++) {
    if (pointer[i] == '/')
      out.emplace_back();
    else if (pointer[i] != '~')
      out.back() += pointer[i];
    else if (i + 1 < pointer.size() && (pointer[i + 1] == '0' || pointer[i + 1] == '1'))
      out.back() += pointer[++i] == '0' ? '~' : '/';
    else
      return {};
  }
  return out;
}

// An array index; size is allowed only for insertion, where "-" means it too.
std::optional<std::size_t> index_of(std::string_view token, std::size_t size, bool insert) {
  if (insert && token == "-") return size;
  std::size_t n = 0;
  auto [end, ec] = std::from_chars(token.data(), token.data() + token.size(), n);
  bool canonical = token == "0" || (!token.empty() && token.front() != '0');
  if (ec != std::errc() || end != token.data() + token.size() || !canonical || n >= size + (insert ? 1 : 0)) return {};
  return n;
}

json::value* child(json::value& at, const std::string& token) {
  if (auto* o = at.if_object()) return o->if_contains(token);
  if (auto* a = at.if_array())
    if (auto i = index_of(token, a->size(), false)) return &(*a)[*i];
  return nullptr;
}

json::value* find(json::value& document, const Tokens& tokens) {
  json::value* at = &document;
  for (const auto& t : tokens) {
    at = child(*at, t);
    if (!at) return nullptr;
  }
  return at;
}

struct Operation {
  std::string_view op, path, from;
  Tokens tokens, from_tokens;
  const json::value* value = nullptr;
};

class JsonPatch {
 public:
  explicit JsonPatch(json::value& document) : document_(document) {}

  Result<> run(const Operation& o) {
    if (o.op == "add") return add(o, *o.value);
    if (o.op == "remove") return remove(o.tokens, o.path, o.op);
    if (o.op == "replace") return replace(o);
    if (o.op == "test") return test(o);
    if (o.op == "move") return move(o);
    return copy(o);
  }

 private:
  static std::unexpected<Error> missing(std::string_view op, std::string_view path) {
    return fail(kUnprocessable, "{} operation does not apply: doc is missing path: {}: missing value", op, path);
  }

  json::value* parent(const Tokens& tokens) { return find(document_, Tokens(tokens.begin(), tokens.end() - 1)); }

  Result<> add(const Operation& o, json::value v) {
    if (o.tokens.empty()) {
      document_ = std::move(v);
      return {};
    }
    auto* at = parent(o.tokens);
    if (auto* object = at ? at->if_object() : nullptr) {
      object->insert_or_assign(o.tokens.back(), std::move(v));
      return {};
    }
    if (auto* array = at ? at->if_array() : nullptr) {
      auto i = index_of(o.tokens.back(), array->size(), true);
      if (!i) return fail(kUnprocessable, "{} operation does not apply: {}: invalid index referenced", o.op, o.path);
      array->insert(array->begin() + static_cast<std::ptrdiff_t>(*i), std::move(v));
      return {};
    }
    return missing(o.op, o.path);
  }

  Result<> remove(const Tokens& tokens, std::string_view path, std::string_view op) {
    auto* at = tokens.empty() ? nullptr : parent(tokens);
    if (!at || !child(*at, tokens.back())) return missing(op, path);
    if (auto* object = at->if_object())
      object->stable_erase(object->find(tokens.back()));
    else if (auto* array = at->if_array())
      array->erase(array->begin() + static_cast<std::ptrdiff_t>(*index_of(tokens.back(), array->size(), false)));
    return {};
  }

  Result<> replace(const Operation& o) {
    auto* at = find(document_, o.tokens);
    if (!at) return missing(o.op, o.path);
    *at = *o.value;
    return {};
  }

  Result<> test(const Operation& o) {
    auto* at = find(document_, o.tokens);
    bool equal = at ? *at == *o.value : o.value->is_null();
    return equal ? Result<>() : Result<>(fail(kUnprocessable, "testing value {} failed: test failed", o.path));
  }

  Result<> move(const Operation& o) {
    auto* at = find(document_, o.from_tokens);
    if (!at) return missing(o.op, o.from);
    bool inside = o.tokens.size() > o.from_tokens.size() &&
                  std::equal(o.from_tokens.begin(), o.from_tokens.end(), o.tokens.begin());
    if (inside) return fail(kUnprocessable, "move operation does not apply: {} is inside {}", o.path, o.from);
    json::value v = *at;
    if (auto ok = remove(o.from_tokens, o.from, o.op); !ok) return ok;
    return add(o, std::move(v));
  }

  Result<> copy(const Operation& o) {
    auto* at = find(document_, o.from_tokens);
    if (!at) return missing(o.op, o.from);
    copied_ += json::serialize(*at).size();
    if (copied_ > kMaxCopiedBytes)
      return fail(kTooLarge, "unable to copy, the accumulated size increase of copy is {}, exceeding the limit {}",
                  copied_, kMaxCopiedBytes);
    return add(o, json::value(*at));
  }

  json::value& document_;
  std::size_t copied_ = 0;
};

Result<Operation> operation_of(const json::value& v) {
  const auto* o = v.if_object();
  if (!o) return fail(kMalformed, "error decoding patch: an operation is not an object");
  auto text = [&](std::string_view field) {
    const auto* s = o->if_contains(field);
    return s && s->is_string() ? std::string_view(s->get_string()) : std::string_view();
  };
  Operation out{.op = text("op"), .path = text("path"), .from = text("from")};
  constexpr std::string_view kOps[] = {"add", "remove", "replace", "test", "move", "copy"};
  if (std::find(std::begin(kOps), std::end(kOps), out.op) == std::end(kOps))
    return fail(kMalformed, "error decoding patch: unexpected kind: {}", out.op);
  auto tokens = tokens_of(out.path);
  auto from = tokens_of(out.from);
  if (!o->contains("path") || !tokens)
    return fail(kMalformed, "error decoding patch: path \"{}\" is not a JSON pointer", out.path);
  if (!from) return fail(kMalformed, "error decoding patch: from \"{}\" is not a JSON pointer", out.from);
  out.tokens = std::move(*tokens);
  out.from_tokens = std::move(*from);
  out.value = o->if_contains("value");
  bool needs_value = out.op == "add" || out.op == "replace" || out.op == "test";
  if (needs_value && !out.value) return fail(kMalformed, "error decoding patch: {} {} has no value", out.op, out.path);
  return out;
}

}  // namespace

Result<json::value> apply_json_patch(json::value document, const json::value& patch) {
  const auto* list = patch.if_array();
  if (!list)
    return fail(kMalformed,
                "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch");
  if (list->size() > kMaxPatchOperations)
    return fail(kTooLarge, "The allowed maximum operations in a JSON patch is {}, got {}", kMaxPatchOperations,
                list->size());
  JsonPatch target(document);
  for (const auto& v : *list) {
    auto o = operation_of(v);
    if (!o) return propagate(o);
    if (auto ok = target.run(*o); !ok) return propagate(ok);
  }
  return document;
}

void apply_merge_patch(json::value& target, const json::value& patch) {
  const auto* changes = patch.if_object();
  if (!changes) {
    target = patch;
    return;
  }
  if (!target.is_object()) target.emplace_object();
  auto& o = target.get_object();
  for (const auto& [key, v] : *changes) {
    if (!v.is_null()) {
      apply_merge_patch(o[key], v);
    } else if (auto it = o.find(key); it != o.end()) {
      o.stable_erase(it);
    }
  }
}

}  // namespace hawser::schema
