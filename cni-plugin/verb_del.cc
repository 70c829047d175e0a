// SPDX-License-Identifier: Apache-2.0
// DEL and GC: everything of one attachment, or of all that are not listed, in the reverse order of ADD. The address
// goes last: nobody may have it while anything of the old holder still leads to it.
#include <set>

#include <unistd.h>

#include "cni-plugin/bandwidth.h"
#include "cni-plugin/call.h"
#include "cni-plugin/collect/sweep.h"
#include "cni-plugin/link_removal.h"
#include "lib/netlink/rtnl_kernel.h"
#include "lib/nft/kernel_nft.h"

namespace hawser::cni {
namespace {

using netlink::KernelRtnl;

Result<> remove_attachment_links(const Call& c) {
  auto node = KernelRtnl::open();
  if (!node) return propagate(node);
  std::vector<int> indexes;
  // The ifb first: one without its link counts as a leak.
  for (const auto& name : {ifb_name(c.host_name), c.host_name}) {
    auto link = node->get_link(name);
    if (link)
      indexes.push_back(link->index);
    else if (!is_not_found(link.error()))
      return propagate(link);
  }
  return remove_links(indexes);
}

Result<> unpublish_ports(const Call& c) {
  // Most attachments have none and are asked nothing further.
  if (access(HostPorts::record_path(c.host_ports_folder(), c.host_name).c_str(), F_OK) != 0) return {};
  return with_host_ports(c, [&](HostPorts& p) { return p.drop(c.host_name); });
}

void sweep_ports(const Call& c, const std::set<std::string>& valid, Sweep& sweep) {
  if (access(c.host_ports_folder().c_str(), F_OK) != 0) return;
  auto r = with_host_ports(c, [&](HostPorts& p) -> Result<> {
    auto dropped = p.keep_only([&](const std::string& name, const HostPortRecord& record) {
      return record.network != c.conf.name || valid.contains(name);
    });
    if (!dropped) return propagate(dropped);
    return {};
  });
  if (!r && sweep.error) sweep.error = r;
}

}  // namespace

// Best effort and to the end: the first failure is reported after everything has been tried.
Outcome<std::string> do_del(Call& c) {
  if (!c.env.netns.empty()) {
    auto ns = open_pod_netns(c.env);
    auto own = ns || !NetNs::open(c.env.netns);  // gone is fine; the node's own is not
    if (!own) return std::unexpected(ns.error());
  }
  auto fast = c.fast_path->detach(c.host_name);
  auto ports = unpublish_ports(c);
  auto links = remove_attachment_links(c);
  // An address whose rules or link stand must not go to another pod; a further DEL or the collector tries again.
  if (!fast) return as_failure(Code::kInternal, fast);
  if (!ports) return as_failure(Code::kInternal, ports);
  if (!links) return as_failure(Code::kInternal, links);
  if (auto released = c.addresses->del(c.conf, c.owner); !released) return std::unexpected(released.error());
  drop_drained_gateways(c);
  return std::string();
}

Outcome<std::string> do_gc(Call& c) {
  Sweep sweep;
  std::set<std::string> valid;
  for (const auto& owner : c.conf.valid_attachments) valid.insert(host_link_name(c.conf.name, owner));
  auto fast = c.fast_path->keep_only([&](const std::string& name) {
    return valid.contains(name) || !name.starts_with(host_link_prefix(c.conf.name));
  });
  if (!fast) sweep.error = fast;
  sweep_ports(c, valid, sweep);
  auto node = KernelRtnl::open();
  if (!node) return as_failure(Code::kInternal, node);
  sweep_links(
      *node, c.conf.name, [&](const std::string& name) { return valid.contains(name); }, sweep);
  sweep_ifbs(*node, sweep);
  auto delegated = c.addresses->gc(c.conf);
  std::set<ipam::Owner> owners(c.conf.valid_attachments.begin(), c.conf.valid_attachments.end());
  if (c.conf.ipam_type.empty())
    sweep_addresses(
        c.conf.ipam_folder, c.conf.name, [&](const ipam::Held& h) { return owners.contains(h.owner); }, sweep);
  drop_drained_gateways(c);
  if (!sweep.error) return as_failure(Code::kInternal, sweep.error);
  if (!delegated) return std::unexpected(delegated.error());
  return std::string();
}

}  // namespace hawser::cni
