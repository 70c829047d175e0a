// SPDX-License-Identifier: Apache-2.0
#include "controlplane/control_plane.h"

#include <algorithm>
#include <atomic>
#include <charconv>

#include <netinet/in.h>
#include <sys/socket.h>

#include "controlplane/apiserver/api_server.h"
#include "controlplane/apiserver/bootstrap.h"
#include "controlplane/apiserver/local_client.h"
#include "controlplane/apiserver/pki.h"
#include "controlplane/controllers/runner.h"
#include "controlplane/scheduler/runner.h"
#include "controlplane/store/compactor.h"
#include "lib/base/atomic_file.h"
#include "lib/base/endian.h"
#include "lib/base/log.h"
#include "lib/http/server.h"

namespace hawser {

namespace {

// A watch that starts with everything sends it at once; this much may wait for a slow reader.
constexpr std::size_t kStreamQueueBytes = 32u << 20;
constexpr int kWorkers = 8;
// Smaller ranges leave no room beside the first address.
constexpr int kLongestServicePrefix = 28;

struct Network {
  IpAddr listen;
  std::uint16_t port = 0;
  IpAddr advertise;
  Cidr services;
  Cidr pods;
  apiserver::PortRange node_ports;
};

Result<> parse_listen(const std::string& text, Network& n) {
  auto colon = text.rfind(':');
  auto host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  auto address = IpAddr::parse(host);
  auto port = colon == std::string::npos ? std::string_view() : std::string_view(text).substr(colon + 1);
  auto [end, ec] = std::from_chars(port.data(), port.data() + port.size(), n.port);
  if (!address || port.empty() || ec != std::errc() || end != port.data() + port.size()) {
    return fail(EINVAL, "--listen '{}': want ADDRESS:PORT", text);
  }
  n.listen = *address;
  return {};
}

Result<> parse_advertise(const ControlPlaneOptions& o, Network& n) {
  bool any = std::ranges::all_of(n.listen.bytes(), [](auto b) { return b == 0; });
  if (o.advertise_address.empty() && any) {
    return fail(EINVAL, "--advertise-address: needed when listening on every address ({})", o.listen);
  }
  n.advertise = n.listen;
  if (o.advertise_address.empty()) return {};
  auto a = IpAddr::parse(o.advertise_address);
  if (!a) return fail(EINVAL, "--advertise-address '{}': not an address", o.advertise_address);
  n.advertise = *a;
  return {};
}

Result<Cidr> parse_range(std::string_view flag, const std::string& text) {
  auto c = Cidr::parse(text);
  if (!c || !c->addr().is_v4()) return fail(EINVAL, "{} '{}': want an IPv4 range such as 10.96.0.0/16", flag, text);
  return c->network();
}

Result<Network> parse_network(const ControlPlaneOptions& o) {
  Network n;
  if (auto ok = parse_listen(o.listen, n); !ok) return propagate(ok);
  if (auto ok = parse_advertise(o, n); !ok) return propagate(ok);
  auto services = parse_range("--service-cidr", o.service_cidr);
  if (!services) return propagate(services);
  auto pods = parse_range("--cluster-cidr", o.cluster_cidr);
  if (!pods) return propagate(pods);
  if (services->prefix() > kLongestServicePrefix) {
    return fail(EINVAL, "--service-cidr '{}': at most /{}", o.service_cidr, kLongestServicePrefix);
  }
  if (services->overlaps(*pods)) {
    return fail(EINVAL, "--service-cidr {} overlaps --cluster-cidr {}", o.service_cidr, o.cluster_cidr);
  }
  if (o.node_cidr_mask < pods->prefix() || o.node_cidr_mask > 30) {
    return fail(EINVAL, "--node-cidr-mask {}: want a length between that of --cluster-cidr {} and 30", o.node_cidr_mask,
                o.cluster_cidr);
  }
  auto ports = apiserver::PortRange::parse(o.node_port_range);
  if (!ports) return fail(EINVAL, "--node-port-range: {}", ports.error().text);
  n.services = *services;
  n.pods = *pods;
  n.node_ports = *ports;
  return n;
}

apiserver::PkiOptions pki_options(const ControlPlaneOptions& o, const Network& n, const std::string& service_ip) {
  apiserver::PkiOptions p{.data_dir = o.data_dir,
                          .addresses = {n.advertise.text(), service_ip, "127.0.0.1"},
                          .names = {"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
                                    "kubernetes.default.svc.cluster.local"}};
  if (n.listen != n.advertise && n.listen.text() != "0.0.0.0" && n.listen.text() != "::")
    p.addresses.push_back(n.listen.text());
  for (auto& san : o.tls_sans) (IpAddr::parse(san) ? p.addresses : p.names).push_back(san);
  for (auto* list : {&p.addresses, &p.names}) {
    std::ranges::sort(*list);
    list->erase(std::ranges::unique(*list).begin(), list->end());
  }
  return p;
}

// Whether a service manager already listens on --listen's port for us; binding it again would fail.
bool listens_on(const std::vector<PassedFd>& sockets, std::uint16_t port) {
  return std::ranges::any_of(sockets, [&](const PassedFd& s) {
    sockaddr_storage a{};
    socklen_t size = sizeof a;
    if (getsockname(s.fd.get(), reinterpret_cast<sockaddr*>(&a), &size) != 0) return false;
    // sin_port and sin6_port lie at the same place (RFC 3493 section 3.3).
    return be16::from_network(reinterpret_cast<sockaddr_in*>(&a)->sin_port).host() == port;
  });
}

}  // namespace

// In the order of construction; destroyed in the reverse one.
struct ControlPlane::Parts {
  Clock& clock = system_clock();
  ControlPlaneOptions options;
  Network network;
  std::atomic<bool> ready = false;
  metrics::Registry metrics;
  std::string ca_pem;
  std::unique_ptr<store::Store> store;
  std::unique_ptr<store::Compactor> compactor;
  std::unique_ptr<apiserver::ServiceAllocator> allocator;
  std::unique_ptr<apiserver::WatchCache> cache;
  std::unique_ptr<apiserver::Registry> registry;
  std::unique_ptr<apiserver::LocalClient> client;
  std::unique_ptr<apiserver::ApiServer> api;
  std::unique_ptr<http::Server> server;
  std::unique_ptr<apiserver::BootstrapKeeper> bootstrap;
  std::unique_ptr<controllers::Runner> controllers;
  std::unique_ptr<scheduler::Runner> scheduler;

