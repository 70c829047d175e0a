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

}  // namespace hawser::schema::openapi
