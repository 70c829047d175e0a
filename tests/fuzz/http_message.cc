// SPDX-License-Identifier: Apache-2.0
// Request targets. Line 1: a query name; line 2: a value; the rest: a target as it came over the wire. Whatever is
// percent-encoded comes back, and reading a hostile target is total.
#include "lib/http/message.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hawser;
  using fuzz::check;
  fuzz::Input in(data, size);
  std::string name(in.line());
  std::string value(in.line());
  auto encoded = http::percent_encode(value);
  check(http::percent_decode(encoded) == value, encoded);
  check(encoded.find_first_of("&=?#/ +") == encoded.npos, encoded);

  http::Request built;
  built.target = "/p?a=1&" + http::percent_encode(name) + "=" + encoded;
  check(built.path() == "/p");
  if (name != "a") check(built.has_query(name) && built.query(name) == value, built.target);

  http::Request given;
  given.target = in.rest();
  check(given.path().find('?') == std::string_view::npos);
  check(given.target.starts_with(given.path()));
  if (!given.has_query(name)) check(given.query(name).empty(), given.target);
  check(http::percent_decode(given.target).size() <= given.target.size());

  http::Headers headers;
  headers.add(name, "first");
  headers.add(name, value);
  check(headers.get(name) == "first" && headers.all().size() == 2);
  headers.set(name, value);
  check(headers.get(name) == value && headers.all().size() == 1);
  return 0;
}
