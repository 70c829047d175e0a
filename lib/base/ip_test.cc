// SPDX-License-Identifier: Apache-2.0
#include "lib/base/ip.h"

#include <cstring>
#include <type_traits>

#include <gtest/gtest.h>

#include "lib/base/endian.h"

namespace hawser {
namespace {

TEST(IpTest, ParsesAndPrintsBothFamilies) {
  for (const char* text :
       {"0.0.0.0", "10.244.0.1", "255.255.255.255", "::", "::1", "fd00::1:2", "2001:db8::ff00:42:8329"}) {
    auto ip = IpAddr::parse(text);
    ASSERT_TRUE(ip) << text;
    EXPECT_EQ(ip->text(), text);
    EXPECT_EQ(IpAddr::from_bytes(ip->bytes()), *ip);
  }
  for (const char* text : {"", "10.0.0", "10.0.0.256", "10.0.0.01x", "1:2", "localhost", ":::1", "10.0.0.1/24",
                           "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000"})
    EXPECT_FALSE(IpAddr::parse(text)) << text;
  EXPECT_FALSE(IpAddr::parse(std::string_view("10.0.0.1\0x", 10)));
  EXPECT_FALSE(IpAddr());
  EXPECT_EQ(IpAddr().text(), "invalid");
}

TEST(IpTest, CountsAcrossBytesAndWraps) {
  struct Case {
    const char* from;
    std::uint64_t n;
    const char* want;
  };
  for (const auto& c :
       {Case{"10.0.0.255", 1, "10.0.1.0"}, Case{"10.255.255.255", 2, "11.0.0.1"}, Case{"255.255.255.255", 1, "0.0.0.0"},
        Case{"fd00::ffff:ffff", 1, "fd00::1:0:0"}, Case{"10.0.0.0", 65536, "10.1.0.0"}})
    EXPECT_EQ(IpAddr::parse(c.from)->plus(c.n).text(), c.want);
  EXPECT_EQ(IpAddr::v4(0x0a000001).text(), "10.0.0.1");
  EXPECT_EQ(IpAddr::v4(0x0a000001).v4_host_order(), 0x0a000001u);
}

TEST(CidrTest, ParsesAndRefuses) {
  auto c = Cidr::parse("10.244.3.7/24").value();
  EXPECT_EQ(c.text(), "10.244.3.7/24");
  EXPECT_EQ(c.network().text(), "10.244.3.0/24");
  EXPECT_EQ(c.last().text(), "10.244.3.255");
  EXPECT_EQ(c.size(), 256u);
  EXPECT_EQ(Cidr::parse("fd00::/64")->last().text(), "fd00::ffff:ffff:ffff:ffff");
  EXPECT_EQ(Cidr::parse("fd00::/64")->size(), std::uint64_t{1} << 63);
  for (const char* text :
       {"10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/-0", "10.0.0.0/", "10.0.0.0/8x", "fd00::/129", "x/8"})
    EXPECT_FALSE(Cidr::parse(text)) << text;
}

TEST(CidrTest, ContainsAndOverlaps) {
  struct Case {
    const char* a;
    const char* b;
    bool contains, overlaps;
  };
  for (const auto& c : {Case{"10.0.0.0/8", "10.1.0.0/16", true, true}, Case{"10.1.0.0/16", "10.0.0.0/8", false, true},
                        Case{"10.0.0.0/8", "11.0.0.0/8", false, false}, Case{"0.0.0.0/0", "10.0.0.0/8", true, true},
                        Case{"0.0.0.0/0", "fd00::/8", false, false}, Case{"10.0.0.1/32", "10.0.0.1/32", true, true},
                        Case{"10.0.0.0/9", "10.128.0.0/9", false, false}}) {
    auto a = Cidr::parse(c.a).value();
    auto b = Cidr::parse(c.b).value();
    EXPECT_EQ(a.contains(b), c.contains) << c.a << " " << c.b;
    EXPECT_EQ(a.overlaps(b), c.overlaps) << c.a << " " << c.b;
    EXPECT_EQ(b.overlaps(a), c.overlaps) << c.a << " " << c.b;
  }
}

TEST(MacTest, ParsesAndPrints) {
  EXPECT_EQ(MacAddr::parse("02:00:5E:10:00:01")->text(), "02:00:5e:10:00:01");
  for (const char* text : {"", "02:00:5e:10:00", "02:00:5e:10:00:0g", "02-00-5e-10-00-01", "02:00:5e:10:00:011"})
    EXPECT_FALSE(MacAddr::parse(text)) << text;
}

TEST(EndianTest, BytesAreInNetworkOrder) {
  be32 v(0x01020304);
  unsigned char bytes[4];
  std::memcpy(bytes, &v, 4);
  EXPECT_EQ(bytes[0], 1);
  EXPECT_EQ(bytes[3], 4);
  EXPECT_EQ(v.host(), 0x01020304u);
  EXPECT_EQ(be32::from_network(v.network()), v);
  EXPECT_EQ(be16(0x1234).host(), 0x1234);
  EXPECT_EQ(be64(0x0102030405060708).host(), 0x0102030405060708u);
  static_assert(std::is_trivially_copyable_v<be32> && !std::is_convertible_v<std::uint32_t, be32>);
}

}  // namespace
}  // namespace hawser
