// SPDX-License-Identifier: Apache-2.0
#include "lib/nft/message.h"

#include <cstring>

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include "lib/nft/attr.h"
#include "lib/nft/rule.h"

namespace hawser::nft {
namespace {

// One message may be at most 64 KiB less a little, because a nested attribute's length has 16 bits.
constexpr std::size_t kMessageBytes = 64 * 1024;
constexpr std::size_t kElementsPerMessage = 300;    // times at most 200 bytes each
constexpr std::uint32_t kVerdictType = 0xffffff00;  // NFT_DATA_VERDICT
constexpr unsigned kTypeBits = 6;                   // of nft's concatenated type numbers

std::uint32_t concat_type(const std::vector<DataType>& types) {
  std::uint32_t r = 0;
  for (const DataType t : types) r = (r << kTypeBits) | static_cast<std::uint32_t>(t);
  return r;
}

std::uint32_t concat_bytes(const std::vector<DataType>& types) {
  if (types.size() == 1) return type_bytes(types[0]);
  std::uint32_t n = 0;
  for (const DataType t : types) n += (type_bytes(t) + 3) & ~3u;
  return n;
}

Result<std::vector<DataType>> types_of(std::uint32_t code) {
  std::vector<DataType> r;
  for (; code != 0; code >>= kTypeBits) {
    const auto t = static_cast<DataType>(code & ((1u << kTypeBits) - 1));
    if (type_bytes(t) == 0) return fail(ENOTSUP, "data type {}", code);
    r.insert(r.begin(), t);
  }
  return r;
}

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};
using TablePtr = std::unique_ptr<nftnl_table, Deleter<nftnl_table_free>>;
using ChainPtr = std::unique_ptr<nftnl_chain, Deleter<nftnl_chain_free>>;
using SetPtr = std::unique_ptr<nftnl_set, Deleter<nftnl_set_free>>;

struct Udata {
  explicit Udata(std::uint8_t type, const std::string& text) : buf(nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN)) {
    if (buf != nullptr) nftnl_udata_put_strz(buf, type, text.c_str());
  }
  ~Udata() {
    if (buf != nullptr) nftnl_udata_buf_free(buf);
  }
  Udata(const Udata&) = delete;
  Udata& operator=(const Udata&) = delete;
  nftnl_udata_buf* buf;
};

// Appends messages to a growing buffer; each is built in a scratch page first.
class BatchBuilder {
 public:
  BatchBuilder(const Transaction& t, std::uint32_t first_seq) : t_(t), scratch_(kMessageBytes) {
    batch_.first_seq = first_seq;
    seq_ = first_seq;
    nftnl_batch_begin(scratch(), seq_++);
    flush();
  }

  nlmsghdr* start(std::uint16_t type, std::uint16_t flags, std::string subject) {
    last_ = batch_.bytes.size();
    batch_.subjects.push_back(std::move(subject));
    return nftnl_nlmsg_build_hdr(scratch(), type, static_cast<std::uint16_t>(t_.family()), flags, seq_++);
  }
  void flush() {
    const auto* h = reinterpret_cast<const nlmsghdr*>(scratch_.data());
    batch_.bytes.insert(batch_.bytes.end(), scratch_.begin(),
                        scratch_.begin() + static_cast<long>(MNL_ALIGN(h->nlmsg_len)));
  }
  const char* table() const { return t_.table().c_str(); }

  Batch finish() {
    reinterpret_cast<nlmsghdr*>(batch_.bytes.data() + last_)->nlmsg_flags |= NLM_F_ACK;
    batch_.ack_seq = seq_ - 1;
    nftnl_batch_end(scratch(), seq_++);
    flush();
    return std::move(batch_);
  }

 private:
  char* scratch() { return reinterpret_cast<char*>(scratch_.data()); }
  const Transaction& t_;
  std::vector<std::uint8_t> scratch_;
  Batch batch_;
  std::uint32_t seq_ = 0;
  std::size_t last_ = 0;
};

void put_data(nlmsghdr* h, std::uint16_t attr, const Bytes& b) {
  nlattr* nest = mnl_attr_nest_start(h, attr);
  mnl_attr_put(h, NFTA_DATA_VALUE, b.size(), b.view().data());
  mnl_attr_nest_end(h, nest);
}

