// SPDX-License-Identifier: Apache-2.0
// Masquerade: pods that talk to the world outside the cluster borrow the node's address (FEATURES O60-O66). One
// nftables table of our own, `inet hawser-masq`; no mark is read or set and nobody else's chain is touched, so service
// proxies and firewalls keep working whatever they flush. A connection that a service proxy has already translated is
// left alone: the kernel binds a source once, and destinations are seen here after translation, so a Service behind
// which pods stand counts as its pods.
//
//   source         destination                    source address
//   any            own pods                       kept (externalTrafficPolicy: Local sees the client)
//   cluster        cluster, --non-masquerade-cidr kept
//   cluster        multicast                      kept
//   cluster        anything else                  the node's
//   not cluster    remote pods                    the overlay device's, which remote nodes can route back (O64)
//
// Plan is pure; the daemon's thread applies it.
#pragma once

#include <optional>
#include <vector>

#include "lib/base/ip.h"
#include "lib/nft/runner.h"

namespace hawser::overlay {

inline constexpr const char* kMasqueradeTable = "hawser-masq";

struct MasqueradeSpec {
  std::vector<Cidr> own_pods;
  std::vector<Cidr> cluster;
  std::vector<Cidr> not_masqueraded;  // further destinations that see pod addresses
  bool fully_random = true;           // source ports
};

// The rules in order.
[[nodiscard]] std::vector<nft::Rule> masquerade_rules(const MasqueradeSpec& spec);
// nullopt: the table stands as it should.
[[nodiscard]] std::optional<nft::Transaction> masquerade_plan(const MasqueradeSpec& spec, const nft::TableState& have);

// True when it wrote.
Result<bool> ensure_masquerade(nft::NftRunner& nft, const MasqueradeSpec& spec);
Result<bool> remove_masquerade(nft::NftRunner& nft);

}  // namespace hawser::overlay
