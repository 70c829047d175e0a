// SPDX-License-Identifier: Apache-2.0
#include "proxyd/takeover/kube_proxy.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <map>
#include <set>

#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/atomic_file.h"
#include "lib/base/unique_fd.h"

namespace hawser::proxy {
namespace {

constexpr std::string_view kNames[] = {"KUBE-SERVICES",
                                       "KUBE-EXTERNAL-SERVICES",
                                       "KUBE-NODEPORTS",
                                       "KUBE-NODE-PORT",
                                       "KUBE-POSTROUTING",
                                       "KUBE-MARK-MASQ",
                                       "KUBE-FORWARD",
                                       "KUBE-PROXY-FIREWALL",
                                       "KUBE-PROXY-CANARY",
                                       "KUBE-LOAD-BALANCER",
                                       "KUBE-IPVS-FILTER",
                                       "KUBE-IPVS-OUT-FILTER",
                                       "KUBE-SOURCE-RANGES-FIREWALL"};
constexpr std::string_view kPrefixes[] = {"KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-FW-", "KUBE-XLB-", "KUBE-EXT-"};
constexpr std::string_view kMasquerade[] = {"KUBE-MARK-MASQ", "KUBE-POSTROUTING"};
constexpr const char* kIpvsDevice = "kube-ipvs0";

bool is_kube_proxys(std::string_view table, std::string_view chain) {
  // Of this name the kubelet has one too, in the table filter.
  if (chain == "KUBE-FIREWALL") return table == "nat";
  return std::ranges::find(kNames, chain) != std::end(kNames) ||
         std::ranges::any_of(kPrefixes, [&](std::string_view p) { return chain.starts_with(p); });
}

struct Rule {
  std::string_view chain, target, line;
};
struct Table {
  std::string_view name;
  std::vector<std::string_view> chains;
  std::vector<Rule> rules;
};

// Words of a rule; a quoted one (a comment) is one word.
std::vector<std::string_view> words(std::string_view line) {
  std::vector<std::string_view> out;
  std::size_t at = 0;
  while (at < line.size()) {
    if (line[at] == ' ') {
      ++at;
      continue;
    }
    const std::size_t begin = at;
    bool quoted = false;
    for (; at < line.size() && (quoted || line[at] != ' '); ++at) {
      if (line[at] == '\\' && quoted)
        ++at;
      else if (line[at] == '"')
        quoted = !quoted;
    }
    out.push_back(line.substr(begin, std::min(at, line.size()) - begin));
  }
  return out;
}

std::vector<Table> parse_saved(std::string_view saved) {
  std::vector<Table> out;
  while (!saved.empty()) {
    const auto line = saved.substr(0, saved.find('\n'));
    saved.remove_prefix(std::min(line.size() + 1, saved.size()));
    if (line.starts_with('*')) {
      out.push_back({line.substr(1), {}, {}});
    } else if (out.empty()) {
      continue;
    } else if (line.starts_with(':')) {
      out.back().chains.push_back(line.substr(1, line.find(' ') - 1));
    } else if (line.starts_with("-A ")) {
      const auto w = words(line);
      Rule r{w.size() > 1 ? w[1] : "", "", line};
      for (std::size_t i = 2; i + 1 < w.size(); ++i)
        if (w[i] == "-j" || w[i] == "-g") r.target = w[i + 1];
      out.back().rules.push_back(r);
    }
  }
  return out;
}

std::string clean_table(const Table& t) {
  std::set<std::string_view> ours;
  for (const auto chain : t.chains)
    if (is_kube_proxys(t.name, chain)) ours.insert(chain);
  const bool borrowed = std::ranges::any_of(
      t.rules, [&](const Rule& r) { return r.target == "KUBE-MARK-MASQ" && !is_kube_proxys(t.name, r.chain); });
  if (borrowed)
    for (const auto chain : kMasquerade) ours.erase(chain);
  if (ours.empty()) return {};
  std::string out = fmt::format("*{}\n", t.name);
  for (const auto chain : ours) out += fmt::format(":{} - [0:0]\n", chain);  // empties it
  for (const Rule& r : t.rules)
    if (!ours.contains(r.chain) && ours.contains(r.target)) out += fmt::format("-D{}\n", r.line.substr(2));
  for (const auto chain : ours) out += fmt::format("-X {}\n", chain);
  return out + "COMMIT\n";
}

std::string release_table(const Table& t) {
  if (t.name != "nat") return {};
  std::string out;
  for (const Rule& r : t.rules)
    if ((r.chain == "PREROUTING" || r.chain == "OUTPUT") && is_kube_proxys(t.name, r.target))
      out += fmt::format("-D{}\n", r.line.substr(2));
  return out.empty() ? out : fmt::format("*{}\n{}COMMIT\n", t.name, out);
}

int removed_chains(std::string_view input) {
  int n = 0;
  for (std::size_t at = 0; (at = input.find("\n-X ", at)) != input.npos; ++at) ++n;
  return n;
}

Result<> remove_iptables(const KubeProxyLeftovers& in, const std::string& tool, std::vector<std::string>& did) {
  auto saved = in.run({tool + "-save"}, "");
  if (!saved) return propagate(saved);
  if (!*saved) return {};
  const std::string input = iptables_cleanup(**saved);
  if (input.empty()) return {};
  auto done = in.run({tool + "-restore", "--noflush"}, input);
  if (!done) return propagate(done);
  if (!*done) return fail(ENOENT, "{}-restore is not installed", tool);
  did.push_back(fmt::format("{}: {} chains", tool, removed_chains(input)));
  return {};
}

Result<> remove_nftables(nft::NftRunner& nft, nft::Family family, std::vector<std::string>& did) {
  auto table = nft.read_table(family, "kube-proxy");
  if (!table) return propagate(table);
  if (!table->exists) return {};
  nft::Transaction t(family, "kube-proxy");
  t.delete_table();
  if (auto r = nft.apply(t); !r) return r;
  did.push_back(fmt::format("nftables: table {} kube-proxy", family == nft::Family::kIpv4 ? "ip" : "ip6"));
  return {};
}

Result<> remove_ipvs(const KubeProxyLeftovers& in, std::vector<std::string>& did) {
  auto links = in.rtnl.list_links();
  if (!links) return propagate(links);
  const auto device = std::ranges::find_if(*links, [](const netlink::Link& l) { return l.name == kIpvsDevice; });
  if (device == links->end()) return {};
  // As kube-proxy's own clean-up does: with its device there, the virtual services are its own.
  auto services = in.ipvs.list_services();
  if (!services && services.error().code != EOPNOTSUPP) return propagate(services);
  if (services)
    for (const auto& s : *services)
      if (auto r = in.ipvs.change_service(netlink::IpvsVerb::kDelete, s); !r && !is_not_found(r.error())) return r;
  if (auto r = in.rtnl.delete_link(device->index); !r && !is_not_found(r.error())) return r;
  did.push_back(fmt::format("IPVS: {} services and {}", services ? services->size() : 0, kIpvsDevice));
  return {};
}

// "" if it cannot be seen.
std::string netns_of(const std::string& process) {
  std::error_code failed;
  return std::filesystem::read_symlink("/proc/" + process + "/ns/net", failed).string();
}

Result<> remove_ipsets(const KubeProxyLeftovers& in, std::vector<std::string>& did) {
  auto names = in.run({"ipset", "list", "-n"}, "");
  // A kernel without sets has none of them.
  if (!names || !*names) return {};
  std::string_view rest = **names;
  int gone = 0;
  while (!rest.empty()) {
    const auto name = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(name.size() + 1, rest.size()));
    if (!name.starts_with("KUBE-")) continue;
    if (auto r = in.run({"ipset", "destroy", std::string(name)}, ""); !r) return propagate(r);
    ++gone;
  }
  if (gone > 0) did.push_back(fmt::format("ipset: {} sets", gone));
  return {};
}

}  // namespace

