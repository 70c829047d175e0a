// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/collect/sweep.h"

#include <unistd.h>

#include "cni-plugin/attachment.h"
#include "cni-plugin/bandwidth.h"
#include "lib/netlink/rtnl_ensure.h"

namespace hawser::cni {
namespace {

void note(Sweep& sweep, const Result<>& r) {
  if (!r && sweep.error) sweep.error = r;
}

void remove_link(netlink::Rtnl& node, const std::string& name, Leak leak, Sweep& sweep) {
  auto gone = netlink::forget_link(node, name);
  if (!gone) return note(sweep, propagate(gone));
  if (*gone) sweep.removed.push_back(std::move(leak));
}

}  // namespace

const char* kind_text(Leak::Kind kind) {
  switch (kind) {
    case Leak::Kind::kAddress:
      return "address";
    case Leak::Kind::kHostPorts:
      return "host_ports";
    case Leak::Kind::kIfb:
      return "ifb";
    case Leak::Kind::kLink:
      return "link";
    case Leak::Kind::kNetnsName:
      return "netns_name";
    case Leak::Kind::kFastPath:
      return "fast_path";
  }
  return "";
}

void sweep_addresses(const std::string& folder, const std::string& network,
                     const std::function<bool(const ipam::Held&)>& live, Sweep& sweep, Clock& clock) {
  if (access(folder.c_str(), F_OK) != 0) return;
  auto store = ipam::Store::open(folder, clock);
  if (!store) return note(sweep, propagate(store));
  auto dropped = store->keep_only(live);
  if (!dropped) return note(sweep, propagate(dropped));
  for (const auto& h : *dropped)
    sweep.removed.push_back(
        {Leak::Kind::kAddress, network,
         fmt::format("address {} of interface {} of container {}", h.address, h.owner.ifname, h.owner.container)});
}

void sweep_host_ports(const std::string& folder, HostPorts::Kernel kernel,
                      const std::function<bool(const std::string&, const HostPortRecord&)>& live, Sweep& sweep) {
  if (access(folder.c_str(), F_OK) != 0) return;
  auto ports = HostPorts::open(folder, kernel);
  if (!ports) return note(sweep, propagate(ports));
  auto dropped = ports->keep_only(live);
  if (!dropped) return note(sweep, propagate(dropped));
  for (const auto& name : *dropped)
    sweep.removed.push_back({Leak::Kind::kHostPorts, "", fmt::format("host ports of {}", name)});
}

bool sweep_fast_path(FastPath& fast_path, const std::function<bool(const std::string&)>& live, Sweep& sweep) {
  std::vector<std::string> dead;
  auto kept = fast_path.keep_only([&](const std::string& name) {
    if (live(name)) return true;
    dead.push_back(name);
    return false;
  });
  if (!kept) {
    note(sweep, propagate(kept, "fast path"));
    return false;
  }
  for (const auto& name : dead)
    sweep.removed.push_back({Leak::Kind::kFastPath, "", fmt::format("fast path of {}", name)});
  return true;
}

void sweep_ifbs(netlink::Rtnl& node, Sweep& sweep) {
  auto links = node.list_links();
  if (!links) return note(sweep, propagate(links));
  for (const auto& l : *links) {
    if (l.kind != "ifb" || !is_ifb_name(l.name)) continue;
    // Asked for now: an ifb is made after its link, so a list from before may lack the link of a new one.
    auto host = node.get_link(host_link_of_ifb(l.name));
    if (host) continue;
    if (!is_not_found(host.error())) {
      note(sweep, propagate(host));
      continue;
    }
    remove_link(node, l.name, {Leak::Kind::kIfb, "", fmt::format("bandwidth device {}", l.name)}, sweep);
  }
}

void sweep_links(netlink::Rtnl& node, const std::string& network, const std::function<bool(const std::string&)>& live,
                 Sweep& sweep) {
  auto links = node.list_links();
  if (!links) return note(sweep, propagate(links));
  for (const auto& l : *links) {
    if (!is_host_link(l, network) || live(l.name)) continue;
    remove_link(node, l.name, {Leak::Kind::kLink, network, fmt::format("interface {}", l.name)}, sweep);
  }
}

}  // namespace hawser::cni
