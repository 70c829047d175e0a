// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/render.h"

#include <boost/json/serialize.hpp>

#include "controlplane/apiserver/yaml_emit.h"

namespace hawser::apiserver {

namespace {

constexpr std::string_view kJson = "application/json";
constexpr std::string_view kYaml = "application/yaml";

http::Response response(int status, std::string_view type, std::string body) {
  http::Response r;
  r.status = status;
  r.headers.set("Content-Type", type);
  r.headers.set("Cache-Control", "no-cache, private");
  r.body = std::move(body);
  return r;
}

std::string meta_group_version(const View& v) {
  return "meta.k8s.io/" + v.accepted.meta_version;
}

Object partial(const Object& o, const View& v) {
  return {{"kind", "PartialObjectMetadata"},
          {"apiVersion", meta_group_version(v)},
          {"metadata", kube::obj(o, {"metadata"})}};
}

Object list_metadata(const ListReply& l) {
  Object m{{"resourceVersion", std::to_string(l.revision)}};
  if (!l.continue_token.empty()) m["continue"] = l.continue_token;
  if (l.remaining) m["remainingItemCount"] = *l.remaining;
  return m;
}

Object table_of(const Kind& k, std::span<const ObjectPtr> items, const View& v, bool with_columns) {
  auto t = schema::table(k, items, v.include, v.now, with_columns);
  t["apiVersion"] = meta_group_version(v);
  return t;
}

std::string plain_list(const Kind& k, const ListReply& l) {
  std::size_t size = 256;
  for (auto& e : l.items) size += e->json->size() + 1;
  std::string out;
  out.reserve(size);
  out += fmt::format("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[", k.list_kind,
                     k.group_version(), boost::json::serialize(list_metadata(l)));
  for (auto& e : l.items) {
    if (&e != l.items.data()) out += ',';
    out += *e->json;
  }
  out += "]}";
  return out;
}

Object shaped_list(const Kind& k, const ListReply& l, const View& v) {
  if (v.accepted.shape == Shape::kTable) {
    std::vector<ObjectPtr> items;
    for (auto& e : l.items) items.push_back(e->object);
    auto t = table_of(k, items, v, true);
    t["metadata"] = list_metadata(l);
    return t;
  }
  Object o{{"kind", std::string(k.list_kind)}, {"apiVersion", k.group_version()}};
  kube::Array items;
  bool partial_list = v.accepted.shape == Shape::kPartial;
  if (partial_list) {
    o["kind"] = "PartialObjectMetadataList";
    o["apiVersion"] = meta_group_version(v);
  }
  for (auto& e : l.items) items.push_back(partial_list ? Value(partial(*e->object, v)) : Value(*e->object));
  o["metadata"] = list_metadata(l);
  o["items"] = std::move(items);
  return o;
}

}  // namespace

http::Response render_object(const Object& o, bool yaml, int status) {
  return yaml ? response(status, kYaml, to_yaml(o)) : response(status, kJson, boost::json::serialize(o));
}

http::Response render_entry(const Kind& k, const EntryPtr& e, const View& v, int status) {
  if (v.accepted.shape != Shape::kObject)
    return render_object(shaped_object(k, e->object, v, true), v.accepted.yaml, status);
  if (v.accepted.yaml) return render_object(*e->object, true, status);
  return response(status, kJson, *e->json);
}

http::Response render_list(const Kind& k, const ListReply& l, const View& v) {
  if (v.accepted.shape == Shape::kObject && !v.accepted.yaml) return response(200, kJson, plain_list(k, l));
  return render_object(shaped_list(k, l, v), v.accepted.yaml);
}

http::Response render_status(const kube::Status& s) {
  auto r = response(s.code, kJson, boost::json::serialize(s.to_json()));
  if (s.retry_after_seconds > 0) r.headers.set("Retry-After", std::to_string(s.retry_after_seconds));
  return r;
}

http::Response render_text(int status, std::string body, std::string_view type) {
  auto r = response(status, type, std::move(body));
  r.headers.set("X-Content-Type-Options", "nosniff");
  return r;
}

std::string pretty_json(std::string_view text) {
  std::string out;
  out.reserve(text.size() * 2);
  std::size_t depth = 0;
  bool quoted = false;
  auto line = [&] { out.append(1, '\n').append(2 * depth, ' '); };
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    char next = i + 1 < text.size() ? text[i + 1] : '\0';
    if (quoted || c == '"') {
      out += c;
      if (c == '"') quoted = !quoted;
      if (c == '\\') out += text[++i];
    } else if (c == '{' || c == '[') {
      out += c;
      ++depth;
      if (next != '}' && next != ']') line();
    } else if (c == '}' || c == ']') {
      --depth;
      if (text[i - 1] != '{' && text[i - 1] != '[') line();
      out += c;
    } else {
      out += c;
      if (c == ',') line();
      if (c == ':') out += ' ';
    }
  }
  return out + '\n';
}

Object success_about(const Kind& k, const Entry& e) {
  Object details{{"name", kube::name(*e.object)}, {"kind", k.plural}, {"uid", kube::uid(*e.object)}};
  if (!k.group.empty()) details["group"] = k.group;
  return {{"kind", "Status"},
          {"apiVersion", "v1"},
          {"metadata", Object()},
          {"status", "Success"},
          {"details", std::move(details)}};
}

Object shaped_object(const Kind& k, const ObjectPtr& o, const View& v, bool with_columns) {
  if (v.accepted.shape == Shape::kPartial) return partial(*o, v);
  auto t = table_of(k, {&o, 1}, v, with_columns);
  t["metadata"] = Object{{"resourceVersion", kube::resource_version(*o)}};
  return t;
}

Object bookmark_object(const Kind& k, Revision revision, bool initial_events_end, const View& v) {
  Object metadata{{"resourceVersion", std::to_string(revision)}, {"creationTimestamp", nullptr}};
  if (initial_events_end) metadata["annotations"] = Object{{"k8s.io/initial-events-end", "true"}};
  Object o{{"kind", k.kind}, {"apiVersion", k.group_version()}, {"metadata", std::move(metadata)}};
  if (v.accepted.shape == Shape::kPartial) return partial(o, v);
  if (v.accepted.shape == Shape::kObject) return o;
  auto t = table_of(k, {}, v, false);
  t["metadata"] = o["metadata"];
  return t;
}

}  // namespace hawser::apiserver
