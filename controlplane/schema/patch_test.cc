// SPDX-License-Identifier: Apache-2.0
#include "controlplane/schema/patch.h"

#include "controlplane/schema/schema_testing.h"

namespace hawser::schema {
namespace {

using kube::PatchType;

struct Case {
  int line;
  PatchType type;
  std::string_view kind, original, patch, want, error = {};
};

constexpr auto kJson = PatchType::kJson;
constexpr auto kMerge = PatchType::kMerge;
constexpr auto kStrategic = PatchType::kStrategic;
constexpr std::string_view kRejected = "the server rejected our request due to an error in our request: ";

const Case kCases[] = {
    {__LINE__, kJson, "ConfigMap", R"({"data":{"a":"1"}})", R"([{"op":"add","path":"/data/b","value":"2"}])",
     R"({"data":{"a":"1","b":"2"}})"},
    {__LINE__, kJson, "ConfigMap", R"({"data":{"a/b":"1"}})", R"([{"op":"replace","path":"/data/a~1b","value":"2"}])",
     R"({"data":{"a/b":"2"}})"},
    {__LINE__, kJson, "ConfigMap", R"({"data":{"a":"1"}})", R"([{"op":"remove","path":"/data/b"}])", "",
     "remove operation does not apply: doc is missing path: /data/b: missing value"},
    {__LINE__, kJson, "ConfigMap", R"({"data":{"a":"1"}})", R"([{"op":"test","path":"/data/a","value":"2"}])", "",
     "testing value /data/a failed: test failed"},
    {__LINE__, kJson, "ConfigMap", R"({"data":{"a":"1"}})",
     R"([{"op":"test","path":"/data/a","value":"1"},{"op":"move","from":"/data/a","path":"/data/c"}])",
     R"({"data":{"c":"1"}})"},
    {__LINE__, kJson, "ConfigMap", R"({"data":{"a":"1"}})", R"([{"op":"copy","from":"/data","path":"/binaryData"}])",
     R"({"data":{"a":"1"},"binaryData":{"a":"1"}})"},
    {__LINE__, kJson, "Pod", R"({"spec":{"tolerations":[{"key":"a"},{"key":"b"}]}})",
     R"([{"op":"add","path":"/spec/tolerations/1","value":{"key":"x"}},{"op":"add","path":"/spec/tolerations/-","value":{"key":"z"}},{"op":"remove","path":"/spec/tolerations/0"}])",
     R"({"spec":{"tolerations":[{"key":"x"},{"key":"b"},{"key":"z"}]}})"},
    {__LINE__, kJson, "Pod", R"({"spec":{"tolerations":[]}})",
     R"([{"op":"add","path":"/spec/tolerations/01","value":{}}])", "",
     "add operation does not apply: /spec/tolerations/01: invalid index referenced"},
    {__LINE__, kMerge, "ConfigMap", R"({"data":{"a":"1","b":"2"}})", R"({"data":{"a":null,"c":"3"}})",
     R"({"data":{"b":"2","c":"3"}})"},
    {__LINE__, kMerge, "Pod", R"({"spec":{"containers":[{"name":"a"}]}})",
     R"({"spec":{"containers":[{"name":"b","x":null}]}})", R"({"spec":{"containers":[{"name":"b","x":null}]}})"},
    {__LINE__, kStrategic, "Pod", R"({"spec":{"containers":[{"name":"a","image":"1"},{"name":"b"}]}})",
     R"({"spec":{"containers":[{"name":"a","image":"2"},{"name":"c"}]}})",
     R"({"spec":{"containers":[{"name":"a","image":"2"},{"name":"b"},{"name":"c"}]}})"},
    {__LINE__, kStrategic, "Pod", R"({"spec":{"containers":[{"name":"a","image":"1"},{"name":"b"}]}})",
     R"({"spec":{"containers":[{"name":"b","$patch":"delete"}]}})",
     R"({"spec":{"containers":[{"name":"a","image":"1"}]}})"},
    {__LINE__, kStrategic, "Pod", R"({"spec":{"containers":[{"name":"a"},{"name":"b"}]}})",
     R"({"spec":{"containers":[{"name":"c"},{"$patch":"replace"}]}})", R"({"spec":{"containers":[{"name":"c"}]}})"},
    {__LINE__, kStrategic, "Pod", R"({"spec":{"containers":[{"name":"a"}]}})",
     R"({"spec":{"containers":[{"image":"x"}]}})", "",
     R"(map: {"image":"x"} does not contain declared merge key: name)"},
    {__LINE__, kStrategic, "Pod", R"({"spec":{"tolerations":[{"key":"a"}]}})",
     R"({"spec":{"tolerations":[{"key":"b"}]}})", R"({"spec":{"tolerations":[{"key":"b"}]}})"},
    {__LINE__, kStrategic, "Pod", R"({"spec":{"nodeSelector":{"a":"1","b":"2"}}})",
     R"({"spec":{"nodeSelector":{"$patch":"replace","c":"3"}}})", R"({"spec":{"nodeSelector":{"c":"3"}}})"},
    {__LINE__, kStrategic, "Pod", R"({"spec":{"securityContext":{"runAsUser":1}}})",
     R"({"spec":{"securityContext":{"$patch":"delete"}}})", R"({"spec":{"securityContext":{}}})"},
    {__LINE__, kStrategic, "Pod", R"({"metadata":{"finalizers":["a/1","a/2"]}})",
     R"({"metadata":{"$deleteFromPrimitiveList/finalizers":["a/1"],"finalizers":["a/3"],"$setElementOrder/finalizers":["a/3","a/2"]}})",
     R"({"metadata":{"finalizers":["a/3","a/2"]}})"},
    {__LINE__, kStrategic, "Pod", R"({"metadata":{"finalizers":["a/1"]}})",
     R"({"metadata":{"$deleteFromPrimitiveList/finalizers":["a/1"]}})", R"({"metadata":{"finalizers":[]}})"},
    {__LINE__, kStrategic, "Pod", R"({"spec":{"containers":[{"name":"a"},{"name":"server"},{"name":"b"}]}})",
     R"({"spec":{"$setElementOrder/containers":[{"name":"b"},{"name":"a"},{"name":"c"}],"containers":[{"name":"c"}]}})",
     R"({"spec":{"containers":[{"name":"server"},{"name":"b"},{"name":"a"},{"name":"c"}]}})"},
    {__LINE__, kStrategic, "Deployment",
     R"({"spec":{"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":1}}}})",
     R"({"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}})",
     R"({"spec":{"strategy":{"type":"Recreate"}}})"},
    {__LINE__, kStrategic, "Deployment", R"({"spec":{"strategy":{}}})",
     R"({"spec":{"strategy":{"$retainKeys":["a"],"type":"Recreate"}}})", "", "invalid patch format of retainKeys"},
    {__LINE__, kStrategic, "Pod", R"({"spec":{"volumes":[{"name":"v","emptyDir":{}}]}})",
     R"({"spec":{"volumes":[{"$retainKeys":["name","hostPath"],"name":"v","hostPath":{"path":"/x"}}]}})",
     R"({"spec":{"volumes":[{"name":"v","hostPath":{"path":"/x"}}]}})"},
    {__LINE__, kStrategic, "Service", R"({"spec":{"ports":[{"port":80,"targetPort":1},{"port":443}]}})",
     R"({"spec":{"ports":[{"port":80,"targetPort":2,"name":null}]}})",
     R"({"spec":{"ports":[{"port":80,"targetPort":2},{"port":443}]}})"},
    {__LINE__, kStrategic, "Pod", R"({"spec":{}})", R"({"spec":{"$patch":"explode"}})", "",
     "Unknown patch type found: explode"},
    {__LINE__, kStrategic, "Node", R"({"status":{"conditions":[{"type":"Ready","status":"True"}]}})",
     R"({"status":{"$setElementOrder/conditions":[{"type":"Ready"}],"conditions":[{"type":"Ready","status":"False"}]}})",
     R"({"status":{"conditions":[{"type":"Ready","status":"False"}]}})"},
    {__LINE__, kStrategic, "ConfigMap", "{}", R"([])", "", "error decoding patch: the patch is not an object"},
    {__LINE__, kJson, "ConfigMap", "{}", R"({})", "",
     "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch"},
    {__LINE__, kJson, "ConfigMap", "{}", R"([{"op":"add","path":"x","value":1}])", "",
     R"(error decoding patch: path "x" is not a JSON pointer)"},
    {__LINE__, kJson, "ConfigMap", "{}", R"([{"op":"boom","path":""}])", "",
     "error decoding patch: unexpected kind: boom"},
};

