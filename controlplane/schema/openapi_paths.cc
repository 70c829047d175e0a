// SPDX-License-Identifier: Apache-2.0
// The operations of every path in the OpenAPI documents.
#include <algorithm>
#include <array>

#include "controlplane/schema/openapi_model.h"

namespace hawser::schema::openapi {
namespace {

constexpr Parameter kDryRun{"dryRun", "query", "string", "All: check everything, store nothing."};
constexpr Parameter kFieldManager{"fieldManager", "query", "string", "Name of the party that makes the change."};
constexpr Parameter kFieldValidation{"fieldValidation", "query", "string",
                                     "What unknown and duplicate fields mean: Ignore, Warn or Strict."};
constexpr Parameter kForce{"force", "query", "boolean", "Take over fields of other managers."};
constexpr std::array<Parameter, 9> kListQuery{{
    {"allowWatchBookmarks", "query", "boolean", "Send bookmarks in a watch."},
    {"continue", "query", "string", "Token of the next part of a list."},
    {"fieldSelector", "query", "string", "Only objects whose fields match."},
    {"labelSelector", "query", "string", "Only objects whose labels match."},
    {"limit", "query", "integer", "Most objects in one answer."},
    {"resourceVersion", "query", "string", "Version the answer must not be older than."},
    {"resourceVersionMatch", "query", "string", "How resourceVersion is meant."},
    {"timeoutSeconds", "query", "integer", "Longest time of the call."},
    {"watch", "query", "boolean", "Send changes as they happen."},
}};
constexpr std::array<Parameter, 3> kDeleteQuery{{
    {"gracePeriodSeconds", "query", "integer", "Seconds before the object is removed."},
    {"orphanDependents", "query", "boolean", "Deprecated; use propagationPolicy."},
    {"propagationPolicy", "query", "string", "What happens to dependents."},
}};

// Makes the operations of one kind.
class PathMaker {
 public:
  explicit PathMaker(const Kind& k) : kind_(k), type_(TypeTable::get().entry(k).type->full_name()) {
    base_ = k.group.empty() ? "/api/v1" : fmt::format("/apis/{}", k.group_version());
    suffix_ = (k.namespaced ? "Namespaced" : "") + std::string(k.kind);
    group_name_ = k.group.empty() ? "Core" : std::string(k.group.substr(0, k.group.find('.')));
    group_name_[0] = static_cast<char>(group_name_[0] & ~0x20);
    group_name_ += "V1";
  }

  void run(std::vector<Path>& out) {
    auto collection = base_ + (kind_.namespaced ? "/namespaces/{namespace}/" : "/") + std::string(kind_.plural);
    if (kind_.namespaced && !kind_.list_kind.empty() && kind_.kind != "Binding")
      out.push_back({base_ + "/" + std::string(kind_.plural), false, false, {list_all()}});
    out.push_back({collection, kind_.namespaced, false, collection_operations()});
    if (kind_.kind == "Binding") return;
    auto item = collection + "/{name}";
    out.push_back({item, kind_.namespaced, true, item_operations()});
    if (kind_.has_status)
      out.push_back({item + "/status", kind_.namespaced, true, sub_operations("Status", kind_, type_)});
    const Kind* scale = find_kind("autoscaling", "v1", "Scale");
    if (kind_.has_scale && scale)
      out.push_back({item + "/scale", kind_.namespaced, true,
                     sub_operations("Scale", *scale, TypeTable::get().entry(*scale).type->full_name())});
    if (kind_.kind == "Pod") pod_extras(item, out);
  }

 private:
  std::string id(std::string_view verb, std::string_view more = {}) const {
    return fmt::format("{}{}{}{}", verb, group_name_, suffix_, more);
  }

  Operation list_all() const {
    return {.method = "get",
            .action = "list",
            .id = fmt::format("list{}{}ForAllNamespaces", group_name_, kind_.kind),
            .body = {},
            .response = type_ + "List",
            .query = {kListQuery.begin(), kListQuery.end()},
            .kind = &kind_};
  }