void put_element(nlmsghdr* h, const Element& e, bool with_data) {
  nlattr* nest = mnl_attr_nest_start(h, NFTA_LIST_ELEM);
  if (e.interval_end) mnl_attr_put_u32(h, NFTA_SET_ELEM_FLAGS, htonl(NFT_SET_ELEM_INTERVAL_END));
  if (with_data && e.timeout_ms != 0) mnl_attr_put_u64(h, NFTA_SET_ELEM_TIMEOUT, htobe64(e.timeout_ms));
  put_data(h, NFTA_SET_ELEM_KEY, e.key);
  if (const auto* end = std::get_if<RangeEnd>(&e.data)) put_data(h, NFTA_SET_ELEM_KEY_END, end->key);
  if (with_data) {
    if (const auto* d = std::get_if<Bytes>(&e.data)) put_data(h, NFTA_SET_ELEM_DATA, *d);
    if (const auto* v = std::get_if<Verdict>(&e.data)) {
      nlattr* data = mnl_attr_nest_start(h, NFTA_SET_ELEM_DATA);
      nlattr* verdict = mnl_attr_nest_start(h, NFTA_DATA_VERDICT);
      mnl_attr_put_u32(h, NFTA_VERDICT_CODE, htonl(static_cast<std::uint32_t>(verdict_code(v->kind))));
      if (!v->chain.empty()) mnl_attr_put_strz(h, NFTA_VERDICT_CHAIN, v->chain.c_str());
      mnl_attr_nest_end(h, verdict);
      mnl_attr_nest_end(h, data);
    }
  }
  mnl_attr_nest_end(h, nest);
}

void put_elements(BatchBuilder& b, const std::string& set, const std::vector<Element>& elements, bool add) {
  for (std::size_t at = 0; at < elements.size(); at += kElementsPerMessage) {
    nlmsghdr* h = add ? b.start(NFT_MSG_NEWSETELEM, NLM_F_CREATE, fmt::format("add elements to {}", set))
                      : b.start(NFT_MSG_DELSETELEM, 0, fmt::format("delete elements from {}", set));
    mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_TABLE, b.table());
    mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_SET, set.c_str());
    nlattr* list = mnl_attr_nest_start(h, NFTA_SET_ELEM_LIST_ELEMENTS);
    const std::size_t end = std::min(elements.size(), at + kElementsPerMessage);
    for (std::size_t i = at; i < end; ++i) put_element(h, elements[i], add);
    mnl_attr_nest_end(h, list);
    b.flush();
  }
}

nftnl_expr* to_nftnl(const Expr& e) {
  nftnl_expr* x = nftnl_expr_alloc(e.name.c_str());
  if (x == nullptr) return nullptr;
  struct Put {
    nftnl_expr* x;
    std::uint16_t id;
    void operator()(std::uint8_t v) { nftnl_expr_set_u8(x, id, v); }
    void operator()(std::uint32_t v) { nftnl_expr_set_u32(x, id, v); }
    void operator()(std::uint64_t v) { nftnl_expr_set_u64(x, id, v); }
    void operator()(const Bytes& v) { nftnl_expr_set(x, id, v.view().data(), static_cast<std::uint32_t>(v.size())); }
    void operator()(const std::string& v) { nftnl_expr_set_str(x, id, v.c_str()); }
  };
  for (const auto& [id, value] : e.attrs) std::visit(Put{x, id}, value);
  return x;
}

