// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/handover.h"

#include <filesystem>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <unistd.h>

#include "cni-plugin/ipam/store.h"
#include "cni-plugin/overlayd/backend.h"
#include "cni-plugin/overlayd/masquerade.h"
#include "lib/base/atomic_file.h"
#include "lib/kube/object.h"
#include "lib/netlink/rtnl_ensure.h"

namespace hawser::overlay {
namespace {

namespace json = boost::json;
namespace fs = std::filesystem;
using cni::ipam::Held;

Result<> remove_file(const std::string& path) {
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "remove {}", path);
  return {};
}

Result<bool> write_missing(const std::string& path, const std::string& text) {
  if (access(path.c_str(), F_OK) == 0) return false;
  if (auto r = write_file(path, text, {.mode = 0600}); !r) return propagate(r);
  return true;
}

// A device of flannel's under another VNI than ours will have: ours beside it would take its peers' routes away.
Result<> check_vni(netlink::Rtnl& rtnl, std::uint32_t vni) {
  auto links = rtnl.list_links();
  if (!links) return propagate(links);
  for (const auto& l : *links) {
    const bool flannels = l.kind == "vxlan" && (l.name.starts_with("flannel.") || l.name.starts_with("flannel-v6."));
    if (flannels && l.vxlan.vni != vni)
      return fail(EEXIST, "--adopt: the node has device {} with VNI {}, ours is {}: give --vni", l.name, l.vxlan.vni,
                  vni);
  }
  return {};
}

// host-local keeps a file an address, named by it; those that are there it has written itself. Its lock is held.
Result<int> write_reservations(const FlannelCni& f, const std::vector<Held>& live) {
  if (auto r = make_folders(f.reservations); !r) return propagate(r);
  auto lock = FileLock::acquire(f.reservations + "/lock");
  if (!lock) return propagate(lock);
  int wrote = 0;
  for (const auto& h : live) {
    auto made = write_missing(fmt::format("{}/{}", f.reservations, h.address),
                              fmt::format("{}\r\n{}", h.owner.container, h.owner.ifname));
    if (!made) return propagate(made);
    wrote += *made ? 1 : 0;
  }
  return wrote;
}

// flannel's plugin does nothing on DEL for a container that it has no such file of, and its address would leak.
Result<> write_scratch(const FlannelCni& f, const std::vector<Held>& live, const std::string& delegate) {
  if (auto r = make_folders(f.scratch, 0700); !r) return r;
  for (const auto& h : live) {
    auto made = write_missing(f.scratch + "/" + h.owner.container, delegate);
    if (!made) return propagate(made);
  }
  return {};
}

// Under the address store's lock, so that the addresses are all there are when the runtime comes to flannel's plugin:
// an ADD of ours that waits for it finds no store and fails, and the runtime tries again with flannel's configuration.
Result<> give_back_pods(const Adopted& a, const FilePaths& paths, const cni::NodeFile& node, bool ip_masq,
                        std::vector<std::string>& done) {
  const auto folder = fmt::format("{}/ipam/{}", paths.run_dir, a.cni.network);
  auto store = cni::ipam::Store::open(folder);
  if (!store) return propagate(store);
  auto live = store->list();
  if (!live) return propagate(live);
  auto wrote = write_reservations(a.cni, *live);
  if (!wrote) return propagate(wrote, "reservations");
  if (auto r = write_scratch(a.cni, *live, delegate_text(a.cni, node, ip_masq)); !r) return r;
  done.push_back(fmt::format("of our plugin's {} addresses host-local did not know {}", live->size(), *wrote));
  for (const auto& path : {paths.conflist(), paths.node_file()}) {
    if (auto r = remove_file(path); !r) return r;
  }
  done.push_back("removed " + paths.conflist());
  std::error_code ec;
  fs::remove_all(folder, ec);
  if (ec) return fail_errno(ec.value(), "remove {}", folder);
  return {};
}

// flannel's plugin reads it at each ADD, so it must be there; flannel's own words, unless the node has other ranges
// now.
Result<> give_back_subnet_env(const Adopted& a, const cni::NodeFile& node, bool ip_masq) {
  const bool same = parse_subnet_env(a.subnet_env) == node.pod_cidrs;
  const auto text = same ? a.subnet_env : subnet_env_text(node, ip_masq);
  if (auto r = make_folders(a.cni.subnet_file.substr(0, a.cni.subnet_file.rfind('/'))); !r) return r;
  return write_file(a.cni.subnet_file, text);
}

Result<> remove_unreachable(netlink::Rtnl& rtnl) {
  auto routes = rtnl.list_routes(0);
  if (!routes) return propagate(routes);
  for (const auto& r : *routes) {
    if (r.protocol != netlink::kRouteProtocol || r.type != netlink::RouteType::kUnreachable) continue;
    if (auto gone = netlink::forget_route(rtnl, r); !gone) return propagate(gone);
  }
  return {};
}

}  // namespace

