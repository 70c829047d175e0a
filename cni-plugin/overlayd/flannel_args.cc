// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/flannel_args.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <set>

#include <fmt/format.h>

namespace hawser::overlay {
namespace {

struct FlagRow {
  std::string_view name;
  bool takes_value = true;
  std::string_view ours = {};        // empty: the same name
  std::string_view no_meaning = {};  // why it is taken out
};
constexpr std::string_view kLogs = "logs always go to standard error";
constexpr std::string_view kRules =
    "masquerading is a table of our own that is watched and needs no period, and no accept rule could overrule "
    "another's drop";
constexpr FlagRow kFlags[] = {
    {.name = "etcd-endpoints"},
    {.name = "etcd-prefix"},
    {.name = "etcd-keyfile"},
    {.name = "etcd-certfile"},
    {.name = "etcd-cafile"},
    {.name = "etcd-username"},
    {.name = "etcd-password"},
    {.name = "iface"},
    {.name = "iface-regex"},
    {.name = "iface-can-reach"},
    {.name = "subnet-file"},
    {.name = "public-ip"},
    {.name = "public-ipv6", .ours = "public-ip"},
    {.name = "subnet-lease-renew-margin"},
    {.name = "ip-masq", .takes_value = false},
    {.name = "ip-masq-fully-random-disable", .takes_value = false},
    {.name = "ip-blackhole-route", .takes_value = false},
    {.name = "kube-subnet-mgr", .takes_value = false},
    {.name = "kube-api-url"},
    {.name = "kube-annotation-prefix"},
    {.name = "kubeconfig-file", .ours = "kubeconfig"},
    {.name = "net-config-path"},
    {.name = "set-node-network-unavailable", .takes_value = false},
    {.name = "healthz-ip"},
    {.name = "healthz-port"},
    {.name = "version", .takes_value = false},
    {.name = "help", .takes_value = false},
    {.name = "iptables-resync", .no_meaning = kRules},
    {.name = "iptables-forward-rules", .takes_value = false, .no_meaning = kRules},
    {.name = "charon-executable-path", .no_meaning = "there is no ipsec back end"},
    {.name = "charon-vici-uri", .no_meaning = "there is no ipsec back end"},
    {.name = "logtostderr", .takes_value = false, .no_meaning = kLogs},
    {.name = "alsologtostderr", .takes_value = false, .no_meaning = kLogs},
    {.name = "stderrthreshold", .no_meaning = kLogs},
    {.name = "vmodule", .no_meaning = kLogs},
    {.name = "log_dir", .no_meaning = kLogs},
    {.name = "log_backtrace_at", .no_meaning = kLogs},
};

const FlagRow* find_flag(std::string_view name) {
  const auto* it = std::ranges::find(kFlags, name, &FlagRow::name);
  return it == std::end(kFlags) ? nullptr : it;
}

bool is_number(std::string_view s) {
  return !s.empty() && std::ranges::all_of(s, [](unsigned char c) { return std::isdigit(c) != 0; });
}

std::string variable_of(std::string_view flag) {
  std::string v = "FLANNELD_";
  for (unsigned char c : flag) v += c == '-' ? '_' : static_cast<char>(std::toupper(c));
  return v;
}

class Translator {
 public:
  explicit Translator(const std::vector<std::string>& in) : in_(in) {}

  FlannelArgs run(const std::function<const char*(const char*)>& environment) {
    while (at_ < in_.size()) one();
    for (const auto& row : kFlags) {
      const char* value = given_.contains(row.name) ? nullptr : environment(variable_of(row.name).c_str());
      if (value) put(row, value);
    }
    return std::move(out_);
  }

 private:
  void one() {
    const std::string& arg = in_[at_++];
    if (verbosity(arg)) return;
    std::string_view rest = arg;
    const bool dashed = rest.starts_with('-');
    while (rest.starts_with('-')) rest.remove_prefix(1);
    const auto eq = rest.find('=');
    const auto* row = dashed ? find_flag(rest.substr(0, eq)) : nullptr;
    if (!row) {
      out_.args.push_back(arg);  // ours, or a mistake that the parser names
    } else if (eq != rest.npos) {
      put(*row, rest.substr(eq + 1));
    } else if (row->takes_value && at_ < in_.size()) {
      put(*row, in_[at_++]);
    } else {
      put(*row, std::nullopt);
    }
  }

  // "-v 4", "-v=4", "--v=0": any level above 0 is our -v.
  bool verbosity(const std::string& arg) {
    std::string level;
    if ((arg == "-v" || arg == "--v") && at_ < in_.size() && is_number(in_[at_]))
      level = in_[at_++];
    else if (arg.starts_with("-v="))
      level = arg.substr(3);
    else if (arg.starts_with("--v="))
      level = arg.substr(4);
    else
      return false;
    if (level != "0") out_.args.emplace_back("-v");
    return true;
  }

  void put(const FlagRow& row, std::optional<std::string_view> value) {
    given_.insert(row.name);
    if (!row.no_meaning.empty()) {
      out_.notes.push_back(fmt::format("--{} has no meaning here: {}", row.name, row.no_meaning));
      return;
    }
    auto flag = fmt::format("--{}", row.ours.empty() ? row.name : row.ours);
    if (value && !value->empty()) flag += fmt::format("={}", *value);
    out_.args.push_back(std::move(flag));
    if (value && value->empty()) out_.args.emplace_back();  // "--flag=" is no value for the parser
  }

  const std::vector<std::string>& in_;
  std::size_t at_ = 0;
  std::set<std::string_view> given_;
  FlannelArgs out_;
};

}  // namespace

FlannelArgs translate_flannel_args(const std::vector<std::string>& args,
                                   const std::function<const char*(const char*)>& environment) {
  return Translator(args).run(environment);
}

}  // namespace hawser::overlay
