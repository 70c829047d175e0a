// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <set>

#include "controlplane/schema/openapi_model.h"
#include "controlplane/schema/schema_testing.h"
#include "lib/testing/golden.h"

namespace hawser::schema {
namespace {

namespace json = boost::json;

void collect_refs(const json::value& v, std::set<std::string>& refs) {
  if (const auto* o = v.if_object()) {
    for (const auto& [key, item] : *o) {
      if (key == "$ref" && item.is_string())
        refs.insert(std::string(item.get_string()));
      else
        collect_refs(item, refs);
    }
  } else if (const auto* a = v.if_array()) {
    for (const auto& item : *a) collect_refs(item, refs);
  }
}

TEST(OpenApi, EveryReferenceLeadsSomewhere) {
  auto v2 = parse_object(openapi_v2_json());
  std::set<std::string> refs;
  collect_refs(v2, refs);
  EXPECT_GT(refs.size(), 100u);
  for (const auto& r : refs)
    EXPECT_TRUE(v2.at("definitions").as_object().contains(r.substr(std::string_view("#/definitions/").size()))) << r;
  auto index = parse_object(openapi_v3_index());
  for (const auto& [path, entry] : index.at("paths").as_object()) {
    auto doc = parse_object(openapi_v3(path));
    refs.clear();
    collect_refs(doc, refs);
    for (const auto& r : refs)
      EXPECT_TRUE(doc.at("components")
                      .at("schemas")
                      .as_object()
                      .contains(r.substr(std::string_view("#/components/schemas/").size())))
          << path << r;
  }
  EXPECT_EQ(openapi_v3("apis/none/v1"), "");
}

// kubectl looks for these on the PATCH operation of a kind before it sends dryRun or fieldValidation.
TEST(OpenApi, PatchOperationsNameTheirQueryParameters) {
  auto v2 = parse_object(openapi_v2_json());
  for (const auto& k : kinds()) {
    auto path = (k.group.empty() ? "/api/v1" : "/apis/" + k.group_version()) +
                (k.namespaced ? "/namespaces/{namespace}/" : "/") + std::string(k.plural) + "/{name}";
    ASSERT_TRUE(v2.at("paths").as_object().contains(path)) << path;
    const auto& patch = v2.at("paths").at(path).at("patch");
    EXPECT_EQ(patch.at("x-kubernetes-group-version-kind").at("kind").as_string(), k.kind);
    std::set<std::string> names;
    for (const auto& p : patch.at("parameters").as_array()) names.insert(std::string(p.at("name").as_string()));
    EXPECT_TRUE(names.contains("dryRun") && names.contains("fieldValidation")) << path;
  }
}

TEST(OpenApi, OperationIdsAreUnique) {
  std::set<std::string> ids;
  for (const auto& p : openapi::paths(""))
    for (const auto& o : p.operations) EXPECT_TRUE(ids.insert(o.id).second) << p.path << " " << o.id;
}

TEST(OpenApi, Goldens) {
  auto v2 = parse_object(openapi_v2_json());
  auto v3 = parse_object(openapi_v3("apis/apps/v1"));
  testing::expect_golden("controlplane/schema/testdata/openapi/v2-deployment-spec.json",
                         json::serialize(v2.at("definitions").at("io.k8s.api.apps.v1.DeploymentSpec")) + "\n");
  testing::expect_golden(
      "controlplane/schema/testdata/openapi/v3-deployment-spec.json",
      json::serialize(v3.at("components").at("schemas").at("io.k8s.api.apps.v1.DeploymentSpec")) + "\n");
  testing::expect_golden(
      "controlplane/schema/testdata/openapi/v2-scale-path.json",
      json::serialize(v2.at("paths").at("/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale")) + "\n");
  testing::expect_golden(
      "controlplane/schema/testdata/openapi/v3-scale-path.json",
      json::serialize(v3.at("paths").at("/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale")) + "\n");
}

// Reads the wire format back: field numbers and nesting as openapiv2.proto has them.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}
  // Every length-delimited field `number`.
  std::vector<std::string_view> all(std::uint64_t number) const {
    std::vector<std::string_view> out;
    auto rest = bytes_;
    while (!rest.empty()) {
      auto tag = varint(rest);
      auto n = varint(rest);
      if ((tag & 7) != 2) continue;
      if (tag >> 3 == number) out.push_back(rest.substr(0, n));
      rest.remove_prefix(std::min<std::size_t>(n, rest.size()));
    }
    return out;
  }
  std::string_view one(std::uint64_t number) const {
    auto found = all(number);
    return found.empty() ? std::string_view() : found.back();
  }

 private:
  static std::uint64_t varint(std::string_view& s) {
    std::uint64_t n = 0;
    for (int shift = 0; !s.empty(); shift += 7) {
      auto byte = static_cast<unsigned char>(s.front());
      s.remove_prefix(1);
      n |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    return n;
  }
  std::string_view bytes_;
};

TEST(OpenApi, ProtobufSaysTheSame) {
  auto v2 = parse_object(openapi_v2_json());
  Reader document(openapi_v2_protobuf());
  EXPECT_EQ(document.one(1), "2.0");
  auto definitions = Reader(document.one(9)).all(1);
  ASSERT_EQ(definitions.size(), v2.at("definitions").as_object().size());
  EXPECT_EQ(Reader(document.one(8)).all(2).size(), v2.at("paths").as_object().size());
  for (auto d : definitions) {
    auto name = Reader(d).one(1);
    const auto& want = v2.at("definitions").at(name).as_object();
    Reader schema(Reader(d).one(2));
    EXPECT_EQ(schema.one(4), want.at("description").as_string()) << name;
    auto properties = Reader(schema.one(25)).all(1);
    EXPECT_EQ(properties.size(), want.contains("properties") ? want.at("properties").as_object().size() : 0) << name;
    for (auto p : properties) {
      const auto& field = want.at("properties").at(Reader(p).one(1)).as_object();
      std::string key;
      for (auto e : Reader(Reader(p).one(2)).all(31))
        if (Reader(e).one(1) == "x-kubernetes-patch-merge-key") key = Reader(Reader(e).one(2)).one(2);
      EXPECT_EQ(key, field.contains("x-kubernetes-patch-merge-key")
                         ? json::serialize(field.at("x-kubernetes-patch-merge-key"))
                         : "")
          << name;
    }
  }
}

}  // namespace
}  // namespace hawser::schema
