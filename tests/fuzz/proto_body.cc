// SPDX-License-Identifier: Apache-2.0
// Protobuf request bodies. Line 1: apiVersion; line 2: kind; the rest: the message inside the envelope. Reading is
// total, and what comes out is an object of that kind as JSON can hold it.
#include "controlplane/apiserver/proto_body.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "lib/kube/object.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace hawser;
using fuzz::check;

void append_bytes(std::string& out, int field, std::string_view bytes) {
  out += static_cast<char>(field << 3 | 2);
  for (std::size_t n = bytes.size();;) {
    out += static_cast<char>((n & 0x7f) | (n > 0x7f ? 0x80 : 0));
    if ((n >>= 7) == 0) break;
  }
  out += bytes;
}

void check_read(std::string_view body) {
  auto o = apiserver::from_protobuf(body);
  if (!o) {
    check(o.error().code == 400 && !o.error().message.empty());
    return;
  }
  // DeleteOptions come with any apiVersion, also with none.
  check(!kube::str(*o, {"kind"}).empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input in(data, size);
  check_read({reinterpret_cast<const char*>(data), size});
  auto version = in.line();
  std::string type;
  append_bytes(type, 1, version);
  append_bytes(type, 2, in.line());
  std::string body("k8s\0", 4);
  append_bytes(body, 1, type);
  append_bytes(body, 2, in.rest());
  check_read(body);
  return 0;
}