TEST(Patch, Table) {
  for (const auto& c : kCases) {
    boost::system::error_code ec;
    auto patch = boost::json::parse(c.patch, ec);
    ASSERT_FALSE(ec) << c.line;
    auto got = apply_patch(kind_named(c.kind), c.type, parse_object(c.original), patch);
    if (!c.error.empty()) {
      ASSERT_FALSE(got) << "line " << c.line << " " << boost::json::serialize(*got);
      auto want = (got.error().code == 422 ? std::string(kRejected) : "") + std::string(c.error);
      EXPECT_EQ(got.error().message, want) << "line " << c.line;
      continue;
    }
    ASSERT_TRUE(got) << "line " << c.line << ": " << got.error().message;
    EXPECT_EQ(boost::json::serialize(*got), c.want) << "line " << c.line;
  }
}

TEST(Patch, JsonPatchIsBounded) {
  boost::json::array many(kMaxPatchOperations + 1, boost::json::object{{"op", "add"}, {"path", "/a"}, {"value", 1}});
  auto got = apply_patch(kind_named("ConfigMap"), PatchType::kJson, {}, many);
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, 413);
  boost::json::array doubling;
  for (int i = 0; i < 40; i++)
    doubling.push_back(boost::json::object{{"op", "copy"}, {"from", ""}, {"path", "/" + std::to_string(i)}});
  got = apply_patch(kind_named("ConfigMap"), PatchType::kJson, parse_object(R"({"data":{"a":"b"}})"), doubling);
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, 413);
}

}  // namespace
}  // namespace hawser::schema
