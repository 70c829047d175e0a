// SPDX-License-Identifier: Apache-2.0
// Plans of the nftables back end: from what the table holds and what it should hold to one transaction. Pure: no
// kernel, no clock, no log. The caller applies the transaction; if that fails, the image is to be thrown away and read
// back.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "lib/nft/transaction.h"
#include "proxyd/model/desired_state.h"
#include "proxyd/nft/elements.h"

namespace hawser::proxy {

// What the table holds, beyond its constant part.
struct TableImage {
  std::unordered_map<SideId, Side> sides;
  std::map<std::string, std::uint32_t> chains;  // pick and remember chains: how many sides name each
  std::map<IpAddr, std::uint32_t> hairpin;      // how many Services have this address on this node
  std::map<IpAddr, std::uint32_t> cluster_ips;  // how many Services have it
  std::set<SideId> left;                        // UDP and SCTP frontends that went, as read back or by the last plan
  bool operator==(const TableImage&) const = default;
};

// What is wanted: of every key, or only of those that may have changed.
struct Wants {
  std::map<SideId, std::optional<WantedSide>> sides;  // nullopt: nothing
  std::map<IpAddr, std::int64_t> hairpin;             // difference to the image, in Services
  std::map<IpAddr, std::int64_t> cluster_ips;         // the same
  std::vector<SideId> contested;                      // keys that several Services claim; the first by name has it
};
[[nodiscard]] Wants all_wants(const DesiredState& s);
// The same in parts of at most `most` keys, to be planned and applied one after another; addresses come with the last.
[[nodiscard]] std::vector<Wants> parts(Wants w, std::size_t most);
// From one state to a later one. False: they touch a key that another Service has or claims, so only all_wants() can
// tell.
[[nodiscard]] bool changed_wants(const DesiredState& from, const DesiredState& to, const TableImage& image,
                                 const std::vector<SideId>& contested, Wants& out);

// Two transactions, to be applied in this order.
//
// A packet runs through the rules of the generation in which it entered a hook, but looks elements up in the current
// one. So it can be sent to a chain that is younger than it, and finds no rules there. Chains are therefore made
// (prepare) before elements name them (main). So are source ranges: a packet that saw none could find the frontend.
struct Steps {
  nft::Transaction prepare{kTableFamily, kTable};
  nft::Transaction main{kTableFamily, kTable};
  // A table made anew in place of one that packets see appears to them as a whole: main has everything.
  bool together = false;
  // No packet sees the table before main, which only adds the rules of base chains: prepare has the rest, and may be
  // applied in parts.
  bool unseen = false;
  nft::Transaction& chains() { return together ? main : prepare; }
  nft::Transaction& elements() { return unseen ? prepare : main; }
};

// Element and chain changes for `w`, which `image` then has as done. Chains that nothing names any more are kept for
// the next Service with so many targets, up to `keep_unused` of them.
void plan_changes(const Wants& w, TableImage& image, const LayoutOptions& o, std::size_t keep_unused, Steps& steps);

// A table as it was read back.
struct Found {
  nft::TableState table;
  TableImage image;
  std::map<std::string, std::vector<nft::Element>> strange;  // by set: elements that this program does not write
  std::map<std::string, std::vector<nft::Element>> ranges;   // by set: those that the options decide
};
// Files one element of a set under its role. The dynamic sets' elements are not asked for.
void note_element(SetRole role, int family, const nft::Element& e, Found& f);

// Absent, or with base chains or sets that cannot be changed in place: everything is made anew.
[[nodiscard]] bool must_rebuild(const nft::TableState& table);

// From what was found to what is wanted, whole: the constant part, chains, elements, and the removal of all that is
// strange. The image afterwards is left in `f`. A table that is as it should be gives empty transactions.
[[nodiscard]] Steps plan_full(Found& f, const Wants& all, const LayoutOptions& o);

}  // namespace hawser::proxy
