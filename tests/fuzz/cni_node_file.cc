// SPDX-License-Identifier: Apache-2.0
// node.json: what is accepted is usable, and comes back from text().
#include "cni-plugin/node_file.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hawser;
  using fuzz::check;
  auto node = cni::NodeFile::parse(fuzz::Input(data, size).rest());
  if (!node) return 0;
  check(!node->pod_cidrs.empty() && node->mtu >= 576 && node->mtu <= 65535);
  for (const auto& c : node->pod_cidrs) check(c.network() == c, c.text());
  auto again = cni::NodeFile::parse(node->text());
  check(again && *again == *node, node->text());
  return 0;
}
