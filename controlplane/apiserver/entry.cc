// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/entry.h"

#include <charconv>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

namespace hawser::apiserver {

namespace json = boost::json;

namespace {

constexpr std::string_view kMetadataStart = "\"metadata\":{";

void append_member(std::string& out, std::string_view key, const Value& v) {
  if (out.back() != '{') out += ',';
  out += json::serialize(json::string(key));
  out += ':';
  out += json::serialize(v);
}

void append_metadata(std::string& out, const Object& metadata) {
  out += ',';
  out += kMetadataStart;
  for (auto& [key, value] : metadata) {
    if (key == "resourceVersion" || key == "managedFields" || key == "selfLink") continue;
    append_member(out, key, value);
  }
  out += '}';
}

}  // namespace

std::string to_stored(const Object& o) {
  std::string out = "{\"kind\":";
  out += json::serialize(json::string(kube::str(o, {"kind"})));
  append_member(out, "apiVersion", json::string(kube::str(o, {"apiVersion"})));
  append_metadata(out, kube::obj(o, {"metadata"}));
  for (auto& [key, value] : o) {
    if (key != "kind" && key != "apiVersion" && key != "metadata") append_member(out, key, value);
  }
  out += '}';
  return out;
}

std::string with_revision(std::string_view stored, Revision revision) {
  // kind and apiVersion hold no quotes, so the first match is the top-level member.
  auto at = stored.find(kMetadataStart);
  if (revision == 0 || at == std::string_view::npos) return std::string(stored);
  at += kMetadataStart.size();
  std::string out;
  out.reserve(stored.size() + 48);
  out += stored.substr(0, at);
  out += "\"resourceVersion\":\"";
  out += std::to_string(revision);
  out += stored.substr(at, 1) == "}" ? "\"" : "\",";
  out += stored.substr(at);
  return out;
}

void set_revision(Object& o, Revision revision) {
  kube::ensure(o, {"metadata"})["resourceVersion"] = std::to_string(revision);
}

EntryPtr make_entry(Object object, std::string_view stored, Revision revision) {
  auto e = std::make_shared<Entry>();
  if (revision != 0) set_revision(object, revision);
  e->key = kube::key(object);
  e->revision = revision;
  e->object = std::make_shared<const Object>(std::move(object));
  e->json = std::make_shared<const std::string>(with_revision(stored, revision));
  return e;
}

Result<EntryPtr> parse_entry(std::string_view stored, Revision revision) {
  boost::system::error_code ec;
  Value v = json::parse(stored, ec);
  if (ec || !v.is_object()) return fail(EBADMSG, "stored object at revision {}: not a JSON object", revision);
  return make_entry(std::move(v.get_object()), stored, revision);
}

EntryPtr at_revision(const Entry& e, Revision revision) {
  Object o = *e.object;
  o["metadata"].as_object().erase("resourceVersion");
  std::string stored = to_stored(o);
  return make_entry(std::move(o), stored, revision);
}

std::string kind_prefix(const Kind& k) {
  return fmt::format("/registry/{}/{}/", k.group.empty() ? "core" : k.group, k.plural);
}

std::string object_key(std::string_view ns, std::string_view name) {
  return ns.empty() ? std::string(name) : fmt::format("{}/{}", ns, name);
}

}  // namespace hawser::apiserver
