// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/flannel_cni.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "cni-plugin/overlayd/node_files.h"
#include "lib/base/atomic_file.h"
#include "lib/kube/object.h"

namespace hawser::overlay {
namespace {

namespace json = boost::json;
namespace fs = std::filesystem;

constexpr const char* kHostLocalFolder = "/var/lib/cni/networks";  // host-local's default
constexpr const char* kScratchFolder = "/var/lib/cni/flannel";     // flannel's plugin's
// Options of the bridge plugin that mean the same to our bridge mode.
constexpr const char* kShared[] = {"bridge", "isDefaultGateway", "forceAddress", "hairpinMode", "promiscMode", "mtu"};

// Plugins whose work is a capability of ours.
bool replaced(std::string_view type) {
  return type == "flannel" || type == "portmap" || type == "bandwidth";
}

std::string text_or(const json::object& o, std::initializer_list<std::string_view> path, std::string_view otherwise) {
  auto t = kube::str(o, path);
  return std::string(t.empty() ? otherwise : t);
}

Result<> read_plugin(const json::object& plugin, FlannelCni& f) {
  const auto& delegate = kube::obj(plugin, {"delegate"});
  if (auto type = text_or(delegate, {"type"}, "bridge"); type != "bridge")
    return fail(EINVAL, "{}: delegate.type \"{}\": only \"bridge\" can be taken over", f.file, type);
  if (auto type = text_or(plugin, {"ipam", "type"}, "host-local"); type != "host-local")
    return fail(EINVAL, "{}: ipam.type \"{}\": only \"host-local\" can be taken over", f.file, type);
  for (const char* key : kShared) {
    if (const auto* v = delegate.if_contains(key)) f.options[key] = *v;
  }
  f.subnet_file = text_or(plugin, {"subnetFile"}, kFlannelSubnetFile);
  f.reservations = text_or(plugin, {"ipam", "dataDir"}, kHostLocalFolder) + "/" + f.network;
  f.scratch = text_or(plugin, {"dataDir"}, kScratchFolder);
  return {};
}

}  // namespace

Result<std::optional<FlannelCni>> parse_flannel_cni(const std::string& file, const std::string& text) {
  boost::system::error_code ec;
  auto value = json::parse(text, ec);
  if (ec || !value.is_object()) return std::nullopt;  // nor would a runtime use it
  const auto& o = value.get_object();
  const bool list = o.contains("plugins");
  const json::array plugins = list ? kube::arr(o, {"plugins"}) : json::array{o};
  auto type_of = [](const json::value& p) { return kube::str(kube::as_obj(p), {"type"}); };
  auto flannel = std::ranges::find(plugins, "flannel", type_of);
  if (flannel == plugins.end()) return std::nullopt;
  FlannelCni f{.file = file, .text = text, .network = std::string(kube::str(o, {"name"}))};
  if (f.network.empty() || f.network.contains('/')) return fail(EINVAL, "{}: name: is not a network name", file);
  if (auto r = read_plugin(kube::as_obj(*flannel), f); !r) return propagate(r);
  for (const auto& p : plugins) {
    if (!replaced(type_of(p))) f.others.push_back(p);
  }
  return f;
}

Result<std::optional<FlannelCni>> find_flannel_cni(const std::string& folder) {
  std::vector<std::string> files;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(folder, ec)) {
    const auto ext = entry.path().extension();
    if (ext == ".conflist" || ext == ".conf" || ext == ".json") files.push_back(entry.path().native());
  }
  std::ranges::sort(files);
  for (const auto& file : files) {
    auto text = read_file(file);
    if (!text) continue;
    auto f = parse_flannel_cni(file, *text);
    if (!f || *f) return f;
  }
  return std::nullopt;
}

std::string adopted_conflist_text(const FlannelCni& f, const std::string& node_file) {
  auto ours = plugin_json(node_file);
  ours["mode"] = "bridge";
  ours["isGateway"] = true;
  for (const auto& [key, v] : f.options) ours[key] = v;
  ours["ipam"] = json::object{{"type", "hawser"}, {"importHostLocal", f.reservations}};
  json::array plugins{ours};
  for (const auto& p : f.others) plugins.push_back(p);
  return json::serialize(json::object{{"cniVersion", "1.0.0"}, {"name", f.network}, {"plugins", plugins}}) + "\n";
}

std::string delegate_text(const FlannelCni& f, const cni::NodeFile& node, bool ip_masq) {
  json::object o = f.options;
  o["cniVersion"] = "1.0.0";
  o["name"] = f.network;
  o["type"] = "bridge";
  o["isGateway"] = true;
  o["ipMasq"] = !ip_masq;
  if (!o.contains("mtu")) o["mtu"] = node.mtu;
  json::array ranges, routes;
  for (const auto& c : node.pod_cidrs) ranges.push_back(json::array{json::object{{"subnet", c.text()}}});
  for (const auto& c : node.cluster_cidrs) routes.push_back(json::object{{"dst", c.text()}});
  const auto folder = f.reservations.substr(0, f.reservations.rfind('/'));
  json::object ipam{{"type", "host-local"}, {"ranges", ranges}, {"routes", routes}};
  if (folder != kHostLocalFolder) ipam["dataDir"] = folder;
  o["ipam"] = std::move(ipam);
  return json::serialize(o);
}

}  // namespace hawser::overlay
