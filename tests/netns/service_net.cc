// SPDX-License-Identifier: Apache-2.0
#include "tests/netns/service_net.h"

#include <mutex>

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "lib/base/sysctl.h"

namespace hawser::proxy {
namespace {

using hawser::testing::Host;

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

Address address(const std::string& text, std::uint16_t port) {
  Address a;
  if (text.find(':') == std::string::npos) {
    auto* s = reinterpret_cast<sockaddr_in*>(&a.storage);
    s->sin_family = AF_INET;
    s->sin_port = htons(port);
    inet_pton(AF_INET, text.c_str(), &s->sin_addr);
    a.size = sizeof *s;
  } else {
    auto* s = reinterpret_cast<sockaddr_in6*>(&a.storage);
    s->sin6_family = AF_INET6;
    s->sin6_port = htons(port);
    inet_pton(AF_INET6, text.c_str(), &s->sin6_addr);
    a.size = sizeof *s;
  }
  return a;
}

// Of a peer on a dual-stack socket.
std::string peer_text(const sockaddr_in6& s) {
  char buf[INET6_ADDRSTRLEN];
  if (IN6_IS_ADDR_V4MAPPED(&s.sin6_addr)) return inet_ntop(AF_INET, s.sin6_addr.s6_addr + 12, buf, sizeof buf);
  return inet_ntop(AF_INET6, &s.sin6_addr, buf, sizeof buf);
}

UniqueFd listening(int type, std::uint16_t port) {
  UniqueFd fd(::socket(AF_INET6, type | SOCK_CLOEXEC, 0));
  const int on = 1, off = 0;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  sockaddr_in6 a{.sin6_family = AF_INET6,
                 .sin6_port = htons(port),
                 .sin6_flowinfo = 0,
                 .sin6_addr = in6addr_any,
                 .sin6_scope_id = 0};
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof a), 0) << strerror(errno);
  EXPECT_TRUE(type != SOCK_STREAM || ::listen(fd.get(), 512) == 0);
  return fd;
}

Result<> wait_for(int fd, short events, std::chrono::milliseconds limit) {
  pollfd p{fd, events, 0};
  const int n = ::poll(&p, 1, static_cast<int>(limit.count()));
  if (n == 0) return fail_errno(ETIMEDOUT, "poll");
  if (n < 0) return fail_errno(errno, "poll");
  return {};
}

kube::Value strings(const std::vector<std::string>& list) {
  kube::Array a;
  for (const auto& s : list) a.emplace_back(s);
  return a;
}

}  // namespace

EchoServer::EchoServer(const Host& host, std::string name, std::uint16_t port) : name_(std::move(name)) {
  host.run([&] {
    tcp_ = listening(SOCK_STREAM, port);
    udp_ = listening(SOCK_DGRAM, port);
  });
  stop_ = UniqueFd(eventfd(0, EFD_CLOEXEC));
  thread_ = std::thread([this] { serve(); });
}

EchoServer::~EchoServer() {
  eventfd_write(stop_.get(), 1);
  thread_.join();
}

