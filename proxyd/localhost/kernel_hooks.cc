// SPDX-License-Identifier: Apache-2.0
#include "proxyd/localhost/kernel_hooks.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

namespace hawser::proxy {
namespace {

constexpr const char* kProgramName = "hawser_loopback";  // at most 15 characters, here and below
constexpr std::uint32_t kMaxPrograms = 64;               // the kernel's limit for one cgroup
// Of the programs, which are GPL-2.0 OR Apache-2.0. The kernel knows only the first of these names.
constexpr const char* kLicense = "GPL";

struct MapSpec {
  const char* name;
  bpf_map_type type;
  std::uint32_t key, value, entries;
};
// There are 2768 node ports by default, 65535 at most.
constexpr MapSpec kPorts{"hawser_lo_ports", BPF_MAP_TYPE_HASH, sizeof(HookPort), 1, 65536};
constexpr MapSpec kConfig{"hawser_lo_conf", BPF_MAP_TYPE_ARRAY, 4, sizeof(HookConfig), 1};
// Of the oldest sockets beyond that, getpeername() and recvmsg() tell the node's address.
constexpr MapSpec kOrigins{"hawser_lo_socks", BPF_MAP_TYPE_LRU_HASH, sizeof(HookOrigin), 4, 8192};

// All of it zero, as the kernel wants; {} need not clear more of a union than its first member.
bpf_attr empty_attr() {
  bpf_attr attr;
  std::memset(&attr, 0, sizeof attr);
  return attr;
}

long bpf(bpf_cmd cmd, bpf_attr& attr) {
  return ::syscall(SYS_bpf, cmd, &attr, sizeof attr);
}

std::uint64_t pointer(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p);
}

template <class Info>
Result<> info_of(int fd, Info& info) {
  bpf_attr attr = empty_attr();
  attr.info.bpf_fd = static_cast<std::uint32_t>(fd);
  attr.info.info_len = sizeof info;
  attr.info.info = pointer(&info);
  if (bpf(BPF_OBJ_GET_INFO_BY_FD, attr) != 0) return fail_errno(errno, "read a BPF object");
  return {};
}

Result<UniqueFd> by_id(bpf_cmd cmd, std::uint32_t id) {
  bpf_attr attr = empty_attr();
  attr.prog_id = id;  // of a map too: one place
  UniqueFd fd(static_cast<int>(bpf(cmd, attr)));
  if (!fd) return fail_errno(errno, "open BPF object {}", id);
  return fd;
}

Result<UniqueFd> make_map(const MapSpec& s) {
  bpf_attr attr = empty_attr();
  attr.map_type = s.type;
  attr.key_size = s.key;
  attr.value_size = s.value;
  attr.max_entries = s.entries;
  // Node ports are few: no memory before they come.
  if (s.type == BPF_MAP_TYPE_HASH) attr.map_flags = BPF_F_NO_PREALLOC;
  std::string_view(s.name).copy(attr.map_name, sizeof attr.map_name - 1);
  UniqueFd fd(static_cast<int>(bpf(BPF_MAP_CREATE, attr)));
  if (!fd) return fail_errno(errno, "make BPF map {}", s.name);
  return fd;
}

bool matches(const bpf_map_info& i, const MapSpec& s) {
  return i.name == std::string_view(s.name) && i.type == s.type && i.key_size == s.key && i.value_size == s.value &&
         i.max_entries == s.entries;
}

Result<> update(int map, const void* key, const void* value) {
  bpf_attr attr = empty_attr();
  attr.map_fd = static_cast<std::uint32_t>(map);
  attr.key = pointer(key);
  attr.value = pointer(value);
  if (bpf(BPF_MAP_UPDATE_ELEM, attr) != 0) return fail_errno(errno, "write a BPF map");
  return {};
}

Result<HookConfig> read_config(int map) {
  const std::uint32_t key = 0;
  HookConfig config{};
  bpf_attr attr = empty_attr();
  attr.map_fd = static_cast<std::uint32_t>(map);
  attr.key = pointer(&key);
  attr.value = pointer(&config);
  if (bpf(BPF_MAP_LOOKUP_ELEM, attr) != 0) return fail_errno(errno, "read a BPF map");
  return config;
}

HookPort key_of(const LoopbackPort& p) {
  return {htons(p.port), p.protocol, static_cast<std::uint16_t>(p.family)};
}

Result<UniqueFd> load(const HookKind& kind, const HookMaps& maps) {
  const auto code = hook_program(kind, maps);
  bpf_attr attr = empty_attr();
  attr.prog_type = BPF_PROG_TYPE_CGROUP_SOCK_ADDR;
  attr.expected_attach_type = kind.attach;
  attr.insns = pointer(code.data());
  attr.insn_cnt = static_cast<std::uint32_t>(code.size());
  attr.license = pointer(kLicense);
  std::string_view(kProgramName).copy(attr.prog_name, sizeof attr.prog_name - 1);
  UniqueFd fd(static_cast<int>(bpf(BPF_PROG_LOAD, attr)));
  if (fd) return fd;
  const int err = errno;
  // Once more, for the verifier's word about it.
  std::string said(4096, '\0');
  attr.log_buf = pointer(said.data());
  attr.log_size = static_cast<std::uint32_t>(said.size());
  attr.log_level = 1;
  (void)bpf(BPF_PROG_LOAD, attr);
  said.resize(std::strlen(said.c_str()));
  return fail_errno(err, "load a BPF program{}{}", said.empty() ? "" : ": ", said);
}

bool is_cgroup2(const std::string& path) {
  struct statfs s {};
  return ::statfs(path.c_str(), &s) == 0 && s.f_type == CGROUP2_SUPER_MAGIC;
}

Result<std::uint64_t> netns_cookie() {
  UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  std::uint64_t cookie = 0;
  socklen_t size = sizeof cookie;
  if (!fd || ::getsockopt(fd.get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) != 0)
    return fail_errno(errno, "cookie of the network namespace");
  return cookie;
}

}  // namespace

