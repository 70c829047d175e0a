// SPDX-License-Identifier: Apache-2.0
// nftables objects as plain values: what a Transaction adds or deletes and what a runner reads back. Any thread; no
// kernel headers, so that fakes, plans and goldens need none. Sizes and numbers are those of
// <linux/netfilter/nf_tables.h>.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "lib/base/ip.h"

namespace hawser::nft {

// NFPROTO_*: the family of a table.
enum class Family : std::uint8_t { kInet = 1, kIpv4 = 2, kIpv6 = 10 };
[[nodiscard]] const char* family_text(Family f);

// Up to 64 bytes held in place (NFT_DATA_VALUE_MAXLEN): keys and data of set elements, operands of expressions. A
// concatenation is its fields one after the other, each padded with zeros to a multiple of 4.
class Bytes {
 public:
  static constexpr std::size_t kMax = 64;
  Bytes() = default;
  explicit Bytes(std::span<const std::uint8_t> b) { append(b); }
  static Bytes u8(std::uint8_t v);
  static Bytes be16(std::uint16_t v);    // ports
  static Bytes host32(std::uint32_t v);  // marks, numgen slots, address types: the kernel keeps them in host order
  static Bytes ip(const IpAddr& a);
  // Appends what fits; the kernel's own limit makes more an error of the caller's.
  void append(std::span<const std::uint8_t> b);
  // Pads to a multiple of 4, then appends: the next field of a concatenation.
  Bytes& field(const Bytes& b);
  [[nodiscard]] Bytes padded() const;
  [[nodiscard]] std::span<const std::uint8_t> view() const { return {data_.data(), size_}; }
  [[nodiscard]] std::span<const std::uint8_t> sub(std::size_t offset, std::size_t n) const {
    return view().subspan(offset, n);
  }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  std::strong_ordering operator<=>(const Bytes& o) const;
  bool operator==(const Bytes& o) const;
  [[nodiscard]] std::size_t hash() const;

 private:
  std::array<std::uint8_t, kMax> data_{};
  std::uint8_t size_ = 0;
};

struct Verdict {
  enum class Kind : std::uint8_t { kAccept, kDrop, kReturn, kJump, kGoto };
  Kind kind = Kind::kAccept;
  std::string chain;  // kJump and kGoto
  auto operator<=>(const Verdict&) const = default;
};
[[nodiscard]] std::string verdict_text(const Verdict& v);
[[nodiscard]] std::int32_t verdict_code(Verdict::Kind kind);  // the kernel's: NF_ACCEPT, NFT_JUMP, ...

// The types nft knows by number; the number goes into a set so that `nft list` prints its elements properly.
enum class DataType : std::uint8_t { kIpv4Addr = 7, kIpv6Addr = 8, kInetProto = 12, kInetService = 13, kMark = 19 };
[[nodiscard]] std::uint32_t type_bytes(DataType t);
[[nodiscard]] const char* type_text(DataType t);

struct Table {
  std::string name;
  std::string comment;
};

struct BaseHook {
  std::string type;  // "nat", "filter", "route"
  // NF_INET_*: the hook's number.
  enum class Hook : std::uint8_t {
    kPrerouting = 0,
    kInput = 1,
    kForward = 2,
    kOutput = 3,
    kPostrouting = 4
  } hook = Hook::kPrerouting;
  std::int32_t priority = 0;
  bool operator==(const BaseHook&) const = default;
};

struct Chain {
  std::string name;
  std::optional<BaseHook> base;  // none: a regular chain; base chains have policy accept
  bool operator==(const Chain&) const = default;
};

// One expression in the kernel's sense: its name and its attributes by libnftnl's number. Made by RuleBuilder (rule.h).
struct Expr {
  using Value = std::variant<std::uint8_t, std::uint32_t, std::uint64_t, Bytes, std::string>;
  std::string name;
  std::vector<std::pair<std::uint16_t, Value>> attrs;
  bool operator==(const Expr&) const = default;
};

struct Rule {
  std::string chain;
  std::vector<Expr> exprs;
  std::string text;     // nft's own form of the rule, as `nft list` prints it, without the comment
  std::string comment;  // at most 128 characters
};

struct Set {
  std::string name;
  std::vector<DataType> key;
  std::vector<DataType> data;  // a map; empty and !verdict_map: a plain set
  bool verdict_map = false;
  // Ranges. Elements come from interval_elements(), or, with more than one key field, say their RangeEnd.
  bool interval = false;
  bool timeout = false;    // elements may carry a timeout
  bool dynamic = false;    // rules may add elements
  std::uint32_t size = 0;  // 0: unlimited; required for dynamic
  std::string comment;
  [[nodiscard]] bool is_map() const { return verdict_map || !data.empty(); }
  [[nodiscard]] bool has_range_ends() const { return interval && key.size() > 1; }
  // What decides whether an existing set can serve as this one (comments do not).
  [[nodiscard]] bool compatible(const Set& o) const;
};

// Instead of data, in a set of concatenations with ranges in them: the last key of the element's range.
struct RangeEnd {
  Bytes key;
  bool operator==(const RangeEnd&) const = default;
};

struct Element {
  Bytes key;
  std::variant<std::monostate, Bytes, Verdict, RangeEnd> data;
  std::uint64_t timeout_ms = 0;  // 0: the element stays
  bool interval_end = false;
  bool operator==(const Element&) const = default;
};

// The two elements that stand for `c` in an interval set of its family (one if it reaches the family's last address).
[[nodiscard]] std::vector<Element> interval_elements(const Cidr& c);

// ---- what is read back ----

struct RuleState {
  std::uint64_t handle = 0;
  std::string fingerprint;  // fingerprint(Rule) of an equal rule is the same text
  std::string comment;
};
struct ChainState {
  Chain spec;
  std::uint64_t handle = 0;
  std::vector<RuleState> rules;  // in order
};
struct SetState {
  Set spec;
  std::uint64_t handle = 0;
};
struct TableState {
  bool exists = false;
  std::uint64_t handle = 0;
  std::map<std::string, ChainState> chains;
  std::map<std::string, SetState> sets;  // elements apart: NftRunner::read_elements()
};

}  // namespace hawser::nft

template <>
struct std::hash<hawser::nft::Bytes> {
  std::size_t operator()(const hawser::nft::Bytes& b) const noexcept { return b.hash(); }
};
