// SPDX-License-Identifier: Apache-2.0
// Failure: what a CNI verb answers when it fails. Codes 1..99 are the specification's (SPEC.md section 5), 100 and up
// ours. Everything below the verbs returns Result; the verbs map it to a code once, with as_failure(). Pure.
#pragma once

#include <expected>
#include <string>

#include "lib/base/result.h"

namespace hawser::cni {

enum class Code {
  kIncompatibleVersion = 1,
  kUnsupportedField = 2,  // the message holds key and value
  kUnknownContainer = 3,
  kInvalidEnvironment = 4,
  kIo = 5,
  kDecode = 6,
  kInvalidConfig = 7,
  kInvalidNetns = 8,
  kTryAgainLater = 11,
  kNotAvailable = 50,
  kLimitedConnectivity = 51,  // not available, and containers that are attached may not reach everybody
  kInternal = 999,
  // Ours:
  kNoAddress = 100,        // the range is full, or the requested address is held
  kAlreadyAttached = 101,  // this container has this interface, or the namespace has one of that name
  kCheckFailed = 102,      // CHECK found a difference; the message names it
  kDelegateFailed = 103,   // the IPAM plugin could not be run
  kPortTaken = 104,        // another container has this host port
};

struct Failure {
  Code code = Code::kInternal;
  std::string msg;
  std::string details;
};

template <class T = void>
using Outcome = std::expected<T, Failure>;

template <class... A>
[[nodiscard]] std::unexpected<Failure> failure(Code code, fmt::format_string<A...> f, A&&... a) {
  return std::unexpected(Failure{code, fmt::format(f, std::forward<A>(a)...), {}});
}
template <class T>
[[nodiscard]] std::unexpected<Failure> as_failure(Code code, const Result<T>& r) {
  return std::unexpected(Failure{code, r.error().text, {}});
}

}  // namespace hawser::cni
