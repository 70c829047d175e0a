// SPDX-License-Identifier: Apache-2.0
// proxyd from API events to the table: each input is a story of Services, EndpointSlices and the node coming, changing
// and going in any order, with syncs, failed syncs and restarts between. After each sync the state is that of a tracker
// that saw only the end, the table holds what one made at once holds, and virtual packets get what the model says.
// Input: one byte a choice; when they are out, every choice is the first.
#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>

#include <netinet/in.h>
#include <sys/socket.h>

#include "lib/base/log.h"
#include "proxyd/nft/nft_backend.h"
#include "proxyd/nft/oracle.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace hawser;
using namespace hawser::proxy;
using fuzz::check;

constexpr int kMaxSteps = 60;
constexpr unsigned kServices = 5, kSlices = 2;

class Choices {
 public:
  Choices(const std::uint8_t* data, std::size_t size) : data_(data), left_(size) {}
  unsigned operator()(unsigned n) {
    if (left_ == 0) return 0;
    --left_;
    return *data_++ % n;
  }
  // Rarely: an input has to say so.
  bool rarely() { return (*this)(16) == 15; }
  template <std::size_t N>
  const char* of(const std::array<const char*, N>& list) {
    return list[(*this)(N)];
  }
  [[nodiscard]] bool done() const { return left_ == 0; }

 private:
  const std::uint8_t* data_;
  std::size_t left_;
};

bool is_local(const IpAddr& a) {
  static const std::set<std::string> kAddresses = {"192.0.2.11", "2001:db8::11", "127.0.0.1", "::1"};
  return kAddresses.contains(a.text());
}

kube::Value texts(const std::vector<std::string>& list) {
  kube::Array a;
  for (const auto& t : list) a.emplace_back(t);
  return a;
}

kube::Object metadata(const std::string& name) {
  return {{"name", name}, {"namespace", "d"}};
}

kube::ObjectPtr make_service(Choices& c, unsigned number) {
  static constexpr std::array kTypes{"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"};
  static constexpr std::array kPolicy{"Cluster", "Local"};
  static constexpr std::array kProtocols{"TCP", "UDP", "SCTP", "QUIC"};
  // Cluster IPs that two Services claim do not come from a sane API server, but from two of them.
  const unsigned owner = c.rarely() ? 0 : number;
  std::vector<std::string> ips = {fmt::format("10.96.0.{}", 1 + owner)};
  if (c(2) == 1) ips.push_back(fmt::format("fd00:96::{:x}", 1 + owner));
  if (c.rarely()) ips = {"None"};
  kube::Array ports;
  for (unsigned i = 0, n = c(4); i <= n; ++i) {
    kube::Object p{{"name", fmt::format("p{}", c(2))}, {"protocol", c.of(kProtocols)}, {"port", 80 + c(3)}};
    if (c(2) == 1) p["nodePort"] = 30000 + c(6);
    if (c.rarely()) p["port"] = -1;
    ports.push_back(std::move(p));
  }
  kube::Object spec{{"type", c.of(kTypes)},
                    {"clusterIP", ips[0]},
                    {"clusterIPs", texts(ips)},
                    {"ports", std::move(ports)},
                    {"externalTrafficPolicy", c.of(kPolicy)},
                    {"internalTrafficPolicy", c.of(kPolicy)}};
  if (c(3) == 1) spec["externalIPs"] = texts({fmt::format("203.0.113.{}", c(2)), "2001:db8:1::1"});
  if (c(3) == 1) spec["loadBalancerSourceRanges"] = texts({c(2) == 1 ? "192.0.2.0/25" : "10.244.0.0/16", "fd00::/16"});
  if (c(3) == 1) spec["sessionAffinity"] = "ClientIP";
  kube::Object status;
  if (c(2) == 1) {
    kube::Array ingress{kube::Object{{"ip", fmt::format("203.0.113.{}", 100 + number)}}};
    status["loadBalancer"] = kube::Object{{"ingress", std::move(ingress)}};
  }
  return std::make_shared<const kube::Object>(kube::Object{
      {"metadata", metadata(fmt::format("s{}", number))}, {"spec", std::move(spec)}, {"status", std::move(status)}});
}

