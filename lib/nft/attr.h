// SPDX-License-Identifier: Apache-2.0
// Netlink attributes as a range (libmnl's loop macros are C only). Each step is bounds-checked by libmnl. Internal to
// lib/nft.
#pragma once

#include <libmnl/libmnl.h>

namespace hawser::nft {

class AttrRange {
 public:
  // The attributes of a message after `header_bytes` of payload.
  AttrRange(const nlmsghdr* h, unsigned header_bytes)
      : first_(static_cast<const nlattr*>(mnl_nlmsg_get_payload_offset(h, header_bytes))),
        end_(static_cast<const char*>(mnl_nlmsg_get_payload_tail(h))) {}
  explicit AttrRange(const nlattr* nest)
      : first_(static_cast<const nlattr*>(mnl_attr_get_payload(nest))),
        end_(static_cast<const char*>(mnl_attr_get_payload(nest)) + mnl_attr_get_payload_len(nest)) {}

  struct Iterator {
    const nlattr* at;
    const char* end;
    const nlattr* operator*() const { return at; }
    void operator++() { at = mnl_attr_next(at); }
    // Against the end of the range: whether no whole attribute is left.
    bool operator!=(const Iterator&) const {
      return mnl_attr_ok(at, static_cast<int>(end - reinterpret_cast<const char*>(at)));
    }
  };
  [[nodiscard]] Iterator begin() const { return {first_, end_}; }
  [[nodiscard]] Iterator end() const { return {nullptr, end_}; }

 private:
  const nlattr* first_;
  const char* end_;
};

}  // namespace hawser::nft
