// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/call.h"

#include "lib/nft/kernel_nft.h"

namespace hawser::cni {

Outcome<Call> read_call(const Environment& env, std::string_view input, FastPath& fast_path) {
  Call c{.env = env};
  auto conf = parse_config(input, env);
  if (!conf) return std::unexpected(conf.error());
  c.conf = std::move(*conf);
  auto node = NodeFile::load(c.conf.node_file);
  if (node)
    c.node = std::make_unique<NodeFile>(std::move(*node));
  else
    c.node_fault = node.error().text;
  c.addresses = make_address_source(c.conf, c.env, c.node.get());
  c.owner = {env.container, env.ifname};
  c.host_name = host_link_name(c.conf.name, c.owner);
  c.fast_path = &fast_path;
  return c;
}

Outcome<NetNs> open_pod_netns(const Environment& env) {
  auto ns = NetNs::open(env.netns);
  if (!ns) return failure(Code::kInvalidNetns, "CNI_NETNS: {}", ns.error().text);
  auto own = NetNs::current();
  if (!own) return as_failure(Code::kInternal, own);
  auto a = ns->inode();
  auto b = own->inode();
  if (!a || !b) return failure(Code::kInvalidNetns, "CNI_NETNS {}: cannot be identified", env.netns);
  if (*a == *b && !env.netns_override)
    return failure(Code::kInvalidNetns, "CNI_NETNS {}: is the plugin's own network namespace", env.netns);
  return std::move(*ns);
}

Result<> with_host_ports(const Call& c, const std::function<Result<>(HostPorts&)>& fn) {
  auto nft = nft::KernelNft::open();
  if (!nft) return propagate(nft, "host ports");
  auto conntrack = netlink::KernelConntrack::open();
  if (!conntrack) return propagate(conntrack, "host ports");
  auto ports = HostPorts::open(c.host_ports_folder(), {**nft, *conntrack});
  if (!ports) return propagate(ports);
  return fn(*ports);
}

}  // namespace hawser::cni
