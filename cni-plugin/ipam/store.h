// SPDX-License-Identifier: Apache-2.0
// Store: the address state of one network, a folder with one pool file per range and a lock. Opening it takes the lock;
// it is held until the object goes (or the process dies). Pools whose range is no longer configured stay until their
// last address is given back, so a node whose pod CIDR changed serves old pods to their end.
//
// The folder lives under the run folder (tmpfs). Records of an earlier boot are dropped: their pods are gone.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cni-plugin/ipam/host_local.h"
#include "cni-plugin/ipam/pool.h"
#include "lib/base/atomic_file.h"

namespace hawser::cni::ipam {

class Store {
 public:
  // Makes the folder if missing.
  static Result<Store> open(const std::string& folder, Clock& clock = system_clock());

  // One address from each set, all or none. EEXIST: the owner has addresses already. Every requested address must be
  // used.
  struct Taken {
    IpAddr address;
    Range range;
  };
  Result<std::vector<Taken>> take(const std::vector<RangeSet>& sets, const Owner& owner,
                                  const std::vector<IpAddr>& requested);
  // From every pool, configured or not; what was freed.
  Result<std::vector<IpAddr>> give_back(const Owner& owner);
  Result<std::vector<IpAddr>> held_by(const Owner& owner);
  Result<std::vector<Held>> list();
  // Frees all that `live` denies and repairs tags; what was freed.
  Result<std::vector<Held>> keep_only(const std::function<bool(const Held&)>& live);

  // Takes over the reservations of a folder of host-local's (host_local.h), once a boot; a folder that does not exist
  // is asked for again. From then on the reservation is removed before its address is given back, and an address whose
  // reservation stands is listed as `imported`. An address outside the sets is left to host-local.
  struct Imported {
    int held = 0;
    std::vector<std::string> ignored;  // and why, as sentences
  };
  Result<Imported> import_host_local(const std::string& folder, const std::vector<RangeSet>& sets);
  // The same for the reservations of one owner, in a folder that need not have been imported.
  Result<> forget_host_local(const std::string& folder, const Owner& owner);

  // The whole subnets that have a pool in the folder and are no longer in the sets. Needs no lock: file names only.
  static std::vector<Range> former_subnets(const std::string& folder, const std::vector<RangeSet>& sets);
  // If no address of the range is held: runs `drop` and, when that succeeds, removes the pool. Nobody can take one of
  // its addresses meanwhile. False: addresses are held.
  Result<bool> retire(const Range& range, const std::function<Result<>()>& drop);

  // How many addresses of the set can still be taken.
  Result<std::uint64_t> available(const RangeSet& set);

 private:
  Store(std::string folder, FileLock lock, std::string boot_id, Clock& clock)
      : folder_(std::move(folder)), lock_(std::move(lock)), boot_id_(std::move(boot_id)), clock_(&clock) {}
  Result<> read_imports();
  void mark_imported(std::vector<Held>& held) const;
  Result<> release_reservations(Pool& pool, const Owner& owner);
  Result<Pool> open_pool(const Range& range);
  Result<Pool> make_pool(const Range& range);
  // Every pool file in the folder; those of an earlier boot are deleted instead.
  Result<std::vector<Pool>> open_all();
  Result<Taken> take_from_set(const RangeSet& set, const Owner& owner, std::vector<IpAddr>& requested);

  std::string folder_;
  FileLock lock_;
  std::string boot_id_;
  Clock* clock_;
  std::vector<std::string> imports_;  // folders of host-local's
};

}  // namespace hawser::cni::ipam
