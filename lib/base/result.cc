// SPDX-License-Identifier: Apache-2.0
#include "lib/base/result.h"

#include <cstring>

namespace hawser {

std::unexpected<Error> fail_errno(int err, std::string what) {
  char buf[128];
  // GNU strerror_r returns the text, which may not be in buf.
  return std::unexpected(Error{err, what + ": " + strerror_r(err, buf, sizeof buf), {}});
}

bool is_not_found(const Error& e) {
  return e.code == ENOENT || e.code == ESRCH || e.code == ENODEV || e.code == 404;
}
bool is_exists(const Error& e) {
  return e.code == EEXIST || (e.code == 409 && e.reason == "AlreadyExists");
}
bool is_conflict(const Error& e) {
  return e.code == 409 && e.reason != "AlreadyExists";
}
bool is_gone(const Error& e) {
  return e.code == 410;
}
bool is_temporary(const Error& e) {
  switch (e.code) {
    case EAGAIN:
    case EINTR:
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case ETIMEDOUT:
    case EPIPE:
    case ENETUNREACH:
    case EHOSTUNREACH:
    case EBUSY:
    case 429:
      return true;
    default:
      return e.code >= 500;
  }
}

}  // namespace hawser
