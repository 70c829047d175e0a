// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/ipam/host_local.h"

#include <algorithm>
#include <filesystem>

#include <unistd.h>

#include "cni-plugin/environment.h"

namespace hawser::cni::ipam {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kLastPrefix = "last_reserved_ip.";
constexpr std::string_view kLineBreak = "\r\n";
// Before version 0.8 the file held the container alone; runtimes knew but one interface.
constexpr std::string_view kOnlyInterface = "eth0";

std::string_view trim(std::string_view s) {
  constexpr std::string_view kSpace = " \t\r\n";
  const auto begin = s.find_first_not_of(kSpace);
  if (begin == s.npos) return {};
  return s.substr(begin, s.find_last_not_of(kSpace) - begin + 1);
}

std::string file_of(const std::string& folder, const IpAddr& a) {
  return folder + "/" + a.text();
}

Result<Owner> owner_in(const std::string& path) {
  auto text = read_file(path, kPageBytes);
  if (!text) return propagate(text);
  return parse_reservation(*text);
}

// Gone is fine: somebody was faster.
Result<> remove_file(const std::string& path) {
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "remove {}", path);
  return {};
}

}  // namespace

std::optional<IpAddr> reserved_address(std::string_view file_name) {
  auto a = IpAddr::parse(file_name);
  // Another spelling of an address would be found by nobody who opens the file by name.
  if (!a || a->text() != file_name) return std::nullopt;
  return *a;
}

Result<Owner> parse_reservation(std::string_view content) {
  content = trim(content);
  if (content.empty()) return fail(EINVAL, "is empty");
  const auto eol = content.find(kLineBreak);
  Owner o;
  o.container = std::string(trim(content.substr(0, eol)));
  o.ifname = std::string(eol == content.npos ? kOnlyInterface : trim(content.substr(eol)));
  if (auto why = identifier_fault(o.container); !why.empty()) return fail(EINVAL, "the container id {}", why);
  if (o.container.size() > kMaxContainerBytes)
    return fail(EINVAL, "the container id is longer than {} characters", kMaxContainerBytes);
  if (auto why = interface_name_fault(o.ifname); !why.empty()) return fail(EINVAL, "the interface name {}", why);
  return o;
}

bool stands(const std::string& folder, const Reservation& r) {
  auto owner = owner_in(file_of(folder, r.address));
  return owner ? *owner == r.owner : owner.error().code != EINVAL && !is_not_found(owner.error());
}

Result<HostLocal> HostLocal::open(const std::string& folder, const std::string& locked_folder) {
  std::error_code ec;
  if (!fs::is_directory(folder, ec)) return fail(ENOENT, "host-local: {} is not a folder", folder);
  // A second lock on the same file would wait for our own first one.
  if (fs::equivalent(folder, locked_folder, ec)) return HostLocal(folder, std::nullopt);
  auto lock = FileLock::acquire(folder + "/lock");
  if (!lock) return propagate(lock, "host-local");
  return HostLocal(folder, std::move(*lock));
}

Result<HostLocal::Content> HostLocal::read() {
  Content out;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(folder_, ec)) {
    const auto name = entry.path().filename().native();
    if (name.starts_with(kLastPrefix)) {
      auto text = read_file(entry.path(), kPageBytes);
      auto last = text ? IpAddr::parse(trim(*text)) : Result<IpAddr>(propagate(text));
      if (last) out.last.push_back(*last);
      continue;
    }
    auto address = reserved_address(name);
    if (!address) continue;
    auto owner = owner_in(entry.path());
    if (!owner && owner.error().code != EINVAL) return propagate(owner, "host-local");
    if (owner)
      out.held.push_back({*address, *owner});
    else
      out.ignored.push_back(fmt::format("{} {}", entry.path().native(), owner.error().text));
  }
  if (ec) return fail_errno(ec.value(), "list {}", folder_);
  std::ranges::sort(out.held, {}, &Reservation::address);
  return out;
}

Result<> HostLocal::release(const Owner& owner) {
  auto content = read();
  if (!content) return propagate(content);
  for (const auto& r : content->held) {
    if (r.owner != owner) continue;
    if (auto gone = remove_file(file_of(folder_, r.address)); !gone) return gone;
  }
  return {};
}

Result<> HostLocal::release(const Reservation& r) {
  const auto path = file_of(folder_, r.address);
  auto owner = owner_in(path);
  if (!owner || *owner != r.owner) return {};
  return remove_file(path);
}

}  // namespace hawser::cni::ipam
