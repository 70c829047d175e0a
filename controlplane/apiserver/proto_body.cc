// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/proto_body.h"

#include <bit>
#include <charconv>
#include <map>
#include <optional>
#include <span>

#include "controlplane/apiserver/continue_token.h"
#include "controlplane/schema/type_table.h"
#include "lib/base/time_text.h"
#include "lib/kube/object.h"

namespace hawser::apiserver {

using kube::Object;
using kube::Value;
using schema::Base;
using schema::Field;
using schema::Type;
using schema::TypeTable;

extern const std::span<const std::string_view> kProtoFieldsText;

namespace {

constexpr std::string_view kMagic("k8s\0", 4);
// No served kind nests deeper than half of this.
constexpr int kMaxDepth = 64;

// Number to name; a name that starts with '*' is an inlined message.
using Numbers = std::map<std::uint32_t, std::string_view>;

class NumberTable {
 public:
  static const NumberTable& get() {
    static const NumberTable table;
    return table;
  }
  [[nodiscard]] const Numbers* find(std::string_view package, std::string_view message) const {
    auto it = messages_.find(std::pair(package, message));
    return it == messages_.end() ? nullptr : &it->second;
  }

 private:
  NumberTable() {
    std::string_view package;
    Numbers* current = nullptr;
    std::uint32_t next = 1;
    auto text = kProtoFieldsText[0];
    while (!text.empty()) {
      auto line = text.substr(0, text.find('\n'));
      text.remove_prefix(std::min(text.size(), line.size() + 1));
      if (line.empty() || line[0] == '#') continue;
      if (line.starts_with("package ")) {
        package = line.substr(8);
        continue;
      }
      if (line[0] != ' ') {
        auto colon = line.find(':');
        current = &messages_[{package, line.substr(0, colon)}];
        next = 1;
        line.remove_prefix(colon + 1);
      }
      add_fields(line, *current, next);
    }
  }
  static void add_fields(std::string_view line, Numbers& to, std::uint32_t& next) {
    while (!line.empty()) {
      auto word = line.substr(0, line.find(' '));
      line.remove_prefix(std::min(line.size(), word.size() + 1));
      if (word.empty()) continue;
      auto eq = word.find('=');
      if (eq != std::string_view::npos) std::from_chars(word.data() + eq + 1, word.data() + word.size(), next);
      to[next++] = word.substr(0, eq);
    }
  }
  std::map<std::pair<std::string_view, std::string_view>, Numbers> messages_;
};

// One field of a message on the wire.
struct Wire {
  std::uint32_t number = 0;
  std::uint64_t integer = 0;  // wire types 0, 1 and 5
  std::string_view bytes;     // wire type 2
};

// Takes the next field off `in`; nothing at a malformed one.
std::optional<std::uint64_t> take_varint(std::string_view& in) {
  std::uint64_t v = 0;
  for (int shift = 0; shift < 64 && !in.empty(); shift += 7) {
    auto c = static_cast<unsigned char>(in[0]);
    in.remove_prefix(1);
    v |= std::uint64_t{c & 0x7fu} << shift;
    if (c < 0x80) return v;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> take_fixed(std::string_view& in, std::size_t size) {
  if (in.size() < size) return std::nullopt;
  std::uint64_t v = 0;
  for (std::size_t i = 0; i < size; ++i) v |= std::uint64_t{static_cast<unsigned char>(in[i])} << (8 * i);
  in.remove_prefix(size);
  return v;
}

std::optional<Wire> take_field(std::string_view& in) {
  auto tag = take_varint(in);
  if (!tag || *tag >> 3 == 0 || *tag >> 3 > UINT32_MAX) return std::nullopt;
  Wire w{.number = static_cast<std::uint32_t>(*tag >> 3)};
  std::optional<std::uint64_t> v;
  switch (*tag & 7) {
    case 0:
      v = take_varint(in);
      break;
    case 1:
      v = take_fixed(in, 8);
      break;
    case 5:
      v = take_fixed(in, 4);
      break;
    case 2:
      v = take_varint(in);
      if (!v || *v > in.size()) return std::nullopt;
      w.bytes = in.substr(0, *v);
      in.remove_prefix(*v);
      break;
    default:
      return std::nullopt;
  }
  if (!v) return std::nullopt;
  w.integer = *v;
  return w;
}

// Decodes messages into JSON objects. failed() once anything was malformed.
class Decoder {
 public:
  [[nodiscard]] bool failed() const { return failed_; }

  Object message(const Type& type, std::string_view in) {
    Object out;
    auto* numbers = NumberTable::get().find(type.package, type.name);
    if (numbers != nullptr) fill(type, *numbers, in, out);
    return out;
  }

 private:
  template <class F>
  void each_field(std::string_view in, F f) {
    while (!in.empty() && !failed_) {
      auto w = take_field(in);
      if (!w) {
        failed_ = true;
        return;
      }
      f(*w);
    }
  }

  void fill(const Type& type, const Numbers& numbers, std::string_view in, Object& out) {
    if (++depth_ > kMaxDepth) failed_ = true;
    each_field(in, [&](const Wire& w) {
      auto it = numbers.find(w.number);
      if (it == numbers.end()) return;  // newer than our tables
      auto name = it->second;
      if (name[0] == '*') {
        auto* inlined = NumberTable::get().find(type.package, name.substr(1));
        if (inlined != nullptr) fill(type, *inlined, w.bytes, out);
      } else if (auto* field = type.find(name)) {
        put(*field, w, out);
      }
    });
    --depth_;
  }

  void put(const Field& f, const Wire& w, Object& out) {
    if (f.shape == schema::Shape::kList) {
      auto& slot = out[f.name];
      if (!slot.is_array()) slot = kube::Array();
      slot.get_array().push_back(one(f, w));
    } else if (f.shape == schema::Shape::kMap) {
      auto& slot = out[f.name];
      if (!slot.is_object()) slot = Object();
      put_entry(f, w, slot.get_object());
    } else if (auto v = one(f, w); f.keep_empty || !is_zero(v)) {
      // Go's encoder writes every field that is no pointer, set or not; JSON leaves the unset ones out.
      out[f.name] = std::move(v);
    }
  }

  void put_entry(const Field& f, const Wire& w, Object& map) {
    std::string_view key;
    Wire value;
    each_field(w.bytes, [&](const Wire& part) {
      if (part.number == 1) key = part.bytes;
      if (part.number == 2) value = part;
    });
    map[key] = one(f, value);
  }

  static bool is_zero(const Value& v) {
    return v.is_null() || (v.is_string() && v.get_string().empty()) || (v.is_bool() && !v.get_bool()) ||
           (v.is_int64() && v.get_int64() == 0);
  }

  Value one(const Field& f, const Wire& w) {
    switch (f.base) {
      case Base::kString:
        return Value(w.bytes);
      case Base::kBool:
        return w.integer != 0;
      case Base::kInt32:
        return static_cast<std::int64_t>(static_cast<std::int32_t>(w.integer));
      case Base::kInt64:
        return static_cast<std::int64_t>(w.integer);
      case Base::kDouble:
        return std::bit_cast<double>(w.integer);
      case Base::kBytes:
        return Value(base64(w.bytes, false));
      case Base::kQuantity:
        return quantity(w.bytes);
      case Base::kIntOrString:
        return int_or_string(w.bytes);
      case Base::kTime:
      case Base::kMicroTime:
        return time(w.bytes, f.base == Base::kMicroTime);
      case Base::kObject:
        return message(*f.type, w.bytes);
      case Base::kAny:
      case Base::kFieldsV1:
        return nullptr;
    }
    return nullptr;
  }

  Value quantity(std::string_view in) {
    Value v("");
    each_field(in, [&](const Wire& w) {
      if (w.number == 1) v = Value(w.bytes);
    });
    return v;
  }

  Value int_or_string(std::string_view in) {
    bool text = false;
    Value number = 0;
    Value string("");
    each_field(in, [&](const Wire& w) {
      if (w.number == 1) text = w.integer == 1;
      if (w.number == 2) number = static_cast<std::int64_t>(static_cast<std::int32_t>(w.integer));
      if (w.number == 3) string = Value(w.bytes);
    });
    return text ? string : number;
  }

  Value time(std::string_view in, bool micro) {
    if (in.empty()) return nullptr;
    std::int64_t seconds = 0;
    std::int64_t nanos = 0;
    each_field(in, [&](const Wire& w) {
      if (w.number == 1) seconds = static_cast<std::int64_t>(w.integer);
      if (w.number == 2) nanos = static_cast<std::int64_t>(w.integer);
    });
    // What std::chrono's nanoseconds can hold; no real time stamp is outside.
    constexpr std::int64_t kFarthest = 9'000'000'000;
    if (seconds > kFarthest || seconds < -kFarthest || nanos < 0 || nanos >= 1'000'000'000) {
      failed_ = true;
      return nullptr;
    }
    WallTime t(std::chrono::seconds(seconds) + Nanos(nanos));
    return Value(micro ? rfc3339_micro(t) : rfc3339(t));
  }

  bool failed_ = false;
  int depth_ = 0;
};

const Type* type_of(std::string_view api_version, std::string_view kind) {
  auto& table = TypeTable::get();
  if (kind == "DeleteOptions") return table.find_type(schema::kMetaPackage, kind);
  for (auto& k : table.all_kinds()) {
    if (k.kind == kind && k.group_version() == api_version) return table.entry(k).type;
  }
  return nullptr;
}

std::unexpected<kube::Status> malformed() {
  return std::unexpected(kube::bad_request("couldn't decode the body: malformed protobuf"));
}

}  // namespace

bool is_protobuf(std::string_view content_type) {
  return content_type.substr(0, content_type.find(';')) == "application/vnd.kubernetes.protobuf";
}

kube::Expected<Object> from_protobuf(std::string_view body) {
  if (!body.starts_with(kMagic)) return malformed();
  body.remove_prefix(kMagic.size());
  std::string_view type_meta, raw, api_version, kind;
  while (!body.empty()) {
    auto w = take_field(body);
    if (!w) return malformed();
    if (w->number == 1) type_meta = w->bytes;
    if (w->number == 2) raw = w->bytes;
  }
  while (!type_meta.empty()) {
    auto w = take_field(type_meta);
    if (!w) return malformed();
    if (w->number == 1) api_version = w->bytes;
    if (w->number == 2) kind = w->bytes;
  }
  Decoder decoder;
  Object o;
  if (kind == "Eviction") {
    // The only kind without a table of its own: metadata (1), deleteOptions (2).
    while (!raw.empty()) {
      auto w = take_field(raw);
      if (!w) return malformed();
      if (w->number == 2) o["deleteOptions"] = decoder.message(*type_of("v1", "DeleteOptions"), w->bytes);
    }
  } else if (auto* type = type_of(api_version, kind)) {
    o = decoder.message(*type, raw);
  } else {
    return std::unexpected(
        kube::bad_request(fmt::format("no kind \"{}\" is registered for version \"{}\"", kind, api_version)));
  }
  if (decoder.failed()) return malformed();
  o["apiVersion"] = api_version;
  o["kind"] = kind;
  return o;
}

}  // namespace hawser::apiserver
