// SPDX-License-Identifier: Apache-2.0
// Text forms of nftables objects, in the words of `nft list`: goldens, logs, and comparison with the real tool. Pure.
#pragma once

#include <string>
#include <vector>

#include "lib/nft/object.h"

namespace hawser::nft {

[[nodiscard]] std::string chain_text(const Chain& c);   // name and hook, one line
[[nodiscard]] std::string rule_text(const Rule& r);     // with its comment
[[nodiscard]] std::string set_type_text(const Set& s);  // "ipv4_addr . inet_proto : verdict"
// An element of `s` as nft prints it: "10.96.0.1 . tcp . 80 : goto pick-3".
[[nodiscard]] std::string element_text(const Set& s, const Element& e);
// The same where the set's types are not known: hexadecimal words.
[[nodiscard]] std::string raw_element_text(const Element& e);

}  // namespace hawser::nft
