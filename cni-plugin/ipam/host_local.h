// SPDX-License-Identifier: Apache-2.0
// host-local's folder of reservations (FEATURES C50), read and tidied so that pods which the reference plugin attached
// keep their addresses when ours takes over. One file per address, named by it, whose content is the container id, CRLF
// and the interface name; `last_reserved_ip.N` names the address that range set N gave out last; `lock` is flock()ed by
// writers. Blocking; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cni-plugin/ipam/record.h"
#include "lib/base/atomic_file.h"
#include "lib/base/ip.h"

namespace hawser::cni::ipam {

struct Reservation {
  IpAddr address;
  Owner owner;
  bool operator==(const Reservation&) const = default;
};

// Both pure. nullopt: the file is not named by an address. An error: it is, but says nobody's name; a power cut leaves
// empty ones.
std::optional<IpAddr> reserved_address(std::string_view file_name);
Result<Owner> parse_reservation(std::string_view content);

class HostLocal {
 public:
  // Takes host-local's lock until the object goes. ENOENT: there is no such folder. `locked_folder`: one whose lock the
  // caller has already (ours may be the same).
  static Result<HostLocal> open(const std::string& folder, const std::string& locked_folder);

  struct Content {
    std::vector<Reservation> held;
    std::vector<IpAddr> last;          // given out last, at most one a range set
    std::vector<std::string> ignored;  // files and why, as sentences
  };
  Result<Content> read();
  // Removes the owner's reservations; none is no error.
  Result<> release(const Owner& owner);
  Result<> release(const Reservation& r);

 private:
  HostLocal(std::string folder, std::optional<FileLock> lock) : folder_(std::move(folder)), lock_(std::move(lock)) {}
  std::string folder_;
  std::optional<FileLock> lock_;
};

// Whether the reservation stands, asked without the lock. An answer that cannot be had counts as yes.
[[nodiscard]] bool stands(const std::string& folder, const Reservation& r);

}  // namespace hawser::cni::ipam