std::string iptables_release(std::string_view saved) {
  std::string out;
  for (const Table& t : parse_saved(saved)) out += release_table(t);
  return out;
}

std::string iptables_cleanup(std::string_view saved) {
  std::string out;
  for (const Table& t : parse_saved(saved)) out += clean_table(t);
  return out;
}

Result<std::optional<std::string>> run_program(const std::vector<std::string>& argv, const std::string& input) {
  UniqueFd in(memfd_create("input", MFD_CLOEXEC)), out(memfd_create("output", MFD_CLOEXEC));
  if (!in || !out) return fail_errno(errno, "run {}", argv[0]);
  if (::write(in.get(), input.data(), input.size()) != static_cast<ssize_t>(input.size()))
    return fail_errno(errno, "run {}", argv[0]);
  lseek(in.get(), 0, SEEK_SET);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in.get(), STDIN_FILENO);
  for (const int to : {STDOUT_FILENO, STDERR_FILENO}) posix_spawn_file_actions_adddup2(&actions, out.get(), to);
  std::vector<char*> args;
  for (const auto& a : argv) args.push_back(const_cast<char*>(a.c_str()));
  args.push_back(nullptr);
  pid_t pid = -1;
  const int err = posix_spawnp(&pid, argv[0].c_str(), &actions, nullptr, args.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (err == ENOENT) return std::nullopt;
  if (err != 0) return fail_errno(err, "run {}", argv[0]);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  std::string output;
  std::array<char, 65536> buf{};
  lseek(out.get(), 0, SEEK_SET);
  for (ssize_t n = 0; (n = ::read(out.get(), buf.data(), buf.size())) > 0;)
    output.append(buf.data(), static_cast<std::size_t>(n));
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    return fail(EIO, "{}: {}", argv[0], std::string_view(output).substr(0, 300));
  return output;
}

