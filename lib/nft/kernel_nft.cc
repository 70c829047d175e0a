// SPDX-License-Identifier: Apache-2.0
#include "lib/nft/kernel_nft.h"

#include <algorithm>
#include <array>
#include <vector>

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <libnftnl/common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include "lib/nft/attr.h"
#include "lib/nft/message.h"
#include "lib/nft/socket.h"

namespace hawser::nft {
namespace {

constexpr int kDumpTries = 10;
constexpr std::size_t kAnswerBytes = 32 * 1024;

struct Request {
  std::array<char, 1024> buf{};
  nlmsghdr* h = nullptr;
  Request(std::uint16_t type, Family family)
      : h(nftnl_nlmsg_build_hdr(buf.data(), type, static_cast<std::uint16_t>(family), 0, 0)) {}
};

}  // namespace

struct KernelNft::Impl {
  NfSocket socket;
};

KernelNft::KernelNft(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
KernelNft::~KernelNft() = default;

std::uint32_t KernelNft::port_id() const {
  return impl_->socket.port_id();
}

Result<std::unique_ptr<KernelNft>> KernelNft::open() {
  auto s = NfSocket::open();
  if (!s && s.error().code == EPROTONOSUPPORT) {
    return fail(ENOTSUP, "this kernel has no nfnetlink: CONFIG_NF_TABLES is needed (Linux 6.1 or later)");
  }
  if (!s) return propagate(s);
  std::unique_ptr<KernelNft> r(new KernelNft(std::make_unique<Impl>(Impl{std::move(*s)})));
  if (auto g = r->generation(); !g) {
    if (g.error().code == EPERM) return fail(EPERM, "nf_tables: CAP_NET_ADMIN is needed");
    return fail(ENOTSUP, "this kernel has no nf_tables ({}): CONFIG_NF_TABLES is needed (Linux 6.1 or later)",
                g.error().text);
  }
  return r;
}

Result<> KernelNft::apply(const Transaction& t) {
  if (t.error()) return std::unexpected(*t.error());
  if (t.empty()) return {};
  auto b = encode(t, impl_->socket.next_seq(static_cast<std::uint32_t>(t.size()) + 3));
  if (!b) return propagate(b);
  if (auto r = impl_->socket.send(b->bytes); !r) {
    return propagate(r, "nft transaction of {} changes ({} bytes)", t.size(), b->bytes.size());
  }
  return collect_answers(*b);
}

Result<> KernelNft::collect_answers(const Batch& b) {
  // The kernel has answered before sendmsg returned; what is not there now never comes.
  std::vector<std::uint8_t> buf(kAnswerBytes);
  Error first;
  bool acknowledged = false;
  for (;;) {
    auto n = impl_->socket.receive(buf, false);
    if (!n && n.error().code == ENOBUFS) continue;  // more errors than the socket holds; the first are there
    if (!n) return propagate(n);
    if (*n == 0) break;
    int left = static_cast<int>(*n);
    for (auto* h = reinterpret_cast<const nlmsghdr*>(buf.data()); mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left)) {
      if (h->nlmsg_type != NLMSG_ERROR || h->nlmsg_seq < b.first_seq) continue;
      Answer a = decode_answer(h);
      if (a.err == 0) acknowledged = acknowledged || a.seq == b.ack_seq;
      if (a.err == 0 || first.code != 0) continue;
      const std::size_t i = a.seq - b.first_seq - 1;
      auto e = fail_errno(a.err, "nft: {}", i < b.subjects.size() ? b.subjects[i] : "transaction");
      first = std::move(e.error());
      if (!a.text.empty()) first.text += " (" + a.text + ")";
    }
  }
  if (first.code != 0) return std::unexpected(std::move(first));
  if (!acknowledged) return fail(EIO, "nft: transaction was not acknowledged");
  return {};
}

Result<TableState> KernelNft::read_table(Family family, std::string_view table) {
  Result<> last;
  for (int i = 0; i < kDumpTries; ++i) {
    TableState s;
    Request tables(NFT_MSG_GETTABLE, family);
    last = impl_->socket.dump(tables.h, [&](const nlmsghdr* h) { s.exists = s.exists || table_of(h) == table; });
    if (last && !s.exists) return s;
    Request chains(NFT_MSG_GETCHAIN, family);
    if (last) {
      last = impl_->socket.dump(chains.h, [&](const nlmsghdr* h) {
        ChainState c;
        if (decode_chain(h, table, c)) s.chains[c.spec.name] = std::move(c);
      });
    }
    Request rules(NFT_MSG_GETRULE, family);
    mnl_attr_put_strz(rules.h, NFTA_RULE_TABLE, std::string(table).c_str());
    if (last) {
      last = impl_->socket.dump(rules.h, [&](const nlmsghdr* h) {
        RuleState r;
        std::string chain;
        if (decode_rule(h, table, chain, r)) s.chains[chain].rules.push_back(std::move(r));
      });
    }
    Request sets(NFT_MSG_GETSET, family);
    mnl_attr_put_strz(sets.h, NFTA_SET_TABLE, std::string(table).c_str());
    if (last) {
      last = impl_->socket.dump(sets.h, [&](const nlmsghdr* h) {
        SetState x;
        if (decode_set(h, table, x)) s.sets[x.spec.name] = std::move(x);
      });
    }
    if (last) return s;
    // ENOENT: the table went between two of the dumps. Both mean: look again.
    if (last.error().code != EINTR && last.error().code != ENOENT) break;
  }
  return propagate(last, "read nft table {}", table);
}

Result<> KernelNft::read_elements(Family family, std::string_view table, const Set& set,
                                  const std::function<void(const Element&)>& each,
                                  const std::function<void()>& restart) {
  Result<> last;
  for (int i = 0; i < kDumpTries; ++i) {
    if (i > 0) restart();
    Request q(NFT_MSG_GETSETELEM, family);
    mnl_attr_put_strz(q.h, NFTA_SET_ELEM_LIST_TABLE, std::string(table).c_str());
    mnl_attr_put_strz(q.h, NFTA_SET_ELEM_LIST_SET, set.name.c_str());
    last = impl_->socket.dump(q.h, [&](const nlmsghdr* h) { decode_elements(h, each); });
    if (last || last.error().code != EINTR) break;
  }
  if (!last) return propagate(last, "read nft set {}", set.name);
  return {};
}

Result<std::uint32_t> KernelNft::generation() {
  Request q(NFT_MSG_GETGEN, Family::kInet);
  q.h->nlmsg_seq = impl_->socket.next_seq();
  q.h->nlmsg_flags |= NLM_F_REQUEST;
  if (auto r = impl_->socket.send({reinterpret_cast<const std::uint8_t*>(q.h), q.h->nlmsg_len}); !r)
    return propagate(r);
  std::vector<std::uint8_t> buf(kAnswerBytes);
  for (;;) {
    auto n = impl_->socket.receive(buf, true);
    if (!n) return propagate(n);
    int left = static_cast<int>(*n);
    for (auto* h = reinterpret_cast<const nlmsghdr*>(buf.data()); mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left)) {
      if (h->nlmsg_seq != q.h->nlmsg_seq) continue;
      if (h->nlmsg_type == NLMSG_ERROR) return fail_errno(decode_answer(h).err, "nft generation");
      for (const nlattr* attr : AttrRange(h, sizeof(nfgenmsg))) {
        if (mnl_attr_get_type(attr) == NFTA_GEN_ID) return ntohl(mnl_attr_get_u32(attr));
      }
    }
  }
}

}  // namespace hawser::nft
