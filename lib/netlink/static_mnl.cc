// SPDX-License-Identifier: Apache-2.0
// libmnl's functions for a program that is linked statically: Debian has that library as a shared one only, and loading
// shared libraries costs the CNI plugin, started twice in the life of each pod, a quarter of its CPU. They do what
// <libmnl/libmnl.h> and its manual say, for those that libnftnl, lib/netlink and lib/nft call. Linked into the plugin
// in place of libmnl; the daemons have the real one.
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include <libmnl/libmnl.h>
#include <sys/socket.h>

#include "lib/base/unique_fd.h"

struct mnl_socket {
  hawser::UniqueFd fd;
  sockaddr_nl address{};
};

namespace {

template <class T>
T read_as(const nlattr* a) {
  T v;
  std::memcpy(&v, mnl_attr_get_payload(a), sizeof v);
  return v;
}

void put_raw(nlmsghdr* h, std::uint16_t type, const void* data, std::size_t len, std::size_t room) {
  auto* a = static_cast<nlattr*>(mnl_nlmsg_get_payload_tail(h));
  a->nla_type = type;
  a->nla_len = static_cast<std::uint16_t>(MNL_ATTR_HDRLEN + len);
  auto* payload = static_cast<std::uint8_t*>(mnl_attr_get_payload(a));
  if (len != 0) std::memcpy(payload, data, len);
  std::memset(payload + len, 0, room - len);
  h->nlmsg_len += static_cast<std::uint32_t>(MNL_ATTR_HDRLEN + room);
}

// The least and, where it is fixed, the exact size of a payload of each type.
struct PayloadSize {
  std::size_t bytes;
  bool exact;
};
constexpr std::array<PayloadSize, MNL_TYPE_MAX> kSizes = [] {
  std::array<PayloadSize, MNL_TYPE_MAX> s{};
  s[MNL_TYPE_U8] = {sizeof(std::uint8_t), true};
  s[MNL_TYPE_U16] = {sizeof(std::uint16_t), true};
  s[MNL_TYPE_U32] = {sizeof(std::uint32_t), true};
  s[MNL_TYPE_U64] = {sizeof(std::uint64_t), true};
  s[MNL_TYPE_MSECS] = {sizeof(std::uint64_t), true};
  return s;
}();

}  // namespace

