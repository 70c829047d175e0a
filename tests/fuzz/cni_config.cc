// SPDX-License-Identifier: Apache-2.0
// The plugin's input. Line 1: CNI_COMMAND; line 2: CNI_ARGS; line 3: CNI_CONTAINERID; line 4: CNI_IFNAME; the rest:
// standard input. What is accepted obeys the rules that the verbs rely on.
#include "cni-plugin/config.h"
#include "cni-plugin/version.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace hawser;
using fuzz::check;

void check_range(const cni::ipam::Range& r) {
  auto name = r.file_name();
  check(r.first <= r.last && r.subnet.contains(r.first) && r.subnet.contains(r.last), name);
  check(r.contains(r.first) && r.contains(r.last), name);
  auto slots = r.slots();
  check(slots >= 1 && slots <= cni::ipam::kMaxSlots, name);
  for (auto slot : {0u, slots / 2, slots - 1}) {
    check(r.contains(r.at(slot)) && r.slot_of(r.at(slot)) == slot, name);
  }
}

void check_config(const cni::NetConf& c, const cni::Environment& env, std::string_view text) {
  check(cni::known_version(c.version), c.version);
  auto peeked = cni::peek_version(text);
  check(peeked.empty() || peeked == c.version, peeked);
  check(cni::identifier_fault(c.name).empty(), c.name);
  check(c.mtu == 0 || (c.mtu >= 576 && c.mtu <= 65535));
  check(c.node_file.starts_with('/') && c.ipam_folder.ends_with("/" + c.name), c.ipam_folder);
  for (const auto& set : c.ranges) {
    check(!set.empty());
    for (const auto& r : set) check_range(r);
  }
  auto again = cni::parse_config(c.raw, env);
  check(again && again->ranges == c.ranges && again->requested == c.requested && again->name == c.name);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input in(data, size);
  std::string command(in.line()), args(in.line()), container(in.line()), ifname(in.line());
  auto env = cni::read_environment([&](const char* variable) -> std::string {
    std::string_view v(variable);
    if (v == "CNI_COMMAND") return command;
    if (v == "CNI_ARGS") return args;
    if (v == "CNI_CONTAINERID") return container;
    if (v == "CNI_IFNAME") return ifname;
    return v == "CNI_NETNS" ? "/run/netns/a" : v == "CNI_PATH" ? "/opt/cni/bin:/usr/lib/cni" : "";
  });
  if (!env) {
    check(env.error().code == cni::Code::kInvalidEnvironment && !env.error().msg.empty());
    return 0;
  }
  auto conf = cni::parse_config(in.rest(), *env);
  if (conf)
    check_config(*conf, *env, in.rest());
  else
    check(!conf.error().msg.empty());
  return 0;
}
