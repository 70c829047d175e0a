// SPDX-License-Identifier: Apache-2.0
#include "controlplane/schema/schema_testing.h"
#include "controlplane/schema/type_table.h"

namespace hawser::schema {

extern const std::span<const std::string_view> kSchemaTexts;

namespace {

TEST(TypeTable, EmbeddedTablesParse) {
  auto parsed = TypeTable::parse(kSchemaTexts);
  ASSERT_TRUE(parsed) << parsed.error().text;
  EXPECT_GT((*parsed)->types().size(), 150u);
  std::string plurals;
  for (const auto& k : kinds()) plurals += std::string(k.group) + "/" + std::string(k.plural) + " ";
  EXPECT_EQ(
      plurals,
      "/configmaps /endpoints /events /namespaces /nodes /pods /secrets /serviceaccounts /services apps/deployments "
      "apps/replicasets coordination.k8s.io/leases discovery.k8s.io/endpointslices ");
}

TEST(TypeTable, BadTablesAreNamed) {
  struct Case {
    std::string_view name, text, want;
  };
  for (const auto& c : {
           Case{"unknown type", "package p v1\ntype A | a\n  b Nothing | b\n", "A.b: no type 'Nothing'"},
           Case{"unknown attribute", "package p v1\ntype A | a\n  b string what | b\n",
                "schema line 3 '  b string what | b': unknown attribute 'what'"},
           Case{"bad default", "package p v1\ntype A | a\n  b string =\"x | b\n",
                "schema line 3 '  b string =\"x | b': '\"x' is not JSON"},
           Case{"unknown word", "thing A\n", "schema line 1 'thing A': unknown word 'thing'"},
           Case{"kind without type", "package p v1\nkind A plural=as\n", "kind A: no such type"},
       }) {
    auto parsed = TypeTable::parse(std::span(&c.text, 1));
    ASSERT_FALSE(parsed) << c.name;
    EXPECT_EQ(parsed.error().text, c.want) << c.name;
  }
}

TEST(Kinds, AreFoundByResourceAndByKind) {
  EXPECT_EQ(find_resource("apps", "v1", "deployments"), find_kind("apps", "v1", "Deployment"));
  EXPECT_EQ(find_resource("", "v1", "deployments"), nullptr);
  EXPECT_EQ(find_resource("", "v1", ""), nullptr);
  const auto& pod = kind_named("Pod");
  EXPECT_EQ(pod.singular, "pod");
  EXPECT_EQ(pod.list_kind, "PodList");
  EXPECT_TRUE(pod.has_status && pod.namespaced && !pod.has_scale);
  EXPECT_EQ(kind_named("Deployment").group_version(), "apps/v1");
  EXPECT_FALSE(kind_named("Node").namespaced);
  EXPECT_NE(find_kind("autoscaling", "v1", "Scale"), nullptr);
}

struct DecodeCase {
  int line;
  std::string_view kind, body;
  std::string_view want;   // JSON of the object, if it decodes
  std::string_view error;  // message, if it does not
  MediaType type = MediaType::kJson;
  FieldValidation mode = FieldValidation::kStrict;
  std::string_view warning = {};
};

TEST(Decode, Table) {
  const DecodeCase cases[] = {
      {__LINE__, "ConfigMap", R"({"data":{"a":"b"}})", R"({"data":{"a":"b"},"apiVersion":"v1","kind":"ConfigMap"})",
       ""},
      {__LINE__, "ConfigMap", R"({"apiVersion":"v1","kind":"ConfigMap","data":{"a":null},"metadata":null})",
       R"({"apiVersion":"v1","kind":"ConfigMap","data":{"a":""}})", ""},
      {__LINE__, "Deployment", R"({"spec":{"replica":1}})", "",
       R"(Deployment in version "apps/v1" cannot be handled as a Deployment: strict decoding error: unknown field "spec.replica")"},
      {__LINE__, "Deployment", R"({"spec":{"replicas":"x"}})", "",
       R"(Deployment in version "apps/v1" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32)"},
      {__LINE__, "Deployment", R"({"spec":{"replicas":1.5}})", "",
       R"(Deployment in version "apps/v1" cannot be handled as a Deployment: json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32)"},
      {__LINE__, "Deployment", R"({"spec":{"replicas":4294967296}})", "",
       R"(Deployment in version "apps/v1" cannot be handled as a Deployment: json: cannot unmarshal number 4294967296 into Go struct field DeploymentSpec.spec.replicas of type int32)"},
      {__LINE__, "Pod", R"({"spec":{"containers":[{"name":"a","env":[{"name":"X","value":1}]}]}})", "",
       R"(Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string)"},
      {__LINE__, "Pod", R"({"metadata":{"labels":{"a[b":1}}})", "",
       R"(Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels.a[b of type string)"},
      {__LINE__, "Pod", R"({"spec":{"containers":{}}})", "",
       R"(Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container)"},
      {__LINE__, "Pod", R"({"spec":{"containers":[{"imagee":"x"},{"a":1}]}})", "",
       R"(Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.containers[0].imagee", unknown field "spec.containers[1].a")"},
      {__LINE__, "Pod", R"({"spec":{"nodeName":"a","nodeName":"b"}})", "",
       R"(Pod in version "v1" cannot be handled as a Pod: strict decoding error: duplicate field "spec.nodeName")"},
      {__LINE__, "Pod", R"({"spec":{"nodeName":"a","nodeName":"b"}})",
       R"({"spec":{"nodeName":"b"},"apiVersion":"v1","kind":"Pod"})", "", MediaType::kJson, FieldValidation::kWarn,
       R"(duplicate field "spec.nodeName")"},
      {__LINE__, "Pod", R"({"specc":1})", R"({"apiVersion":"v1","kind":"Pod"})", "", MediaType::kJson,
       FieldValidation::kWarn, R"(unknown field "specc")"},
      {__LINE__, "Pod", R"({"specc":1})", R"({"apiVersion":"v1","kind":"Pod"})", "", MediaType::kJson,
       FieldValidation::kIgnore},
      {__LINE__, "Pod", R"({"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":"1000m","memory":1}}}]}})",
       R"({"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":"1","memory":"1"}}}]},"apiVersion":"v1","kind":"Pod"})",
       ""},
      {__LINE__, "Pod", R"({"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":"1x"}}}]}})", "",
       R"(Pod in version "v1" cannot be handled as a Pod: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$')"},
      {__LINE__, "Pod", R"({"spec":{"containers":[],"nodeSelector":{},"hostname":""}})",
       R"({"spec":{"containers":[]},"apiVersion":"v1","kind":"Pod"})", ""},
      {__LINE__, "Pod", R"({"spec":{"volumes":[{"name":"a","emptyDir":{}}]}})",
       R"({"spec":{"volumes":[{"name":"a","emptyDir":{}}]},"apiVersion":"v1","kind":"Pod"})", ""},
      {__LINE__, "Secret", R"({"data":{"a":"@"}})", "",
       R"(Secret in version "v1" cannot be handled as a Secret: illegal base64 data at input byte 0)"},
      {__LINE__, "Lease", R"({"spec":{"renewTime":"2024-01-02T03:04:05.1+01:00","holderIdentity":""}})",
       R"({"spec":{"renewTime":"2024-01-02T02:04:05.100000Z","holderIdentity":""},"apiVersion":"coordination.k8s.io/v1","kind":"Lease"})",
       ""},
      {__LINE__, "Pod", R"({"metadata":{"creationTimestamp":"yesterday"}})", "",
       R"(Pod in version "v1" cannot be handled as a Pod: parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006")"},
      {__LINE__, "Pod", R"({"apiVersion":"v2"})", "",
       "the API version in the data (v2) does not match the expected API version (v1)"},
      {__LINE__, "Pod", R"({"kind":"Service"})", "",
       R"(Service in version "v1" cannot be handled as a Pod: converting (v1.Service) to (v1.Pod): unknown conversion)"},
      {__LINE__, "Pod", R"({"a":)", "",
       "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: "
       "incomplete JSON at byte 5"},
      {__LINE__, "Pod", "[]", "",
       "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: not an "
       "object"},
      {__LINE__, "ConfigMap", "data: {a: \"1\", b: 'yes', c: text}\n",
       R"({"data":{"a":"1","b":"yes","c":"text"},"apiVersion":"v1","kind":"ConfigMap"})", "", MediaType::kYaml},
      {__LINE__, "ConfigMap", "data: {a: yes}\n", "",
       R"(ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal bool into Go struct field ConfigMap.data.a of type string)",
       MediaType::kYaml},
      {__LINE__, "Pod", "spec:\n  volumes:\n  - name: a\n    configMap: {name: x, defaultMode: 0644, optional: on}\n",
       R"({"spec":{"volumes":[{"name":"a","configMap":{"name":"x","defaultMode":420,"optional":true}}]},"apiVersion":"v1","kind":"Pod"})",
       "", MediaType::kYaml},
      {__LINE__, "ConfigMap", "data:\n  a: b\n  a: c\n", "",
       R"(ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: duplicate field "data.a")",
       MediaType::kYaml},
      {__LINE__, "ConfigMap", "data: {a: \"\xff\"}", "",
       "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: "
       "yaml: invalid UTF-8",
       MediaType::kYaml},
      {__LINE__, "Pod", "metadata:\n  labels: &l {a: b}\n  annotations: {<<: *l, c: d}\n",
       R"({"metadata":{"labels":{"a":"b"},"annotations":{"c":"d","a":"b"}},"apiVersion":"v1","kind":"Pod"})", "",
       MediaType::kYaml},
  };
  for (const auto& c : cases) {
    auto got = decode(kind_named(c.kind), c.body, c.type, c.mode);
    if (!c.error.empty()) {
      ASSERT_FALSE(got) << "line " << c.line;
      EXPECT_EQ(got.error().message, c.error) << "line " << c.line;
      EXPECT_EQ(got.error().code, 400);
      continue;
    }
    ASSERT_TRUE(got) << "line " << c.line << ": " << got.error().message;
    EXPECT_EQ(boost::json::serialize(got->object), c.want) << "line " << c.line;
    EXPECT_EQ(fmt::format("{}", fmt::join(got->warnings, ",")), c.warning) << "line " << c.line;
  }
}

TEST(Decode, DepthAndAliasesAreBounded) {
  const auto& pod = kind_named("Pod");
  EXPECT_FALSE(decode(pod, std::string(100000, '['), MediaType::kJson, FieldValidation::kIgnore));
  EXPECT_FALSE(decode(pod, std::string(100000, '['), MediaType::kYaml, FieldValidation::kIgnore));
  std::string bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n";
  for (char c = 'b'; c <= 'k'; c++) {
    std::string name(1, c), last(1, static_cast<char>(c - 1));
    bomb += name + ": &" + name + " [*" + last + ",*" + last + ",*" + last + ",*" + last + ",*" + last + ",*" + last +
            "]\n";
  }
  auto got = decode(pod, bomb, MediaType::kYaml, FieldValidation::kIgnore);
  ASSERT_FALSE(got);
  EXPECT_NE(got.error().message.find("excessive aliasing"), std::string::npos);
}

TEST(Decode, ManyKeysAndNumbersOutOfRange) {
  const auto& k = kind_named("ConfigMap");
  std::string body = "{\"data\":{";
  for (int i = 0; i < 100; i++) body += fmt::format("\"k{}\":\"v\",", i);
  auto decoded = decode(k, body + "\"k40\":\"w\"}}", MediaType::kJson, FieldValidation::kWarn);
  ASSERT_TRUE(decoded) << decoded.error().message;
  EXPECT_EQ(decoded->warnings, std::vector<std::string>{"duplicate field \"data.k40\""});
  EXPECT_EQ(decoded->object["data"].as_object().size(), 100u);
  // What cannot be written as JSON again is not read either.
  for (const char* number : {"1e400", "0e400", "-1e400"})
    EXPECT_FALSE(decode(k, fmt::format("{{\"x\":{}}}", number), MediaType::kJson, FieldValidation::kIgnore)) << number;
}

}  // namespace
}  // namespace hawser::schema