SetPtr to_nftnl(const Set& s, const char* table, Family family) {
  SetPtr r(nftnl_set_alloc());
  if (!r) return r;
  std::uint32_t flags = 0;
  if (s.is_map()) flags |= NFT_SET_MAP;
  if (s.interval) flags |= NFT_SET_INTERVAL;
  if (s.timeout) flags |= NFT_SET_TIMEOUT;
  if (s.dynamic) flags |= NFT_SET_EVAL;
  nftnl_set_set_str(r.get(), NFTNL_SET_TABLE, table);
  nftnl_set_set_str(r.get(), NFTNL_SET_NAME, s.name.c_str());
  nftnl_set_set_u32(r.get(), NFTNL_SET_FAMILY, static_cast<std::uint32_t>(family));
  nftnl_set_set_u32(r.get(), NFTNL_SET_FLAGS, flags);
  nftnl_set_set_u32(r.get(), NFTNL_SET_KEY_TYPE, concat_type(s.key));
  nftnl_set_set_u32(r.get(), NFTNL_SET_KEY_LEN, concat_bytes(s.key));
  // Required by the kernel's parser, meaningless for a named set.
  nftnl_set_set_u32(r.get(), NFTNL_SET_ID, 1);
  if (s.verdict_map) {
    nftnl_set_set_u32(r.get(), NFTNL_SET_DATA_TYPE, kVerdictType);
    nftnl_set_set_u32(r.get(), NFTNL_SET_DATA_LEN, 0);
  } else if (!s.data.empty()) {
    nftnl_set_set_u32(r.get(), NFTNL_SET_DATA_TYPE, concat_type(s.data));
    nftnl_set_set_u32(r.get(), NFTNL_SET_DATA_LEN, concat_bytes(s.data));
  }
  if (s.has_range_ends()) {
    std::vector<std::uint8_t> lengths;
    for (const DataType t : s.key) lengths.push_back(static_cast<std::uint8_t>(type_bytes(t)));
    nftnl_set_set_u32(r.get(), NFTNL_SET_FLAGS, flags | NFT_SET_CONCAT);
    nftnl_set_set_data(r.get(), NFTNL_SET_DESC_CONCAT, lengths.data(), static_cast<std::uint32_t>(lengths.size()));
  }
  if (s.size != 0) nftnl_set_set_u32(r.get(), NFTNL_SET_DESC_SIZE, s.size);
  if (!s.comment.empty()) {
    const Udata u(NFTNL_UDATA_SET_COMMENT, s.comment);
    nftnl_set_set_data(r.get(), NFTNL_SET_USERDATA, nftnl_udata_buf_data(u.buf), nftnl_udata_buf_len(u.buf));
  }
  return r;
}

ChainPtr to_nftnl(const Chain& c, const char* table) {
  ChainPtr r(nftnl_chain_alloc());
  if (!r) return r;
  nftnl_chain_set_str(r.get(), NFTNL_CHAIN_TABLE, table);
  nftnl_chain_set_str(r.get(), NFTNL_CHAIN_NAME, c.name.c_str());
  if (c.base) {
    nftnl_chain_set_str(r.get(), NFTNL_CHAIN_TYPE, c.base->type.c_str());
    nftnl_chain_set_u32(r.get(), NFTNL_CHAIN_HOOKNUM, static_cast<std::uint32_t>(c.base->hook));
    nftnl_chain_set_s32(r.get(), NFTNL_CHAIN_PRIO, c.base->priority);
    nftnl_chain_set_u32(r.get(), NFTNL_CHAIN_POLICY, NF_ACCEPT);
  }
  return r;
}

// One overload a change. Each adds its messages to the batch.
struct Encode {
  BatchBuilder& b;

