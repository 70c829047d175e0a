// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/resource_handler.h"

#include <boost/json/serialize.hpp>

#include "controlplane/apiserver/proto_body.h"
#include "controlplane/apiserver/subresources.h"

namespace hawser::apiserver {

namespace {

constexpr std::int64_t kNanosPerSecond = 1'000'000'000;

// The body as an object of the addressed kind, with what there is to warn about.
Expected<schema::Decoded> decode_body(const Kind& k, const http::Request& r, schema::FieldValidation mode) {
  if (is_protobuf(r.headers.get("Content-Type"))) {
    auto o = from_protobuf(r.body);
    if (!o) return std::unexpected(o.error());
    return schema::decode(k, boost::json::serialize(*o), schema::MediaType::kJson, mode);
  }
  auto type = body_type(r.headers.get("Content-Type"));
  if (!type) return std::unexpected(type.error());
  return schema::decode(k, r.body, *type, mode);
}

void add_warnings(http::Response& r, const std::vector<std::string>& warnings) {
  for (auto& w : warnings) {
    std::string quoted;
    for (char c : w) {
      if (c == '"' || c == '\\') quoted += '\\';
      quoted += c;
    }
    r.headers.add("Warning", fmt::format("299 - \"{}\"", quoted));
  }
}

}  // namespace

struct ResourceHandler::Context {
  const http::Request& request;
  const Route& route;
  std::string_view verb;
  const Kind& kind;
  ObjectName at;
  View view;
  std::vector<std::string> warnings;