extern "C" {

std::uint16_t mnl_attr_get_type(const nlattr* a) {
  return a->nla_type & NLA_TYPE_MASK;
}
std::uint16_t mnl_attr_get_len(const nlattr* a) {
  return a->nla_len;
}
std::uint16_t mnl_attr_get_payload_len(const nlattr* a) {
  return static_cast<std::uint16_t>(a->nla_len - MNL_ATTR_HDRLEN);
}
void* mnl_attr_get_payload(const nlattr* a) {
  return const_cast<char*>(reinterpret_cast<const char*>(a)) + MNL_ATTR_HDRLEN;
}
bool mnl_attr_ok(const nlattr* a, int len) {
  return len >= static_cast<int>(sizeof(nlattr)) && a->nla_len >= sizeof(nlattr) && static_cast<int>(a->nla_len) <= len;
}
nlattr* mnl_attr_next(const nlattr* a) {
  return reinterpret_cast<nlattr*>(const_cast<char*>(reinterpret_cast<const char*>(a)) + MNL_ALIGN(a->nla_len));
}
int mnl_attr_type_valid(const nlattr* a, std::uint16_t max) {
  if (mnl_attr_get_type(a) <= max) return 1;
  errno = EOPNOTSUPP;
  return -1;
}
int mnl_attr_validate(const nlattr* a, mnl_attr_data_type type) {
  const std::size_t len = mnl_attr_get_payload_len(a);
  const auto* text = static_cast<const char*>(mnl_attr_get_payload(a));
  bool good = type >= 0 && type < MNL_TYPE_MAX;
  if (!good) {
    errno = EINVAL;
    return -1;
  }
  const auto& size = kSizes[type];
  good = size.exact ? len == size.bytes : len >= size.bytes;
  if (type == MNL_TYPE_FLAG) good = len == 0;
  if (type == MNL_TYPE_STRING) good = len != 0;
  if (type == MNL_TYPE_NUL_STRING) good = len != 0 && text[len - 1] == 0;
  if (type == MNL_TYPE_NESTED && len != 0) good = len >= MNL_ATTR_HDRLEN;
  if (good) return 0;
  errno = ERANGE;
  return -1;
}
int mnl_attr_parse(const nlmsghdr* h, unsigned offset, mnl_attr_cb_t cb, void* data) {
  auto* a = static_cast<nlattr*>(mnl_nlmsg_get_payload_offset(h, offset));
  const auto* end = static_cast<char*>(mnl_nlmsg_get_payload_tail(h));
  for (; mnl_attr_ok(a, static_cast<int>(end - reinterpret_cast<char*>(a))); a = mnl_attr_next(a)) {
    if (int r = cb(a, data); r <= MNL_CB_STOP) return r;
  }
  return MNL_CB_OK;
}
int mnl_attr_parse_nested(const nlattr* nested, mnl_attr_cb_t cb, void* data) {
  auto* a = static_cast<nlattr*>(mnl_attr_get_payload(nested));
  const auto* end = reinterpret_cast<char*>(a) + mnl_attr_get_payload_len(nested);
  for (; mnl_attr_ok(a, static_cast<int>(end - reinterpret_cast<char*>(a))); a = mnl_attr_next(a)) {
    if (int r = cb(a, data); r <= MNL_CB_STOP) return r;
  }
  return MNL_CB_OK;
}
std::uint8_t mnl_attr_get_u8(const nlattr* a) {
  return read_as<std::uint8_t>(a);
}
std::uint16_t mnl_attr_get_u16(const nlattr* a) {
  return read_as<std::uint16_t>(a);
}
std::uint32_t mnl_attr_get_u32(const nlattr* a) {
  return read_as<std::uint32_t>(a);
}
std::uint64_t mnl_attr_get_u64(const nlattr* a) {
  return read_as<std::uint64_t>(a);
}
const char* mnl_attr_get_str(const nlattr* a) {
  return static_cast<const char*>(mnl_attr_get_payload(a));
}

void mnl_attr_put(nlmsghdr* h, std::uint16_t type, std::size_t len, const void* data) {
  put_raw(h, type, data, len, MNL_ALIGN(len));
}
bool mnl_attr_put_check(nlmsghdr* h, std::size_t size, std::uint16_t type, std::size_t len, const void* data) {
  if (h->nlmsg_len + MNL_ATTR_HDRLEN + MNL_ALIGN(len) > size) return false;
  mnl_attr_put(h, type, len, data);
  return true;
}
void mnl_attr_put_u8(nlmsghdr* h, std::uint16_t type, std::uint8_t v) {
  mnl_attr_put(h, type, sizeof v, &v);
}
void mnl_attr_put_u16(nlmsghdr* h, std::uint16_t type, std::uint16_t v) {
  mnl_attr_put(h, type, sizeof v, &v);
}
void mnl_attr_put_u32(nlmsghdr* h, std::uint16_t type, std::uint32_t v) {
  mnl_attr_put(h, type, sizeof v, &v);
}
void mnl_attr_put_u64(nlmsghdr* h, std::uint16_t type, std::uint64_t v) {
  mnl_attr_put(h, type, sizeof v, &v);
}
void mnl_attr_put_str(nlmsghdr* h, std::uint16_t type, const char* s) {
  mnl_attr_put(h, type, std::strlen(s), s);
}
void mnl_attr_put_strz(nlmsghdr* h, std::uint16_t type, const char* s) {
  mnl_attr_put(h, type, std::strlen(s) + 1, s);
}
nlattr* mnl_attr_nest_start(nlmsghdr* h, std::uint16_t type) {
  auto* a = static_cast<nlattr*>(mnl_nlmsg_get_payload_tail(h));
  a->nla_type = NLA_F_NESTED | type;  // the length is known at its end
  h->nlmsg_len += MNL_ALIGN(sizeof(nlattr));
  return a;
}
nlattr* mnl_attr_nest_start_check(nlmsghdr* h, std::size_t size, std::uint16_t type) {
  return h->nlmsg_len + MNL_ATTR_HDRLEN > size ? nullptr : mnl_attr_nest_start(h, type);
}
void mnl_attr_nest_end(nlmsghdr* h, nlattr* start) {
  start->nla_len =
      static_cast<std::uint16_t>(static_cast<char*>(mnl_nlmsg_get_payload_tail(h)) - reinterpret_cast<char*>(start));
}

nlmsghdr* mnl_nlmsg_put_header(void* buf) {
  auto* h = static_cast<nlmsghdr*>(buf);
  std::memset(h, 0, MNL_ALIGN(sizeof(nlmsghdr)));
  h->nlmsg_len = MNL_ALIGN(sizeof(nlmsghdr));
  return h;
}
void* mnl_nlmsg_put_extra_header(nlmsghdr* h, std::size_t size) {
  void* at = reinterpret_cast<char*>(h) + h->nlmsg_len;
  std::memset(at, 0, MNL_ALIGN(size));
  h->nlmsg_len += static_cast<std::uint32_t>(MNL_ALIGN(size));
  return at;
}
std::size_t mnl_nlmsg_get_payload_len(const nlmsghdr* h) {
  return h->nlmsg_len - MNL_NLMSG_HDRLEN;
}
void* mnl_nlmsg_get_payload(const nlmsghdr* h) {
  return mnl_nlmsg_get_payload_offset(h, 0);
}
void* mnl_nlmsg_get_payload_offset(const nlmsghdr* h, std::size_t offset) {
  return const_cast<char*>(reinterpret_cast<const char*>(h)) + MNL_NLMSG_HDRLEN + MNL_ALIGN(offset);
}
void* mnl_nlmsg_get_payload_tail(const nlmsghdr* h) {
  return const_cast<char*>(reinterpret_cast<const char*>(h)) + MNL_ALIGN(h->nlmsg_len);
}
bool mnl_nlmsg_ok(const nlmsghdr* h, int len) {
  return len >= static_cast<int>(sizeof(nlmsghdr)) && h->nlmsg_len >= sizeof(nlmsghdr) &&
         static_cast<int>(h->nlmsg_len) <= len;
}
nlmsghdr* mnl_nlmsg_next(const nlmsghdr* h, int* len) {
  *len -= static_cast<int>(MNL_ALIGN(h->nlmsg_len));
  return reinterpret_cast<nlmsghdr*>(const_cast<char*>(reinterpret_cast<const char*>(h)) + MNL_ALIGN(h->nlmsg_len));
}

mnl_socket* mnl_socket_open2(int bus, int flags) {
  hawser::UniqueFd fd(socket(AF_NETLINK, SOCK_RAW | flags, bus));
  return fd ? new mnl_socket{std::move(fd)} : nullptr;
}
mnl_socket* mnl_socket_open(int bus) {
  return mnl_socket_open2(bus, 0);
}
int mnl_socket_bind(mnl_socket* s, unsigned groups, pid_t pid) {
  s->address = {.nl_family = AF_NETLINK, .nl_pad = 0, .nl_pid = static_cast<std::uint32_t>(pid), .nl_groups = groups};
  if (bind(s->fd.get(), reinterpret_cast<sockaddr*>(&s->address), sizeof s->address) < 0) return -1;
  socklen_t len = sizeof s->address;
  return getsockname(s->fd.get(), reinterpret_cast<sockaddr*>(&s->address), &len);
}
int mnl_socket_close(mnl_socket* s) {
  delete s;
  return 0;
}
int mnl_socket_get_fd(const mnl_socket* s) {
  return s->fd.get();
}
unsigned mnl_socket_get_portid(const mnl_socket* s) {
  return s->address.nl_pid;
}
int mnl_socket_setsockopt(const mnl_socket* s, int type, void* buf, socklen_t len) {
  return setsockopt(s->fd.get(), SOL_NETLINK, type, buf, len);
}
ssize_t mnl_socket_sendto(const mnl_socket* s, const void* data, std::size_t len) {
  const sockaddr_nl kernel{.nl_family = AF_NETLINK, .nl_pad = 0, .nl_pid = 0, .nl_groups = 0};
  return sendto(s->fd.get(), data, len, 0, reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel);
}

// The rest is asked for by nftnl_batch_is_supported() alone, which stands in the same object of libnftnl as functions
// that we use, and which nobody calls.
ssize_t mnl_socket_recvfrom(const mnl_socket*, void*, std::size_t) {
  errno = EOPNOTSUPP;
  return -1;
}
int mnl_cb_run(const void*, std::size_t, unsigned, unsigned, mnl_cb_t, void*) {
  errno = EOPNOTSUPP;
  return MNL_CB_ERROR;
}
mnl_nlmsg_batch* mnl_nlmsg_batch_start(void*, std::size_t) {
  return nullptr;
}
void mnl_nlmsg_batch_stop(mnl_nlmsg_batch*) {}
bool mnl_nlmsg_batch_next(mnl_nlmsg_batch*) {
  return false;
}
std::size_t mnl_nlmsg_batch_size(mnl_nlmsg_batch*) {
  return 0;
}
void* mnl_nlmsg_batch_head(mnl_nlmsg_batch*) {
  return nullptr;
}
void* mnl_nlmsg_batch_current(mnl_nlmsg_batch*) {
  return nullptr;
}

}  // extern "C"