  void operator()(const AddTable& o) {
    TablePtr t(nftnl_table_alloc());
    nftnl_table_set_str(t.get(), NFTNL_TABLE_NAME, b.table());
    if (!o.comment.empty()) {
      const Udata u(NFTNL_UDATA_TABLE_COMMENT, o.comment);
      nftnl_table_set_data(t.get(), NFTNL_TABLE_USERDATA, nftnl_udata_buf_data(u.buf), nftnl_udata_buf_len(u.buf));
    }
    nftnl_table_nlmsg_build_payload(b.start(NFT_MSG_NEWTABLE, NLM_F_CREATE, "add table"), t.get());
    b.flush();
  }
  void operator()(const DeleteTable&) {
    mnl_attr_put_strz(b.start(NFT_MSG_DELTABLE, 0, "delete table"), NFTA_TABLE_NAME, b.table());
    b.flush();
  }
  void operator()(const AddChain& o) {
    ChainPtr c = to_nftnl(o.chain, b.table());
    nftnl_chain_nlmsg_build_payload(b.start(NFT_MSG_NEWCHAIN, NLM_F_CREATE, "add chain " + o.chain.name), c.get());
    b.flush();
  }
  void operator()(const DeleteChain& o) {
    nlmsghdr* h = b.start(NFT_MSG_DELCHAIN, 0, "delete chain " + o.name);
    mnl_attr_put_strz(h, NFTA_CHAIN_TABLE, b.table());
    mnl_attr_put_strz(h, NFTA_CHAIN_NAME, o.name.c_str());
    b.flush();
  }
  void operator()(const AddRule& o) {
    NftnlRulePtr r = nft::to_nftnl(o.rule);
    nftnl_rule_set_str(r.get(), NFTNL_RULE_TABLE, b.table());
    nftnl_rule_nlmsg_build_payload(b.start(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND,
                                           fmt::format("add rule to {}: {}", o.rule.chain, o.rule.text)),
                                   r.get());
    b.flush();
  }
  void operator()(const DeleteRule& o) {
    nlmsghdr* h = b.start(NFT_MSG_DELRULE, 0, fmt::format("delete rule {} of {}", o.handle, o.chain));
    mnl_attr_put_strz(h, NFTA_RULE_TABLE, b.table());
    mnl_attr_put_strz(h, NFTA_RULE_CHAIN, o.chain.c_str());
    mnl_attr_put_u64(h, NFTA_RULE_HANDLE, htobe64(o.handle));
    b.flush();
  }
  void operator()(const FlushChain& o) {
    nlmsghdr* h = b.start(NFT_MSG_DELRULE, 0, "flush chain " + o.name);
    mnl_attr_put_strz(h, NFTA_RULE_TABLE, b.table());
    mnl_attr_put_strz(h, NFTA_RULE_CHAIN, o.name.c_str());
    b.flush();
  }
  void operator()(const AddSet& o) {
    SetPtr s = to_nftnl(o.set, b.table(), Family::kInet);
    nftnl_set_nlmsg_build_payload(b.start(NFT_MSG_NEWSET, NLM_F_CREATE, "add set " + o.set.name), s.get());
    b.flush();
  }
  void operator()(const DeleteSet& o) {
    nlmsghdr* h = b.start(NFT_MSG_DELSET, 0, "delete set " + o.name);
    mnl_attr_put_strz(h, NFTA_SET_TABLE, b.table());
    mnl_attr_put_strz(h, NFTA_SET_NAME, o.name.c_str());
    b.flush();
  }
  void operator()(const FlushSet& o) {
    nlmsghdr* h = b.start(NFT_MSG_DELSETELEM, 0, "flush set " + o.name);
    mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_TABLE, b.table());
    mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_SET, o.name.c_str());
    b.flush();
  }
  void operator()(const AddElements& o) { put_elements(b, o.set, o.elements, true); }
  void operator()(const DeleteElements& o) { put_elements(b, o.set, o.elements, false); }
};

Result<Bytes> data_value(const nlattr* nest) {
  for (const nlattr* a : AttrRange(nest)) {
    if (mnl_attr_get_type(a) == NFTA_DATA_VALUE) {
      return Bytes({static_cast<const std::uint8_t*>(mnl_attr_get_payload(a)), mnl_attr_get_payload_len(a)});
    }
  }
  return fail(EBADMSG, "element without a value");
}

Verdict verdict_of(const nlattr* nest) {
  Verdict v;
  for (const nlattr* a : AttrRange(nest)) {
    if (mnl_attr_get_type(a) == NFTA_VERDICT_CHAIN) v.chain = mnl_attr_get_str(a);
    if (mnl_attr_get_type(a) != NFTA_VERDICT_CODE) continue;
    switch (static_cast<std::int32_t>(ntohl(mnl_attr_get_u32(a)))) {
      case NF_ACCEPT:
        v.kind = Verdict::Kind::kAccept;
        break;
      case NFT_RETURN:
        v.kind = Verdict::Kind::kReturn;
        break;
      case NFT_JUMP:
        v.kind = Verdict::Kind::kJump;
        break;
      case NFT_GOTO:
        v.kind = Verdict::Kind::kGoto;
        break;
      default:
        v.kind = Verdict::Kind::kDrop;
        break;
    }
  }
  return v;
}