std::string Adopted::text() const {
  return json::serialize(json::object{{"file", cni.file}, {"text", cni.text}, {"subnetEnv", subnet_env}}) + "\n";
}

Result<Adopted> Adopted::parse(const std::string& text) {
  boost::system::error_code ec;
  auto value = json::parse(text, ec);
  if (ec) return fail(EINVAL, "is no JSON: {}", ec.message());
  const auto& o = kube::as_obj(value);
  auto f = parse_flannel_cni(std::string(kube::str(o, {"file"})), std::string(kube::str(o, {"text"})));
  if (!f) return propagate(f);
  if (!*f) return fail(EINVAL, "text: is not flannel's configuration");
  return Adopted{std::move(**f), std::string(kube::str(o, {"subnetEnv"}))};
}

Result<std::optional<Adopted>> adopt(netlink::Rtnl& rtnl, const FilePaths& paths, std::uint32_t vni) {
  if (auto r = check_vni(rtnl, vni); !r) return propagate(r);
  auto record = read_file(paths.adopted_record());
  if (record) {
    auto a = Adopted::parse(*record);
    if (!a) return propagate(a, "{}", paths.adopted_record());
    return std::move(*a);
  }
  if (!is_not_found(record.error())) return propagate(record);
  if (paths.cni_conf_dir.empty()) return std::nullopt;
  auto f = find_flannel_cni(paths.cni_conf_dir);
  if (!f) return propagate(f, "--adopt");
  if (!*f) return std::nullopt;
  Adopted a{.cni = std::move(**f)};
  a.subnet_env = read_file(a.cni.subnet_file).value_or("");
  if (auto r = make_folders(paths.run_dir); !r) return propagate(r);
  if (auto r = write_file(paths.adopted_record(), a.text()); !r) return propagate(r);
  return a;
}

Result<std::vector<std::string>> hand_back(netlink::Rtnl& rtnl, nft::NftRunner& nft, const FilePaths& paths,
                                           bool ip_masq) {
  auto record = read_file(paths.adopted_record());
  if (!record && is_not_found(record.error()))
    return fail(ENOENT, "--hand-back: this node was not taken over with --adopt: there is no {}",
                paths.adopted_record());
  if (!record) return propagate(record);
  auto a = Adopted::parse(*record);
  if (!a) return propagate(a, "{}", paths.adopted_record());
  auto node = cni::NodeFile::load(paths.node_file());
  if (!node && !is_not_found(node.error())) return propagate(node);
  std::vector<std::string> done;
  // flannel's configuration before ours goes: a runtime never sees none. Killed before the record is removed, the next
  // run does the rest.
  auto put_back = write_missing(a->cni.file, a->cni.text);
  if (!put_back) return propagate(put_back);
  if (*put_back) done.push_back("wrote " + a->cni.file);
  if (node) {
    if (auto r = give_back_subnet_env(*a, *node, ip_masq); !r) return propagate(r);
    if (auto r = give_back_pods(*a, paths, *node, ip_masq, done); !r) return propagate(r);
  }
  if (auto r = remove_unreachable(rtnl); !r) return propagate(r);
  auto masquerade = remove_masquerade(nft);
  if (!masquerade) return propagate(masquerade);
  if (*masquerade) done.push_back(fmt::format("removed nftables table {}", kMasqueradeTable));
  for (const auto& path : {paths.sysctl_record(), paths.adopted_record()}) {
    if (auto r = remove_file(path); !r) return propagate(r);
  }
  return done;
}

}  // namespace hawser::overlay
