// SPDX-License-Identifier: Apache-2.0
// Texts that the agent reads. Line 1: an image reference; line 2: a text with $(VAR) references; the rest: a
// container's log, and a resolv.conf.
#include "controlplane/agent/cri_log.h"
#include "controlplane/agent/image_ref.h"
#include "controlplane/agent/pod_config.h"
#include "controlplane/agent/pod_env.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace hawser;
using fuzz::check;

void check_image(std::string_view text) {
  auto ref = agent::normal_image_ref(text);
  if (!ref) return;
  check(ref->starts_with(text), *ref);
  auto again = agent::normal_image_ref(*ref);
  check(again && *again == *ref, *ref);
  check(agent::is_latest(text) == agent::is_latest(*ref), *ref);
}

void check_expansion(std::string_view text) {
  // Without variables only "$$" changes; with a variable for every name no reference is left over.
  auto none = agent::expand(text, [](std::string_view) -> const std::string* { return nullptr; });
  check(none.size() <= text.size(), none);
  if (!text.contains("$$")) check(none == text, none);
  static const std::string kValue = "v";
  auto all = agent::expand(text, [](std::string_view) { return &kValue; });
  if (!text.contains('$')) check(all == text, all);
}

void check_log(std::string_view log) {
  while (!log.empty()) {
    auto line = log.substr(0, log.find('\n'));
    log.remove_prefix(std::min(line.size() + 1, log.size()));
    auto r = agent::parse_log_line(line);
    if (!r) continue;
    check(r->stream == "stdout" || r->stream == "stderr", std::string(r->stream));
    check(!r->time.empty() && line.starts_with(r->time) && line.ends_with(r->text), std::string(line));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input in(data, size);
  check_image(in.line());
  check_expansion(in.line());
  check_log(in.rest());
  auto dns = agent::parse_resolv_conf(in.rest());
  for (const auto& s : dns.servers) check(!s.empty());
  return 0;
}
