// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/verbs.h"

#include <algorithm>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

#include "cni-plugin/call.h"
#include "cni-plugin/version.h"
#include "lib/netlink/rtnl_kernel.h"

namespace hawser::cni {
namespace {

namespace json = boost::json;
using netlink::KernelRtnl;

std::string version_answer(std::string_view version) {
  json::object o;
  o["cniVersion"] = version.empty() ? kVersions.back() : version;
  auto& list = o["supportedVersions"].emplace_array();
  for (auto v : kVersions) list.emplace_back(v);
  return json::serialize(o);
}

// Loopback: `lo` of the pod, for runtimes that ask a plugin of that type to set it up.
Outcome<std::string> do_loopback(const Call& c) {
  bool del = c.env.verb == Verb::kDel;
  auto ns = open_pod_netns(c.env);
  // With the namespace gone, or not ours to touch, there is nothing to take back.
  if (!ns && del) return std::string();
  if (!ns) return std::unexpected(ns.error());
  auto pod = KernelRtnl::open(ns->fd());
  if (!pod) return as_failure(Code::kInternal, pod);
  auto lo = pod->get_link("lo");
  if (!lo) return as_failure(Code::kInternal, lo);
  if (c.env.verb == Verb::kCheck)
    return lo->up ? Outcome<std::string>(std::string()) : failure(Code::kCheckFailed, "interface lo is down");
  if (auto r = pod->change_link(lo->index, {.up = !del}); !r) return as_failure(Code::kInternal, r);
  if (del) return std::string();
  if (c.conf.prev_result) return json::serialize(*c.conf.prev_result);
  ResultJson r;
  r["interfaces"] = {{{"name", "lo"}, {"mac", "00:00:00:00:00:00"}, {"sandbox", c.env.netns}}};
  r["ips"] = {{{"address", "127.0.0.1/8"}, {"interface", 0}}, {{"address", "::1/128"}, {"interface", 0}}};
  r["dns"] = json::object();
  return json::serialize(to_version(r, c.conf.version));
}

struct VerbRow {
  Verb verb;
  std::string_view since;  // the version that introduced it
  Outcome<std::string> (*run)(Call&);
};
constexpr VerbRow kRows[] = {{Verb::kAdd, "0.1.0", do_add},
                             {Verb::kDel, "0.1.0", do_del},
                             {Verb::kCheck, "0.4.0", do_check},
                             {Verb::kGc, "1.1.0", do_gc},
                             {Verb::kStatus, "1.1.0", do_status}};

Outcome<std::string> dispatch(const Environment& env, const Invocation& in) {
  NoFastPath none;
  auto call = read_call(env, in.input, in.fast_path ? *in.fast_path : none);
  if (!call) return std::unexpected(call.error());
  const auto* row = std::ranges::find(kRows, env.verb, &VerbRow::verb);
  if (!at_least(call->conf.version, row->since))
    return failure(Code::kIncompatibleVersion, "cniVersion {}: this verb exists since {}", call->conf.version,
                   row->since);
  bool attachment_verb = env.verb == Verb::kAdd || env.verb == Verb::kDel || env.verb == Verb::kCheck;
  if (call->conf.type == "loopback") return attachment_verb ? do_loopback(*call) : Outcome<std::string>(std::string());
  return row->run(*call);
}

Answer answer_failure(const Failure& f, std::string version) {
  json::object o;
  o["cniVersion"] = known_version(version) ? version : std::string(kVersions.back());
  o["code"] = static_cast<int>(f.code);
  o["msg"] = f.msg;
  if (!f.details.empty()) o["details"] = f.details;
  return {.exit_status = 1, .out = json::serialize(o) + "\n"};
}

}  // namespace

Answer run_plugin(const Invocation& in) {
  if (in.get_env("CNI_COMMAND").empty()) {
    std::string versions;
    for (auto v : kVersions) versions += fmt::format("{}{}", versions.empty() ? "" : ", ", v);
    return {.err = fmt::format("hawser: CNI plugin of the Hawser pod network\nCNI protocol versions supported: {}\n",
                               versions)};
  }
  auto env = read_environment(in.get_env);
  if (!env) return answer_failure(env.error(), peek_version(in.input));
  if (env->verb == Verb::kVersion) return {.out = version_answer(peek_version(in.input)) + "\n"};
  auto out = dispatch(*env, in);
  if (!out) return answer_failure(out.error(), peek_version(in.input));
  return {.out = out->empty() ? "" : *out + "\n"};
}

}  // namespace hawser::cni
