// SPDX-License-Identifier: Apache-2.0
#include "tests/churn/churn.h"

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <memory>
#include <random>
#include <thread>

#include "lib/kube/http_client.h"
#include "lib/kube/kubeconfig.h"
#include "lib/kube/object.h"
#include "tests/churn/net.h"
#include "tests/churn/traffic.h"

namespace hawser::churn {
namespace {

using namespace std::chrono_literals;

constexpr const char* kServer = "https://127.0.0.1:6443";
constexpr const char* kReady = "http://127.0.0.1:10256";
constexpr std::size_t kMinEndpoints = 2, kMaxEndpoints = 8;
constexpr Nanos kStartLimit = 60s;
constexpr Nanos kSettle = 1s;
constexpr Nanos kForEver = 24h;

MonoTime now() {
  return system_clock().now();
}

// Looks every `period`; false: not within the limit.
bool eventually(const std::function<bool()>& done, Nanos limit, Nanos period) {
  const MonoTime end = now() + limit;
  std::mutex mu;
  std::condition_variable cv;
  std::unique_lock l(mu);
  while (!done()) {
    if (now() > end) return false;
    cv.wait_for(l, period);
  }
  return true;
}

kube::Object service_object(const Service& s) {
  const char* protocol = s.udp ? "UDP" : "TCP";
  return {
      {"apiVersion", "v1"},
      {"kind", "Service"},
      {"metadata", {{"name", s.name()}, {"namespace", "default"}}},
      {"spec",
       {{"clusterIP", s.address()},
        {"ports", kube::Array{kube::Object{{"port", s.port()}, {"protocol", protocol}, {"targetPort", kPodPort}}}}}}};
}

// The endpoints of one Service, and its changes.
class Endpoints {
 public:
  Endpoints(Service s, std::uint32_t& next_pod, Ledger& ledger) : service_(s), next_pod_(next_pod), ledger_(ledger) {
    for (int i = 0; i < 5; ++i) add();
  }
  [[nodiscard]] kube::Object object() const {
    kube::Array list;
    for (const std::uint32_t n : pods_) {
      list.push_back(kube::Object{{"addresses", kube::Array{kube::Value(pod(n).text())}},
                                  {"nodeName", n % 2 == 0 ? "node-1" : "node-2"},
                                  {"conditions", kube::Object{{"ready", true}}}});
    }
    const char* protocol = service_.udp ? "UDP" : "TCP";
    return {{"apiVersion", "discovery.k8s.io/v1"},
            {"kind", "EndpointSlice"},
            {"metadata",
             {{"name", service_.name()},
              {"namespace", "default"},
              {"labels", kube::Object{{"kubernetes.io/service-name", service_.name()}}}}},
            {"addressType", "IPv4"},
            {"ports", kube::Array{kube::Object{{"name", ""}, {"port", kPodPort}, {"protocol", protocol}}}},
            {"endpoints", list}};
  }
  // Mostly one for another; sometimes one more or one less.
  void change(kube::Client& client, std::mt19937& random) {
    const unsigned dice = random() % 10;
    const bool less = dice != 0 && pods_.size() > kMinEndpoints;
    const bool more = !less || (dice != 1 && pods_.size() < kMaxEndpoints);
    const std::vector<std::uint32_t> before = pods_;
    std::optional<std::uint32_t> gone;
    if (more) add();
    if (less) {
      const auto victim = pods_.begin() + static_cast<std::ptrdiff_t>(random() % before.size());
      gone = *victim;
      pods_.erase(victim);
    }
    auto r = client.update(kube::kEndpointSlices, object());
    ledger_.changed(r.has_value());
    if (!r)
      pods_ = before;
    else if (gone)
      ledger_.remove(pod(*gone), now());
  }

 private:
  void add() {
    pods_.push_back(next_pod_++);
    ledger_.add(service_.number, pod(pods_.back()));
  }
  const Service service_;
  std::uint32_t& next_pod_;
  Ledger& ledger_;
  std::vector<std::uint32_t> pods_;
};

class Run {
 public:
  explicit Run(const Options& o) : o_(o) {
    for (int i = 0; i < o_.tcp_services + o_.udp_services; ++i) services_.push_back({i, i >= o_.tcp_services});
  }
  Result<Report> go();

 private:
  Result<> start_controlplane();
  Result<> create_objects();
  Result<> start_proxyd();
  [[nodiscard]] bool wait(MonoTime until);  // false: it is over
  void restart_often();
  void change_often();

