// SPDX-License-Identifier: Apache-2.0
#include "controlplane/schema/conform.h"

#include <limits>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include "controlplane/schema/scalar.h"
#include "lib/kube/quantity.h"

namespace hawser::schema {
namespace {

namespace json = boost::json;

// What the Go decoder calls a JSON value.
std::string go_value(const json::value& v) {
  switch (v.kind()) {
    case json::kind::null:
      return "null";
    case json::kind::bool_:
      return "bool";
    case json::kind::string:
      return "string";
    case json::kind::array:
      return "array";
    case json::kind::object:
      return "object";
    default:
      return "number";
  }
}

std::string go_type(const Field& f, Shape shape) {
  std::string base = [&]() -> std::string {
    switch (f.base) {
      case Base::kBool:
        return "bool";
      case Base::kInt32:
        return "int32";
      case Base::kInt64:
        return "int64";
      case Base::kDouble:
        return "float64";
      case Base::kQuantity:
        return "resource.Quantity";
      case Base::kIntOrString:
        return "intstr.IntOrString";
      case Base::kTime:
        return "v1.Time";
      case Base::kMicroTime:
        return "v1.MicroTime";
      case Base::kBytes:
        return "[]uint8";
      case Base::kObject:
        return std::string(f.type->alias) + "." + std::string(f.type->name);
      default:
        return "string";
    }
  }();
  if (shape == Shape::kList) return "[]" + base;
  if (shape == Shape::kMap) return "map[string]" + base;
  return base;
}

bool is_empty(const json::value& v) {
  if (const auto* s = v.if_string()) return s->empty();
  if (const auto* a = v.if_array()) return a->empty();
  return false;
}

class Conformer {
 public:
  explicit Conformer(std::vector<std::string>& unknown) : unknown_(unknown) {}

  Result<> object(const Type& t, json::object& o) {
    for (auto it = o.begin(); it != o.end();) {
      Step step(*this, it->key());
      const Field* f = t.find(it->key());
      // Every document may name its own version and kind.
      bool header = !f && path_.find('.') == std::string::npos && (it->key() == "apiVersion" || it->key() == "kind");
      if (!f && !header) unknown_.push_back("unknown field \"" + path_ + "\"");
      bool drop = (!f && !header) || it->value().is_null();
      if (f && !drop) {
        if (auto ok = field(t, *f, it->value()); !ok) return ok;
        drop = !f->keep_empty && !f->required && (is_empty(it->value()) || is_empty_map(*f, it->value()));
      }
      it = drop ? o.stable_erase(it) : std::next(it);
    }
    return {};
  }

 private:
  // A part of the path while it lives.
  class Step {
   public:
    Step(Conformer& c, std::string_view name) : Step(c) {
      for (auto* path : {&c.path_, &c.go_path_}) {
        if (!path->empty()) *path += '.';
        *path += name;
      }
    }
    Step(Conformer& c, std::size_t index) : Step(c) { c.path_ += fmt::format("[{}]", index); }
    ~Step() {
      c_.path_.resize(size_);
      c_.go_path_.resize(go_size_);
    }
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;

   private:
    explicit Step(Conformer& c) : c_(c), size_(c.path_.size()), go_size_(c.go_path_.size()) {}
    Conformer& c_;
    std::size_t size_, go_size_;
  };

  static bool is_empty_map(const Field& f, const json::value& v) {
    const auto* o = f.shape == Shape::kMap ? v.if_object() : nullptr;
    return o && o->empty();
  }

  std::unexpected<Error> mismatch(const Type& owner, const Field& f, const json::value& v, Shape shape) const {
    std::string found = go_value(v);
    if (v.is_double() && (f.base == Base::kInt32 || f.base == Base::kInt64))
      found += fmt::format(" {}", v.get_double());
    return fail(0, "json: cannot unmarshal {} into Go struct field {}.{} of type {}", found, owner.name, go_path_,
                go_type(f, shape));
  }

