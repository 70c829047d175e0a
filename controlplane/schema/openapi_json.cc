// SPDX-License-Identifier: Apache-2.0
// The OpenAPI documents as JSON, v2 and v3. Text is appended piece by piece: no tree of a whole document ever exists.
#include <algorithm>
#include <map>

#include <boost/json/serialize.hpp>

#include "controlplane/schema/openapi_model.h"
#include "controlplane/schema/schema.h"

namespace hawser::schema {
namespace {

using openapi::Definition;
using openapi::Node;
using openapi::Operation;
using openapi::Parameter;
using openapi::Path;

enum class Dialect { kV2, kV3 };

// Appends JSON; commas come by themselves.
class Writer {
 public:
  explicit Writer(std::string& out) : out_(out) {}
  void begin(char bracket) {
    separate();
    out_ += bracket;
    fresh_ = true;
  }
  void end(char bracket) {
    out_ += bracket;
    fresh_ = false;
  }
  void key(std::string_view name) {
    text(name);
    out_ += ':';
    fresh_ = true;
  }
  void text(std::string_view s) {
    separate();
    out_ += boost::json::serialize(boost::json::string(s));
  }
  // JSON as it is.
  void raw(std::string_view json) {
    separate();
    out_ += json;
  }
  void member(std::string_view name, std::string_view s) {
    key(name);
    text(s);
  }
  void raw_member(std::string_view name, std::string_view json) {
    key(name);
    raw(json);
  }
  template <class List>
  void texts(std::string_view name, const List& list) {
    key(name);
    begin('[');
    for (const auto& s : list) text(s);
    end(']');
  }

 private:
  void separate() {
    if (!fresh_) out_ += ',';
    fresh_ = false;
  }
  std::string& out_;
  bool fresh_ = true;
};

class Document {
 public:
  Document(Dialect dialect, std::string& out) : v3_(dialect == Dialect::kV3), w_(out) {}

  void run(std::string_view group_version) {
    w_.begin('{');
    w_.member(v3_ ? "openapi" : "swagger", v3_ ? "3.0.0" : "2.0");
    w_.raw_member("info", fmt::format(R"({{"title":"Kubernetes","version":"{}"}})", openapi::kVersion));
    w_.key("paths");
    w_.begin('{');
    for (const auto& p : openapi::paths(group_version)) path(p);
    w_.end('}');
    if (v3_) {
      w_.key("components");
      w_.begin('{');
    }
    w_.key(v3_ ? "schemas" : "definitions");
    w_.begin('{');
    for (const auto& d : openapi::definitions(group_version)) {
      w_.key(d.name);
      node(d.node);
    }
    w_.end('}');
    if (v3_) w_.end('}');
    w_.end('}');
  }

 private:
  void ref(std::string_view name) {
    w_.member("$ref", fmt::format("#/{}/{}", v3_ ? "components/schemas" : "definitions", name));
  }

  void node(const Node& n) {
    w_.begin('{');
    if (!n.ref.empty() && v3_ && !n.doc.empty()) {
      // v3 ignores what stands beside a $ref.
      w_.key("allOf");
      w_.begin('[');
      w_.begin('{');
      ref(n.ref);
      w_.end('}');
      w_.end(']');
    } else if (!n.ref.empty()) {
      ref(n.ref);
    }
    if (!n.doc.empty()) w_.member("description", n.doc);
    type(n);
    if (!n.format.empty()) w_.member("format", n.format);
    if (!n.default_json.empty()) w_.raw_member("default", n.default_json);
    if (!n.enums.empty()) w_.texts("enum", n.enums);
    if (!n.required.empty()) w_.texts("required", n.required);
    children(n);
    for (const auto& [name, value] : n.extensions) w_.raw_member(name, value);
    w_.end('}');
  }

  void type(const Node& n) {
    if (v3_ && !n.any_of.empty()) {
      w_.key("oneOf");
      w_.begin('[');
      for (auto t : n.any_of) w_.raw(fmt::format(R"({{"type":"{}"}})", t));
      w_.end(']');
    } else if (!n.type.empty()) {
      w_.member("type", n.type);
    }
  }

  void children(const Node& n) {
    if (!n.items.empty()) {
      w_.key("items");
      node(n.items[0]);
    }
    if (!n.additional.empty()) {
      w_.key("additionalProperties");
      node(n.additional[0]);
    }
    if (n.properties.empty()) return;
    w_.key("properties");
    w_.begin('{');
    for (const auto& [name, p] : n.properties) {
      w_.key(name);
      node(p);
    }
    w_.end('}');
  }

  void path(const Path& p) {
    w_.key(p.path);
    w_.begin('{');
    for (const auto& o : p.operations) operation(o);
    if (p.named || p.namespaced) {
      w_.key("parameters");
      w_.begin('[');
      if (p.named) parameter({"name", "path", "string", "Name of the object."});
      if (p.namespaced) parameter({"namespace", "path", "string", "Namespace of the object."});
      w_.end(']');
    }
    w_.end('}');
  }