void EchoServer::serve() {
  for (;;) {
    pollfd fds[] = {{tcp_.get(), POLLIN, 0}, {udp_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (::poll(fds, 3, -1) < 0) continue;
    if (fds[2].revents != 0) return;
    sockaddr_in6 peer{};
    socklen_t size = sizeof peer;
    if (fds[0].revents != 0) {
      UniqueFd c(::accept4(tcp_.get(), reinterpret_cast<sockaddr*>(&peer), &size, SOCK_CLOEXEC));
      if (!c) continue;
      const std::string answer = name_ + " " + peer_text(peer);
      ++answered_;
      (void)!::send(c.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    }
    if (fds[1].revents != 0) {
      char buf[64];
      if (::recvfrom(udp_.get(), buf, sizeof buf, 0, reinterpret_cast<sockaddr*>(&peer), &size) < 0) continue;
      const std::string answer = name_ + " " + peer_text(peer);
      (void)!::sendto(udp_.get(), answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&peer), size);
    }
  }
}

Result<std::string> ask(const Host& host, const std::string& addr, std::uint16_t port,
                        std::chrono::milliseconds limit) {
  const Address a = address(addr, port);
  UniqueFd fd;
  int err = 0;
  host.run([&] {
    fd = UniqueFd(::socket(a.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (::connect(fd.get(), a.get(), a.size) != 0) err = errno;
  });
  if (err != 0 && err != EINPROGRESS) return fail_errno(err, "connect");
  if (auto r = wait_for(fd.get(), POLLOUT, limit); !r) return propagate(r);
  socklen_t n = sizeof err;
  getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &err, &n);
  if (err != 0) return fail_errno(err, "connect");
  std::string answer;
  for (;;) {
    if (auto r = wait_for(fd.get(), POLLIN, limit); !r) return propagate(r, "answer");
    char buf[256];
    const ssize_t got = ::recv(fd.get(), buf, sizeof buf, 0);
    if (got < 0) return fail_errno(errno, "receive");
    if (got == 0) return answer;
    answer.append(buf, static_cast<std::size_t>(got));
  }
}

UdpClient::UdpClient(const Host& host, const std::string& addr, std::uint16_t port) {
  const Address a = address(addr, port);
  host.run([&] {
    fd_ = UniqueFd(::socket(a.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::connect(fd_.get(), a.get(), a.size), 0) << strerror(errno);
  });
}

Result<std::string> UdpClient::ask(std::chrono::milliseconds limit) {
  if (::send(fd_.get(), "x", 1, 0) < 0) return fail_errno(errno, "send");
  if (auto r = wait_for(fd_.get(), POLLIN, limit); !r) return propagate(r);
  char buf[256];
  const ssize_t n = ::recv(fd_.get(), buf, sizeof buf, 0);
  if (n < 0) return fail_errno(errno, "receive");
  return std::string(buf, static_cast<std::size_t>(n));
}

kube::Object service_object(const ServiceSpec& s) {
  kube::Object port{{"port", s.port}, {"protocol", s.protocol}, {"targetPort", s.target_port}};
  if (s.node_port != 0) port["nodePort"] = s.node_port;
  kube::Object spec{{"type", s.node_port != 0 ? "NodePort" : "ClusterIP"},
                    {"clusterIPs", strings(s.cluster_ips)},
                    {"clusterIP", s.cluster_ips.at(0)},
                    {"externalIPs", strings(s.external_ips)},
                    {"ports", kube::Array{port}},
                    {"externalTrafficPolicy", s.external_local ? "Local" : "Cluster"},
                    {"internalTrafficPolicy", s.internal_local ? "Local" : "Cluster"}};
  if (s.affinity_seconds != 0) {
    spec["sessionAffinity"] = "ClientIP";
    spec["sessionAffinityConfig"] = kube::Object{{"clientIP", kube::Object{{"timeoutSeconds", s.affinity_seconds}}}};
  }
  kube::Object metadata{{"name", s.name}, {"namespace", "default"}};
  if (!s.weights.empty()) metadata["annotations"] = kube::Object{{"hawser.io/endpoint-weights", s.weights}};
  kube::Object o{{"metadata", metadata}, {"spec", spec}};
  if (!s.load_balancer_ips.empty()) {
    o["spec"].as_object()["type"] = "LoadBalancer";
    o["spec"].as_object()["loadBalancerSourceRanges"] = strings(s.source_ranges);
    kube::Array ingress;
    for (const auto& ip : s.load_balancer_ips) ingress.push_back(kube::Object{{"ip", ip}});
    o["status"] = kube::Object{{"loadBalancer", kube::Object{{"ingress", ingress}}}};
  }
  return o;
}

kube::Object slice_object(const ServiceSpec& s, const std::vector<EndpointSpec>& endpoints) {
  const bool v6 = !endpoints.empty() && endpoints[0].addr.find(':') != std::string::npos;
  kube::Array list;
  for (const auto& e : endpoints) {
    list.push_back(kube::Object{
        {"addresses", kube::Array{kube::Value(e.addr)}},
        {"nodeName", e.node},
        {"conditions", kube::Object{{"ready", e.ready}, {"serving", e.serving}, {"terminating", e.terminating}}}});
  }
  return {{"metadata",
           {{"name", s.name + (v6 ? "-v6" : "-v4")},
            {"namespace", "default"},
            {"labels", kube::Object{{"kubernetes.io/service-name", s.name}}}}},
          {"addressType", v6 ? "IPv6" : "IPv4"},
          {"ports", kube::Array{kube::Object{{"name", ""}, {"port", s.target_port}, {"protocol", s.protocol}}}},
          {"endpoints", list}};
}

TrafficOptions pod_ranges() {
  return {.cluster_cidrs = {*Cidr::parse("10.244.0.0/16"), *Cidr::parse("fd00::/16")}};
}

Proxyd::Proxyd(const Host& node, kube::Client& client, const TrafficOptions& options, const IpvsOptions* ipvs,
               const std::string& cgroup) {
  node.run([&] {
    auto nft = nft::KernelNft::open();
    auto conntrack = KernelConntrack::open();
    auto rtnl = netlink::KernelRtnl::open();
    ASSERT_TRUE(nft) << nft.error().text;
    ASSERT_TRUE(conntrack && rtnl);
    nft_ = std::move(*nft);
    conntrack_.emplace(std::move(*conntrack));
    rtnl_.emplace(std::move(*rtnl));
    if (ipvs != nullptr) {
      auto kernel = netlink::KernelIpvs::open();
      ASSERT_TRUE(kernel) << kernel.error().text;
      ipvs_.emplace(std::move(*kernel));
      // The sync thread is in another namespace.
      const auto set = [&node](const std::string& key, const std::string& value) {
        Result<bool> r;
        node.run([&] { r = sysctl::ensure(key, value); });
        return r;
      };
      utsname name{};
      uname(&name);
      backend_ = std::make_unique<IpvsBackend>(IpvsKernel{*ipvs_, *rtnl_, *nft_, set, name.release}, options, *ipvs);
    } else {
      backend_ = std::make_unique<NftBackend>(*nft_, options);
    }
    if (!cgroup.empty()) {
      auto hooks = KernelHooks::make(cgroup);
      ASSERT_TRUE(hooks) << hooks.error().text;
      hooks_.emplace(std::move(*hooks));
      localhost_.emplace(*hooks_, *rtnl_, options);
    }
    daemon_ = std::make_unique<Daemon>(DaemonOptions{.node = "node-1", .traffic = options}, client,
                                       Kernel{*backend_, *conntrack_, *rtnl_, localhost_ ? &*localhost_ : nullptr},
                                       registry_);
    auto monitor = nft::NftMonitor::start(kTable, nft_->port_id(), [this] { daemon_->table_changed(); });
    ASSERT_TRUE(monitor) << monitor.error().text;
    monitor_ = std::move(*monitor);
  });
  if (daemon_) daemon_->start();
}

Proxyd::~Proxyd() {
  stop();
}

void Proxyd::stop() {
  monitor_.reset();
  if (daemon_) daemon_->stop();
}

double Proxyd::metric(const std::string& name) const {
  const std::string text = registry_.text();
  const auto at = text.find("\n" + name + " ");
  return at == std::string::npos ? 0 : std::stod(text.substr(at + name.size() + 2));
}

bool Proxyd::wait_generation(std::uint64_t at_least) {
  return eventually([&] { return daemon_->health().generation() && generation() >= at_least; });
}

Result<std::unique_ptr<ServiceNet>> ServiceNet::make() {
  std::unique_ptr<ServiceNet> r(new ServiceNet);
  for (const char* name : {"fabric", "node", "remote", "outside", "client", "a", "b", "far"}) {
    auto h = Host::make();
    if (!h) return propagate(h);
    r->hosts_.emplace(name, std::move(*h));
  }
  if (!r->build()) return fail(EIO, "the test network could not be built");
  return r;
}

bool ServiceNet::add_pod(const std::string& on, const std::string& name, const std::string& v4, const std::string& v6) {
  const Host& node = hosts_.at(on);
  const Host& pod = hosts_.at(name);
  return node.wire("v" + name, pod, "eth0") &&
         node.ok(fmt::format("ip addr add 169.254.1.1/32 dev v{0}; ip -6 addr add fe80::1/64 dev v{0} nodad;"
                             "ip route add {1} dev v{0}; ip -6 route add {2} dev v{0}",
                             name, v4, v6)) &&
         pod.ok(fmt::format("ip addr add {}/32 dev eth0; ip -6 addr add {}/128 dev eth0 nodad;"
                            "ip route add 169.254.1.1 dev eth0; ip route add default via 169.254.1.1;"
                            "ip -6 route add default via fe80::1 dev eth0",
                            v4, v6));
}

bool ServiceNet::add_host(const std::string& name, int last) {
  const Host& fabric = hosts_.at("fabric");
  const Host& h = hosts_.at(name);
  return h.wire("eth0", fabric, "p" + name) && fabric.ok(fmt::format("ip link set p{} master br0", name)) &&
         h.ok(fmt::format("ip addr add 192.0.2.{0}/24 dev eth0; ip -6 addr add 2001:db8::{0}/64 dev eth0 nodad", last));
}

bool ServiceNet::build() {
  const Host& node = hosts_.at("node");
  const Host& remote = hosts_.at("remote");
  return hosts_.at("fabric").ok("ip link add br0 type bridge; ip link set br0 up") && add_host("node", 11) &&
         add_host("remote", 12) && add_host("outside", 100) &&
         node.ok(
             "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1;"
             "ip route add default via 192.0.2.100; ip -6 route add default via 2001:db8::100;"
             "ip route add 10.244.2.0/24 via 192.0.2.12; ip -6 route add fd00:2::/64 via 2001:db8::12") &&
         remote.ok(
             "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1;"
             "ip route add 10.244.1.0/24 via 192.0.2.11; ip -6 route add fd00:1::/64 via 2001:db8::11") &&
         add_pod("remote", "far", "10.244.2.2", "fd00:2::2") && add_pod("node", "client", "10.244.1.9", "fd00:1::9") &&
         add_pod("node", "a", "10.244.1.2", "fd00:1::2") && add_pod("node", "b", "10.244.1.3", "fd00:1::3");
}

bool ServiceNet::put(const kube::Resource& r, const kube::Object& o) {
  auto there = api.get(r, "default", kube::name(o));
  auto& last = last_[std::string(r.plural) + "/" + std::string(kube::name(o))];
  if (there && last == o) return false;
  last = o;
  auto done = there ? api.update(r, o) : api.create(r, "default", o);
  EXPECT_TRUE(done) << done.error().text;
  return true;
}

void ServiceNet::apply(Proxyd& p, const ServiceSpec& s, const std::vector<EndpointSpec>& endpoints) {
  // A slice without its Service changes nothing in the kernel, so it comes first, and is there when the Service comes.
  const struct {
    const kube::Resource& resource;
    kube::Object object;
    const char* counter;
  } parts[] = {
      {kube::kEndpointSlices, slice_object(s, endpoints), "kubeproxy_sync_proxy_rules_endpoint_changes_total"},
      {kube::kServices, service_object(s), "kubeproxy_sync_proxy_rules_service_changes_total"},
  };
  for (const auto& part : parts) {
    const double before = p.metric(part.counter);
    if (!put(part.resource, part.object)) continue;
    EXPECT_TRUE(eventually([&] { return p.metric(part.counter) > before; })) << part.counter;
  }
}

void ServiceNet::remove(const ServiceSpec& s) {
  EXPECT_TRUE(api.remove(kube::kServices, "default", s.name));
  for (const char* family : {"-v4", "-v6"}) (void)api.remove(kube::kEndpointSlices, "default", s.name + family);
}

}  // namespace hawser::proxy