Result<std::string> find_cgroup_root(const std::string& given) {
  if (!given.empty()) {
    for (const std::string& path : {given, given + "/unified"})
      if (is_cgroup2(path)) return path;
    return fail(EINVAL, "--cgroup-root {}: not a folder of cgroup v2", given);
  }
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream fields(line);
    std::string id, parent, device, root, point;
    fields >> id >> parent >> device >> root >> point;
    if (line.find(" - cgroup2 ") != line.npos && root == "/" && is_cgroup2(point)) return point;
  }
  return fail(ENOENT, "no cgroup v2 is mounted");
}

Result<KernelHooks> KernelHooks::make(const std::string& cgroup) {
  auto fd = UniqueFd::open(cgroup.c_str(), O_RDONLY | O_DIRECTORY);
  if (!fd) return propagate(fd);
  auto cookie = netns_cookie();
  if (!cookie) return propagate(cookie);
  return KernelHooks(std::move(*fd), *cookie);
}

Result<std::vector<KernelHooks::Attached>> KernelHooks::attached(bpf_attach_type type) const {
  std::vector<std::uint32_t> ids(kMaxPrograms);
  bpf_attr attr = empty_attr();
  attr.query.target_fd = static_cast<std::uint32_t>(cgroup_.get());
  attr.query.attach_type = type;
  attr.query.prog_ids = pointer(ids.data());
  attr.query.prog_cnt = kMaxPrograms;
  if (bpf(BPF_PROG_QUERY, attr) != 0) return fail_errno(errno, "list a cgroup's BPF programs");
  ids.resize(attr.query.prog_cnt);
  std::vector<Attached> out;
  for (const std::uint32_t id : ids) {
    auto a = ours(id);
    if (!a) {
      if (is_not_found(a.error())) continue;  // gone meanwhile
      return propagate(a);
    }
    if (*a) out.push_back(std::move(**a));
  }
  return out;
}