  Result<> open_store();
  Result<> start_registry();
  Result<> start_server();
  Result<> listen();
  Result<> write_admin();
  Result<> start_loops();
  void stop();
};

Result<> ControlPlane::Parts::open_store() {
  if (auto ok = make_folders(options.data_dir, 0700); !ok) return propagate(ok, "data folder {}", options.data_dir);
  auto s = store::open_sqlite({.path = options.data_dir + "/store.db"});
  if (!s) return propagate(s, "store in {}", options.data_dir);
  store = std::move(*s);
  compactor = std::make_unique<store::Compactor>(*store, clock);
  return {};
}

Result<> ControlPlane::Parts::start_registry() {
  allocator = std::make_unique<apiserver::ServiceAllocator>(network.services, network.node_ports);
  cache = std::make_unique<apiserver::WatchCache>(*store, schema::kinds());
  cache->on_other_key([this](const store::Event& e) { allocator->on_key(e); }, [this] { allocator->forget(); });
  if (auto ok = cache->start(); !ok) return ok;
  auto services = cache->of(*schema::find_resource("", "v1", "services")).list({}, cache->progress());
  auto repaired = allocator->repair(*store, services.items);
  if (!repaired) return propagate(repaired);
  if (*repaired > 0) log::warn("put right {} service allocations", *repaired);
  registry = std::make_unique<apiserver::Registry>(*store, *cache, *allocator, clock);
  client = std::make_unique<apiserver::LocalClient>(*registry);
  return {};
}

Result<> ControlPlane::Parts::start_server() {
  auto pki = apiserver::prepare_pki(pki_options(options, network, allocator->first_address()));
  if (!pki) return propagate(pki);
  ca_pem = pki->ca_pem;
  auto tls = http::TlsContext::server(pki->serving, ca_pem);
  if (!tls) return propagate(tls, "TLS");
  apiserver::ApiServerOptions o{.advertise = fmt::format("{}:{}", network.advertise, network.port),
                                .agent_tls = {.ca_pem = ca_pem, .own = pki->agent_client},
                                .checks = {{"ping", [] { return true; }},
                                           {"store", [this] { return cache->following(); }},
                                           {"poststarthook/bootstrap-objects", [this] { return ready.load(); }, true}}};
  metrics.add_process_metrics();
  api = std::make_unique<apiserver::ApiServer>(*registry, metrics, std::move(o));
  server = std::make_unique<http::Server>(
      http::ServerOptions{
          .worker_threads = kWorkers, .stream_queue_bytes = kStreamQueueBytes, .refusal = apiserver::refusal},
      std::move(*tls), [this](const http::Request& r, http::Responder& out) { api->handle(r, out); });
  return {};
}

Result<> ControlPlane::Parts::listen() {
  if (!listens_on(options.sockets, network.port)) {
    auto port = server->listen(network.listen.text(), network.port);
    if (!port) return propagate(port);
  }
  for (auto& passed : options.sockets) {
    if (auto ok = server->adopt(std::move(passed.fd)); !ok) return propagate(ok, "inherited socket");
  }
  log::info("serving on port {}, {} sockets inherited", network.port, options.sockets.size());
  return {};
}

Result<> ControlPlane::Parts::write_admin() {
  auto out = options.data_dir + "/admin.kubeconfig";
  auto server_url = fmt::format("https://{}:{}", network.advertise, network.port);
  auto have = read_file(out);
  if (have && have->find(server_url + "\n") != std::string::npos) return {};
  return apiserver::write_kubeconfig({.data_dir = options.data_dir,
                                      .user = "kubernetes-admin",
                                      .groups = {"system:masters"},
                                      .server = server_url,
                                      .out = out});
}

Result<> ControlPlane::Parts::start_loops() {
  apiserver::BootstrapOptions b{.service_ip = allocator->first_address(),
                                .advertise_address = network.advertise.text(),
                                .advertise_port = network.port};
  if (auto ok = apiserver::ensure_bootstrap_objects(*client, b); !ok) return propagate(ok, "bootstrap objects");
  bootstrap = std::make_unique<apiserver::BootstrapKeeper>(*client, std::move(b), clock);
  if (options.controllers) {
    controllers::Options c{.cluster_cidrs = {network.pods},
                           .node_mask_v4 = options.node_cidr_mask,
                           .service_cidr = network.services,
                           .ca_pem = ca_pem,
                           .clock = &clock};
    controllers = std::make_unique<controllers::Runner>(*client, std::move(c));
    controllers->start();
  }
  if (options.scheduler) {
    scheduler = std::make_unique<scheduler::Runner>(*client, scheduler::Options{.clock = &clock});
    scheduler->start();
  }
  ready = true;
  return {};
}

void ControlPlane::Parts::stop() {
  ready = false;
  scheduler.reset();
  controllers.reset();
  bootstrap.reset();
  if (api) api->stop();
  server.reset();
  api.reset();
  if (cache) cache->stop();
}

Result<std::unique_ptr<ControlPlane>> ControlPlane::start(ControlPlaneOptions o) {
  auto network = parse_network(o);
  if (!network) return propagate(network);
  std::unique_ptr<ControlPlane> cp(new ControlPlane(std::make_unique<Parts>()));
  auto& p = *cp->parts_;
  p.options = std::move(o);
  p.network = *network;
  using Step = Result<> (Parts::*)();
  for (Step step : {&Parts::open_store, &Parts::start_registry, &Parts::start_server, &Parts::write_admin,
                    &Parts::listen, &Parts::start_loops}) {
    if (auto ok = (p.*step)(); !ok) return propagate(ok);
  }
  return cp;
}

ControlPlane::ControlPlane(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

ControlPlane::~ControlPlane() {
  parts_->stop();
}

}  // namespace hawser
