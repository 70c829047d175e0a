// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/request_options.h"

#include <charconv>

#include <boost/json/serialize.hpp>

#include "controlplane/apiserver/negotiate.h"
#include "controlplane/apiserver/proto_body.h"
#include "controlplane/schema/parse.h"

namespace hawser::apiserver {

using kube::FieldError;

namespace {

std::unexpected<kube::Status> bad(std::string_view text) {
  return std::unexpected(kube::bad_request(text));
}

bool is_true(const http::Request& r, std::string_view name) {
  if (!r.has_query(name)) return false;
  auto v = r.query(name);
  return v != "false" && v != "0";
}

Expected<std::int64_t> number(const http::Request& r, std::string_view name) {
  auto text = r.query(name);
  if (text.empty()) return 0;
  std::int64_t n = 0;
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (ec != std::errc() || end != text.data() + text.size()) {
    return bad(fmt::format("{}: \"{}\" is not a number", name, text));
  }
  return n;
}

std::unexpected<kube::Status> invalid_options(std::string_view kind, FieldError cause) {
  return std::unexpected(kube::invalid("meta.k8s.io", kind, "", {std::move(cause)}));
}

Expected<std::optional<Revision>> version(const http::Request& r) {
  auto text = r.query("resourceVersion");
  if (text.empty()) return std::nullopt;
  Revision n = 0;
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (ec == std::errc() && end == text.data() + text.size() && n >= 0) return n;
  return invalid_options("ListOptions", {FieldError::Type::kInvalid, "resourceVersion", "\"" + text + "\"",
                                         fmt::format("strconv.ParseUint: parsing \"{}\": invalid syntax", text)});
}

Expected<VersionMatch> match(const http::Request& r, const ListParams& p) {
  auto text = r.query("resourceVersionMatch");
  if (text.empty()) return VersionMatch::kUnset;
  auto forbidden = [](std::string why) {
    return invalid_options("ListOptions", {FieldError::Type::kForbidden, "resourceVersionMatch", "", std::move(why)});
  };
  if (p.watch && !p.send_initial_events)
    return forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
  if (!p.list.resource_version && !p.send_initial_events) {
    return forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided");
  }
  if (!p.list.continue_token.empty()) return forbidden("resourceVersionMatch is forbidden when continue is provided");
  if (text == "NotOlderThan") return VersionMatch::kNotOlderThan;
  if (text == "Exact" && p.list.resource_version == 0) {
    return forbidden("resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"");
  }
  if (text == "Exact") return VersionMatch::kExact;
  return invalid_options("ListOptions", {FieldError::Type::kNotSupported, "resourceVersionMatch", "\"" + text + "\"",
                                         "supported values: \"Exact\", \"NotOlderThan\""});
}

Expected<> check_initial_events(const ListParams& p) {
  if (!p.send_initial_events) return {};
  if (!p.watch) {
    return invalid_options("ListOptions", {FieldError::Type::kForbidden, "sendInitialEvents", "",
                                           "sendInitialEvents is forbidden for list"});
  }
  if (p.list.match != VersionMatch::kNotOlderThan) {
    return invalid_options("ListOptions", {FieldError::Type::kForbidden, "resourceVersionMatch", "",
                                           "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"});
  }
  return {};
}

Expected<Filter> parse_filter(const http::Request& r, const Route& route) {
  Filter f;
  f.ns = route.ns;
  auto labels = kube::LabelSelector::parse(r.query("labelSelector"));
  if (!labels) return bad(labels.error().text);
  f.labels = std::move(*labels);
  auto fields = kube::parse_field_selector(r.query("fieldSelector"));
  if (!fields) return bad(fields.error().text);
  f.fields = std::move(*fields);
  // The old watch path of one object.
  if (route.watch_path && !route.name.empty()) f.fields.push_back({"metadata.name", true, route.name});
  return f;
}

Expected<bool> dry_run(const http::Request& r) {
  auto text = r.query("dryRun");
  if (text.empty()) return false;
  if (text == "All") return true;
  return invalid_options("CreateOptions",
                         {FieldError::Type::kNotSupported, "dryRun", "\"" + text + "\"", "supported values: \"All\""});
}

}  // namespace

Expected<Object> body_object(const http::Request& r) {
  auto content_type = r.headers.get("Content-Type");
  if (is_protobuf(content_type)) return from_protobuf(r.body);
  auto type = body_type(content_type);
  if (!type) return std::unexpected(type.error());
  std::vector<std::string> findings;
  auto v =
      *type == schema::MediaType::kYaml ? schema::parse_yaml(r.body, findings) : schema::parse_json(r.body, findings);
  if (!v) return bad(fmt::format("couldn't get version/kind; json parse error: {}", v.error().text));
  if (!v->is_object()) return bad("the body is not an object");
  return std::move(v->get_object());
}

Expected<Value> patch_body(const http::Request& r, std::vector<std::string>& findings) {
  auto v = schema::parse_json(r.body, findings);
  if (!v) return bad(fmt::format("error decoding patch: {}", v.error().text));
  return std::move(*v);
}

Expected<ListParams> parse_list(const http::Request& r, const Route& route) {
  ListParams p;
  p.watch = is_true(r, "watch") || route.watch_path;
  p.bookmarks = is_true(r, "allowWatchBookmarks");
  if (r.has_query("sendInitialEvents")) p.send_initial_events = is_true(r, "sendInitialEvents");
  auto filter = parse_filter(r, route);
  if (!filter) return std::unexpected(filter.error());
  p.list.filter = std::move(*filter);
  auto limit = number(r, "limit");
  if (!limit) return std::unexpected(limit.error());
  p.list.limit = *limit;
  p.list.continue_token = r.query("continue");
  auto timeout = number(r, "timeoutSeconds");
  if (!timeout) return std::unexpected(timeout.error());
  p.timeout_seconds = *timeout;
  auto v = version(r);
  if (!v) return std::unexpected(v.error());
  p.list.resource_version = *v;
  auto m = match(r, p);
  if (!m) return std::unexpected(m.error());
  p.list.match = *m;
  if (auto ok = check_initial_events(p); !ok) return std::unexpected(ok.error());
  return p;
}

Expected<WriteOptions> parse_write(const http::Request& r) {
  auto dry = dry_run(r);
  if (!dry) return std::unexpected(dry.error());
  WriteOptions w{.dry_run = *dry};
  auto mode = r.query("fieldValidation");
  if (mode.empty() || mode == "Warn") {
    w.validation = schema::FieldValidation::kWarn;
  } else if (mode == "Strict") {
    w.validation = schema::FieldValidation::kStrict;
  } else if (mode == "Ignore") {
    w.validation = schema::FieldValidation::kIgnore;
  } else {
    return invalid_options("CreateOptions", {FieldError::Type::kNotSupported, "fieldValidation", "\"" + mode + "\"",
                                             "supported values: \"Ignore\", \"Strict\", \"Warn\""});
  }
  return w;
}

Expected<DeleteRequest> parse_delete_options(const Object& o) {
  DeleteRequest d;
  if (auto* grace = kube::find(o, {"gracePeriodSeconds"}); grace != nullptr && !grace->is_null()) {
    if (!grace->is_int64()) return std::unexpected(kube::bad_request("gracePeriodSeconds: must be an integer"));
    d.grace_seconds = grace->get_int64();
  }
  d.uid = kube::str(o, {"preconditions", "uid"});
  d.resource_version = kube::str(o, {"preconditions", "resourceVersion"});
  d.propagation = kube::str(o, {"propagationPolicy"});
  if (auto* orphan = kube::find(o, {"orphanDependents"}); orphan != nullptr && orphan->is_bool()) {
    if (!d.propagation.empty()) {
      return std::unexpected(
          kube::invalid("", "DeleteOptions", "",
                        {{FieldError::Type::kInvalid, "propagationPolicy", "\"" + d.propagation + "\"",
                          "orphanDependents and deletionPropagation cannot be both set"}}));
    }
    d.propagation = orphan->get_bool() ? "Orphan" : "Background";
  }
  if (!d.propagation.empty() && d.propagation != "Orphan" && d.propagation != "Background" &&
      d.propagation != "Foreground") {
    return std::unexpected(
        kube::invalid("", "DeleteOptions", "",
                      {{FieldError::Type::kNotSupported, "propagationPolicy", "\"" + d.propagation + "\"",
                        "supported values: \"Foreground\", \"Background\", \"Orphan\""}}));
  }
  for (auto& v : kube::arr(o, {"dryRun"})) {
    if (v != "All") {
      return std::unexpected(kube::invalid(
          "", "DeleteOptions", "",
          {{FieldError::Type::kNotSupported, "dryRun", boost::json::serialize(v), "supported values: \"All\""}}));
    }
    d.dry_run = true;
  }
  return d;
}

Expected<DeleteRequest> parse_delete(const http::Request& r) {
  kube::Object options;
  if (!r.body.empty()) {
    auto o = body_object(r);
    if (!o) return std::unexpected(o.error());
    options = std::move(*o);
  }
  if (r.has_query("gracePeriodSeconds")) {
    auto grace = number(r, "gracePeriodSeconds");
    if (!grace) return std::unexpected(grace.error());
    options["gracePeriodSeconds"] = *grace;
  }
  if (auto p = r.query("propagationPolicy"); !p.empty()) options["propagationPolicy"] = p;
  if (r.has_query("orphanDependents")) options["orphanDependents"] = is_true(r, "orphanDependents");
  if (auto d = r.query("dryRun"); !d.empty()) options["dryRun"] = kube::Array{Value(d)};
  return parse_delete_options(options);
}

Expected<Revision> parse_get_version(const http::Request& r) {
  auto v = version(r);
  if (!v) return std::unexpected(v.error());
  return v->value_or(0);
}

Expected<schema::IncludeObject> parse_include_object(const http::Request& r) {
  auto text = r.query("includeObject");
  if (text.empty() || text == "Metadata") return schema::IncludeObject::kMetadata;
  if (text == "None") return schema::IncludeObject::kNone;
  if (text == "Object") return schema::IncludeObject::kObject;
  return invalid_options("TableOptions", {FieldError::Type::kInvalid, "includeObject", "\"" + text + "\"",
                                          "must be 'Metadata', 'Object', 'None', or empty"});
}

}  // namespace hawser::apiserver
