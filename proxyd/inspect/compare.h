// SPDX-License-Identifier: Apache-2.0
// The elements of one frontend as the model wants them and as the kernel has them, in nft's words. Pure.
#pragma once

#include <string>
#include <vector>

#include "proxyd/inspect/facts.h"

namespace hawser::proxy {

// Elements as "SET { ELEMENT }", sorted. `wanted` takes the slot numbers from what is there where it can, because any
// order of the targets is right.
struct Elements {
  std::vector<std::string> wanted, found;
  [[nodiscard]] bool agree() const { return wanted == found; }
};

enum class Part : std::uint8_t { kFrontend, kSources, kAffinity, kEndpoints };

// One part of one key. `side` null: the model wants nothing there.
[[nodiscard]] Elements compare(const SideId& id, const WantedSide* side, const TableImage& image, Part part);
// All of a frontend.
[[nodiscard]] Elements compare(const Frontend& f, const TableImage& image);
// A virtual service and its destinations, as "ipvs tcp 10.96.0.10:80 rr"; those that drain apart.
[[nodiscard]] Elements compare(const netlink::IpvsKey& key, const IpvsFacts& f);
void append(Elements&& more, Elements& to);

// "SET { ELEMENT }" of a set of ours.
[[nodiscard]] std::string element_words(const std::string& set, const nft::Element& e);

// What a repair of the whole table would put right, one line each, "lacks SET { ELEMENT }"; empty: all is as the model
// wants it. Chains that are kept for later are no fault.
[[nodiscard]] std::vector<std::string> drift(const Facts& f);

}  // namespace hawser::proxy