Result<std::optional<KernelHooks::Attached>> KernelHooks::ours(std::uint32_t program_id) const {
  auto fd = by_id(BPF_PROG_GET_FD_BY_ID, program_id);
  if (!fd) return propagate(fd);
  bpf_prog_info info{};
  std::vector<std::uint32_t> maps(8);
  info.nr_map_ids = static_cast<std::uint32_t>(maps.size());
  info.map_ids = pointer(maps.data());
  if (auto r = info_of(fd->get(), info); !r) return propagate(r);
  if (info.name != std::string_view(kProgramName)) return std::nullopt;
  maps.resize(std::min<std::size_t>(maps.size(), info.nr_map_ids));
  std::ranges::sort(maps);
  Attached a{std::move(*fd), std::string(reinterpret_cast<const char*>(info.tag), sizeof info.tag), std::move(maps)};
  auto us = is_for_us(a);
  if (!us) return propagate(us);
  if (!*us) return std::nullopt;
  return std::optional<Attached>(std::move(a));
}

// By the namespace that its configuration names.
Result<bool> KernelHooks::is_for_us(const Attached& a) const {
  for (const std::uint32_t id : a.maps) {
    auto fd = by_id(BPF_MAP_GET_FD_BY_ID, id);
    if (!fd) return propagate(fd);
    bpf_map_info info{};
    if (auto r = info_of(fd->get(), info); !r) return propagate(r);
    if (!matches(info, kConfig)) continue;
    auto config = read_config(fd->get());
    if (!config) return propagate(config);
    return config->netns == netns_;
  }
  return false;
}

Result<> KernelHooks::adopt(const Attached& a) {
  for (const std::uint32_t id : a.maps) {
    auto fd = by_id(BPF_MAP_GET_FD_BY_ID, id);
    if (!fd) return propagate(fd);
    bpf_map_info info{};
    if (auto r = info_of(fd->get(), info); !r) return propagate(r);
    for (auto [spec, map] : {std::pair{&kPorts, &ports_}, {&kConfig, &config_}, {&kOrigins, &origins_}})
      if (matches(info, *spec)) *map = {std::move(*fd), id};
  }
  return {};
}

Result<> KernelHooks::open() {
  if (opened()) return {};
  for (const HookKind& kind : hook_kinds()) {
    auto there = attached(kind.attach);
    if (!there) return propagate(there);
    for (const Attached& a : *there) {
      if (auto r = adopt(a); !r) return r;
      if (opened()) return {};
    }
  }
  for (auto [spec, map] : {std::pair{&kPorts, &ports_}, {&kConfig, &config_}, {&kOrigins, &origins_}}) {
    auto fd = make_map(*spec);
    if (!fd) return propagate(fd);
    bpf_map_info info{};
    if (auto r = info_of(fd->get(), info); !r) return r;
    *map = {std::move(*fd), info.id};
  }
  return set_targets({});
}

Result<std::set<LoopbackPort>> KernelHooks::ports() {
  std::set<LoopbackPort> out;
  HookPort key{}, next{};
  bool first = true;
  for (;;) {
    bpf_attr attr = empty_attr();
    attr.map_fd = static_cast<std::uint32_t>(ports_.fd.get());
    attr.key = first ? 0 : pointer(&key);
    attr.next_key = pointer(&next);
    if (bpf(BPF_MAP_GET_NEXT_KEY, attr) != 0) {
      if (errno == ENOENT) return out;
      return fail_errno(errno, "read a BPF map");
    }
    first = false;
    key = next;
    out.insert({key.family, static_cast<std::uint8_t>(key.protocol), ntohs(static_cast<std::uint16_t>(key.port))});
  }
}

Result<> KernelHooks::add(const LoopbackPort& p) {
  const HookPort key = key_of(p);
  const std::uint8_t value = 1;
  return update(ports_.fd.get(), &key, &value);
}

Result<> KernelHooks::remove(const LoopbackPort& p) {
  const HookPort key = key_of(p);
  bpf_attr attr = empty_attr();
  attr.map_fd = static_cast<std::uint32_t>(ports_.fd.get());
  attr.key = pointer(&key);
  if (bpf(BPF_MAP_DELETE_ELEM, attr) != 0 && errno != ENOENT) return fail_errno(errno, "write a BPF map");
  return {};
}

