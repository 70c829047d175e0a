// SPDX-License-Identifier: Apache-2.0
// Kubeconfigs: what is accepted can be written by us and reads the same.
#include "lib/kube/kubeconfig.h"

#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hawser;
  using fuzz::check;
  std::string text(fuzz::Input(data, size).rest());
  // Files that a kubeconfig names would make the outcome the machine's.
  if (text.contains("/") && !text.contains("://")) return 0;
  auto c = kube::parse_kubeconfig(text, "/nonexistent");
  if (!c) {
    check(!c.error().text.empty());
    return 0;
  }
  check(!c->server.empty());
  auto written = kube::kubeconfig_text(*c, "cluster", "user");
  auto again = kube::parse_kubeconfig(written, "/nonexistent");
  check(again.has_value(), again ? "" : again.error().text + ":\n" + written);
  check(again->server == c->server && again->ca_pem == c->ca_pem && again->own.cert == c->own.cert &&
            again->own.key == c->own.key && again->token == c->token,
        written);
  return 0;
}
