// SPDX-License-Identifier: Apache-2.0
#include <iterator>

#include "controlplane/schema/conform.h"
#include "controlplane/schema/parse.h"
#include "controlplane/schema/schema.h"
#include "lib/kube/object.h"

namespace hawser::schema {
namespace {

// "Pod in version "v1" cannot be handled as a Pod: ..."
Status unhandled(const Kind& k, const Object& o, std::string_view why) {
  auto kind = kube::str(o, {"kind"});
  auto version = kube::str(o, {"apiVersion"});
  return kube::bad_request(fmt::format("{} in version \"{}\" cannot be handled as a {}: {}",
                                       kind.empty() ? k.kind : kind,
                                       version.empty() ? k.group_version() : std::string(version), k.kind, why));
}

// The header fields name this kind, or are absent and get its name.
Expected<void> check_header(const Kind& k, Object& o) {
  for (auto field : {"apiVersion", "kind"}) {
    const auto* v = o.if_contains(field);
    if (v && !v->is_string() && !v->is_null())
      return std::unexpected(
          kube::bad_request(fmt::format("couldn't get version/kind; json parse error: {} is not a string", field)));
  }
  auto version = kube::str(o, {"apiVersion"});
  auto kind = kube::str(o, {"kind"});
  if (!version.empty() && version != k.group_version())
    return std::unexpected(kube::bad_request(fmt::format(
        "the API version in the data ({}) does not match the expected API version ({})", version, k.group_version())));
  if (!kind.empty() && kind != k.kind)
    return std::unexpected(unhandled(
        k, o, fmt::format("converting ({}.{}) to ({}.{}): unknown conversion", k.version, kind, k.version, k.kind)));
  return {};
}

}  // namespace

Expected<Decoded> conform(const Kind& k, Object object, FieldValidation mode, std::vector<std::string> findings) {
  Decoded out{.object = std::move(object), .warnings = {}};
  if (auto ok = check_header(k, out.object); !ok) return std::unexpected(std::move(ok.error()));
  if (auto ok = conform(*TypeTable::get().entry(k).type, out.object, findings); !ok)
    return std::unexpected(unhandled(k, out.object, ok.error().text));
  out.object["apiVersion"] = k.group_version();
  out.object["kind"] = k.kind;
  if (findings.empty() || mode == FieldValidation::kIgnore) return out;
  if (mode == FieldValidation::kStrict)
    return std::unexpected(
        unhandled(k, out.object, fmt::format("strict decoding error: {}", fmt::join(findings, ", "))));
  out.warnings = std::move(findings);
  return out;
}

Expected<Decoded> decode(const Kind& k, std::string_view body, MediaType type, FieldValidation mode) {
  std::vector<std::string> findings;
  auto tree = type == MediaType::kYaml ? parse_yaml(std::string(body), findings) : parse_json(body, findings);
  if (!tree) {
    return std::unexpected(kube::bad_request(fmt::format(
        "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {}",
        k.kind, tree.error().text)));
  }
  auto* object = tree->if_object();
  if (!object) {
    return std::unexpected(
        kube::bad_request(fmt::format("the object provided is unrecognized (must be of type {}): couldn't get "
                                      "version/kind; json parse error: not an object",
                                      k.kind)));
  }
  return conform(k, std::move(*object), mode, std::move(findings));
}

}  // namespace hawser::schema