void decode_element_data(const nlattr* nest, Element& e) {
  for (const nlattr* a : AttrRange(nest)) {
    if (mnl_attr_get_type(a) == NFTA_DATA_VERDICT) e.data = verdict_of(a);
    if (mnl_attr_get_type(a) == NFTA_DATA_VALUE) {
      e.data = Bytes({static_cast<const std::uint8_t*>(mnl_attr_get_payload(a)), mnl_attr_get_payload_len(a)});
    }
  }
}

std::string comment_of(const void* data, std::uint32_t len, std::uint8_t type) {
  std::string r;
  if (data == nullptr) return r;
  // type, length, value; the value of a text ends in a zero.
  const auto* p = static_cast<const std::uint8_t*>(data);
  for (std::uint32_t at = 0; at + 2 <= len && at + 2 + p[at + 1] <= len; at += 2u + p[at + 1]) {
    if (p[at] == type && p[at + 1] > 0) r.assign(reinterpret_cast<const char*>(p + at + 2), p[at + 1] - 1u);
  }
  return r;
}

}  // namespace

void NftnlRuleDeleter::operator()(nftnl_rule* r) const {
  nftnl_rule_free(r);
}

NftnlRulePtr to_nftnl(const Rule& r) {
  NftnlRulePtr n(nftnl_rule_alloc());
  nftnl_rule_set_str(n.get(), NFTNL_RULE_CHAIN, r.chain.c_str());
  for (const Expr& e : r.exprs) {
    if (nftnl_expr* x = to_nftnl(e)) nftnl_rule_add_expr(n.get(), x);
  }
  if (!r.comment.empty()) {
    const Udata u(NFTNL_UDATA_RULE_COMMENT, r.comment);
    nftnl_rule_set_data(n.get(), NFTNL_RULE_USERDATA, nftnl_udata_buf_data(u.buf), nftnl_udata_buf_len(u.buf));
  }
  return n;
}

std::string fingerprint_of(const nftnl_rule* r) {
  std::string out;
  nftnl_expr_foreach(
      const_cast<nftnl_rule*>(r),
      [](nftnl_expr* x, void* arg) {
        auto& o = *static_cast<std::string*>(arg);
        const std::string name = nftnl_expr_get_str(x, NFTNL_EXPR_NAME);
        char buf[1024];
        buf[0] = 0;
        if (name != "counter") nftnl_expr_snprintf(buf, sizeof buf, x, NFTNL_OUTPUT_DEFAULT, 0);
        o += '[' + name + ' ' + buf + ']';
        return 0;
      },
      &out);
  return out;
}

std::string fingerprint(const Rule& r) {
  return fingerprint_of(to_nftnl(r).get());
}

Result<Batch> encode(const Transaction& t, std::uint32_t first_seq) {
  if (t.error()) return std::unexpected(*t.error());
  BatchBuilder b(t, first_seq);
  for (const Change& c : t.ops()) std::visit(Encode{b}, c);
  return b.finish();
}

bool decode_chain(const nlmsghdr* h, std::string_view table, ChainState& out) {
  ChainPtr c(nftnl_chain_alloc());
  if (!c || nftnl_chain_nlmsg_parse(h, c.get()) < 0) return false;
  if (nftnl_chain_get_str(c.get(), NFTNL_CHAIN_TABLE) != table) return false;
  out.spec.name = nftnl_chain_get_str(c.get(), NFTNL_CHAIN_NAME);
  out.handle = nftnl_chain_get_u64(c.get(), NFTNL_CHAIN_HANDLE);
  if (nftnl_chain_is_set(c.get(), NFTNL_CHAIN_HOOKNUM)) {
    BaseHook base;
    base.type = nftnl_chain_get_str(c.get(), NFTNL_CHAIN_TYPE);
    base.hook = static_cast<BaseHook::Hook>(nftnl_chain_get_u32(c.get(), NFTNL_CHAIN_HOOKNUM));
    base.priority = nftnl_chain_get_s32(c.get(), NFTNL_CHAIN_PRIO);
    out.spec.base = base;
  }
  return true;
}

