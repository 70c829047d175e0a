// SPDX-License-Identifier: Apache-2.0
// Test-only: a registry over the memory store, with short forms for objects and errors.
#pragma once

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <gtest/gtest.h>

#include "controlplane/apiserver/local_client.h"
#include "controlplane/apiserver/registry.h"
#include "controlplane/apiserver/subresources.h"

namespace hawser::apiserver {

inline const Kind& kind(std::string_view plural, std::string_view group = "") {
  return *schema::find_resource(group, "v1", plural);
}

inline Object parse(std::string_view text) {
  return boost::json::parse(text).as_object();
}

// One server's worth of parts over a store that outlives it.
struct RegistryParts {
  explicit RegistryParts(store::Store& s, Clock& clock = system_clock())
      : allocator(Cidr::parse("10.96.0.0/24").value(), {30000, 30099}),
        cache(s, schema::kinds()),
        registry(s, cache, allocator, clock),
        client(registry) {
    cache.on_other_key([this](const store::Event& e) { allocator.on_key(e); }, [this] { allocator.forget(); });
    auto started = cache.start();
    EXPECT_TRUE(started) << started.error().text;
  }
  ServiceAllocator allocator;
  WatchCache cache;
  Registry registry;
  LocalClient client;
};

class RegistryTest : public testing::Test {
 protected:
  void SetUp() override { create("namespaces", R"({"metadata":{"name":"default"}})", ""); }

  // Creates `text` as a kind; the error's text, or the object as stored.
  Expected<EntryPtr> try_create(std::string_view plural, std::string_view text, std::string_view ns = "default",
                                std::string_view group = "", const WriteOptions& w = {}) {
    auto& k = kind(plural, group);
    auto decoded = schema::decode(k, text, schema::MediaType::kJson, schema::FieldValidation::kStrict);
    if (!decoded) return std::unexpected(decoded.error());
    return parts_.registry.create(k, k.namespaced ? ns : "", std::move(decoded->object), w);
  }
  Object create(std::string_view plural, std::string_view text, std::string_view ns = "default",
                std::string_view group = "") {
    auto e = try_create(plural, text, ns, group);
    EXPECT_TRUE(e) << e.error().message;
    return e ? *(*e)->object : Object();
  }
  template <class T>
  static std::string error_of(const Expected<T>& e) {
    return e ? "no error" : fmt::format("{} {}: {}", e.error().code, e.error().reason, e.error().message);
  }
  Expected<EntryPtr> get(std::string_view plural, std::string_view name, std::string_view ns = "default",
                         std::string_view group = "") {
    auto& k = kind(plural, group);
    return parts_.registry.get(k, {k.namespaced ? ns : "", name});
  }
  Expected<EntryPtr> merge(std::string_view plural, std::string_view name, std::string_view patch,
                           std::string_view sub = "", std::string_view group = "") {
    auto& k = kind(plural, group);
    return parts_.registry.patch(k, {k.namespaced ? "default" : "", name}, kube::PatchType::kMerge,
                                 boost::json::parse(patch), sub, {});
  }
  Expected<Deleted> remove(std::string_view plural, std::string_view name, const DeleteRequest& r = {}) {
    auto& k = kind(plural);
    return parts_.registry.remove(k, {k.namespaced ? "default" : "", name}, r);
  }

  std::unique_ptr<store::Store> store_ = store::make_memory_store();
  RegistryParts parts_{*store_};
};

}  // namespace hawser::apiserver