  Result<> field(const Type& owner, const Field& f, json::value& v) {
    if (f.shape == Shape::kList) {
      auto* a = v.if_array();
      if (!a) return mismatch(owner, f, v, Shape::kList);
      for (std::size_t i = 0; i < a->size(); i++) {
        Step step(*this, i);
        if (auto ok = one(owner, f, (*a)[i]); !ok) return ok;
      }
      return {};
    }
    if (f.shape == Shape::kMap) {
      auto* o = v.if_object();
      if (!o) return mismatch(owner, f, v, Shape::kMap);
      for (auto& [key, item] : *o) {
        Step step(*this, key);
        if (auto ok = one(owner, f, item); !ok) return ok;
      }
      return {};
    }
    return one(owner, f, v);
  }

  // Null as an element of a list or map is the zero value.
  static void fill_null(const Field& f, json::value& v) {
    switch (f.base) {
      case Base::kObject:
        v.emplace_object();
        break;
      case Base::kBool:
        v = false;
        break;
      case Base::kInt32:
      case Base::kInt64:
      case Base::kIntOrString:
        v = std::int64_t{0};
        break;
      case Base::kQuantity:
        v = "0";
        break;
      case Base::kString:
      case Base::kBytes:
        v = "";
        break;
      default:
        break;
    }
  }

  Result<> one(const Type& owner, const Field& f, json::value& v) {
    if (v.is_null()) fill_null(f, v);
    switch (f.base) {
      case Base::kObject: {
        auto* o = v.if_object();
        return o ? object(*f.type, *o) : Result<>(mismatch(owner, f, v, Shape::kOne));
      }
      case Base::kAny:
        return {};
      case Base::kFieldsV1:
        return v.is_object() ? Result<>() : Result<>(mismatch(owner, f, v, Shape::kOne));
      case Base::kBool:
        return v.is_bool() ? Result<>() : Result<>(mismatch(owner, f, v, Shape::kOne));
      case Base::kDouble:
        return v.is_number() ? Result<>() : Result<>(mismatch(owner, f, v, Shape::kOne));
      case Base::kInt32:
      case Base::kInt64:
        return integer(owner, f, v);
      case Base::kIntOrString:
        return v.is_string() ? Result<>() : integer(owner, f, v);
      case Base::kQuantity:
        return quantity(owner, f, v);
      default:
        return text(owner, f, v);
    }
  }

  Result<> integer(const Type& owner, const Field& f, json::value& v) const {
    if (const auto* u = v.if_uint64(); u && *u <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      v = static_cast<std::int64_t>(*u);
    const auto* i = v.if_int64();
    if (!i) return mismatch(owner, f, v, Shape::kOne);
    if (f.base == Base::kInt64 ||
        (*i >= std::numeric_limits<std::int32_t>::min() && *i <= std::numeric_limits<std::int32_t>::max()))
      return {};
    auto e = mismatch(owner, f, v, Shape::kOne);
    auto at = e.error().text.find("number");
    auto text = e.error().text;
    return fail(0, "{} {}{}", text.substr(0, at + 6), *i, text.substr(at + 6));
  }

  Result<> quantity(const Type& owner, const Field& f, json::value& v) const {
    if (!v.is_string() && !v.is_number()) return mismatch(owner, f, v, Shape::kOne);
    std::string number = v.is_string()   ? std::string(v.get_string())
                         : v.is_double() ? fmt::format("{}", v.get_double())
                                         : json::serialize(v);
    auto q = kube::Quantity::parse(number);
    if (!q) return propagate(q);
    v = json::string(q->text());
    return {};
  }

  Result<> text(const Type& owner, const Field& f, json::value& v) const {
    const auto* s = v.if_string();
    if (!s) return mismatch(owner, f, v, Shape::kOne);
    if (f.base == Base::kBytes) {
      if (auto at = base64_error(*s)) return fail(0, "illegal base64 data at input byte {}", *at);
    }
    if (f.base == Base::kTime || f.base == Base::kMicroTime) {
      auto us = parse_time_us(*s);
      if (!us) return propagate(us);
      std::int64_t seconds = *us / 1'000'000 - (*us % 1'000'000 < 0 ? 1 : 0);
      v = json::string(f.base == Base::kTime ? time_text(seconds) : micro_time_text(*us));
    }
    return {};
  }

  std::vector<std::string>& unknown_;
  std::string path_;
  std::string go_path_;  // the same without indices
};

}  // namespace

Result<> conform(const Type& type, json::object& o, std::vector<std::string>& unknown) {
  return Conformer(unknown).object(type, o);
}

}  // namespace hawser::schema
