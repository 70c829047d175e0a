// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/node_files.h"

#include <sstream>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/atomic_file.h"
#include "lib/base/sysctl.h"

namespace hawser::overlay {
namespace {

constexpr const char* kDefaultNodeFile = "/run/hawser/node.json";  // the plugin's own default

}  // namespace

std::string subnet_env_text(const cni::NodeFile& node, bool ip_masq) {
  std::string text;
  for (int family : {AF_INET, AF_INET6}) {
    const char* prefix = family == AF_INET ? "FLANNEL" : "FLANNEL_IPV6";
    for (const auto& c : node.cluster_cidrs) {
      if (c.family() == family) text += fmt::format("{}_NETWORK={}\n", prefix, c);
    }
    for (const auto& c : node.pod_cidrs) {
      // flannel names the first address, which its bridge has.
      if (c.family() == family) text += fmt::format("{}_SUBNET={}\n", prefix, Cidr(c.addr().plus(1), c.prefix()));
    }
  }
  return text + fmt::format("FLANNEL_MTU={}\nFLANNEL_IPMASQ={}\n", node.mtu, ip_masq);
}

std::vector<Cidr> parse_subnet_env(const std::string& text) {
  std::vector<Cidr> out;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto eq = line.find('=');
    const auto name = line.substr(0, eq);
    if (eq == std::string::npos || (name != "FLANNEL_SUBNET" && name != "FLANNEL_IPV6_SUBNET")) continue;
    if (auto c = Cidr::parse(line.substr(eq + 1))) out.push_back(c->network());
  }
  return out;
}

std::vector<Cidr> read_subnet_env(const FilePaths& paths) {
  auto text = read_file(paths.subnet_env());
  return text ? parse_subnet_env(*text) : std::vector<Cidr>();
}

boost::json::object plugin_json(const std::string& node_file) {
  namespace json = boost::json;
  // What the plugin honours beside addresses (cni-plugin/capabilities.h); a runtime passes on nothing else.
  json::object capabilities;
  for (const char* c : {"portMappings", "bandwidth", "ips", "mac", "dns"}) capabilities[c] = true;
  json::object plugin{{"type", "hawser"}, {"capabilities", capabilities}};
  if (node_file != kDefaultNodeFile) plugin["nodeFile"] = node_file;
  return plugin;
}

std::string conflist_text(const std::string& node_file) {
  namespace json = boost::json;
  json::object list{{"cniVersion", "1.0.0"}, {"name", "hawser"}, {"plugins", json::array{plugin_json(node_file)}}};
  return json::serialize(list) + "\n";
}

Result<std::vector<std::string>> write_files(const FilePaths& paths, const FileTexts& texts) {
  struct File {
    std::string path, text;
  };
  std::vector<File> files{{paths.subnet_env(), subnet_env_text(texts.node, texts.ip_masq)},
                          {paths.node_file(), texts.node.text()}};
  if (!paths.cni_conf_dir.empty())
    files.push_back({paths.conflist(), texts.conflist.empty() ? conflist_text(paths.node_file()) : texts.conflist});
  std::vector<std::string> wrote;
  for (const auto& f : files) {
    if (auto r = make_folders(f.path.substr(0, f.path.rfind('/'))); !r) return propagate(r);
    auto changed = write_file_if_changed(f.path, f.text);
    if (!changed) return propagate(changed);
    if (*changed) wrote.push_back(f.path);
  }
  return wrote;
}

Result<> remove_files(const FilePaths& paths) {
  std::vector<std::string> files{paths.node_file(), paths.subnet_env(), paths.adopted_record()};
  // The CNI configuration first: no runtime may start a pod on a network that is going.
  if (!paths.cni_conf_dir.empty()) files.insert(files.begin(), paths.conflist());
  for (const auto& f : files) {
    if (unlink(f.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "remove {}", f);
  }
  return {};
}

Result<> switch_on(const FilePaths& paths, const std::string& key) {
  auto have = sysctl::read(key);
  if (!have) return propagate(have);
  if (*have == "1") return {};
  if (auto r = make_folders(paths.run_dir); !r) return propagate(r);
  auto record = read_file(paths.sysctl_record());
  if (!record && !is_not_found(record.error())) return propagate(record);
  std::string text = record ? *record : "";
  // The first value is the node's own; a later one is somebody's who switched it off under us.
  if (!text.contains(key + "=")) {
    if (auto r = write_file(paths.sysctl_record(), text + fmt::format("{}={}\n", key, *have)); !r) return r;
  }
  return sysctl::write(key, "1");
}

Result<> restore_sysctls(const FilePaths& paths) {
  auto record = read_file(paths.sysctl_record());
  if (!record) return is_not_found(record.error()) ? Result<>() : Result<>(propagate(record));
  std::istringstream lines(*record);
  for (std::string line; std::getline(lines, line);) {
    const auto eq = line.find('=');
    if (eq == std::string::npos) continue;
    if (auto r = sysctl::write(line.substr(0, eq), line.substr(eq + 1)); !r) return r;
  }
  if (unlink(paths.sysctl_record().c_str()) != 0) return fail_errno(errno, "remove {}", paths.sysctl_record());
  return {};
}

}  // namespace hawser::overlay
