// SPDX-License-Identifier: Apache-2.0
// Result<T>: the one way a function of ours reports failure. Nothing of ours throws; library exceptions are turned into
// a Result at the boundary that calls the library. Use:
//
//   auto fd = open_file(path);
//   if (!fd) return std::unexpected(std::move(fd.error()).context("load config"));
//
// Values are plain data, safe to copy between threads.
#pragma once

#include <cerrno>
#include <expected>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace hawser {

struct Error {
  // An errno value (1..199), an HTTP status (400..599), or 0 when neither says it.
  int code = 0;
  // One sentence for a person, without a trailing full stop; context() puts the wider step in front: "step: text".
  std::string text;
  // A machine-readable word where the source has one: the `reason` of a Kubernetes Status, else empty.
  std::string reason;

  bool operator==(const Error&) const = default;

  template <class... A>
  [[nodiscard]] Error context(fmt::format_string<A...> f, A&&... a) && {
    text = fmt::format("{}: {}", fmt::format(f, std::forward<A>(a)...), text);
    return std::move(*this);
  }
};

template <class T = void>
using Result = std::expected<T, Error>;

// A failed Result: `return fail(EINVAL, "mtu {}: below 576", mtu);`
template <class... A>
[[nodiscard]] std::unexpected<Error> fail(int code, fmt::format_string<A...> f, A&&... a) {
  return std::unexpected(Error{code, fmt::format(f, std::forward<A>(a)...), {}});
}

// A failed Result from errno `err`, its text appended: `return fail_errno(errno, "open {}", path);`
std::unexpected<Error> fail_errno(int err, std::string what);
template <class... A>
[[nodiscard]] std::unexpected<Error> fail_errno(int err, fmt::format_string<A...> f, A&&... a) {
  return fail_errno(err, fmt::format(f, std::forward<A>(a)...));
}

// Passes a failed Result of any type on: `if (!r) return propagate(r, "add route {}", cidr);`
template <class T, class... A>
[[nodiscard]] std::unexpected<Error> propagate(Result<T>& r, fmt::format_string<A...> f, A&&... a) {
  return std::unexpected(std::move(r.error()).context(f, std::forward<A>(a)...));
}
template <class T>
[[nodiscard]] std::unexpected<Error> propagate(Result<T>& r) {
  return std::unexpected(std::move(r.error()));
}

[[nodiscard]] bool is_not_found(const Error& e);  // ENOENT, ESRCH, ENODEV, HTTP 404
[[nodiscard]] bool is_exists(const Error& e);     // EEXIST, or HTTP 409 with reason AlreadyExists
[[nodiscard]] bool is_conflict(const Error& e);   // HTTP 409 with any other reason: a lost compare-and-swap
[[nodiscard]] bool is_gone(const Error& e);       // HTTP 410: the revision asked for was compacted
[[nodiscard]] bool is_temporary(const Error& e);  // worth trying again: EAGAIN, ECONNREFUSED, ETIMEDOUT, 429, 5xx, ...

}  // namespace hawser