Result<> KernelHooks::set_targets(const LoopbackTargets& t) {
  HookConfig config{.netns = netns_, .v4 = 0, .v6 = {}, .padding = 0};
  if (t.v4) std::memcpy(&config.v4, t.v4.bytes().data(), sizeof config.v4);
  if (t.v6) std::memcpy(config.v6, t.v6.bytes().data(), sizeof config.v6);
  const std::uint32_t key = 0;
  return update(config_.fd.get(), &key, &config);
}

Result<> KernelHooks::attach() {
  for (const HookKind& kind : hook_kinds())
    if (auto r = attach_one(kind); !r) return r;
  return {};
}

Result<const KernelHooks::Loaded*> KernelHooks::program(const HookKind& kind) {
  auto& slot = loaded_[kind.attach];
  if (slot.fd) return &slot;
  auto fd = load(kind, {ports_.fd.get(), config_.fd.get(), origins_.fd.get()});
  if (!fd) return propagate(fd);
  bpf_prog_info info{};
  if (auto r = info_of(fd->get(), info); !r) return propagate(r);
  slot = {std::move(*fd), std::string(reinterpret_cast<const char*>(info.tag), sizeof info.tag)};
  return &slot;
}

Result<> KernelHooks::attach_one(const HookKind& kind) {
  auto want = program(kind);
  if (!want) return propagate(want);
  const auto& [fd, tag] = **want;
  auto there = attached(kind.attach);
  if (!there) return propagate(there);
  bool done = false;
  for (Attached& a : *there) {
    // A kind uses some of the maps; all that it uses have to be these.
    const bool same = a.tag == tag && std::ranges::all_of(a.maps, [&](std::uint32_t id) {
                        return id == ports_.id || id == config_.id || id == origins_.id;
                      });
    if (same && !done) {
      done = true;
      continue;
    }
    bpf_attr attr = empty_attr();
    attr.target_fd = static_cast<std::uint32_t>(cgroup_.get());
    attr.attach_type = kind.attach;
    attr.attach_bpf_fd = static_cast<std::uint32_t>(done ? a.fd.get() : fd.get());
    if (!done) {
      attr.attach_flags = BPF_F_ALLOW_MULTI | BPF_F_REPLACE;
      attr.replace_bpf_fd = static_cast<std::uint32_t>(a.fd.get());
    }
    if (bpf(done ? BPF_PROG_DETACH : BPF_PROG_ATTACH, attr) != 0)
      return fail_errno(errno, "replace a BPF program of the cgroup");
    done = true;
  }
  if (done) return {};
  bpf_attr attr = empty_attr();
  attr.target_fd = static_cast<std::uint32_t>(cgroup_.get());
  attr.attach_bpf_fd = static_cast<std::uint32_t>(fd.get());
  attr.attach_type = kind.attach;
  attr.attach_flags = BPF_F_ALLOW_MULTI;
  if (bpf(BPF_PROG_ATTACH, attr) != 0) return fail_errno(errno, "attach a BPF program to the cgroup");
  return {};
}

Result<> KernelHooks::detach() {
  const auto kinds = hook_kinds();
  // Those first that lead away.
  for (std::size_t i = kinds.size(); i-- > 0;) {
    auto there = attached(kinds[i].attach);
    if (!there) return propagate(there);
    for (const Attached& a : *there) {
      bpf_attr attr = empty_attr();
      attr.target_fd = static_cast<std::uint32_t>(cgroup_.get());
      attr.attach_bpf_fd = static_cast<std::uint32_t>(a.fd.get());
      attr.attach_type = kinds[i].attach;
      if (bpf(BPF_PROG_DETACH, attr) != 0) return fail_errno(errno, "detach a BPF program from the cgroup");
    }
  }
  loaded_.clear();
  ports_ = {};
  config_ = {};
  origins_ = {};
  return {};
}

}  // namespace hawser::proxy