  Expected<Object> decode(schema::FieldValidation mode) {
    auto d = decode_body(kind, request, mode);
    if (!d) return std::unexpected(d.error());
    warnings = std::move(d->warnings);
    return std::move(d->object);
  }
};

std::string_view ResourceHandler::verb(const http::Request& r, const Route& route) {
  bool named = !route.name.empty();
  // All namespaces together can be read, not written: DELETE /api/v1/pods is a slip, not a wish.
  bool everywhere = route.kind->namespaced && route.ns.empty();
  if (everywhere && r.method != "GET" && r.method != "HEAD") return "";
  if (r.method == "GET" || r.method == "HEAD") {
    if (route.watch_path) return "watch";
    if (named) return "get";
    auto watch = r.query("watch");
    return r.has_query("watch") && watch != "false" && watch != "0" ? "watch" : "list";
  }
  if (r.method == "POST") return named && route.subresource.empty() ? "" : "create";
  if (r.method == "PUT") return named ? "update" : "";
  if (r.method == "PATCH") return named ? "patch" : "";
  if (r.method == "DELETE") return named ? "delete" : "deletecollection";
  return "";
}

ResourceHandler::Reply ResourceHandler::get(Context& c) {
  if (c.route.subresource == "scale") {
    auto scale = get_scale(registry_, c.kind, c.at);
    if (!scale) return std::unexpected(scale.error());
    return render_object(*scale, c.view.accepted.yaml);
  }
  auto version = parse_get_version(c.request);
  if (!version) return std::unexpected(version.error());
  auto e = registry_.get(c.kind, c.at, *version);
  if (!e) return std::unexpected(e.error());
  return render_entry(c.kind, *e, c.view);
}

ResourceHandler::Reply ResourceHandler::list(Context& c) {
  auto p = parse_list(c.request, c.route);
  if (!p) return std::unexpected(p.error());
  auto l = registry_.list(c.kind, p->list);
  if (!l) return std::unexpected(l.error());
  return render_list(c.kind, *l, c.view);
}

ResourceHandler::Reply ResourceHandler::create(Context& c) {
  auto w = parse_write(c.request);
  if (!w) return std::unexpected(w.error());
  auto o = c.decode(w->validation);
  if (!o) return std::unexpected(o.error());
  auto e = registry_.create(c.kind, c.at.ns, std::move(*o), *w);
  if (!e) return std::unexpected(e.error());
  return render_entry(c.kind, *e, c.view, 201);
}

ResourceHandler::Reply ResourceHandler::post_subresource(Context& c) {
  auto w = parse_write(c.request);
  if (!w) return std::unexpected(w.error());
  auto o = body_object(c.request);
  if (!o) return std::unexpected(o.error());
  auto done = c.route.subresource == "binding" ? bind_pod(registry_, c.at, *o, *w) : evict_pod(registry_, c.at, *o, *w);
  if (!done) return std::unexpected(done.error());
  return render_object(
      {{"kind", "Status"}, {"apiVersion", "v1"}, {"metadata", Object()}, {"status", "Success"}, {"code", 201}},
      c.view.accepted.yaml, 201);
}

ResourceHandler::Reply ResourceHandler::update(Context& c) {
  auto w = parse_write(c.request);
  if (!w) return std::unexpected(w.error());
  if (c.route.subresource == "scale") {
    auto o = body_object(c.request);
    if (!o) return std::unexpected(o.error());
    auto scale = update_scale(registry_, c.kind, c.at, *o, *w);
    if (!scale) return std::unexpected(scale.error());
    return render_object(*scale, c.view.accepted.yaml);
  }
  auto o = c.decode(w->validation);
  if (!o) return std::unexpected(o.error());
  auto done = registry_.update(c.kind, c.at, std::move(*o), c.route.subresource, *w);
  if (!done) return std::unexpected(done.error());
  return render_entry(c.kind, done->entry, c.view, done->created ? 201 : 200);
}

ResourceHandler::Reply ResourceHandler::patch(Context& c) {
  auto w = parse_write(c.request);
  if (!w) return std::unexpected(w.error());
  w->warnings = &c.warnings;
  auto type = patch_type(c.request.headers.get("Content-Type"));
  if (!type) return std::unexpected(type.error());
  auto body = patch_body(c.request, w->findings);
  if (!body) return std::unexpected(body.error());
  if (c.route.subresource == "scale") {
    auto scale = patch_scale(registry_, c.kind, c.at, *type, *body, *w);
    if (!scale) return std::unexpected(scale.error());
    return render_object(*scale, c.view.accepted.yaml);
  }
  auto e = registry_.patch(c.kind, c.at, *type, *body, c.route.subresource, *w);
  if (!e) return std::unexpected(e.error());
  return render_entry(c.kind, *e, c.view);
}

ResourceHandler::Reply ResourceHandler::remove(Context& c) {
  auto d = parse_delete(c.request);
  if (!d) return std::unexpected(d.error());
  auto done = registry_.remove(c.kind, c.at, *d);
  if (!done) return std::unexpected(done.error());
  if (!done->gone || returns_deleted(c.kind)) return render_entry(c.kind, done->entry, c.view);
  return render_object(success_about(c.kind, *done->entry), c.view.accepted.yaml);
}

ResourceHandler::Reply ResourceHandler::remove_collection(Context& c) {
  auto p = parse_list(c.request, c.route);
  if (!p) return std::unexpected(p.error());
  auto d = parse_delete(c.request);
  if (!d) return std::unexpected(d.error());
  auto l = registry_.remove_collection(c.kind, p->list, *d);
  if (!l) return std::unexpected(l.error());
  return render_list(c.kind, *l, c.view);
}

ResourceHandler::Reply ResourceHandler::answer(Context& c) {
  auto& sub = c.route.subresource;
  bool posts = sub == "binding" || sub == "eviction";
  bool reads = sub.empty() || sub == "status" || sub == "scale";
  auto no = [&] { return std::unexpected(kube::method_not_supported(c.kind.group, c.kind.plural, c.verb)); };
  if (posts) return c.verb == "create" ? post_subresource(c) : no();
  if (c.verb == "get" && reads) return get(c);
  if (c.verb == "update" && (reads || sub == "finalize")) return update(c);
  if (c.verb == "patch" && reads) return patch(c);
  if (!sub.empty()) return no();
  if (c.verb == "list") return list(c);
  if (c.verb == "create") return create(c);
  if (c.verb == "delete") return remove(c);
  if (c.verb == "deletecollection") return remove_collection(c);
  return no();
}

void ResourceHandler::serve(const http::Request& r, const Route& route, std::string_view verb, http::Responder& out) {
  ObjectName at{route.ns, route.name};
  if (route.subresource == "log" && verb == "get") return logs_.serve(at, r, out);
  auto accepted = negotiate(r.headers.get("Accept"), true);
  if (!accepted) return out.send(render_status(accepted.error()));
  auto include = parse_include_object(r);
  if (!include) return out.send(render_status(include.error()));
  auto now = registry_.clock().wall().time_since_epoch().count() / kNanosPerSecond;
  Context c{r, route, verb, *route.kind, at, View{std::move(*accepted), *include, now}, {}};
  if (verb == "watch") {
    auto p = parse_list(r, route);
    if (!p) return out.send(render_status(p.error()));
    if (auto ok = Registry::check_selectable(c.kind, p->list.filter); !ok) return out.send(render_status(ok.error()));
    return watches_.serve(c.kind, *p, c.view, out);
  }
  auto reply = answer(c);
  auto response = reply ? std::move(*reply) : render_status(reply.error());
  add_warnings(response, c.warnings);
  out.send(std::move(response));
}

}  // namespace hawser::apiserver
