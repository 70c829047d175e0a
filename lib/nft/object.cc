// SPDX-License-Identifier: Apache-2.0
#include "lib/nft/object.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

namespace hawser::nft {

const char* family_text(Family f) {
  switch (f) {
    case Family::kInet:
      return "inet";
    case Family::kIpv4:
      return "ip";
    case Family::kIpv6:
      return "ip6";
  }
  return "";
}

Bytes Bytes::u8(std::uint8_t v) {
  return Bytes({&v, 1});
}

Bytes Bytes::be16(std::uint16_t v) {
  const std::uint8_t b[2] = {static_cast<std::uint8_t>(v >> 8), static_cast<std::uint8_t>(v)};
  return Bytes(b);
}

Bytes Bytes::host32(std::uint32_t v) {
  std::uint8_t b[4];
  std::memcpy(b, &v, sizeof v);
  return Bytes(b);
}

Bytes Bytes::ip(const IpAddr& a) {
  return Bytes(a.bytes());
}

void Bytes::append(std::span<const std::uint8_t> b) {
  const std::size_t n = std::min(b.size(), kMax - size_);
  std::copy_n(b.begin(), n, data_.begin() + size_);
  size_ = static_cast<std::uint8_t>(size_ + n);
}

Bytes& Bytes::field(const Bytes& b) {
  *this = padded();
  append(b.view());
  *this = padded();
  return *this;
}

Bytes Bytes::padded() const {
  Bytes r = *this;
  r.size_ = static_cast<std::uint8_t>(std::min<std::size_t>((size_ + 3u) & ~3u, kMax));
  return r;
}

std::strong_ordering Bytes::operator<=>(const Bytes& o) const {
  const int c = std::memcmp(data_.data(), o.data_.data(), std::min(size_, o.size_));
  if (c != 0) return c < 0 ? std::strong_ordering::less : std::strong_ordering::greater;
  return size_ <=> o.size_;
}

bool Bytes::operator==(const Bytes& o) const {
  return size_ == o.size_ && std::memcmp(data_.data(), o.data_.data(), size_) == 0;
}

std::size_t Bytes::hash() const {
  return std::hash<std::string_view>{}({reinterpret_cast<const char*>(data_.data()), size_});
}

std::int32_t verdict_code(Verdict::Kind k) {
  switch (k) {
    case Verdict::Kind::kAccept:
      return NF_ACCEPT;
    case Verdict::Kind::kDrop:
      return NF_DROP;
    case Verdict::Kind::kReturn:
      return NFT_RETURN;
    case Verdict::Kind::kJump:
      return NFT_JUMP;
    case Verdict::Kind::kGoto:
      return NFT_GOTO;
  }
  return NF_DROP;
}

std::string verdict_text(const Verdict& v) {
  switch (v.kind) {
    case Verdict::Kind::kAccept:
      return "accept";
    case Verdict::Kind::kDrop:
      return "drop";
    case Verdict::Kind::kReturn:
      return "return";
    case Verdict::Kind::kJump:
      return "jump " + v.chain;
    case Verdict::Kind::kGoto:
      return "goto " + v.chain;
  }
  return "";
}

std::uint32_t type_bytes(DataType t) {
  switch (t) {
    case DataType::kIpv4Addr:
      return 4;
    case DataType::kIpv6Addr:
      return 16;
    case DataType::kInetProto:
      return 1;
    case DataType::kInetService:
      return 2;
    case DataType::kMark:
      return 4;
  }
  return 0;
}

const char* type_text(DataType t) {
  switch (t) {
    case DataType::kIpv4Addr:
      return "ipv4_addr";
    case DataType::kIpv6Addr:
      return "ipv6_addr";
    case DataType::kInetProto:
      return "inet_proto";
    case DataType::kInetService:
      return "inet_service";
    case DataType::kMark:
      return "mark";
  }
  return "";
}

bool Set::compatible(const Set& o) const {
  return name == o.name && key == o.key && data == o.data && verdict_map == o.verdict_map && interval == o.interval &&
         timeout == o.timeout && dynamic == o.dynamic && size == o.size;
}

std::vector<Element> interval_elements(const Cidr& c) {
  std::vector<Element> r;
  r.push_back({.key = Bytes::ip(c.network().addr())});
  const IpAddr end = c.last().plus(1);
  const auto b = end.bytes();
  const bool wrapped = std::all_of(b.begin(), b.end(), [](std::uint8_t x) { return x == 0; });
  if (!wrapped) r.push_back({.key = Bytes::ip(end), .interval_end = true});
  return r;
}

}  // namespace hawser::nft
