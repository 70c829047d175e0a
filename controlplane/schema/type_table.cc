// SPDX-License-Identifier: Apache-2.0
#include "controlplane/schema/type_table.h"

#include <algorithm>
#include <array>
#include <optional>

#include <boost/json/parse.hpp>

namespace hawser::schema {

extern const std::span<const std::string_view> kSchemaTexts;  // made by tools/embed_text.py

namespace {

struct BaseName {
  std::string_view name;
  Base base;
};
constexpr std::array<BaseName, 12> kBaseNames{{
    {"string", Base::kString},
    {"bool", Base::kBool},
    {"int32", Base::kInt32},
    {"int64", Base::kInt64},
    {"double", Base::kDouble},
    {"quantity", Base::kQuantity},
    {"intstr", Base::kIntOrString},
    {"time", Base::kTime},
    {"microtime", Base::kMicroTime},
    {"bytes", Base::kBytes},
    {"any", Base::kAny},
    {"fieldsv1", Base::kFieldsV1},
}};

std::string_view trim(std::string_view s) {
  while (!s.empty() && s.front() == ' ') s.remove_prefix(1);
  while (!s.empty() && s.back() == ' ') s.remove_suffix(1);
  return s;
}

// The next word of `s`, which loses it.
std::string_view take_word(std::string_view& s) {
  s = trim(s);
  auto end = s.find(' ');
  auto word = s.substr(0, end);
  s.remove_prefix(std::min(word.size(), s.size()));
  return word;
}

// The text between the brackets of "merge(name)", if `word` is such a call.
std::optional<std::string_view> argument(std::string_view word, std::string_view name) {
  if (!word.starts_with(name) || word.size() < name.size() + 2 || word[name.size()] != '(' || word.back() != ')')
    return {};
  return word.substr(name.size() + 1, word.size() - name.size() - 2);
}

}  // namespace

// Parses the tables line by line. Type names in fields are resolved after all files are read.
class TableParser {
 public:
  Result<std::unique_ptr<TypeTable>> run(std::span<const std::string_view> texts) {
    for (auto text : texts) {
      for (int number = 1; !text.empty(); number++) {
        auto line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(line.size() + 1, text.size()));
        if (trim(line).empty() || line.front() == '#') continue;
        if (auto ok = take_line(line); !ok) return propagate(ok, "schema line {} '{}'", number, line);
      }
    }
    if (auto ok = resolve(); !ok) return propagate(ok);
    sort_kinds();
    return std::move(table_);
  }

 private:
  struct PendingKind {
    Kind kind;
    KindEntry entry;
    std::string_view package;
    bool listed = true;
    int group_rank = 0;
  };
  struct PendingRef {
    Type* owner;
    std::size_t field;
    std::string_view name;
  };

  Result<> take_line(std::string_view line) {
    auto bar = line.find(" | ");
    auto doc = bar == std::string_view::npos ? std::string_view() : trim(line.substr(bar + 3));
    auto rest = line.substr(0, bar);
    bool nested = rest.front() == ' ';
    auto word = take_word(rest);
    if (nested && in_kind_) return kind_line(word, rest, doc);
    if (nested) return field_line(word, rest, doc);
    if (word == "package") {
      package_ = take_word(rest);
      alias_ = take_word(rest);
      return {};
    }
    if (word == "type") {
      in_kind_ = false;
      table_->types_.push_back(Type{.package = package_, .alias = alias_, .name = take_word(rest), .doc = doc});
      table_->types_.back().atomic = take_word(rest) == "atomic";
      return {};
    }
    if (word == "kind") return kind_start(rest);
    return fail(0, "unknown word '{}'", word);
  }

