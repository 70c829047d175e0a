// SPDX-License-Identifier: Apache-2.0
// The files by which a ready node shows itself: node.json for our plugin, subnet.env for flannel's, and the CNI
// configuration, whose appearance tells the runtime that the network is up. Texts are pure; write() replaces each
// atomically and only if it differs, the CNI configuration last.
#pragma once

#include <string>
#include <vector>

#include <boost/json/object.hpp>

#include "cni-plugin/node_file.h"

namespace hawser::overlay {

inline constexpr const char* kFlannelWireguardKey = "/run/flannel/wgkey";
inline constexpr const char* kFlannelSubnetFile = "/run/flannel/subnet.env";  // where flannel's plugin looks for it

struct FilePaths {
  std::string run_dir = "/run/hawser";
  std::string subnet_file;   // empty: <run_dir>/subnet.env
  std::string cni_conf_dir;  // empty: no CNI configuration is written
  [[nodiscard]] std::string node_file() const { return run_dir + "/node.json"; }
  [[nodiscard]] std::string subnet_env() const { return subnet_file.empty() ? run_dir + "/subnet.env" : subnet_file; }
  [[nodiscard]] std::string wireguard_key() const { return run_dir + "/wgkey"; }
  [[nodiscard]] std::string sysctl_record() const { return run_dir + "/sysctl.before"; }
  [[nodiscard]] std::string adopted_record() const { return run_dir + "/adopted.json"; }
  [[nodiscard]] std::string conflist() const { return cni_conf_dir + "/10-hawser.conflist"; }
};

[[nodiscard]] std::string subnet_env_text(const cni::NodeFile& node, bool ip_masq);
// The ranges that a subnet.env names, flannel's or ours; none if there is no file.
[[nodiscard]] std::vector<Cidr> parse_subnet_env(const std::string& text);
[[nodiscard]] std::vector<Cidr> read_subnet_env(const FilePaths& paths);
// Our plugin in a CNI configuration.
[[nodiscard]] boost::json::object plugin_json(const std::string& node_file);
[[nodiscard]] std::string conflist_text(const std::string& node_file);

struct FileTexts {
  cni::NodeFile node;
  bool ip_masq = true;
  std::string conflist;  // empty: conflist_text()
};
// The files that were written.
Result<std::vector<std::string>> write_files(const FilePaths& paths, const FileTexts& texts);
Result<> remove_files(const FilePaths& paths);

// Sets the sysctl `key` to 1 and remembers in <run-dir>/sysctl.before that it was not, so that restore_sysctls() can
// put it back.
Result<> switch_on(const FilePaths& paths, const std::string& key);
Result<> restore_sysctls(const FilePaths& paths);

}  // namespace hawser::overlay