  std::vector<Operation> collection_operations() const {
    Operation post{.method = "post",
                   .action = "post",
                   .id = id("create"),
                   .body = type_,
                   .response = type_,
                   .query = {kDryRun, kFieldManager, kFieldValidation},
                   .kind = &kind_};
    if (kind_.kind == "Binding") return {post};
    Operation list{.method = "get",
                   .action = "list",
                   .id = id("list"),
                   .body = {},
                   .response = type_ + "List",
                   .query = {kListQuery.begin(), kListQuery.end()},
                   .kind = &kind_};
    Operation remove{.method = "delete",
                     .action = "deletecollection",
                     .id = fmt::format("delete{}Collection{}", group_name_, suffix_),
                     .body = delete_options(),
                     .response = status(),
                     .query = {kListQuery.begin(), kListQuery.end()},
                     .kind = &kind_};
    remove.query.push_back(kDryRun);
    return {std::move(list), std::move(post), std::move(remove)};
  }

  std::vector<Operation> item_operations() const {
    auto out = sub_operations("", kind_, type_);
    Operation remove{.method = "delete",
                     .action = "delete",
                     .id = id("delete"),
                     .body = delete_options(),
                     .response = status(),
                     .query = {kDeleteQuery.begin(), kDeleteQuery.end()},
                     .kind = &kind_};
    remove.query.push_back(kDryRun);
    out.push_back(std::move(remove));
    return out;
  }

  std::vector<Operation> sub_operations(std::string_view sub, const Kind& k, const std::string& type) const {
    return {{.method = "get",
             .action = "get",
             .id = id("read", sub),
             .body = {},
             .response = type,
             .query = {},
             .kind = &k},
            {.method = "put",
             .action = "put",
             .id = id("replace", sub),
             .body = type,
             .response = type,
             .query = {kDryRun, kFieldManager, kFieldValidation},
             .kind = &k},
            {.method = "patch",
             .action = "patch",
             .id = id("patch", sub),
             .body = std::string(kMetaPackage) + ".Patch",
             .response = type,
             .query = {kDryRun, kFieldManager, kFieldValidation, kForce},
             .kind = &k}};
  }

  void pod_extras(const std::string& item, std::vector<Path>& out) const {
    const Kind* binding = find_kind("", "v1", "Binding");
    auto body = TypeTable::get().entry(*binding).type->full_name();
    out.push_back({item + "/binding",
                   true,
                   true,
                   {{.method = "post",
                     .action = "post",
                     .id = id("create", "Binding"),
                     .body = body,
                     .response = body,
                     .query = {kDryRun, kFieldManager, kFieldValidation},
                     .kind = binding}}});
    out.push_back({item + "/log",
                   true,
                   true,
                   {{.method = "get",
                     .action = "get",
                     .id = id("read", "Log"),
                     .body = {},
                     .response = {},
                     .query = {{"container", "query", "string", "Container; may be left out if there is one."},
                               {"follow", "query", "boolean", "Go on with what is written later."},
                               {"limitBytes", "query", "integer", "Most bytes in the answer."},
                               {"previous", "query", "boolean", "The run before the current one."},
                               {"sinceSeconds", "query", "integer", "Only what is newer."},
                               {"tailLines", "query", "integer", "Only the last lines."},
                               {"timestamps", "query", "boolean", "Put the time in front of each line."}},
                     .kind = &kind_}}});
  }

  static std::string delete_options() { return std::string(kMetaPackage) + ".DeleteOptions"; }
  static std::string status() { return std::string(kMetaPackage) + ".Status"; }

  const Kind& kind_;
  std::string type_, base_, suffix_, group_name_;
};

}  // namespace

std::vector<Path> paths(std::string_view group_version) {
  std::vector<Path> out;
  for (const auto& k : TypeTable::get().all_kinds())
    if (!k.plural.empty() && (group_version.empty() || k.group_version() == group_version)) PathMaker(k).run(out);
  std::ranges::sort(out, {}, &Path::path);
  return out;
}

std::vector<std::string> group_versions() {
  std::vector<std::string> out;
  for (const auto& k : kinds())
    if (std::ranges::find(out, k.group_version()) == out.end()) out.push_back(k.group_version());
  return out;
}

}  // namespace hawser::schema::openapi
