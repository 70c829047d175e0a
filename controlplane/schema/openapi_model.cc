// SPDX-License-Identifier: Apache-2.0
#include "controlplane/schema/openapi_model.h"

#include <algorithm>
#include <array>
#include <set>

#include <boost/json/serialize.hpp>

namespace hawser::schema::openapi {
namespace {

namespace json = boost::json;

constexpr std::string_view kApiVersionDoc = "Version of this representation of the object.";
constexpr std::string_view kKindDoc = "Kind of the object, in CamelCase.";
constexpr std::string_view kListMetaDoc = "Standard list metadata.";

// Scalars that are definitions of their own.
struct Special {
  Base base;
  std::string_view name, type, format, doc;
  std::array<std::string_view, 2> any_of;
};
constexpr std::array<Special, 6> kSpecials{{
    {Base::kQuantity,
     "io.k8s.apimachinery.pkg.api.resource.Quantity",
     "string",
     "",
     "A number with an optional suffix: n u m k M G T P E, or Ki Mi Gi Ti Pi Ei.",
     {"string", "number"}},
    {Base::kIntOrString,
     "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
     "string",
     "int-or-string",
     "A number, or a string such as a name or a percentage.",
     {"integer", "string"}},
    {Base::kTime,
     "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
     "string",
     "date-time",
     "A time as RFC 3339 writes it.",
     {}},
    {Base::kMicroTime,
     "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
     "string",
     "date-time",
     "A time as RFC 3339 writes it, with microseconds.",
     {}},
    {Base::kAny, "io.k8s.apimachinery.pkg.runtime.RawExtension", "object", "", "Any object.", {}},
    {Base::kFieldsV1, "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "object", "", "A set of fields as a tree.", {}},
}};

struct Scalar {
  Base base;
  std::string_view type, format;
};
constexpr std::array<Scalar, 6> kScalars{{
    {Base::kString, "string", ""},
    {Base::kBool, "boolean", ""},
    {Base::kInt32, "integer", "int32"},
    {Base::kInt64, "integer", "int64"},
    {Base::kDouble, "number", "double"},
    {Base::kBytes, "string", "byte"},
}};

const Special* special_of(Base b) {
  const auto* found = std::ranges::find(kSpecials, b, &Special::base);
  return found == kSpecials.end() ? nullptr : found;
}

std::string quoted(std::string_view s) {
  return json::serialize(json::string(s));
}

std::string quoted_list(std::string_view comma_separated) {
  json::array list;
  for_each_part(comma_separated, [&](std::string_view part) { list.push_back(json::string(part)); });
  return json::serialize(list);
}

Node value_node(const Field& f) {
  Node n;
  if (f.base == Base::kObject) {
    n.ref = f.type->full_name();
  } else if (const auto* s = special_of(f.base)) {
    n.ref = std::string(s->name);
  } else {
    const auto* scalar = std::ranges::find(kScalars, f.base, &Scalar::base);
    n.type = scalar->type;
    n.format = scalar->format;
  }
  if (f.has_enum) for_each_part(f.enum_text, [&](std::string_view part) { n.enums.push_back(part); });
  std::ranges::sort(n.enums);
  return n;
}

void add_extensions(const Field& f, Node& n) {
  constexpr std::array<std::string_view, 4> kListTypes{"", "atomic", "set", "map"};
  if (f.list_type == ListType::kMap) n.extensions.emplace_back("x-kubernetes-list-map-keys", quoted_list(f.list_keys));
  if (f.list_type != ListType::kNone)
    n.extensions.emplace_back("x-kubernetes-list-type", quoted(kListTypes[static_cast<std::size_t>(f.list_type)]));
  if (f.atomic_map) n.extensions.emplace_back("x-kubernetes-map-type", quoted("atomic"));
  if (!f.merge_key.empty()) n.extensions.emplace_back("x-kubernetes-patch-merge-key", quoted(f.merge_key));
  std::string strategy = f.merge ? "merge" : "";
  if (f.retain_keys) strategy += strategy.empty() ? "retainKeys" : ",retainKeys";
  if (!strategy.empty()) n.extensions.emplace_back("x-kubernetes-patch-strategy", quoted(strategy));
}

Node field_node(const Field& f) {
  Node n = value_node(f);
  if (f.shape != Shape::kOne) {
    Node outer;
    outer.type = f.shape == Shape::kList ? "array" : "object";
    (f.shape == Shape::kList ? outer.items : outer.additional).push_back(std::move(n));
    n = std::move(outer);
  }
  n.doc = f.doc;
  const auto& shown = f.default_value.is_null() ? f.api_default : f.default_value;
  if (!shown.is_null()) n.default_json = json::serialize(shown);
  add_extensions(f, n);
  return n;
}

Node string_node(std::string_view doc) {
  Node n;
  n.type = "string";
  n.doc = doc;
  return n;
}

Node ref_node(std::string name, std::string_view doc) {
  Node n;
  n.ref = std::move(name);
  n.doc = doc;
  return n;
}

void add_header(Node& n) {
  n.properties.push_back({"apiVersion", string_node(kApiVersionDoc)});
  n.properties.push_back({"kind", string_node(kKindDoc)});
}

Definition type_definition(const Type& t, const Kind* kind) {
  Definition d{.name = t.full_name(), .node = {}};
  d.node.type = "object";
  d.node.doc = t.doc;
  if (kind) add_header(d.node);
  for (const auto& f : t.fields) {
    if (f.required) d.node.required.push_back(f.name);
    d.node.properties.push_back({std::string(f.name), field_node(f)});
  }
  if (t.atomic) d.node.extensions.emplace_back("x-kubernetes-map-type", quoted("atomic"));
  if (kind)
    d.node.extensions.emplace_back(kGvkExtension, "[" + gvk_json(*kind) + "]");
  else if (t.package == kMetaPackage && (t.name == "Status" || t.name == "DeleteOptions" || t.name == "WatchEvent"))
    d.node.extensions.emplace_back(kGvkExtension,
                                   fmt::format(R"([{{"group":"","kind":"{}","version":"v1"}}])", t.name));
  return d;
}

Definition list_definition(const Kind& k, const Type& t) {
  Definition d{.name = t.full_name() + "List", .node = {}};
  d.node.type = "object";
  d.node.doc = "A list of such objects.";
  d.node.required.push_back("items");
  add_header(d.node);
  Node items;
  items.type = "array";
  items.doc = "The objects.";
  items.items.push_back(ref_node(t.full_name(), {}));
  d.node.properties.push_back({"items", std::move(items)});
  d.node.properties.push_back({"metadata", ref_node(std::string(kMetaPackage) + ".ListMeta", kListMetaDoc)});
  d.node.extensions.emplace_back(
      kGvkExtension, fmt::format(R"([{{"group":"{}","kind":"{}","version":"{}"}}])", k.group, k.list_kind, k.version));
  return d;
}

Definition special_definition(const Special& s) {
  Definition d{.name = std::string(s.name), .node = {}};
  d.node.type = s.type;
  d.node.format = s.format;
  d.node.doc = s.doc;
  for (auto t : s.any_of)
    if (!t.empty()) d.node.any_of.push_back(t);
  return d;
}

void collect(const Type* t, std::set<const Type*>& types, std::set<Base>& bases) {
  if (!types.insert(t).second) return;
  for (const auto& f : t->fields) {
    if (f.type)
      collect(f.type, types, bases);
    else
      bases.insert(f.base);
  }
}

bool served_in(const Kind& k, std::string_view group_version) {
  if (group_version.empty() || k.group_version() == group_version) return true;
  // Scale is the body of a subresource of another group.
  return k.kind == "Scale" && group_version == "apps/v1";
}

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

std::string gvk_json(const Kind& k) {
  return fmt::format(R"({{"group":"{}","kind":"{}","version":"{}"}})", k.group, k.kind, k.version);
}

std::vector<Definition> definitions(std::string_view group_version) {
  const auto& table = TypeTable::get();
  std::set<const Type*> needed;
  std::set<Base> bases;
  std::vector<Definition> out;
  for (auto name : {"DeleteOptions", "Status", "ListMeta", "WatchEvent", "APIResourceList"})
    collect(table.find_type(kMetaPackage, name), needed, bases);
  for (const auto& k : table.all_kinds())
    if (served_in(k, group_version)) collect(table.entry(k).type, needed, bases);
  for (const auto& t : table.types()) {
    if (!needed.contains(&t)) continue;
    const Kind* kind = nullptr;
    for (const auto& k : table.all_kinds())
      if (table.entry(k).type == &t) kind = &k;
    bool listed = kind && kind >= table.kinds().data() && kind < table.kinds().data() + table.kinds().size();
    out.push_back(type_definition(t, kind));
    if (listed) out.push_back(list_definition(*kind, t));
  }
  for (const auto& s : kSpecials)
    if (bases.contains(s.base)) out.push_back(special_definition(s));
  Definition patch{.name = std::string(kMetaPackage) + ".Patch", .node = {}};
  patch.node.type = "object";
  patch.node.doc = "A change of an object; the media type says of which form.";
  out.push_back(std::move(patch));
  std::ranges::sort(out, {}, &Definition::name);
  return out;
}

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
