// SPDX-License-Identifier: Apache-2.0
// Between nft objects and netlink messages: encoding through libnftnl into one batch buffer, decoding of what the
// kernel lists. Internal to lib/nft; pure (no socket). Elements are written and read with libmnl alone: libnftnl keeps
// some 300 bytes for each, which at 100,000 elements would be most of a daemon's memory.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/result.h"
#include "lib/nft/object.h"
#include "lib/nft/transaction.h"

struct nlmsghdr;
struct nftnl_rule;

namespace hawser::nft {

// A whole batch, begin to end message; sequence numbers count up from `first_seq`, and the end's predecessor asks for
// an acknowledgement (number `ack_seq`). `subject_of` names what the message with that number was about, for errors.
struct Batch {
  std::vector<std::uint8_t> bytes;
  std::uint32_t first_seq = 0;
  std::uint32_t ack_seq = 0;
  std::vector<std::string> subjects;  // by seq - first_seq - 1
};
Result<Batch> encode(const Transaction& t, std::uint32_t first_seq);

struct NftnlRuleDeleter {
  void operator()(nftnl_rule* r) const;
};
using NftnlRulePtr = std::unique_ptr<nftnl_rule, NftnlRuleDeleter>;
NftnlRulePtr to_nftnl(const Rule& r);
std::string fingerprint_of(const nftnl_rule* r);

// Decoders of one listed message; false: not of this table, or not understood.
bool decode_chain(const nlmsghdr* h, std::string_view table, ChainState& out);
bool decode_rule(const nlmsghdr* h, std::string_view table, std::string& chain, RuleState& out);
bool decode_set(const nlmsghdr* h, std::string_view table, SetState& out);
bool decode_elements(const nlmsghdr* h, const std::function<void(const Element&)>& each);
// The table a notification is about ("" if none).
std::string_view table_of(const nlmsghdr* h);

}  // namespace hawser::nft