std::vector<int> kube_proxy_processes() {
  std::vector<int> out;
  const auto own = netns_of("self");
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    const auto name = entry.path().filename().string();
    int pid = 0;
    const auto [end, ec] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (ec != std::errc() || end != name.data() + name.size()) continue;
    auto comm = read_file(entry.path() / "comm");
    // One whose namespace cannot be seen may be this one's.
    if (comm && *comm == "kube-proxy\n" && (netns_of(name) == own || netns_of(name).empty())) out.push_back(pid);
  }
  return out;
}

Result<bool> has_kube_proxy_rules(const KubeProxyLeftovers& in) {
  for (const char* tool : {"iptables-save", "ip6tables-save"}) {
    auto saved = in.run({tool, "-t", "nat"}, "");
    if (!saved) return propagate(saved);
    if (*saved && !iptables_release(**saved).empty()) return true;
  }
  for (const auto family : {nft::Family::kIpv4, nft::Family::kIpv6}) {
    auto table = in.nft.read_table(family, "kube-proxy");
    if (!table) return propagate(table);
    if (table->exists) return true;
  }
  return false;
}

Result<std::vector<std::string>> take_over_kube_proxy(const KubeProxyLeftovers& in, bool device) {
  for (const std::string tool : {"iptables", "ip6tables"}) {
    auto saved = in.run({tool + "-save", "-t", "nat"}, "");
    if (!saved) return propagate(saved);
    const std::string input = *saved ? iptables_release(**saved) : "";
    if (input.empty()) continue;
    auto done = in.run({tool + "-restore", "--noflush"}, input);
    if (!done) return propagate(done);
  }
  std::vector<std::string> did;
  for (const char* tool : {"iptables", "ip6tables"})
    if (auto r = remove_iptables(in, tool, did); !r) return propagate(r);
  for (const auto family : {nft::Family::kIpv4, nft::Family::kIpv6})
    if (auto r = remove_nftables(in.nft, family, did); !r) return propagate(r);
  if (auto r = remove_ipsets(in, did); !r) return propagate(r);
  if (!device) return did;
  auto link = in.rtnl.get_link(kIpvsDevice);
  if (!link && is_not_found(link.error())) return did;
  if (!link) return propagate(link);
  if (auto r = in.rtnl.delete_link(link->index); !r && !is_not_found(r.error())) return propagate(r);
  did.push_back(kIpvsDevice);
  return did;
}

Result<std::vector<std::string>> remove_kube_proxy(const KubeProxyLeftovers& in) {
  std::vector<std::string> did;
  for (const char* tool : {"iptables", "ip6tables"})
    if (auto r = remove_iptables(in, tool, did); !r) return propagate(r);
  for (const auto family : {nft::Family::kIpv4, nft::Family::kIpv6})
    if (auto r = remove_nftables(in.nft, family, did); !r) return propagate(r);
  if (auto r = remove_ipvs(in, did); !r) return propagate(r);
  // After the rules that used them.
  if (auto r = remove_ipsets(in, did); !r) return propagate(r);
  return did;
}

}  // namespace hawser::proxy
