// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/static_source.h"

#include <array>

#include <boost/json/parse.hpp>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cni-plugin/overlayd/overlay.h"
#include "lib/base/atomic_file.h"
#include "lib/base/log.h"

namespace hawser::overlay {
namespace {

Result<Vtep> parse_vtep(const kube::Object& o, int family, const Lease& lease, const Settings& settings) {
  const bool v4 = family == AF_INET;
  Vtep v{.vni = static_cast<std::uint32_t>(kube::num(o, {"vni"}, settings.vni))};
  const char* ip_field = v4 ? "publicIP" : "publicIPv6";
  if (auto text = kube::str(o, {ip_field}); !text.empty()) {
    auto a = IpAddr::parse(text);
    if (!a) return propagate(a, "{}", ip_field);
    if (a->family() != family) return fail(EINVAL, "{} \"{}\": is of the other address family", ip_field, text);
    v.address = *a;
  }
  if (auto text = kube::str(o, {"publicKey"}); !text.empty()) {
    auto key = netlink::WgKey::parse(text);
    if (!key) return propagate(key, "publicKey");
    v.public_key = *key;
  }
  v.mac = mac_for(lease.node, settings.vni, family);
  const char* mac_field = v4 ? "vtepMAC" : "vtepMACv6";
  if (auto text = kube::str(o, {mac_field}); !text.empty()) {
    auto m = MacAddr::parse(text);
    if (!m) return propagate(m, "{}", mac_field);
    v.mac = *m;
  }
  return v;
}

Result<Lease> parse_one(const kube::Object& o, const Settings& settings) {
  Lease l{.node = std::string(kube::str(o, {"name"}))};
  if (l.node.empty()) return fail(EINVAL, "name: is required");
  for (const auto& c : kube::arr(o, {"podCIDRs"})) {
    auto cidr = Cidr::parse(c.is_string() ? std::string_view(c.get_string()) : "");
    if (!cidr) return propagate(cidr, "node {}: podCIDRs", l.node);
    if (l.pod_cidr(cidr->family())) return fail(EINVAL, "node {}: podCIDRs: two of one address family", l.node);
    l.pod_cidrs.push_back(cidr->network());
  }
  l.backend = std::string(kube::str(o, {"backendType"}));
  if (l.backend.empty()) l.backend = settings.backend;
  for (int family : {AF_INET, AF_INET6}) {
    auto v = parse_vtep(o, family, l, settings);
    if (!v) return propagate(v, "node {}", l.node);
    l.vtep(family) = *v;
  }
  return l;
}

}  // namespace

Result<std::vector<Lease>> parse_static_leases(std::string_view text, const Settings& settings) {
  boost::system::error_code ec;
  auto value = boost::json::parse(text, ec);
  if (ec) return fail(EINVAL, "is no JSON: {}", ec.message());
  const auto* nodes = value.is_object() ? kube::find(value.get_object(), {"nodes"}) : nullptr;
  if (!nodes || !nodes->is_array()) return fail(EINVAL, "nodes: a list is required");
  std::vector<Lease> out;
  for (const auto& n : nodes->get_array()) {
    auto l = parse_one(kube::as_obj(n), settings);
    if (!l) return propagate(l, "nodes[{}]", out.size());
    out.push_back(std::move(*l));
  }
  return out;
}

StaticSource::StaticSource(std::string path, std::string node, Settings settings)
    : path_(std::move(path)), node_(std::move(node)), settings_(std::move(settings)) {}

StaticSource::~StaticSource() {
  StaticSource::stop();
}

void StaticSource::start(std::function<void()> on_change) {
  on_change_ = std::move(on_change);
  stop_ = UniqueFd(eventfd(0, EFD_CLOEXEC));
  thread_ = std::thread([this] {
    UniqueFd watch(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    const auto slash = path_.rfind('/');
    const auto folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path_.substr(0, slash);
    constexpr std::uint32_t kReplaced = IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE;
    if (inotify_add_watch(watch.get(), folder.c_str(), kReplaced) < 0)
      log::error("watch {}: {}; changes of the file will not be seen", folder, strerror(errno));
    read_again();  // after the watch stands, so that no change falls between
    watch_folder(watch.get());
  });
}

void StaticSource::watch_folder(int inotify_fd) {
  for (;;) {
    std::array<pollfd, 2> p{pollfd{stop_.get(), POLLIN, 0}, pollfd{inotify_fd, POLLIN, 0}};
    if (poll(p.data(), p.size(), -1) < 0 && errno != EINTR) return;
    if (p[0].revents != 0) return;
    alignas(inotify_event) std::array<char, 4096> events;
    bool any = false;
    while (read(inotify_fd, events.data(), events.size()) > 0) any = true;
    if (any) read_again();
  }
}

void StaticSource::stop() {
  if (!thread_.joinable()) return;
  const std::uint64_t one = 1;
  if (write(stop_.get(), &one, sizeof one) < 0) log::error("stop: {}", strerror(errno));
  thread_.join();
}

void StaticSource::read_again() {
  auto text = read_file(path_);
  auto leases = text ? parse_static_leases(*text, settings_) : Result<std::vector<Lease>>(propagate(text));
  bool changed = false;
  {
    std::lock_guard l(mu_);
    if (leases) {
      changed = !known_ || leases_ != *leases;
      leases_ = std::move(*leases);
      known_ = true;
      why_not_.clear();
    } else if (auto why = fmt::format("--subnets-file {}: {}", path_, leases.error().text); why != why_not_) {
      log::error("{}", why);
      why_not_ = why;
      changed = !known_;
    }
  }
  if (changed) on_change_();
}

std::expected<SubnetView, std::string> StaticSource::view() {
  std::lock_guard l(mu_);
  if (!known_) return std::unexpected(why_not_.empty() ? std::string("the subnets file was not read yet") : why_not_);
  SubnetView v{.nodes = leases_};
  for (const auto& l : leases_) {
    if (l.node != node_) continue;
    v.own = l;
    for (const auto& a : {l.v4.address, l.v6.address}) {
      if (a) v.overwrites.push_back(a), v.node_addresses.push_back(a);
    }
    return v;
  }
  return std::unexpected(fmt::format("node {} is not in {}", node_, path_));
}

// Nobody to tell: the file says it to all nodes.
void StaticSource::publish(const Lease&, bool) {}

}  // namespace hawser::overlay
