// SPDX-License-Identifier: Apache-2.0
// A reservation file of host-local's. Line 1: its name; the rest: its content. Whose name it bears can be a record's
// owner, and in host-local's own spelling it is the same one.
#include "cni-plugin/environment.h"
#include "cni-plugin/ipam/host_local.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hawser;
  using fuzz::check;
  fuzz::Input in(data, size);
  const auto name = in.line();
  if (auto a = cni::ipam::reserved_address(name)) check(a->text() == name && *a, std::string(name));
  auto owner = cni::ipam::parse_reservation(in.rest());
  if (!owner) {
    check(owner.error().code == EINVAL && !owner.error().text.empty(), owner.error().text);
    return 0;
  }
  check(cni::identifier_fault(owner->container).empty() && owner->container.size() <= cni::ipam::kMaxContainerBytes,
        owner->container);
  check(cni::interface_name_fault(owner->ifname).empty(), owner->ifname);
  auto again = cni::ipam::parse_reservation(owner->container + "\r\n" + owner->ifname);
  check(again && *again == *owner, owner->container);
  return 0;
}
