// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "lib/nft/fake_nft.h"
#include "lib/nft/message.h"
#include "lib/nft/rule.h"
#include "lib/nft/text.h"

namespace hawser::nft {
namespace {

Bytes key3(const char* ip, std::uint8_t proto, std::uint16_t port) {
  Bytes b;
  b.field(Bytes::ip(*IpAddr::parse(ip))).field(Bytes::u8(proto)).field(Bytes::be16(port));
  return b;
}

Set verdicts() {
  return {.name = "v", .key = {DataType::kIpv4Addr, DataType::kInetProto, DataType::kInetService}, .verdict_map = true};
}

Transaction base() {
  Transaction t(Family::kInet, "t");
  t.add_table();
  t.add(Chain{"c", {}});
  t.add(verdicts());
  return t;
}

TEST(Bytes, ConcatenationPadsEachField) {
  const Bytes b = key3("10.0.0.1", 6, 80);
  const std::vector<std::uint8_t> want = {10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0};
  EXPECT_EQ(std::vector<std::uint8_t>(b.view().begin(), b.view().end()), want);
}

TEST(Bytes, OrdersAndHashesByContent) {
  EXPECT_LT(key3("10.0.0.1", 6, 80), key3("10.0.0.2", 6, 80));
  EXPECT_EQ(std::hash<Bytes>{}(key3("10.0.0.1", 6, 80)), std::hash<Bytes>{}(key3("10.0.0.1", 6, 80)));
  EXPECT_NE(Bytes::u8(0), Bytes());
}

TEST(IntervalElements, EndsAfterTheLastAddress) {
  const auto r = interval_elements(*Cidr::parse("10.244.0.0/16"));
  ASSERT_EQ(r.size(), 2u);
  EXPECT_EQ(r[1].key, Bytes::ip(*IpAddr::parse("10.245.0.0")));
  EXPECT_TRUE(r[1].interval_end);
  EXPECT_EQ(interval_elements(*Cidr::parse("255.0.0.0/8")).size(), 1u);
}

TEST(Transaction, LatchesTheFirstMistake) {
  struct Case {
    const char* name;
    std::function<void(Transaction&)> mistake;
    const char* want;
  };
  const Case cases[] = {
      {"long chain name",
       [](Transaction& t) {
         t.add(Chain{std::string(300, 'x'), {}});
       },
       "1 to 255"},
      {"long comment", [](Transaction& t) { t.add(Rule{.chain = "c", .comment = std::string(200, 'x')}); }, "128"},
      {"dynamic without size",
       [](Transaction& t) { t.add(Set{.name = "d", .key = {DataType::kMark}, .dynamic = true}); }, "size"},
      {"empty key", [](Transaction& t) { t.add_element("v", {}); }, "without a key"},
      {"set without a type", [](Transaction& t) { t.add(Set{.name = "s"}); }, "no key type"},
  };
  for (const Case& c : cases) {
    Transaction t = base();
    c.mistake(t);
    t.delete_table();
    FakeNft fake;
    const auto r = fake.apply(t);
    ASSERT_FALSE(r) << c.name;
    EXPECT_NE(r.error().text.find(c.want), std::string::npos) << r.error().text;
    EXPECT_EQ(fake.applied(), 0);
  }
}

TEST(Transaction, SplitsManyElementsIntoMessages) {
  Transaction t(Family::kInet, "t");
  for (int i = 0; i < 1000; ++i) {
    t.add_element(
        "v", {.key = key3("10.0.0.1", 6, static_cast<std::uint16_t>(i)), .data = Verdict{Verdict::Kind::kDrop, ""}});
  }
  EXPECT_EQ(t.ops().size(), 1u);
  const auto b = encode(t, 7);
  ASSERT_TRUE(b);
  EXPECT_EQ(b->subjects.size(), 4u);
  EXPECT_EQ(b->ack_seq, 11u);
}

TEST(Transaction, TextHasOneLineAChange) {
  Transaction t = base();
  t.add_element("v", {.key = key3("10.0.0.1", 6, 80), .data = Verdict{Verdict::Kind::kGoto, "c"}});
  EXPECT_EQ(t.text(), "add table\nadd chain c\nadd map v\nadd element v 0a000001.06000000.00500000 : goto c\n");
}

struct FakeCase {
  const char* name;
  std::function<void(Transaction&)> change;
  int want;  // errno
};

TEST(FakeNft, RefusesWhatTheKernelRefuses) {
  const Element to_c{.key = key3("10.0.0.1", 6, 80), .data = Verdict{Verdict::Kind::kGoto, "c"}};
  const Element drop{.key = key3("10.0.0.1", 6, 80), .data = Verdict{Verdict::Kind::kDrop, ""}};
  const FakeCase cases[] = {
      {"same element again", [&](Transaction& t) { t.add_element("v", to_c); }, 0},
      {"element with other data", [&](Transaction& t) { t.add_element("v", drop); }, EEXIST},
      {"delete then add", [&](Transaction& t) { t.delete_element("v", drop.key), t.add_element("v", drop); }, 0},
      {"delete what is not there", [&](Transaction& t) { t.delete_element("v", key3("10.0.0.9", 6, 80)); }, ENOENT},
      {"delete a chain that is named", [&](Transaction& t) { t.delete_chain("c"); }, EBUSY},
      {"delete a chain no longer named", [&](Transaction& t) { t.flush_set("v"), t.delete_chain("c"); }, 0},
      {"rule in no chain", [&](Transaction& t) { t.add(Rule{.chain = "x"}); }, ENOENT},
      {"jump to no chain",
       [&](Transaction& t) {
         t.add_element("v", {.key = key3("10.0.0.2", 6, 80), .data = Verdict{Verdict::Kind::kJump, "x"}});
       },
       ENOENT},
      {"set of another type", [&](Transaction& t) { t.add(Set{.name = "v", .key = {DataType::kMark}}); }, EEXIST},
  };
  for (const FakeCase& c : cases) {
    FakeNft fake;
    Transaction t = base();
    t.add_element("v", to_c);
    ASSERT_TRUE(fake.apply(t));
    const std::string before = fake.list(Family::kInet, "t");
    Transaction u(Family::kInet, "t");
    c.change(u);
    const auto r = fake.apply(u);
    EXPECT_EQ(r ? 0 : r.error().code, c.want) << c.name;
    if (!r) {
      EXPECT_EQ(fake.list(Family::kInet, "t"), before) << c.name;
    }
  }
}

TEST(FakeNft, FailsOnceOnRequest) {
  FakeNft fake;
  fake.fail_next({EAGAIN, "busy", {}});
  EXPECT_FALSE(fake.apply(base()));
  EXPECT_TRUE(fake.tables().empty());
  EXPECT_TRUE(fake.apply(base()));
}

TEST(RuleBuilder, AddsTheFamilyOnlyWhereTheTableLacksIt) {
  const auto in_inet = RuleBuilder("c").match_set({ip_saddr(AF_INET)}, "s").build();
  const auto in_ip = RuleBuilder("c", Family::kIpv4).match_set({ip_saddr(AF_INET)}, "s").build();
  EXPECT_EQ(in_inet.exprs.size(), in_ip.exprs.size() + 2);
  EXPECT_EQ(in_inet.text, in_ip.text);
}

TEST(Fingerprint, IgnoresCountersValuesOnly) {
  const auto a = RuleBuilder("c").counter().verdict({Verdict::Kind::kDrop, ""}).build();
  const auto b = RuleBuilder("d").counter().verdict({Verdict::Kind::kDrop, ""}).comment("x").build();
  const auto c = RuleBuilder("c").counter().verdict({Verdict::Kind::kAccept, ""}).build();
  EXPECT_EQ(fingerprint(a), fingerprint(b));
  EXPECT_NE(fingerprint(a), fingerprint(c));
}

TEST(Transaction, InParts) {
  const auto element = [](std::uint8_t n) { return Element{.key = Bytes::u8(n)}; };
  const auto filled = [&] {
    Transaction t(Family::kInet, "t");
    t.add(Chain{"c", {}});
    for (std::uint8_t n = 0; n < 5; ++n) t.add_element("s", element(n));
    t.delete_element("s", element(9));
    t.flush_chain("c");
    return t;
  };
  ASSERT_EQ(filled().parts(8).size(), 1u);
  EXPECT_EQ(filled().parts(8).front().text(), filled().text());
  const auto parts = filled().parts(3);
  ASSERT_EQ(parts.size(), 3u);
  std::size_t touched = 0, elements = 0;
  for (const auto& t : parts) {
    EXPECT_LE(t.size(), 3u);
    touched += t.size();
    for (const auto& op : t.ops()) {
      if (const auto* add = std::get_if<AddElements>(&op)) elements += add->elements.size();
    }
  }
  EXPECT_EQ(touched, filled().size());
  EXPECT_EQ(elements, 5u);
  EXPECT_TRUE(std::holds_alternative<AddChain>(parts.front().ops().front()));
  EXPECT_TRUE(std::holds_alternative<FlushChain>(parts.back().ops().back()));
  // A mistake stays one.
  Transaction wrong(Family::kInet, "");
  EXPECT_TRUE(std::move(wrong).parts(1).front().error());
}

}  // namespace
}  // namespace hawser::nft
