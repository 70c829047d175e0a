// SPDX-License-Identifier: Apache-2.0
// The pure parts at the edge: routes, negotiation, YAML, protobuf bodies.
#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

#include "controlplane/apiserver/negotiate.h"
#include "controlplane/apiserver/proto_body.h"
#include "controlplane/apiserver/router.h"
#include "controlplane/apiserver/yaml_emit.h"
#include "lib/kube/object.h"

namespace hawser::apiserver {
namespace {

TEST(Router, Paths) {
  using Type = Route::Type;
  struct Case {
    int line;
    std::string_view path;
    Type type;
    std::string_view plural, ns, name, sub;
  };
  const Case cases[] = {
      {__LINE__, "/", Type::kIndex, "", "", "", ""},
      {__LINE__, "/api", Type::kCoreVersions, "", "", "", ""},
      {__LINE__, "/api/v1", Type::kResourceList, "", "", "", ""},
      {__LINE__, "/apis/apps", Type::kGroup, "", "", "", ""},
      {__LINE__, "/apis/apps/v1", Type::kResourceList, "", "", "", ""},
      {__LINE__, "/apis/apps/v2", Type::kUnknown, "", "", "", ""},
      {__LINE__, "/apis/nogroup", Type::kUnknown, "", "", "", ""},
      {__LINE__, "/api/v1/pods", Type::kResource, "pods", "", "", ""},
      {__LINE__, "/api/v1/namespaces", Type::kResource, "namespaces", "", "", ""},
      {__LINE__, "/api/v1/namespaces/n", Type::kResource, "namespaces", "", "n", ""},
      {__LINE__, "/api/v1/namespaces/n/finalize", Type::kResource, "namespaces", "", "n", "finalize"},
      {__LINE__, "/api/v1/namespaces/n/status", Type::kResource, "namespaces", "", "n", "status"},
      {__LINE__, "/api/v1/namespaces/n/pods", Type::kResource, "pods", "n", "", ""},
      {__LINE__, "/api/v1/namespaces/n/pods/p", Type::kResource, "pods", "n", "p", ""},
      {__LINE__, "/api/v1/namespaces/n/pods/p/log", Type::kResource, "pods", "n", "p", "log"},
      {__LINE__, "/api/v1/namespaces/n/pods/p/nosuch", Type::kUnknown, "", "", "", ""},
      {__LINE__, "/api/v1/namespaces/n/pods/p/log/x", Type::kUnknown, "", "", "", ""},
      {__LINE__, "/api/v1/watch/namespaces/n/pods/p", Type::kResource, "pods", "n", "p", ""},
      {__LINE__, "/apis/apps/v1/namespaces/n/deployments/d/scale", Type::kResource, "deployments", "n", "d", "scale"},
      {__LINE__, "/api/v1/nodes/a%2Fb", Type::kResource, "nodes", "", "a/b", ""},
      {__LINE__, "/openapi/v3/apis/apps/v1", Type::kOpenapiV3, "", "", "", ""},
      {__LINE__, "/readyz/ping", Type::kHealth, "", "", "", ""},
      {__LINE__, "//", Type::kIndex, "", "", "", ""},
      {__LINE__, "", Type::kUnknown, "", "", "", ""},
  };
  for (auto& c : cases) {
    auto r = route(c.path);
    EXPECT_EQ(r.type, c.type) << "case at line " << c.line;
    if (r.type != Type::kResource) continue;
    EXPECT_EQ(r.ns, c.ns) << "case at line " << c.line;
    EXPECT_EQ(r.kind->plural, c.plural) << "case at line " << c.line;
    EXPECT_EQ(r.name, c.name) << "case at line " << c.line;
    EXPECT_EQ(r.subresource, c.sub) << "case at line " << c.line;
  }
}

TEST(Negotiate, Accept) {
  struct Case {
    int line;
    std::string_view accept, want;  // "json", "yaml", "table v1", "partial v1beta1", "406"
  };
  const Case cases[] = {
      {__LINE__, "", "json"},
      {__LINE__, "*/*", "json"},
      {__LINE__, "application/vnd.kubernetes.protobuf,application/json", "json"},
      {__LINE__, "application/vnd.kubernetes.protobuf", "406"},
      {__LINE__, "text/html", "406"},
      {__LINE__, "application/yaml", "yaml"},
      {__LINE__,
       "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/"
       "json",
       "table v1"},
      {__LINE__, "application/json;as=Table;v=v1beta1;g=meta.k8s.io", "table v1beta1"},
      {__LINE__, "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "partial v1"},
      {__LINE__, "application/json;as=Table;v=v9;g=meta.k8s.io", "406"},
      {__LINE__, "application/json;as=Table;v=v9;g=meta.k8s.io, application/json", "json"},
  };
  for (auto& c : cases) {
    auto a = negotiate(c.accept, true);
    std::string have = "406";
    if (a && a->shape == Shape::kObject) have = a->yaml ? "yaml" : "json";
    if (a && a->shape == Shape::kTable) have = "table " + a->meta_version;
    if (a && a->shape == Shape::kPartial) have = "partial " + a->meta_version;
    EXPECT_EQ(have, c.want) << "case at line " << c.line;
  }
  EXPECT_FALSE(negotiate("application/json;as=Table;v=v1;g=meta.k8s.io", false));
  EXPECT_FALSE(aggregated_discovery("application/json"));
  EXPECT_EQ(aggregated_discovery(
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"),
            "v2beta1");
}

TEST(Yaml, BlockStyle) {
  auto v = boost::json::parse(
      R"({"b":[1,{"x":"y","z":[]},[2]],"a":{"s":"true","n":null,"e":{},"t":"a b: c","l":"line1\nline2"}})");
  EXPECT_EQ(to_yaml(v),
            "a:\n  e: {}\n  l: \"line1\\nline2\"\n  \"n\": null\n  s: \"true\"\n  t: \"a b: c\"\nb:\n- 1\n- x: \"y\"\n "
            " z: []\n- - 2\n");
}

// Just enough of an encoder to write the bodies that Go clients send.
std::string varint(std::uint64_t v) {
  std::string s;
  for (; v >= 0x80; v >>= 7) s += static_cast<char>(v | 0x80);
  return s + static_cast<char>(v);
}
std::string bytes(int number, std::string_view data) {
  return varint(static_cast<std::uint64_t>(number) << 3 | 2) + varint(data.size()) + std::string(data);
}
std::string integer(int number, std::uint64_t v) {
  return varint(static_cast<std::uint64_t>(number) << 3) + varint(v);
}
std::string envelope(std::string_view api_version, std::string_view kind, std::string_view raw) {
  return std::string("k8s\0", 4) + bytes(1, bytes(1, api_version) + bytes(2, kind)) + bytes(2, raw);
}

TEST(ProtoBody, ConfigMapWithUnsetFieldsWritten) {
  auto metadata = bytes(1, "m") + bytes(2, "") + bytes(3, "") + integer(7, 0) + bytes(8, "") +
                  bytes(11, bytes(1, "a") + bytes(2, "b"));
  auto o = from_protobuf(envelope(
      "v1", "ConfigMap",
      bytes(1, metadata) + bytes(2, bytes(1, "k") + bytes(2, "v")) + bytes(3, bytes(1, "bin") + bytes(2, "hello"))));
  ASSERT_TRUE(o) << o.error().message;
  EXPECT_EQ(boost::json::value(*o), boost::json::parse(R"({"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m",
    "labels":{"a":"b"}},"data":{"k":"v"},"binaryData":{"bin":"aGVsbG8="}})"));
}

TEST(ProtoBody, InlinedMessagesAndSpecialTypes) {
  auto probe =
      bytes(1, bytes(2, bytes(1, "/ok") + bytes(2, integer(1, 1) + integer(2, 0) + bytes(3, "web")))) + integer(2, 5);
  auto limits = bytes(1, bytes(1, "cpu") + bytes(2, bytes(1, "500m")));
  auto container = bytes(1, "c") + bytes(2, "i") + bytes(8, limits) + bytes(11, probe);
  auto volume = bytes(1, "v") + bytes(2, bytes(19, bytes(1, bytes(1, "cm"))));
  auto spec = bytes(1, volume) + bytes(2, container) + integer(4, 0);
  auto o = from_protobuf(envelope("v1", "Pod", bytes(1, bytes(1, "p") + bytes(8, integer(1, 86400))) + bytes(2, spec)));
  ASSERT_TRUE(o) << o.error().message;
  EXPECT_EQ(boost::json::value(*o), boost::json::parse(R"({"apiVersion":"v1","kind":"Pod",
    "metadata":{"name":"p","creationTimestamp":"1970-01-02T00:00:00Z"},
    "spec":{"volumes":[{"name":"v","configMap":{"name":"cm"}}],"terminationGracePeriodSeconds":0,
      "containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"500m"}},
        "readinessProbe":{"httpGet":{"path":"/ok","port":"web"},"initialDelaySeconds":5}}]}})"));
}

TEST(ProtoBody, DeleteOptionsAndEviction) {
  auto options = integer(1, 0) + bytes(4, "Background");
  auto o = from_protobuf(envelope("v1", "DeleteOptions", options));
  ASSERT_TRUE(o);
  EXPECT_EQ(kube::num(*o, {"gracePeriodSeconds"}, -1), 0);
  EXPECT_EQ(kube::str(*o, {"propagationPolicy"}), "Background");
  auto e = from_protobuf(envelope("policy/v1", "Eviction", bytes(1, bytes(1, "p")) + bytes(2, options)));
  ASSERT_TRUE(e);
  EXPECT_EQ(kube::str(*e, {"deleteOptions", "propagationPolicy"}), "Background");
}

TEST(ProtoBody, EveryServedKind) {
  for (auto& k : schema::kinds()) {
    auto o = from_protobuf(envelope(k.group_version(), std::string(k.kind), bytes(1, bytes(1, "n"))));
    ASSERT_TRUE(o) << k.kind << ": " << o.error().message;
    EXPECT_EQ(kube::name(*o), "n") << k.kind;
    EXPECT_TRUE(schema::conform(k, std::move(*o), schema::FieldValidation::kStrict)) << k.kind;
  }
}

TEST(ProtoBody, MalformedIsRefused) {
  auto good = envelope("v1", "ConfigMap", bytes(1, bytes(1, "m")));
  for (std::size_t n = 0; n < good.size(); ++n) {
    // A cut between two fields leaves a valid, shorter message.
    auto cut = from_protobuf(good.substr(0, n));
    EXPECT_TRUE(!cut || kube::name(*cut).empty()) << n;
  }
  EXPECT_TRUE(from_protobuf(good));
  EXPECT_FALSE(from_protobuf(envelope("v1", "Widget", "")));
  EXPECT_FALSE(from_protobuf(envelope("v1", "ConfigMap", "\xff\xff\xff")));
  auto unknown =
      from_protobuf(envelope("v1", "ConfigMap", bytes(1, bytes(1, "m")) + bytes(999, "new") + integer(998, 1)));
  ASSERT_TRUE(unknown);
  EXPECT_EQ(kube::name(*unknown), "m");
}

}  // namespace
}  // namespace hawser::apiserver