kube::ObjectPtr make_slice(Choices& c, unsigned number, unsigned slice) {
  const bool v4 = c(3) != 1;
  kube::Array endpoints, ports;
  for (unsigned n = c(5); n > 0; --n) {
    const unsigned host = 1 + c(8);
    const bool ready = c(3) != 1;
    kube::Object e{{"addresses", texts({v4 ? fmt::format("10.244.1.{}", host) : fmt::format("fd00:1::{:x}", host)})},
                   {"nodeName", host < 4 ? "node-1" : "node-2"},
                   {"conditions", kube::Object{{"ready", ready}, {"serving", c(2) == 1}, {"terminating", !ready}}}};
    if (c(4) == 1) {
      kube::Array zones{kube::Object{{"name", c(2) == 1 ? "zone-1" : "zone-2"}}};
      e["hints"] = kube::Object{{"forZones", std::move(zones)}};
    }
    endpoints.push_back(std::move(e));
  }
  for (unsigned i = 0, n = c(3); i <= n; ++i) {
    for (const char* protocol : {"TCP", "UDP", "SCTP"})
      ports.push_back(kube::Object{{"name", fmt::format("p{}", i)}, {"protocol", protocol}, {"port", 8080 + i}});
  }
  kube::Object about = metadata(fmt::format("s{}-{}", number, slice));
  // A slice can change its Service.
  const unsigned service = c.rarely() ? c(kServices) : number;
  about["labels"] = kube::Object{{"kubernetes.io/service-name", fmt::format("s{}", service)}};
  if (c(4) == 1) about["annotations"] = kube::Object{{"hawser.io/endpoint-weights", "10.244.1.1=3,10.244.1.2=0"}};
  return std::make_shared<const kube::Object>(kube::Object{{"metadata", std::move(about)},
                                                           {"addressType", v4 ? "IPv4" : "IPv6"},
                                                           {"ports", std::move(ports)},
                                                           {"endpoints", std::move(endpoints)}});
}

kube::ObjectPtr make_node(Choices& c) {
  kube::Object about{{"name", "node-1"}};
  about["labels"] = kube::Object{{"topology.kubernetes.io/zone", c(2) == 1 ? "zone-1" : ""}};
  kube::Array addresses{kube::Object{{"type", "InternalIP"}, {"address", "192.0.2.11"}}};
  return std::make_shared<const kube::Object>(
      kube::Object{{"metadata", std::move(about)}, {"status", kube::Object{{"addresses", std::move(addresses)}}}});
}

TrafficOptions make_options(Choices& c) {
  TrafficOptions o;
  o.detect_local = static_cast<DetectLocal>(c(4));
  if (c(4) != 1) o.cluster_cidrs = {*Cidr::parse("10.244.0.0/16"), *Cidr::parse("fd00::/16")};
  o.local_interface = o.detect_local == DetectLocal::kInterfacePrefix ? "veth" : "cni0";
  o.masquerade_all = c(4) == 1;
  if (c(3) == 1) o.node_port_addresses = {*Cidr::parse("192.0.2.0/24")};
  o.icmp_echo = c(3) == 1;
  if (c(2) == 1) o.service_cidrs = {*Cidr::parse("10.96.0.0/16"), *Cidr::parse("fd00:96::/112")};
  return o;
}

class Story {
 public:
  explicit Story(Choices& c) : c_(c), options_(make_options(c)), backend_(std::in_place, fake_, options_) {}

  void run() {
    for (int i = 0; i < kMaxSteps && !c_.done(); ++i) step();
    sync();
  }

 private:
  void step() {
    const unsigned number = c_(kServices);
    switch (c_(9)) {
      case 0:
      case 1:
        return put(services_[number], make_service(c_, number), &Tracker::on_service);
      case 2:
        return put(services_[number], nullptr, &Tracker::on_service);
      case 3:
      case 4: {
        const unsigned slice = c_(kSlices);
        return put(slices_[number][slice], make_slice(c_, number, slice), &Tracker::on_slice);
      }
      case 5:
        return put(slices_[number][c_(kSlices)], nullptr, &Tracker::on_slice);
      case 6:
        return put(node_, make_node(c_), &Tracker::on_node);
      case 7:
        return sync();
      default:
        disturb();
    }
  }

  void put(kube::ObjectPtr& there, kube::ObjectPtr now,
           bool (Tracker::*fold)(const kube::ObjectPtr&, const kube::ObjectPtr&)) {
    if (!there && !now) return;
    (tracker_.*fold)(there, now);
    there = std::move(now);
  }

  // The kernel refuses a sync; the daemon starts again; somebody deletes the table.
  void disturb() {
    switch (c_(3)) {
      case 0:
        fake_.fail_next({EBUSY, "busy", {}});
        (void)backend_->apply(tracker_.take().state);
        return take_failure();
      case 1:
        backend_.emplace(fake_, options_);
        return;
      default:
        check(backend_->cleanup().has_value());
    }
  }

  // Of a sync that had nothing to write.
  void take_failure() {
    nft::Transaction t(kTableFamily, "other");
    t.add_table();
    (void)fake_.apply(t);
  }

  void sync() {
    const DesiredStatePtr state = tracker_.take().state;
    check_state(*state);
    auto r = backend_->apply(state);
    check(r.has_value(), r ? "" : r.error().text);
    check_table(*state);
    for (int i = 0; i < 8; ++i) check_packet(*state);
  }

