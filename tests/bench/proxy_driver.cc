// SPDX-License-Identifier: Apache-2.0
// hawser-proxy-bench SERVICES CHANGES: proxyd's model and nft back end with that many Services of 5 endpoints, in a
// network namespace of its own. Prints one JSON object: milliseconds and CPU milliseconds from parsed API objects to
// the kernel, resident MiB afterwards, and the same two of each of CHANGES EndpointSlice events, from their JSON text.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include <boost/json/parse.hpp>
#include <malloc.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lib/nft/kernel_nft.h"
#include "proxyd/model/tracker.h"
#include "proxyd/nft/nft_backend.h"

namespace {

using namespace hawser;
using Clock = std::chrono::steady_clock;

constexpr int kEndpoints = 5;

double ms_since(Clock::time_point t) {
  return std::chrono::duration<double, std::milli>(Clock::now() - t).count();
}
double cpu_ms() {
  rusage u{};
  getrusage(RUSAGE_SELF, &u);
  auto ms = [](const timeval& t) { return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_usec) / 1e3; };
  return ms(u.ru_utime) + ms(u.ru_stime);
}
double resident_mib() {
  std::ifstream f("/proc/self/statm");
  long total = 0, resident = 0;
  f >> total >> resident;
  return static_cast<double>(resident * sysconf(_SC_PAGESIZE)) / (1 << 20);
}

kube::ObjectPtr parsed(const std::string& json) {
  return std::make_shared<const kube::Object>(boost::json::parse(json).as_object());
}

std::string service_json(int i) {
  return fmt::format(
      R"({{"metadata":{{"namespace":"default","name":"s{:05}"}},"spec":{{"type":"ClusterIP","clusterIP":"{}",)"
      R"("ports":[{{"protocol":"TCP","port":80,"targetPort":8080}}]}}}})",
      i, IpAddr::v4(0x0a600100u + static_cast<std::uint32_t>(i)).text());
}

// `round` moves the first endpoint.
std::string slice_json(int i, int round) {
  std::string endpoints;
  for (int e = 0; e < kEndpoints; ++e) {
    const int n = e == 0 ? 60000 + round % 4000 : (i * kEndpoints + e) % 60000;
    endpoints += fmt::format(R"({}{{"addresses":["{}"],"conditions":{{"ready":true}},"nodeName":"node-2"}})",
                             e ? "," : "", IpAddr::v4(0x0af40001u + static_cast<std::uint32_t>(n)).text());
  }
  return fmt::format(
      R"({{"metadata":{{"namespace":"default","name":"s{0:05}-a","labels":{{"kubernetes.io/service-name":"s{0:05}"}}}},)"
      R"("addressType":"IPv4","endpoints":[{1}],"ports":[{{"name":"","protocol":"TCP","port":8080}}]}})",
      i, endpoints);
}

struct Bench {
  proxy::Tracker tracker{{.name = "node-1"}, [](const std::string& p) { std::fprintf(stderr, "%s\n", p.c_str()); }};
  proxy::Backend& backend;

  // All Services from parsed objects, which are dropped as soon as they are read.
  bool load(int services) {
    std::vector<kube::ObjectPtr> objects, slices;
    for (int i = 0; i < services; ++i) {
      objects.push_back(parsed(service_json(i)));
      slices.push_back(parsed(slice_json(i, i)));
    }
    const double cpu = cpu_ms();
    const auto start = Clock::now();
    for (const auto& o : objects) tracker.on_service(nullptr, o);
    for (const auto& o : slices) tracker.on_slice(nullptr, o);
    const auto taken = tracker.take();
    const double model = ms_since(start);
    auto r = backend.apply(taken.state);
    const double ms = ms_since(start);
    if (!r) return std::fprintf(stderr, "hawser-proxy-bench: %s\n", r.error().text.c_str()), false;
    std::printf(R"("load_ms":%.3f,"load_model_ms":%.3f,"load_cpu_ms":%.3f,"frontends":%zu,)", ms, model, cpu_ms() - cpu,
                r->frontends);
    return true;
  }

  bool change(int services, int changes) {
    const double cpu = cpu_ms();
    std::printf("\"change_ms\":[");
    for (int i = 0; i < changes; ++i) {
      const auto json = slice_json(i * 17 % services, i + 1 + services);
      const auto start = Clock::now();
      const bool news = tracker.on_slice(nullptr, parsed(json));
      auto r = backend.apply(tracker.take().state);
      if (!r || !news || r->full || r->changes == 0) {
        return std::fprintf(stderr, "hawser-proxy-bench: change %d was not one\n", i), false;
      }
      std::printf("%s%.3f", i ? "," : "", ms_since(start));
    }
    std::printf("],\"change_cpu_ms\":%.3f", changes ? (cpu_ms() - cpu) / changes : 0.0);
    return true;
  }
};

int run(int services, int changes) {
  mallopt(M_ARENA_MAX, 2);
  if (unshare(CLONE_NEWNET) != 0) return std::perror("hawser-proxy-bench: unshare"), 1;
  auto nft = nft::KernelNft::open();
  if (!nft) return std::fprintf(stderr, "hawser-proxy-bench: %s\n", nft.error().text.c_str()), 1;
  proxy::NftBackend backend(**nft, {{*Cidr::parse("10.244.0.0/16")}});
  Bench b{.backend = backend};
  std::printf("{");
  if (!b.load(services)) return 1;
  malloc_trim(0);  // as the daemon does after a large sync
  std::printf("\"rss_mib\":%.3f,", resident_mib());
  if (!b.change(services, changes)) return 1;
  // What was measured must also have happened: a reader of the kernel's table finds nothing to do.
  proxy::NftBackend reader(**nft, {{*Cidr::parse("10.244.0.0/16")}});
  auto seen = reader.apply(b.tracker.state());
  if (!seen || seen->changes != 0) return std::fprintf(stderr, "hawser-proxy-bench: the table is not as wanted\n"), 1;
  std::printf("}\n");
  return backend.cleanup() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const int services = argc == 3 ? std::atoi(argv[1]) : 0;
  const int changes = argc == 3 ? std::atoi(argv[2]) : -1;
  if (services < 1 || services > 60000 || changes < 0) {
    std::fprintf(stderr, "usage: hawser-proxy-bench SERVICES CHANGES\n");
    return 2;
  }
  return run(services, changes);
}
