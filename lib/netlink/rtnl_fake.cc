// SPDX-License-Identifier: Apache-2.0
#include "lib/netlink/rtnl_fake.h"

#include <algorithm>

namespace hawser::netlink {
namespace {

// Applies a verb to a list of values that are one entry when same(a, b).
template <class T, class Same>
Result<> apply(std::vector<T>& list, Verb verb, const T& value, Same same) {
  auto it = std::ranges::find_if(list, [&](const T& x) { return same(x, value); });
  if (verb == Verb::kDelete) {
    if (it == list.end()) return fail_errno(ESRCH, "delete");
    list.erase(it);
  } else if (it == list.end()) {
    list.push_back(value);
  } else if (verb == Verb::kAdd) {
    return fail_errno(EEXIST, "add");
  } else {
    *it = value;
  }
  return {};
}

}  // namespace

Result<> FakeRtnl::write(const char* what, Verb verb, const std::string& key) {
  if (fail_in_ > 0 && --fail_in_ == 0) return fail(EIO, "{} {}: injected failure", what, key);
  writes_++;
  const char* sign = verb == Verb::kAdd ? "+" : verb == Verb::kReplace ? "=" : "-";
  log_.push_back(fmt::format("{}{} {}", what, sign, key));
  return {};
}

int FakeRtnl::add_hardware(const std::string& name, int mtu) {
  int i = next_index_++;
  links_[i] = {.index = i, .name = name, .mtu = mtu, .up = true, .carrier = true};
  return i;
}

Result<Link> FakeRtnl::get_link(const std::string& name) {
  for (auto& [index, l] : links_) {
    if (l.name == name) return l;
  }
  return fail_errno(ENODEV, "link {}", name);
}

Result<std::vector<Link>> FakeRtnl::list_links() {
  std::vector<Link> all;
  for (auto& [index, l] : links_) all.push_back(l);
  return all;
}

Result<> FakeRtnl::add_link(const LinkSpec& s) {
  if (get_link(s.name)) return fail_errno(EEXIST, "create link {}", s.name);
  bool far = s.kind == "veth" && s.peer.netns_fd >= 0 && peer_namespace_;
  if (far && peer_namespace_->get_link(s.peer.name)) return fail_errno(EEXIST, "create link {}", s.peer.name);
  if (auto w = write("link", Verb::kAdd, s.name); !w) return w;
  int i = next_index_++;
  MacAddr made{{0x02, 0, 0, 0, 0, static_cast<std::uint8_t>(i)}};
  links_[i] = {.index = i,
               .name = s.name,
               .kind = s.kind,
               .mtu = s.mtu ? s.mtu : 1500,
               .up = s.up,
               .carrier = s.up,
               .mac = s.mac.value_or(made),
               .vxlan = s.vxlan};
  if (far) {
    int p = peer_namespace_->next_index_++;
    links_[i].peer_index = p;
    peer_namespace_->links_[p] = {.index = p,
                                  .name = s.peer.name,
                                  .kind = "veth",
                                  .mtu = links_[i].mtu,
                                  .mac = s.peer.mac.value_or(made),
                                  .peer_index = i};
  }
  return {};
}

Result<> FakeRtnl::change_link(int index, const LinkChange& c) {
  if (!exists(index)) return fail_errno(ENODEV, "change link {}", index);
  Link& l = links_[index];
  if (auto w = write("link", Verb::kReplace, l.name); !w) return w;
  if (c.up) l.up = l.carrier = *c.up;
  if (c.mtu) l.mtu = *c.mtu;
  if (c.mac) l.mac = *c.mac;
  if (c.master) l.master = *c.master;
  if (c.alias) l.alias = *c.alias;
  if (c.learning) l.vxlan.learning = *c.learning;
  return {};
}

Result<> FakeRtnl::delete_link(int index) {
  if (!exists(index)) return fail_errno(ENODEV, "delete link {}", index);
  if (auto w = write("link", Verb::kDelete, links_[index].name); !w) return w;
  const Link gone = links_[index];
  drop_link(index);
  if (gone.kind == "veth" && peer_namespace_ && gone.peer_index) peer_namespace_->drop_link(gone.peer_index);
  return {};
}

void FakeRtnl::drop_link(int index) {
  links_.erase(index);
  std::erase_if(addresses_, [&](auto& a) { return a.link == index; });
  std::erase_if(routes_, [&](auto& r) { return r.link == index; });
  std::erase_if(neighs_, [&](auto& n) { return n.link == index; });
}

Result<std::vector<Address>> FakeRtnl::list_addresses(int link) {
  auto out = addresses_;
  if (link) std::erase_if(out, [&](auto& a) { return a.link != link; });
  return out;
}

Result<> FakeRtnl::change_address(Verb verb, const Address& a) {
  if (!exists(a.link)) return fail_errno(ENODEV, "address {}", a.cidr);
  if (auto w = write("address", verb, a.cidr.text()); !w) return w;
  return apply(addresses_, verb, a, [](auto& x, auto& y) { return x.link == y.link && x.cidr == y.cidr; });
}

Result<std::vector<Route>> FakeRtnl::list_routes(int link) {
  auto out = routes_;
  if (link) std::erase_if(out, [&](auto& r) { return r.link != link; });
  return out;
}

Result<> FakeRtnl::change_route(Verb verb, const Route& r) {
  if (r.link && !exists(r.link)) return fail_errno(ENODEV, "route {}", r.dst);
  if (auto w = write("route", verb, r.dst.text()); !w) return w;
  return apply(routes_, verb, r, [&](auto& x, auto& y) {
    return x.dst == y.dst && x.metric == y.metric && (verb != Verb::kDelete || x.link == y.link);
  });
}

Result<std::vector<Neigh>> FakeRtnl::list_neighs(NeighTable table, int link) {
  auto out = neighs_;
  std::erase_if(out, [&](auto& n) { return n.link != link || n.table != table; });
  return out;
}

Result<> FakeRtnl::change_neigh(Verb verb, const Neigh& n) {
  if (!exists(n.link)) return fail_errno(ENODEV, "neighbour {}", n.ip);
  const bool fdb = n.table == NeighTable::kFdb;
  auto key = fdb ? fmt::format("{}>{}", n.mac, n.ip) : fmt::format("{}>{}", n.ip, n.mac);
  if (auto w = write(fdb ? "fdb" : "neigh", verb, key); !w) return w;
  // A neighbour table is keyed by address, an FDB by MAC.
  return apply(neighs_, verb, n, [&](auto& x, auto& y) {
    return x.table == y.table && x.link == y.link && (fdb ? x.mac == y.mac : x.ip == y.ip);
  });
}

}  // namespace hawser::netlink