  void parameter(const Parameter& p) {
    w_.begin('{');
    w_.member("name", p.name);
    w_.member("in", p.in);
    w_.member("description", p.doc);
    if (p.in == "path") w_.raw_member("required", "true");
    if (v3_)
      w_.raw_member("schema", fmt::format(R"({{"type":"{}","uniqueItems":true}})", p.type));
    else
      w_.member("type", p.type);
    if (!v3_) w_.raw_member("uniqueItems", "true");
    w_.end('}');
  }

  void body(const Operation& o) {
    if (o.body.empty()) return;
    w_.begin('{');
    w_.member("name", "body");
    w_.member("in", "body");
    w_.raw_member("required", o.method == "delete" ? "false" : "true");
    w_.key("schema");
    w_.begin('{');
    ref(o.body);
    w_.end('}');
    w_.end('}');
  }

  // v3: {"content":{"application/json":{"schema":{...}},...}}
  template <class Types>
  void content(std::string_view schema, const Types& types) {
    w_.key("content");
    w_.begin('{');
    for (auto t : types) {
      w_.key(t);
      w_.begin('{');
      w_.key("schema");
      w_.begin('{');
      if (schema.empty())
        w_.member("type", "string");
      else
        ref(schema);
      w_.end('}');
      w_.end('}');
    }
    w_.end('}');
  }

  void response(const Operation& o, std::string_view code, std::string_view doc) {
    w_.key(code);
    w_.begin('{');
    w_.member("description", doc);
    if (v3_ && code != "401") {
      if (o.response.empty())
        content("", std::array<std::string_view, 1>{"text/plain"});
      else
        content(o.response, openapi::kMediaTypes);
    } else if (code != "401") {
      w_.key("schema");
      w_.begin('{');
      if (o.response.empty())
        w_.member("type", "string");
      else
        ref(o.response);
      w_.end('}');
    }
    w_.end('}');
  }

  void operation(const Operation& o) {
    bool patch = o.method == "patch";
    w_.key(o.method);
    w_.begin('{');
    w_.member("operationId", o.id);
    if (!v3_ && patch)
      w_.texts("consumes", openapi::kPatchTypes);
    else if (!v3_)
      w_.texts("consumes", openapi::kMediaTypes);
    if (!v3_) w_.texts("produces", openapi::kMediaTypes);
    w_.key("parameters");
    w_.begin('[');
    if (!v3_) body(o);
    for (const auto& q : o.query) parameter(q);
    w_.end(']');
    if (v3_ && !o.body.empty()) {
      w_.key("requestBody");
      w_.begin('{');
      if (patch)
        content(o.body, openapi::kPatchTypes);
      else
        content(o.body, openapi::kMediaTypes);
      w_.end('}');
    }
    w_.key("responses");
    w_.begin('{');
    response(o, "200", "OK");
    if (o.method == "post" || o.method == "put") response(o, "201", "Created");
    response(o, "401", "Unauthorized");
    w_.end('}');
    w_.member("x-kubernetes-action", o.action);
    w_.raw_member(openapi::kGvkExtension, openapi::gvk_json(*o.kind));
    w_.end('}');
  }

  bool v3_;
  Writer w_;
};

// 64-bit FNV-1a: tells versions of a document apart, nothing more.
std::uint64_t fingerprint(std::string_view s) {
  std::uint64_t h = 0xcbf29ce484222325;
  for (unsigned char c : s) h = (h ^ c) * 0x100000001b3;
  return h;
}

// "api/v1", "apis/apps/v1"
std::string v3_path(std::string_view group_version) {
  return (group_version.find('/') == std::string_view::npos ? "api/" : "apis/") + std::string(group_version);
}

}  // namespace

const std::string& openapi_v2_json() {
  static const std::string text = [] {
    std::string out;
    Document(Dialect::kV2, out).run("");
    out.shrink_to_fit();
    return out;
  }();
  return text;
}

std::string openapi_v3(std::string_view path) {
  for (const auto& gv : openapi::group_versions()) {
    if (v3_path(gv) != path) continue;
    std::string out;
    Document(Dialect::kV3, out).run(gv);
    return out;
  }
  return {};
}

const std::string& openapi_v3_index() {
  static const std::string text = [] {
    std::string out;
    Writer w(out);
    w.begin('{');
    w.key("paths");
    w.begin('{');
    for (const auto& gv : openapi::group_versions()) {
      auto path = v3_path(gv);
      w.key(path);
      w.begin('{');
      w.member("serverRelativeURL", fmt::format("/openapi/v3/{}?hash={:016X}", path, fingerprint(openapi_v3(path))));
      w.end('}');
    }
    w.end('}');
    w.end('}');
    return out;
  }();
  return text;
}

}  // namespace hawser::schema
