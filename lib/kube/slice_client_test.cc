// SPDX-License-Identifier: Apache-2.0
#include "lib/kube/slice_client.h"

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

#include "lib/kube/fake_client.h"
#include "lib/kube/object.h"

namespace hawser::kube {
namespace {

constexpr Resource kBeta{"discovery.k8s.io", "v1beta1", "endpointslices", "EndpointSlice"};

Object slice() {
  return boost::json::parse(R"({"apiVersion": "discovery.k8s.io/v1beta1", "kind": "EndpointSlice",
    "metadata": {"namespace": "d", "name": "a"}, "endpoints": [
      {"addresses": ["10.0.0.1"], "topology": {"kubernetes.io/hostname": "n1", "topology.kubernetes.io/zone": "z", "rack": "7"}},
      {"addresses": ["10.0.0.2"], "nodeName": "n2", "topology": {"kubernetes.io/hostname": "other"}}, "no object"]})")
      .as_object();
}

// A server that has one of the two versions: what a list of the other would say.
class OneVersion final : public Client {
 public:
  explicit OneVersion(FakeClient& c) : fake(c) {}
  Result<ObjectPtr> get(const Resource& r, std::string_view n, std::string_view m) override {
    return fake.get(r, n, m);
  }
  Result<ObjectList> list(const Resource& r, const ListOptions& o) override {
    asked.emplace_back(r.version);
    if (r.version != has) return fail(404, "the server could not find the requested resource");
    return fake.list(r, o);
  }
  Result<ObjectPtr> create(const Resource& r, std::string_view n, const Object& o) override {
    return fake.create(r, n, o);
  }
  Result<ObjectPtr> update(const Resource& r, const Object& o, std::string_view s) override {
    return fake.update(r, o, s);
  }
  Result<ObjectPtr> patch(const Resource& r, std::string_view n, std::string_view m, PatchType t,
                          const boost::json::value& b, std::string_view s) override {
    return fake.patch(r, n, m, t, b, s);
  }
  Result<> remove(const Resource& r, std::string_view n, std::string_view m, const DeleteOptions& o) override {
    return fake.remove(r, n, m, o);
  }
  Result<ObjectPtr> create_sub(const Resource& r, std::string_view n, std::string_view m, std::string_view s,
                               const Object& o) override {
    return fake.create_sub(r, n, m, s, o);
  }
  Result<> watch(const Resource& r, const WatchOptions& o, const std::function<bool(const WatchEvent&)>& f,
                 std::stop_token stop) override {
    if (r.version != has) return fail(404, "the server could not find the requested resource");
    return fake.watch(r, o, f, std::move(stop));
  }
  FakeClient& fake;
  std::string has = "v1beta1";
  std::vector<std::string> asked;
};

TEST(SliceToV1, TopologyBecomesFields) {
  auto o = slice_to_v1(std::make_shared<const Object>(slice()));
  EXPECT_EQ(str(*o, {"apiVersion"}), "discovery.k8s.io/v1");
  const auto& endpoints = arr(*o, {"endpoints"});
  EXPECT_EQ(endpoints[0],
            boost::json::parse(
                R"({"addresses": ["10.0.0.1"], "nodeName": "n1", "zone": "z", "deprecatedTopology": {"rack": "7"}})"));
  EXPECT_EQ(endpoints[1], boost::json::parse(R"({"addresses": ["10.0.0.2"], "nodeName": "n2"})"));
}

TEST(EndpointSliceClient, ReadsV1beta1WhereV1IsMissing) {
  FakeClient fake;
  ASSERT_TRUE(fake.create(kBeta, "d", slice()));
  OneVersion server(fake);
  EndpointSliceClient client(server);
  auto list = client.list(kEndpointSlices, {});
  ASSERT_TRUE(list) << list.error().text;
  ASSERT_EQ(list->items.size(), 1u);
  EXPECT_EQ(str(as_obj(arr(*list->items[0], {"endpoints"})[0]), {"nodeName"}), "n1");
  std::string node;
  auto watched = client.watch(kEndpointSlices, {{}, "1", nullptr},
                              [&](const WatchEvent& e) {
                                node = str(as_obj(arr(*e.object, {"endpoints"})[0]), {"nodeName"});
                                return false;
                              },
                              {});
  EXPECT_TRUE(watched);
  EXPECT_EQ(node, "n1");

  server.has = "v1";  // upgraded: the watch ends with 404, so the informer lists again
  EXPECT_EQ(client.watch(kEndpointSlices, {}, [](const WatchEvent&) { return false; }, {}).error().code, 404);
  EXPECT_TRUE(client.list(kEndpointSlices, {}));
  EXPECT_EQ(server.asked.back(), "v1");
  server.has = "none";
  EXPECT_EQ(client.list(kEndpointSlices, {}).error().code, 404);
}

}  // namespace
}  // namespace hawser::kube