  Result<> kind_start(std::string_view rest) {
    in_kind_ = true;
    PendingKind p{.package = package_};
    p.kind.kind = take_word(rest);
    p.kind.version = package_.substr(package_.rfind('.') + 1);
    p.kind.namespaced = false;
    for (auto word = take_word(rest); !word.empty(); word = take_word(rest)) {
      auto equals = word.find('=');
      auto name = word.substr(0, equals);
      auto value = equals == std::string_view::npos ? std::string_view() : word.substr(equals + 1);
      if (name == "group")
        p.kind.group = value;
      else if (name == "plural")
        p.kind.plural = value;
      else if (name == "short")
        p.kind.short_names.push_back(value);
      else if (name == "categories")
        p.kind.categories.push_back(value);
      else if (name == "namespaced")
        p.kind.namespaced = true;
      else if (name == "status")
        p.kind.has_status = true;
      else if (name == "scale")
        p.kind.has_scale = true;
      else if (name == "generation")
        p.kind.has_generation = true;
      else if (name == "virtual")
        p.listed = false;
      else
        return fail(0, "unknown kind attribute '{}'", word);
    }
    p.kind.list_kind = keep(std::string(p.kind.kind) + "List");
    std::string lower(p.kind.kind);
    std::ranges::transform(lower, lower.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    p.kind.singular = keep(std::move(lower));
    p.group_rank = rank_of(p.kind.group);
    pending_.push_back(std::move(p));
    return {};
  }

  Result<> kind_line(std::string_view word, std::string_view rest, std::string_view doc) {
    auto& p = pending_.back();
    if (word == "select") {
      for (auto path = take_word(rest); !path.empty(); path = take_word(rest)) p.kind.selectable.push_back(path);
      return {};
    }
    if (word != "column") return fail(0, "unknown word '{}'", word);
    Column c;
    c.name = std::string(take_word(rest));
    std::ranges::replace(c.name, '_', ' ');
    c.type = take_word(rest);
    c.format = take_word(rest);
    if (c.format == "-") c.format = {};
    c.priority = take_word(rest) == "1" ? 1 : 0;
    c.how = take_word(rest);
    c.doc = doc;
    if (c.how.empty()) return fail(0, "column without a source");
    p.entry.columns.push_back(std::move(c));
    return {};
  }

  Result<> field_line(std::string_view name, std::string_view rest, std::string_view doc) {
    if (table_->types_.empty()) return fail(0, "field outside a type");
    Type& owner = table_->types_.back();
    Field f{.name = name, .doc = doc};
    auto type = take_word(rest);
    if (type.starts_with('[') || type.starts_with('{')) {
      f.shape = type.starts_with('[') ? Shape::kList : Shape::kMap;
      type = type.substr(1, type.size() - 2);
    }
    auto found = std::ranges::find(kBaseNames, type, &BaseName::name);
    f.base = found == kBaseNames.end() ? Base::kObject : found->base;
    if (f.base == Base::kObject) refs_.push_back({&owner, owner.fields.size(), type});
    for (auto word = take_word(rest); !word.empty(); word = take_word(rest))
      if (auto ok = attribute(f, word); !ok) return ok;
    owner.fields.push_back(std::move(f));
    return {};
  }

  static Result<boost::json::value> json(std::string_view text) {
    boost::system::error_code ec;
    auto v = boost::json::parse(text, ec);
    if (ec) return fail(0, "'{}' is not JSON", text);
    return v;
  }

  static Result<> attribute(Field& f, std::string_view word) {
    if (word.starts_with('=') || word.starts_with("api=")) {
      auto v = json(word.substr(word.find('=') + 1));
      if (!v) return propagate(v);
      (word.starts_with('=') ? f.default_value : f.api_default) = std::move(*v);
    } else if (word == "!" || word == "!!") {
      f.required = true;
      f.nonempty = word == "!!";
    } else if (word == "port")
      f.bound = Bound::kPort;
    else if (word == "nonneg")
      f.bound = Bound::kNonNegative;
    else if (word == "pos")
      f.bound = Bound::kPositive;
    else if (word == "ptr")
      f.keep_empty = true;
    else if (word == "retain")
      f.retain_keys = true;
    else if (word == "atomic")
      f.atomic_map = true;
    else if (auto values = argument(word, "enum")) {
      f.has_enum = true;
      f.enum_text = *values;
    } else if (auto key = argument(word, "merge")) {
      f.merge = true;
      f.merge_key = *key;
    } else if (auto list = argument(word, "list")) {
      f.list_type = *list == "atomic" ? ListType::kAtomic : *list == "set" ? ListType::kSet : ListType::kMap;
      if (f.list_type == ListType::kMap) f.list_keys = list->substr(std::string_view("map:").size());
    } else {
      return fail(0, "unknown attribute '{}'", word);
    }
    return {};
  }

  Result<> resolve() {
    for (const auto& r : refs_) {
      auto& f = r.owner->fields[r.field];
      f.type = lookup(r.owner->package, r.name);
      if (!f.type) return fail(0, "{}.{}: no type '{}'", r.owner->name, f.name, r.name);
    }
    for (auto& p : pending_) {
      p.entry.type = table_->find_type(p.package, p.kind.kind);
      if (!p.entry.type) return fail(0, "kind {}: no such type", p.kind.kind);
    }
    return {};
  }

  const Type* lookup(std::string_view package, std::string_view name) const {
    for (auto p : {package, kMetaPackage, kCorePackage})
      if (const Type* t = table_->find_type(p, name)) return t;
    return nullptr;
  }

  // Discovery order: groups as they first appear, kinds by plural; those without a collection last.
  void sort_kinds() {
    std::ranges::stable_sort(pending_, [](const PendingKind& a, const PendingKind& b) {
      return std::tuple(!a.listed, a.group_rank, a.kind.plural) < std::tuple(!b.listed, b.group_rank, b.kind.plural);
    });
    for (auto& p : pending_) {
      if (p.listed) table_->listed_++;
      table_->kinds_.push_back(std::move(p.kind));
      table_->entries_.push_back(std::move(p.entry));
    }
  }

  int rank_of(std::string_view group) {
    auto at = std::ranges::find(groups_, group);
    if (at == groups_.end()) at = groups_.insert(groups_.end(), group);
    return static_cast<int>(at - groups_.begin());
  }

  std::string_view keep(std::string s) { return table_->names_.emplace_back(std::move(s)); }

  std::unique_ptr<TypeTable> table_ = std::make_unique<TypeTable>();
  std::vector<PendingKind> pending_;
  std::vector<PendingRef> refs_;
  std::vector<std::string_view> groups_;
  std::string_view package_, alias_;
  bool in_kind_ = false;
};

const Field* Type::find(std::string_view field) const {
  auto at = std::ranges::find(fields, field, &Field::name);
  return at == fields.end() ? nullptr : &*at;
}

std::string Type::full_name() const {
  return std::string(package) + "." + std::string(name);
}

const Type* TypeTable::find_type(std::string_view package, std::string_view name) const {
  for (const auto& t : types_)
    if (t.name == name && t.package == package) return &t;
  return nullptr;
}

Result<std::unique_ptr<TypeTable>> TypeTable::parse(std::span<const std::string_view> texts) {
  return TableParser().run(texts);
}

const TypeTable& TypeTable::get() {
  // The unit test proves that the embedded text parses; an empty table stands in for one that does not.
  static const std::unique_ptr<TypeTable> table = [] {
    auto parsed = parse(kSchemaTexts);
    return parsed ? std::move(*parsed) : std::make_unique<TypeTable>();
  }();
  return *table;
}

std::string Kind::group_version() const {
  return group.empty() ? std::string(version) : std::string(group) + "/" + std::string(version);
}

std::span<const Kind> kinds() {
  return TypeTable::get().kinds();
}

const Kind* find_resource(std::string_view group, std::string_view version, std::string_view plural) {
  for (const auto& k : TypeTable::get().all_kinds())
    if (k.plural == plural && k.group == group && k.version == version && !plural.empty()) return &k;
  return nullptr;
}

const Kind* find_kind(std::string_view group, std::string_view version, std::string_view kind) {
  for (const auto& k : TypeTable::get().all_kinds())
    if (k.kind == kind && k.group == group && k.version == version) return &k;
  return nullptr;
}

}  // namespace hawser::schema