  const Options o_;
  std::vector<Service> services_;
  Ledger ledger_;
  std::unique_ptr<Net> net_;
  std::unique_ptr<Process> controlplane_, proxyd_;
  std::unique_ptr<kube::HttpClient> client_;
  std::uint32_t next_pod_ = 0;
  std::vector<std::unique_ptr<Endpoints>> endpoints_;
  std::mutex mu_;
  std::condition_variable cv_;
  bool over_ = false;      // guarded by mu_
  Result<> restart_ = {};  // restart_often()'s thread, then go()
};

Result<> Run::start_controlplane() {
  const std::string data = o_.folder + "/controlplane";
  controlplane_ = std::make_unique<Process>(
      net_->node(),
      std::vector<std::string>{o_.controlplane, "--data-dir", data, "--listen", "127.0.0.1:6443", "--advertise-address",
                               "192.0.2.11", "--tls-san", "127.0.0.1", "--service-cidr", "10.96.0.0/16",
                               "--cluster-cidr", "10.244.0.0/16", "--disable", "scheduler,controllers"},
      o_.folder + "/controlplane.log");
  if (auto r = controlplane_->start(); !r) return r;
  // The keys are there some time after the start.
  const std::string file = o_.folder + "/kubeconfig";
  const bool made = eventually(
      [&] {
        Process p(net_->node(),
                  {o_.controlplane, "kubeconfig", "--data-dir", data, "--user", "admin", "--group", "system:masters",
                   "--server", kServer, "--out", file},
                  o_.folder + "/kubeconfig.log");
        auto status = p.start() ? p.wait() : Result<int>(1);
        return status && *status == 0;
      },
      kStartLimit, 50ms);
  if (!made) return fail(EIO, "no kubeconfig from hawser-controlplane; see {}", o_.folder);
  auto config = kube::load_kubeconfig(file);
  if (!config) return propagate(config);
  auto client = kube::HttpClient::make(*config, "hawser-proxy-churn");
  if (!client) return propagate(client);
  client_ = std::move(*client);
  const bool up = eventually([&] { return client_->raw({.target = "/readyz"}).has_value(); }, kStartLimit, 20ms);
  return up ? Result<>() : fail(EIO, "hawser-controlplane does not answer; see {}", o_.folder);
}

Result<> Run::create_objects() {
  for (const Service& s : services_) {
    endpoints_.push_back(std::make_unique<Endpoints>(s, next_pod_, ledger_));
    auto service = client_->create(kube::kServices, "default", service_object(s));
    if (!service) return propagate(service, "Service {}", s.name());
    auto slice = client_->create(kube::kEndpointSlices, "default", endpoints_.back()->object());
    if (!slice) return propagate(slice, "EndpointSlice {}", s.name());
  }
  return {};
}

Result<> Run::start_proxyd() {
  if (auto r = proxyd_->start(); !r) return r;
  const bool ready = eventually(
      [&] {
        auto client = kube::HttpClient::make({.server = kReady}, "hawser-proxy-churn");
        return client && (*client)->raw({.target = "/readyz"}).has_value();
      },
      kStartLimit, 2ms);
  return ready ? Result<>() : fail(EIO, "hawser-proxyd does not become ready; see {}/proxyd.log", o_.folder);
}

bool Run::wait(MonoTime until) {
  std::unique_lock l(mu_);
  return !system_clock().wait_until(l, cv_, until, [&] { return over_; });
}

void Run::restart_often() {
  auto inside = NetNsGuard::enter(net_->node());
  if (!inside) return;
  restart_ = start_proxyd();
  bool kill = true;
  if (o_.restart_every == Nanos{0}) (void)wait(now() + kForEver);
  for (MonoTime next = now() + o_.restart_every; restart_ && wait(next);
       next = std::max(next, now()) + o_.restart_every) {
    ledger_.restarted(kill, now());
    proxyd_->end(kill ? SIGKILL : SIGTERM);
    restart_ = start_proxyd();
    ledger_.served(now());
    kill = !kill;
  }
  proxyd_->end(SIGTERM);
}

void Run::change_often() {
  std::mt19937 random(1);
  const Nanos period = Nanos(1min) / o_.changes_a_minute;
  const MonoTime end = now() + o_.length;
  // A writer that fell behind catches up, so that the rate is what it should be.
  for (MonoTime next = now(); next < end && now() < end + kStartLimit; next += period) {
    if (!wait(next)) return;
    endpoints_[random() % endpoints_.size()]->change(*client_, random);
  }
}

Result<Report> Run::go() {
  auto net = Net::make();
  if (!net) return propagate(net);
  net_ = std::move(*net);
  auto inside = NetNsGuard::enter(net_->node());
  if (!inside) return propagate(inside);
  if (auto r = start_controlplane(); !r) return propagate(r);
  if (auto r = create_objects(); !r) return propagate(r);
  proxyd_ =
      std::make_unique<Process>(net_->node(),
                                std::vector<std::string>{o_.proxyd, "--kubeconfig", o_.folder + "/kubeconfig",
                                                         "--node-name", "node-1", "--cluster-cidr", "10.244.0.0/16"},
                                o_.folder + "/proxyd.log");
  if (auto r = start_proxyd(); !r) return propagate(r);
  proxyd_->end(SIGTERM);
  // Its own thread starts it again: a process ends with the thread that started it.
  std::thread restarts([this] { restart_often(); });
  Traffic traffic(*net_, ledger_, services_, o_.connections_a_second);
  change_often();
  (void)wait(now() + kSettle);
  traffic.stop();
  {
    std::lock_guard l(mu_);
    over_ = true;
    cv_.notify_all();
  }
  restarts.join();
  if (!restart_) return propagate(restart_);
  return ledger_.report();
}

}  // namespace

Result<Report> run(const Options& o) {
  return Run(o).go();
}

}  // namespace hawser::churn
