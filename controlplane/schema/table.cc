// SPDX-License-Identifier: Apache-2.0
// metav1.Table: the columns of the schema tables, filled in for a list of objects.
#include <boost/json/array.hpp>

#include "controlplane/schema/columns.h"
#include "controlplane/schema/schema.h"
#include "controlplane/schema/type_table.h"
#include "lib/kube/object.h"

namespace hawser::schema {
namespace {

namespace json = boost::json;

// Kinds without columns of their own.
const std::vector<Column>& default_columns() {
  static const std::vector<Column> columns{
      {.name = "Name",
       .type = "string",
       .format = "name",
       .how = ".metadata.name",
       .doc = "Name of the object.",
       .priority = 0},
      {.name = "Age", .type = "string", .format = "", .how = "@age", .doc = "Time since creation.", .priority = 0},
  };
  return columns;
}

// ".status.podIP?<none>"
json::value at_path(const Object& o, std::string_view how, bool integer) {
  auto question = how.find('?');
  auto path = how.substr(1, question - 1);
  auto missing = question == std::string_view::npos ? std::string_view() : how.substr(question + 1);
  const json::value* v = nullptr;
  const Object* level = &o;
  while (level) {
    auto dot = path.find('.');
    v = level->if_contains(path.substr(0, dot));
    if (!v || dot == std::string_view::npos) break;
    level = v->if_object();
    v = nullptr;
    path.remove_prefix(dot + 1);
  }
  bool empty = !v || v->is_null() || (v->is_string() && v->get_string().empty());
  if (!empty) return *v;
  return integer ? json::value(std::int64_t{0}) : json::value(json::string(missing));
}

json::value cell_of(const Column& c, const Object& o, std::int64_t now) {
  if (!c.how.starts_with('@')) return at_path(o, c.how, c.type == "integer");
  auto function = find_cell(c.how.substr(1));
  return function ? function(o, now) : json::value("");
}

json::array definitions(const std::vector<Column>& columns) {
  json::array out;
  for (const auto& c : columns)
    out.push_back(json::object{
        {"name", c.name}, {"type", c.type}, {"format", c.format}, {"description", c.doc}, {"priority", c.priority}});
  return out;
}

json::value row_object(const Object& o, IncludeObject include) {
  if (include == IncludeObject::kObject) return o;
  json::object partial{{"kind", "PartialObjectMetadata"}, {"apiVersion", "meta.k8s.io/v1"}};
  if (const auto* metadata = kube::find(o, {"metadata"})) partial.emplace("metadata", *metadata);
  return partial;
}

}  // namespace

Object table(const Kind& k, std::span<const kube::ObjectPtr> items, IncludeObject include, std::int64_t now,
             bool with_columns) {
  const auto& own = TypeTable::get().entry(k).columns;
  const auto& columns = own.empty() ? default_columns() : own;
  json::array rows;
  rows.reserve(items.size());
  for (const auto& item : items) {
    json::array cells;
    cells.reserve(columns.size());
    for (const auto& c : columns) cells.push_back(cell_of(c, *item, now));
    json::object row{{"cells", std::move(cells)}};
    if (include != IncludeObject::kNone) row.emplace("object", row_object(*item, include));
    rows.push_back(std::move(row));
  }
  return {{"kind", "Table"},
          {"apiVersion", "meta.k8s.io/v1"},
          {"metadata", json::object()},
          {"columnDefinitions", with_columns ? json::value(definitions(columns)) : json::value(nullptr)},
          {"rows", std::move(rows)}};
}

}  // namespace hawser::schema
