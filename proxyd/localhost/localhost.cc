// SPDX-License-Identifier: Apache-2.0
#include "proxyd/localhost/localhost.h"

#include <algorithm>

#include <sys/socket.h>

#include "lib/base/log.h"
#include "proxyd/ipvs/plan.h"

namespace hawser::proxy {
namespace {

// Whether nodePortAddresses has loopback, as kube-proxy reads it.
bool wants_loopback(const TrafficOptions& o, const IpAddr& loopback) {
  bool limited = false;
  for (const Cidr& c : o.node_port_addresses) {
    if (c.contains(loopback)) return true;
    limited = limited || c.family() == loopback.family();
  }
  return !limited;
}

IpAddr pick(int family, const std::vector<IpAddr>& own, const std::vector<IpAddr>& preferred, const TrafficOptions& o) {
  static const Cidr kLinkLocal4 = *Cidr::parse("169.254.0.0/16"), kLinkLocal6 = *Cidr::parse("fe80::/10");
  const auto good = [&](const IpAddr& a) {
    return a.family() == family && !kLinkLocal4.contains(a) && !kLinkLocal6.contains(a) && serves_node_ports(o, a);
  };
  for (const IpAddr& a : preferred)
    if (good(a) && std::ranges::binary_search(own, a)) return a;
  const auto at = std::ranges::find_if(own, good);
  return at == own.end() ? IpAddr() : *at;
}

std::string words(const LoopbackTargets& t) {
  if (t.v4 && t.v6) return fmt::format("{} and {}", t.v4, t.v6);
  return fmt::format("{}", t.v4 ? t.v4 : t.v6);
}

}  // namespace

std::set<LoopbackPort> loopback_ports(const DesiredState& s) {
  std::set<LoopbackPort> out;
  for (const auto& service : s.services) {
    for (const Frontend& f : service->frontends)
      if (f.is_node_port()) out.insert({f.family, f.protocol, f.port});
  }
  return out;
}

LoopbackTargets loopback_targets(std::vector<IpAddr> own, const std::vector<IpAddr>& preferred,
                                 const TrafficOptions& o) {
  static const IpAddr kV4 = IpAddr::v4(0x7f000001), kV6 = *IpAddr::parse("::1");
  std::ranges::sort(own);
  LoopbackTargets t;
  if (wants_loopback(o, kV4)) t.v4 = pick(AF_INET, own, preferred, o);
  if (wants_loopback(o, kV6)) t.v6 = pick(AF_INET6, own, preferred, o);
  return t;
}

void LocalhostNodePorts::apply(const DesiredStatePtr& state, const std::vector<IpAddr>& preferred, bool again) {
  const bool same = applied_ == state && preferred_ == preferred && written_;
  if (same && !again) return;
  // What failed is not worth a try at each change of a Service.
  if (applied_ && !written_ && !again) return;
  applied_ = state;
  if (again) there_.reset();
  Result<> done;
  if (again || !written_ || preferred_ != preferred) done = read_targets(preferred);
  if (done) done = write(*state);
  if (!done) {
    there_.reset();
    written_.reset();
    set_status("not served: " + done.error().text, true);
  } else if (!targets_.v4 && !targets_.v6) {
    set_status("not served: nodePortAddresses has no address of this node, or no loopback", true);
  } else {
    set_status(fmt::format("serving {} ports by {}", there_->size(), words(targets_)), false);
  }
}

Result<> LocalhostNodePorts::read_targets(const std::vector<IpAddr>& preferred) {
  auto all = rtnl_.list_addresses(0);
  if (!all) return propagate(all);
  // There are Services' addresses on that device.
  const auto virtual_ones = rtnl_.get_link(kIpvsDevice);
  std::vector<IpAddr> own;
  for (const auto& a : *all)
    if (!virtual_ones || a.link != virtual_ones->index) own.push_back(a.cidr.addr());
  targets_ = loopback_targets(std::move(own), preferred, options_);
  preferred_ = preferred;
  return {};
}

Result<> LocalhostNodePorts::write(const DesiredState& state) {
  const bool look = !there_ || written_ == LoopbackTargets{};
  if (!targets_.v4 && !targets_.v6) {
    if (look && written_ == targets_) return {};
    there_.emplace();
    written_ = targets_;
    return hooks_.detach();
  }
  const auto want = loopback_ports(state);
  if (look) {
    if (auto r = hooks_.open(); !r) return r;
    auto there = hooks_.ports();
    if (!there) return propagate(there);
    there_ = std::move(*there);
  }
  for (auto it = there_->begin(); it != there_->end();) {
    if (want.contains(*it)) {
      ++it;
      continue;
    }
    if (auto r = hooks_.remove(*it); !r) return r;
    it = there_->erase(it);
  }
  for (const LoopbackPort& p : want) {
    if (there_->contains(p)) continue;
    if (auto r = hooks_.add(p); !r) return r;
    there_->insert(p);
  }
  if (written_ != targets_) {
    if (auto r = hooks_.set_targets(targets_); !r) return r;
  } else if (!look) {
    return {};
  }
  if (auto r = hooks_.attach(); !r) return r;
  written_ = targets_;
  return {};
}

void LocalhostNodePorts::set_status(std::string text, bool bad) {
  {
    std::lock_guard l(mu_);
    const bool news = status_ != text && (bad || status_.starts_with("not"));
    status_ = text;
    if (!news) return;
  }
  if (bad)
    log::warn("node ports on loopback: {}", text);
  else
    log::info("node ports on loopback: {}", text);
}

std::string LocalhostNodePorts::status() const {
  std::lock_guard l(mu_);
  return status_;
}

}  // namespace hawser::proxy
