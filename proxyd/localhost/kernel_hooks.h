// SPDX-License-Identifier: Apache-2.0
// KernelHooks: the programs of program.h at a cgroup, by bpf(2).
//
// They are attached to the cgroup itself, so they and their maps live as long as it does: past the end of this process,
// and without a bpffs. A later process finds them there by name and by the cookie of its network namespace, takes over
// the maps, and replaces a program only if it is another one. Programs of others at the same cgroup stay and run too.
//
// Needs CONFIG_CGROUP_BPF and cgroup v2, and CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN (to find what is there).
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/unique_fd.h"
#include "proxyd/localhost/hooks.h"
#include "proxyd/localhost/program.h"

namespace hawser::proxy {

// The folder of the cgroup v2 tree: `given`, or "unified" in it where the machine has v1 beside; if empty, where this
// mount namespace has cgroup2.
[[nodiscard]] Result<std::string> find_cgroup_root(const std::string& given);

class KernelHooks final : public LoopbackHooks {
 public:
  // For the calling thread's network namespace, and the processes in `cgroup` and below.
  static Result<KernelHooks> make(const std::string& cgroup);

  Result<> open() override;
  Result<std::set<LoopbackPort>> ports() override;
  Result<> add(const LoopbackPort& p) override;
  Result<> remove(const LoopbackPort& p) override;
  Result<> set_targets(const LoopbackTargets& t) override;
  Result<> attach() override;
  Result<> detach() override;

 private:
  struct Map {
    UniqueFd fd;
    std::uint32_t id = 0;
  };
  // A program of ours at the cgroup.
  struct Attached {
    UniqueFd fd;
    std::string tag;  // of its instructions
    std::vector<std::uint32_t> maps;
  };
  // One of ours as this process would attach it.
  struct Loaded {
    UniqueFd fd;
    std::string tag;
  };
  KernelHooks(UniqueFd cgroup, std::uint64_t netns) : cgroup_(std::move(cgroup)), netns_(netns) {}
  Result<std::vector<Attached>> attached(bpf_attach_type type) const;
  Result<std::optional<Attached>> ours(std::uint32_t program_id) const;
  Result<bool> is_for_us(const Attached& a) const;
  Result<> adopt(const Attached& a);
  Result<const Loaded*> program(const HookKind& kind);
  Result<> attach_one(const HookKind& kind);
  [[nodiscard]] bool opened() const { return ports_.fd && config_.fd && origins_.fd; }

  UniqueFd cgroup_;
  std::uint64_t netns_;
  Map ports_, config_, origins_;
  std::map<bpf_attach_type, Loaded> loaded_;
};

}  // namespace hawser::proxy
