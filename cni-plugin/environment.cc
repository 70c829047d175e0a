// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/environment.h"

#include <algorithm>

#include <net/if.h>

#include "cni-plugin/ipam/record.h"

namespace hawser::cni {
namespace {

constexpr unsigned bit(Verb v) {
  return 1u << static_cast<unsigned>(v);
}
constexpr unsigned kAttachment = bit(Verb::kAdd) | bit(Verb::kCheck);

struct VerbName {
  const char* name;
  Verb verb;
};
constexpr VerbName kVerbs[] = {{"ADD", Verb::kAdd}, {"DEL", Verb::kDel},       {"CHECK", Verb::kCheck},
                               {"GC", Verb::kGc},   {"STATUS", Verb::kStatus}, {"VERSION", Verb::kVersion}};

struct Variable {
  const char* name;
  unsigned required_for;
};
constexpr Variable kVariables[] = {
    {"CNI_CONTAINERID", kAttachment | bit(Verb::kDel)},
    {"CNI_NETNS", kAttachment},  // DEL must work after the namespace has gone
    {"CNI_IFNAME", kAttachment | bit(Verb::kDel)},
    {"CNI_PATH", kAttachment | bit(Verb::kDel) | bit(Verb::kGc) | bit(Verb::kStatus)},
};

bool is_alnum(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

std::vector<std::string> split(const std::string& s, char by) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at <= s.size();) {
    auto end = std::min(s.find(by, at), s.size());
    if (end > at) out.push_back(s.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

Outcome<std::map<std::string, std::string>> parse_args(const std::string& text) {
  std::map<std::string, std::string> args;
  for (const auto& pair : split(text, ';')) {
    auto eq = pair.find('=');
    if (eq == std::string::npos || eq == 0)
      return failure(Code::kInvalidEnvironment, "CNI_ARGS: \"{}\" is not KEY=VALUE", pair);
    args[pair.substr(0, eq)] = pair.substr(eq + 1);
  }
  return args;
}

// Keys we know or that Kubernetes runtimes always send. An unknown one is an error unless the caller says otherwise
// (FEATURES C37): it may be a request that would silently not be met.
Outcome<> validate_args(const std::map<std::string, std::string>& args) {
  auto ignore = args.find("IgnoreUnknown");
  if (ignore != args.end() && (ignore->second == "1" || ignore->second == "true")) return {};
  for (const auto& [key, value] : args) {
    if (key == "IP" || key == "GATEWAY" || key == "MAC" || key == "IgnoreUnknown" || key.starts_with("K8S_")) continue;
    return failure(Code::kInvalidEnvironment, "CNI_ARGS: unknown key \"{}\", and IgnoreUnknown is not set", key);
  }
  return {};
}

Outcome<> validate(const Environment& e) {
  if (e.verb != Verb::kAdd && e.verb != Verb::kDel && e.verb != Verb::kCheck) return {};
  if (auto why = identifier_fault(e.container); !why.empty())
    return failure(Code::kInvalidEnvironment, "CNI_CONTAINERID \"{}\": {}", e.container, why);
  if (e.container.size() > ipam::kMaxContainerBytes)
    return failure(Code::kInvalidEnvironment, "CNI_CONTAINERID: longer than {} characters", ipam::kMaxContainerBytes);
  if (auto why = interface_name_fault(e.ifname); !why.empty())
    return failure(Code::kInvalidEnvironment, "CNI_IFNAME \"{}\": {}", e.ifname, why);
  return {};
}

}  // namespace

std::string identifier_fault(std::string_view name) {
  if (name.empty()) return "is empty";
  if (!is_alnum(name[0])) return "must begin with a letter or digit";
  auto bad = std::ranges::find_if(name, [](char c) { return !is_alnum(c) && c != '_' && c != '.' && c != '-'; });
  if (bad != name.end()) return "may hold only letters, digits, \"_\", \".\" and \"-\"";
  return {};
}

std::string interface_name_fault(std::string_view name) {
  if (name.empty()) return "is empty";
  if (name.size() >= IFNAMSIZ) return "is longer than 15 characters";
  if (name == "." || name == "..") return "is reserved";
  auto bad = std::ranges::find_if(name, [](unsigned char c) { return c == '/' || c == ':' || c <= ' ' || c == 127; });
  if (bad != name.end()) return "holds \"/\", \":\" or white space";
  return {};
}

Outcome<Environment> read_environment(const GetEnv& get) {
  Environment e;
  const std::string command = get("CNI_COMMAND");
  const auto* verb = std::ranges::find_if(kVerbs, [&](const VerbName& v) { return command == v.name; });
  if (verb == std::end(kVerbs)) return failure(Code::kInvalidEnvironment, "unknown CNI_COMMAND: {}", command);
  e.verb = verb->verb;
  std::string missing;
  for (const auto& v : kVariables) {
    if ((v.required_for & bit(e.verb)) && get(v.name).empty())
      missing += (missing.empty() ? "" : ", ") + std::string(v.name);
  }
  if (!missing.empty())
    return failure(Code::kInvalidEnvironment, "required environment variables are missing for {}: {}", command,
                   missing);
  e.container = get("CNI_CONTAINERID");
  e.netns = get("CNI_NETNS");
  e.ifname = get("CNI_IFNAME");
  e.path = split(get("CNI_PATH"), ':');
  auto override = get("CNI_NETNS_OVERRIDE");
  e.netns_override = override == "1" || override == "TRUE" || override == "true";
  auto args = parse_args(get("CNI_ARGS"));
  if (!args) return std::unexpected(args.error());
  if (auto known = validate_args(*args); !known) return std::unexpected(known.error());
  e.args = std::move(*args);
  if (auto ok = validate(e); !ok) return std::unexpected(ok.error());
  return e;
}

}  // namespace hawser::cni