bool decode_rule(const nlmsghdr* h, std::string_view table, std::string& chain, RuleState& out) {
  NftnlRulePtr r(nftnl_rule_alloc());
  if (!r || nftnl_rule_nlmsg_parse(h, r.get()) < 0) return false;
  if (nftnl_rule_get_str(r.get(), NFTNL_RULE_TABLE) != table) return false;
  chain = nftnl_rule_get_str(r.get(), NFTNL_RULE_CHAIN);
  out.handle = nftnl_rule_get_u64(r.get(), NFTNL_RULE_HANDLE);
  out.fingerprint = fingerprint_of(r.get());
  std::uint32_t len = 0;
  const void* u = nftnl_rule_get_data(r.get(), NFTNL_RULE_USERDATA, &len);
  out.comment = comment_of(u, len, NFTNL_UDATA_RULE_COMMENT);
  return true;
}

bool decode_set(const nlmsghdr* h, std::string_view table, SetState& out) {
  SetPtr s(nftnl_set_alloc());
  if (!s || nftnl_set_nlmsg_parse(h, s.get()) < 0) return false;
  if (nftnl_set_get_str(s.get(), NFTNL_SET_TABLE) != table) return false;
  const std::uint32_t flags = nftnl_set_get_u32(s.get(), NFTNL_SET_FLAGS);
  out.spec.name = nftnl_set_get_str(s.get(), NFTNL_SET_NAME);
  out.handle = nftnl_set_get_u64(s.get(), NFTNL_SET_HANDLE);
  // A type that is not one of ours leaves the key empty: the set is then compatible with nothing and replaced.
  if (auto key = types_of(nftnl_set_get_u32(s.get(), NFTNL_SET_KEY_TYPE))) out.spec.key = *key;
  if ((flags & NFT_SET_MAP) != 0) {
    const std::uint32_t type = nftnl_set_get_u32(s.get(), NFTNL_SET_DATA_TYPE);
    out.spec.verdict_map = type == kVerdictType;
    auto data = out.spec.verdict_map ? Result<std::vector<DataType>>{} : types_of(type);
    if (data) out.spec.data = *data;
  }
  out.spec.interval = (flags & NFT_SET_INTERVAL) != 0;
  out.spec.timeout = (flags & NFT_SET_TIMEOUT) != 0;
  out.spec.dynamic = (flags & NFT_SET_EVAL) != 0;
  if (nftnl_set_is_set(s.get(), NFTNL_SET_DESC_SIZE)) out.spec.size = nftnl_set_get_u32(s.get(), NFTNL_SET_DESC_SIZE);
  return true;
}

bool decode_elements(const nlmsghdr* h, const std::function<void(const Element&)>& each) {
  for (const nlattr* attr : AttrRange(h, sizeof(nfgenmsg))) {
    if (mnl_attr_get_type(attr) != NFTA_SET_ELEM_LIST_ELEMENTS) continue;
    for (const nlattr* item : AttrRange(attr)) {
      Element e;
      for (const nlattr* a : AttrRange(item)) {
        switch (mnl_attr_get_type(a)) {
          case NFTA_SET_ELEM_KEY:
            if (auto k = data_value(a)) e.key = *k;
            break;
          case NFTA_SET_ELEM_KEY_END:
            if (auto k = data_value(a)) e.data = RangeEnd{*k};
            break;
          case NFTA_SET_ELEM_DATA:
            decode_element_data(a, e);
            break;
          case NFTA_SET_ELEM_FLAGS:
            e.interval_end = (ntohl(mnl_attr_get_u32(a)) & NFT_SET_ELEM_INTERVAL_END) != 0;
            break;
          case NFTA_SET_ELEM_TIMEOUT:
            e.timeout_ms = be64toh(mnl_attr_get_u64(a));
            break;
          default:
            break;
        }
      }
      each(e);
    }
  }
  return true;
}

std::string_view table_of(const nlmsghdr* h) {
  // NFTA_{TABLE_NAME,CHAIN_TABLE,RULE_TABLE,SET_TABLE,SET_ELEM_LIST_TABLE,OBJ_TABLE,FLOWTABLE_TABLE} are all
  // attribute 1.
  const int type = h->nlmsg_type & 0xff;
  if (type == NFT_MSG_NEWGEN || type == NFT_MSG_TRACE) return {};
  for (const nlattr* attr : AttrRange(h, sizeof(nfgenmsg))) {
    if (mnl_attr_get_type(attr) == NFTA_TABLE_NAME) return mnl_attr_get_str(attr);
  }
  return {};
}

}  // namespace hawser::nft
