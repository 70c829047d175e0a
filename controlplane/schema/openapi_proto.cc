// SPDX-License-Identifier: Apache-2.0
// The OpenAPI v2 document as gnostic's protobuf, which kubectl up to 1.26 asks for. Only the wire format's two used
// shapes are needed (length-delimited fields and booleans), so it is written directly; field numbers are those of
// openapiv2.proto.
#include <string>

#include "controlplane/schema/openapi_model.h"
#include "controlplane/schema/schema.h"

namespace hawser::schema {
namespace {

using openapi::Node;
using openapi::Operation;
using openapi::Parameter;
using openapi::Path;

void put_varint(std::string& out, std::uint64_t n) {
  for (; n >= 0x80; n >>= 7) out += static_cast<char>(n | 0x80);
  out += static_cast<char>(n);
}

// One message under construction.
class Message {
 public:
  Message& text(int field, std::string_view s) {
    if (!s.empty()) bytes(field, s);
    return *this;
  }
  Message& message(int field, const Message& m) {
    bytes(field, m.out_);
    return *this;
  }
  Message& flag(int field, bool b) {
    if (!b) return *this;
    put_varint(out_, static_cast<std::uint64_t>(field) << 3);
    out_ += '\1';
    return *this;
  }
  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  void bytes(int field, std::string_view s) {
    constexpr std::uint64_t kLengthDelimited = 2;
    put_varint(out_, static_cast<std::uint64_t>(field) << 3 | kLengthDelimited);
    put_varint(out_, s.size());
    out_ += s;
  }
  std::string out_;
};

Message any(std::string_view yaml) {
  return Message().text(2, yaml);
}

// NamedAny; JSON is YAML.
Message extension(std::string_view name, std::string_view json) {
  return Message().text(1, name).message(2, any(json));
}

std::string definition_ref(std::string_view name) {
  return "#/definitions/" + std::string(name);
}

Message schema_message(const Node& n) {
  Message m;
  if (!n.ref.empty()) m.text(1, definition_ref(n.ref));
  m.text(2, n.format).text(4, n.doc);
  if (!n.default_json.empty()) m.message(5, any(n.default_json));
  for (auto r : n.required) m.text(19, r);
  for (auto e : n.enums) m.message(20, any(e.empty() ? "\"\"" : e));
  if (!n.additional.empty()) m.message(21, Message().message(1, schema_message(n.additional[0])));
  if (!n.type.empty()) m.message(22, Message().text(1, n.type));
  if (!n.items.empty()) m.message(23, Message().message(1, schema_message(n.items[0])));
  if (!n.properties.empty()) {
    Message properties;
    for (const auto& [name, p] : n.properties)
      properties.message(1, Message().text(1, name).message(2, schema_message(p)));
    m.message(25, properties);
  }
  for (const auto& [name, json] : n.extensions) m.message(31, extension(name, json));
  return m;
}

Message ref_schema(std::string_view name) {
  return name.empty() ? Message().message(22, Message().text(1, "string")) : Message().text(1, definition_ref(name));
}

// ParametersItem{parameter: Parameter{non_body_parameter: ...}}
Message parameter(const Parameter& p) {
  Message m;
  bool in_path = p.in == "path";
  m.flag(1, in_path).text(2, p.in).text(3, p.doc).text(4, p.name);
  if (in_path)
    m.text(5, p.type).flag(18, true);
  else
    m.text(6, p.type).flag(19, true);
  constexpr int kQuery = 3, kPath = 4;
  Message non_body = Message().message(in_path ? kPath : kQuery, m);
  return Message().message(1, Message().message(2, non_body));
}

Message body_parameter(const Operation& o) {
  Message body = Message().text(2, "body").text(3, "body").flag(4, o.method != "delete").message(5, ref_schema(o.body));
  return Message().message(1, Message().message(1, body));
}

Message response(std::string_view code, std::string_view doc, const Operation* o) {
  Message r = Message().text(1, doc);
  if (o) r.message(2, Message().message(1, ref_schema(o->response)));
  return Message().text(1, code).message(2, Message().message(1, r));
}

Message operation(const Operation& o) {
  Message m;
  m.text(5, o.id);
  for (auto t : openapi::kMediaTypes) m.text(6, t);
  if (o.method == "patch")
    for (auto t : openapi::kPatchTypes) m.text(7, t);
  else
    for (auto t : openapi::kMediaTypes) m.text(7, t);
  if (!o.body.empty()) m.message(8, body_parameter(o));
  for (const auto& q : o.query) m.message(8, parameter(q));
  Message responses = Message().message(1, response("200", "OK", &o));
  if (o.method == "post" || o.method == "put") responses.message(1, response("201", "Created", &o));
  responses.message(1, response("401", "Unauthorized", nullptr));
  m.message(9, responses);
  m.message(13, extension("x-kubernetes-action", o.action));
  m.message(13, extension(openapi::kGvkExtension, openapi::gvk_json(*o.kind)));
  return m;
}

int method_field(std::string_view method) {
  if (method == "get") return 2;
  if (method == "put") return 3;
  if (method == "post") return 4;
  if (method == "delete") return 5;
  return 8;  // patch
}

Message path_item(const Path& p) {
  Message m;
  for (const auto& o : p.operations) m.message(method_field(o.method), operation(o));
  if (p.named) m.message(9, parameter({"name", "path", "string", "Name of the object."}));
  if (p.namespaced) m.message(9, parameter({"namespace", "path", "string", "Namespace of the object."}));
  return m;
}

std::string document() {
  Message paths, definitions;
  for (const auto& p : openapi::paths("")) paths.message(2, Message().text(1, p.path).message(2, path_item(p)));
  for (const auto& d : openapi::definitions(""))
    definitions.message(1, Message().text(1, d.name).message(2, schema_message(d.node)));
  Message m;
  m.text(1, "2.0")
      .message(2, Message().text(1, "Kubernetes").text(2, openapi::kVersion))
      .message(8, paths)
      .message(9, definitions);
  auto out = m.take();
  out.shrink_to_fit();
  return out;
}

}  // namespace

const std::string& openapi_v2_protobuf() {
  static const std::string bytes = document();
  return bytes;
}

}  // namespace hawser::schema
