// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/bootstrap.h"

#include <algorithm>
#include <array>

#include "lib/base/log.h"
#include "lib/kube/object.h"

namespace hawser::apiserver {

using kube::Array;
using kube::Object;

namespace {

constexpr auto kRepeatEvery = std::chrono::seconds(10);
constexpr std::array<std::string_view, 4> kSystemNamespaces = {"default", "kube-system", "kube-public",
                                                               "kube-node-lease"};
constexpr std::string_view kName = "kubernetes";

Result<> ensure_namespace(kube::Client& c, std::string_view name) {
  auto have = c.get(kube::kNamespaces, "", name);
  if (have) return {};
  if (!is_not_found(have.error())) return propagate(have);
  auto made = c.create(kube::kNamespaces, "", {{"metadata", Object{{"name", name}}}});
  if (!made && !is_exists(made.error())) return propagate(made);
  return {};
}

Object port(const BootstrapOptions& o) {
  return {{"name", "https"}, {"protocol", "TCP"}, {"port", o.advertise_port}};
}

Object metadata(Object labels) {
  return {{"name", kName}, {"namespace", "default"}, {"labels", std::move(labels)}};
}

Object service(const BootstrapOptions& o) {
  Object p = port(o);
  p["port"] = 443;
  p["targetPort"] = o.advertise_port;
  return {{"metadata", metadata({{"component", "apiserver"}, {"provider", "kubernetes"}})},
          {"spec", Object{{"type", "ClusterIP"},
                          {"clusterIP", o.service_ip},
                          {"clusterIPs", Array{boost::json::value(o.service_ip)}},
                          {"sessionAffinity", "None"},
                          {"ports", Array{std::move(p)}}}}};
}

Object endpoints(const BootstrapOptions& o) {
  Object subset{{"addresses", Array{Object{{"ip", o.advertise_address}}}}, {"ports", Array{port(o)}}};
  // Our own slice stands beside it; mirroring would make a second one.
  return {{"metadata", metadata({{"endpointslice.kubernetes.io/skip-mirror", "true"}})},
          {"subsets", Array{std::move(subset)}}};
}

Object slice(const BootstrapOptions& o) {
  Object endpoint{{"addresses", Array{boost::json::value(o.advertise_address)}},
                  {"conditions", Object{{"ready", true}}}};
  return {{"metadata", metadata({{"kubernetes.io/service-name", kName}})},
          {"addressType", "IPv4"},
          {"endpoints", Array{std::move(endpoint)}},
          {"ports", Array{port(o)}}};
}

// True when every field of `want` is in `have` with that value.
bool contains(const boost::json::value& have, const boost::json::value& want) {
  if (want.is_object()) {
    if (!have.is_object()) return false;
    return std::ranges::all_of(want.get_object(), [&](auto& m) {
      auto* v = have.get_object().if_contains(m.key());
      return v != nullptr && contains(*v, m.value());
    });
  }
  if (want.is_array()) {
    if (!have.is_array() || have.get_array().size() != want.get_array().size()) return false;
    return std::ranges::equal(have.get_array(), want.get_array(), contains);
  }
  return have == want;
}

// Creates the object, or puts its fields right; others' fields stay.
Result<> ensure(kube::Client& c, const kube::Resource& r, const Object& want) {
  auto have = c.get(r, "default", kName);
  if (have && contains(**have, want)) return {};
  if (have) {
    auto done = c.patch(r, "default", kName, kube::PatchType::kMerge, want);
    if (!done) return propagate(done, "default/kubernetes in {}", r.plural);
    return {};
  }
  if (!is_not_found(have.error())) return propagate(have);
  auto done = c.create(r, "default", want);
  if (!done && !is_exists(done.error())) return propagate(done, "default/kubernetes in {}", r.plural);
  return {};
}

}  // namespace

Result<> ensure_bootstrap_objects(kube::Client& client, const BootstrapOptions& o) {
  for (auto name : kSystemNamespaces) {
    if (auto ok = ensure_namespace(client, name); !ok) return propagate(ok, "namespace {}", name);
  }
  if (auto ok = ensure(client, kube::kServices, service(o)); !ok) return ok;
  if (auto ok = ensure(client, kube::kEndpoints, endpoints(o)); !ok) return ok;
  return ensure(client, kube::kEndpointSlices, slice(o));
}

BootstrapKeeper::BootstrapKeeper(kube::Client& client, BootstrapOptions o, Clock& clock)
    : client_(client), options_(std::move(o)), clock_(clock) {
  thread_ = std::thread([this] {
    std::unique_lock l(mu_);
    while (!clock_.wait_until(l, cv_, clock_.now() + kRepeatEvery, [&] { return stopping_; })) {
      l.unlock();
      if (auto ok = ensure_bootstrap_objects(client_, options_); !ok)
        log::warn("bootstrap objects: {}", ok.error().text);
      l.lock();
    }
  });
}

BootstrapKeeper::~BootstrapKeeper() {
  {
    std::lock_guard l(mu_);
    stopping_ = true;
  }
  cv_.notify_all();
  thread_.join();
}

}  // namespace hawser::apiserver
