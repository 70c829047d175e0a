// SPDX-License-Identifier: Apache-2.0
// What the OpenAPI documents say, before it is written in one of their three forms (v2 JSON, v2 protobuf, v3 JSON):
// schemas as small trees made one type at a time, and the operations of every path. Pure, any thread.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "controlplane/schema/type_table.h"

namespace hawser::schema::openapi {

struct Property;

struct Node {
  std::string_view doc;
  std::string_view type, format;         // empty if ref is set or anything is allowed
  std::string ref;                       // full name of another definition
  std::vector<std::string_view> any_of;  // types of a value that may have one of several (v3 only)
  std::string default_json;
  std::vector<std::string_view> required, enums;
  std::vector<Property> properties;
  std::vector<Node> items;                                           // none or one: an array's elements
  std::vector<Node> additional;                                      // none or one: a map's values
  std::vector<std::pair<std::string_view, std::string>> extensions;  // name and JSON
};

struct Property {
  std::string name;
  Node node;
};

struct Definition {
  std::string name;
  Node node;
};

// A kind's path, ready to be turned into operations.
struct Parameter {
  std::string_view name, in, type, doc;
  bool unique_items = false;
};
struct Operation {
  std::string_view method;  // "get"
  std::string_view action;  // "list"
  std::string id;           // "listCoreV1NamespacedPod"
  std::string body;         // definition, or empty
  std::string response;     // definition, or empty for text
  std::vector<Parameter> query;
  const Kind* kind = nullptr;  // what the body or the answer is
};
struct Path {
  std::string path;
  bool namespaced = false, named = false;
  std::vector<Operation> operations;
};

// All definitions that the kinds of `group_version` need; all there are if it is empty.
std::vector<Definition> definitions(std::string_view group_version);
std::vector<Path> paths(std::string_view group_version);
// "v1", "apps/v1", ... in discovery order.
std::vector<std::string> group_versions();

inline constexpr std::string_view kVersion = "v1.33.0";
inline constexpr std::string_view kMediaTypes[] = {"application/json", "application/yaml"};
inline constexpr std::string_view kPatchTypes[] = {"application/json-patch+json", "application/merge-patch+json",
                                                   "application/strategic-merge-patch+json"};
inline constexpr std::string_view kGvkExtension = "x-kubernetes-group-version-kind";
[[nodiscard]] std::string gvk_json(const Kind& k);

}  // namespace hawser::schema::openapi