  // As a tracker has it that saw the objects of now only.
  void check_state(const DesiredState& state) const {
    Tracker fresh({.name = "node-1"}, [](const std::string&) {});
    for (const auto& slices : slices_) {
      for (const auto& s : slices) {
        if (s) fresh.on_slice(nullptr, s);
      }
    }
    if (node_) fresh.on_node(nullptr, node_);
    for (const auto& s : services_) {
      if (s) fresh.on_service(nullptr, s);
    }
    const auto want = fresh.take().state;
    check(std::ranges::equal(state.services, want->services, [](const auto& a, const auto& b) { return *a == *b; }),
          "the state is that of the objects");
  }

  void check_table(const DesiredState& state) const {
    nft::FakeNft scratch, again = fake_;
    check(NftBackend(scratch, options_).apply(std::make_shared<const DesiredState>(state)).has_value());
    check(NftBackend(again, options_).apply(std::make_shared<const DesiredState>(state)).has_value());
    const std::pair table{kTableFamily, std::string(kTable)};
    const auto& have = fake_.tables().at(table).sets;
    const auto& read_back = again.tables().at(table).sets;
    for (const auto& [name, set] : scratch.tables().at(table).sets) {
      if (name.starts_with("left")) continue;
      // A target keeps its slot while others come and go, so slots depend on the past; packets check their content.
      const bool slots = name.contains("endpoints");
      const auto equal = [&](const auto& a, const auto& b) {
        return a.first == b.first && (slots || a.second == b.second);
      };
      check(std::ranges::equal(have.at(name).elements, set.elements, equal), name + " as made at once");
      check(std::ranges::equal(have.at(name).elements, read_back.at(name).elements,
                               [](const auto& a, const auto& b) { return a.second == b.second; }),
            name + " as after reading it back");
    }
  }

  Packet make_packet(const DesiredState& state) {
    static constexpr std::array<std::array<const char*, 3>, 5> kFrom{{{"10.244.1.1", "fd00:1::1", "veth1"},
                                                                      {"10.244.1.2", "fd00:1::2", "cni0"},
                                                                      {"192.0.2.100", "2001:db8::100", "eth0"},
                                                                      {"192.0.2.11", "2001:db8::11", ""},
                                                                      {"198.51.100.1", "2001:db8:5::1", "eth0"}}};
    static constexpr std::array<std::uint8_t, 3> kProtocols{IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP};
    Packet p{.destination = *IpAddr::parse("10.96.0.1"), .protocol = IPPROTO_TCP, .destination_port = 80};
    if (!state.services.empty()) {
      const auto& s = state.services[c_(static_cast<unsigned>(state.services.size()))];
      if (!s->frontends.empty()) {
        const Frontend& f = s->frontends[c_(static_cast<unsigned>(s->frontends.size()))];
        const bool v4 = f.family == AF_INET;
        p.destination = f.is_node_port() ? *IpAddr::parse(v4 ? "192.0.2.11" : "2001:db8::11") : f.addr;
        p.protocol = f.protocol;
        p.destination_port = f.port;
      }
    }
    if (c_.rarely()) p.destination_port = static_cast<std::uint16_t>(80 + c_(4));
    if (c_.rarely()) p.protocol = kProtocols[c_(kProtocols.size())];
    const auto& from = kFrom[c_(kFrom.size())];
    p.source = *IpAddr::parse(from[p.destination.is_v4() ? 0 : 1]);
    p.interface = from[2];
    return p;
  }

  void check_packet(const DesiredState& state) {
    const Packet p = make_packet(state);
    const Expected want = expected(state, options_, p, is_local);
    const TraceInput in{fake_.tables().at({kTableFamily, kTable}), is_local, c_(256)};
    const Trace t = trace(in, p);
    const std::string what =
        fmt::format("{} > {} protocol {} port {}", p.source, p.destination, p.protocol, p.destination_port);
    check(t.end == want.end, what);
    if (want.end != Trace::End::kTranslated) return;
    check(t.target && std::ranges::find(want.targets, *t.target) != want.targets.end(), what);
    const bool leaves = !is_local(t.target->addr);
    check(t.masquerade == (leaves && (want.masquerade || is_hairpin(state, p.source, t.target->addr))), what);
  }

  Choices& c_;
  const TrafficOptions options_;
  nft::FakeNft fake_;
  std::optional<NftBackend> backend_;
  Tracker tracker_{{.name = "node-1"}, [](const std::string& p) { check(!p.empty()); }};
  std::array<kube::ObjectPtr, kServices> services_;
  std::array<std::array<kube::ObjectPtr, kSlices>, kServices> slices_;
  kube::ObjectPtr node_;
};

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  log::init("fuzz", log::Level::kError);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Choices c(data, size);
  Story(c).run();
  return 0;
}
