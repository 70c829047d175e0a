// SPDX-License-Identifier: Apache-2.0
// TypeTable: the parsed form of types/*.schema (types/README.md describes the language). Everything in this folder
// reads kinds, fields and columns from here and nowhere else. Immutable after start; names and docs point into the
// embedded text. Any thread.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/value.hpp>

#include "controlplane/schema/schema.h"
#include "lib/base/result.h"

namespace hawser::schema {

enum class Base : std::uint8_t {
  kString,
  kBool,
  kInt32,
  kInt64,
  kDouble,
  kQuantity,
  kIntOrString,
  kTime,
  kMicroTime,
  kBytes,
  kAny,
  kFieldsV1,
  kObject,
};
enum class Shape : std::uint8_t { kOne, kList, kMap };
enum class ListType : std::uint8_t { kNone, kAtomic, kSet, kMap };
enum class Bound : std::uint8_t { kNone, kPort, kNonNegative, kPositive };

struct Type;

struct Field {
  std::string_view name, doc;
  Base base = Base::kString;
  Shape shape = Shape::kOne;
  const Type* type = nullptr;  // of kObject
  bool required = false;       // listed in OpenAPI
  bool nonempty = false;       // and checked
  bool keep_empty = false;     // "" or [] or {} is not the same as absent
  bool merge = false;          // strategic merge instead of replace
  bool retain_keys = false;
  bool atomic_map = false;
  bool has_enum = false;
  Bound bound = Bound::kNone;
  ListType list_type = ListType::kNone;
  std::string_view merge_key;        // empty with merge: a set of primitives
  std::string_view list_keys;        // "containerPort,protocol"
  std::string_view enum_text;        // "TCP,UDP"
  boost::json::value default_value;  // null: none
  boost::json::value api_default;    // shown only
};

struct Type {
  std::string_view package, alias, name, doc;
  bool atomic = false;
  std::vector<Field> fields;
  [[nodiscard]] const Field* find(std::string_view field) const;
  // "io.k8s.api.core.v1.Pod"
  [[nodiscard]] std::string full_name() const;
};

struct Column {
  std::string name;
  std::string_view type, format, how, doc;
  int priority = 0;
};

// What belongs to a kind beside schema.h's Kind.
struct KindEntry {
  const Type* type = nullptr;
  std::vector<Column> columns;
};

class TypeTable {
 public:
  // The embedded tables.
  static const TypeTable& get();
  static Result<std::unique_ptr<TypeTable>> parse(std::span<const std::string_view> texts);

  // Kinds with a collection of their own, in discovery order.
  [[nodiscard]] std::span<const Kind> kinds() const { return std::span(kinds_).first(listed_); }
  // And those that exist only as a subresource's body (Binding, Scale).
  [[nodiscard]] std::span<const Kind> all_kinds() const { return kinds_; }
  [[nodiscard]] const KindEntry& entry(const Kind& k) const {
    return entries_[static_cast<std::size_t>(&k - kinds_.data())];
  }
  [[nodiscard]] const std::deque<Type>& types() const { return types_; }
  // `from` decides which package is searched first.
  [[nodiscard]] const Type* find_type(std::string_view package, std::string_view name) const;

 private:
  friend class TableParser;
  std::deque<Type> types_;
  std::vector<Kind> kinds_;
  std::vector<KindEntry> entries_;
  std::size_t listed_ = 0;
  std::deque<std::string> names_;  // list and singular names
};

inline constexpr std::string_view kMetaPackage = "io.k8s.apimachinery.pkg.apis.meta.v1";
inline constexpr std::string_view kCorePackage = "io.k8s.api.core.v1";

// Calls f(part) for each part of "a,b,c"; "" has one empty part.
template <class F>
void for_each_part(std::string_view text, F f) {
  for (;;) {
    auto comma = text.find(',');
    f(text.substr(0, comma));
    if (comma == std::string_view::npos) return;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace hawser::schema
