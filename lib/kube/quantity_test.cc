// SPDX-License-Identifier: Apache-2.0
#include "lib/kube/quantity.h"

#include <gtest/gtest.h>

namespace hawser::kube {
namespace {

TEST(Quantity, CanonicalText) {
  constexpr std::int64_t kMost = INT64_MAX;
  struct Case {
    std::string in, want;
    std::int64_t value, milli;
  };
  for (const auto& c : {
           Case{"0", "0", 0, 0},
           Case{"1000m", "1", 1, 1000},
           Case{"0.5", "500m", 1, 500},
           Case{"1500m", "1500m", 2, 1500},
           Case{"1.5", "1500m", 2, 1500},
           Case{".5Gi", "512Mi", 1LL << 29, (1LL << 29) * 1000},
           Case{"1024Mi", "1Gi", 1LL << 30, (1LL << 30) * 1000},
           Case{"1536Mi", "1536Mi", 1536LL << 20, (1536LL << 20) * 1000},
           Case{"1Ki", "1Ki", 1024, 1024000},
           Case{"0.5Ki", "512", 512, 512000},
           Case{"1000k", "1M", 1000000, 1000000000},
           Case{"1e3", "1e3", 1000, 1000000},
           Case{"1E-3", "1e-3", 1, 1},
           Case{"12e6", "12e6", 12000000, 12000000000},
           Case{"1.1T", "1100G", 1100000000000, 1100000000000000},
           Case{"100n", "100n", 1, 1},
           Case{"0.1n", "1n", 1, 1},
           Case{"-1", "-1", -1, -1000},
           Case{"-1.5", "-1500m", -1, -1500},
           Case{"+2", "2", 2, 2000},
           Case{"+01." + std::string(36, '0') + "Gi", "1Gi", 1LL << 30, (1LL << 30) * 1000},
           // Not whole: binary would lose a part, so it is shown in decimal.
           Case{"1.0005Ki", "1024512m", 1025, 1024512},
           Case{"0.4Gi", "429496729600m", 429496730, 429496729600},
           Case{"1.00000000000000000002Ei", "1152921504606846976023058431n", 1152921504606846977, kMost},
           Case{"1." + std::string(40, '0') + "1Ki", "1024000000001n", 1025, 1024001},
           Case{"1432312.5Ki", "1466688k", 1466688000, 1466688000000},
           // What is too large for an API server's integers is the largest of them.
           Case{"9Ei", "9223372036854775807", kMost, kMost},
           Case{"1e300", "9223372036854775807", kMost, kMost},
           Case{"-1e300", "-9223372036854775807", -kMost, -kMost},
           Case{"99999999999999999999999999999999999999999e-40", "10", 10, 10000},
           Case{"0." + std::string(300, '0') + "1e301", "1", 1, 1000},
           Case{std::string(300, '0') + "1", "1", 1, 1000},
       }) {
    auto q = Quantity::parse(c.in);
    ASSERT_TRUE(q) << c.in;
    EXPECT_EQ(q->value(), c.value) << c.in;
    EXPECT_EQ(q->milli_value(), c.milli) << c.in;
    EXPECT_EQ(q->text(), c.want) << c.in;
    auto again = Quantity::parse(q->text());
    ASSERT_TRUE(again) << c.in;
    EXPECT_EQ(again->text(), q->text()) << c.in;
    EXPECT_TRUE(again->nanos == q->nanos) << c.in;
    EXPECT_EQ(quantity_value(c.in).value_or(-7), c.value) << c.in;
    EXPECT_EQ(quantity_milli_value(c.in).value_or(-7), c.milli) << c.in;
  }
}

TEST(Quantity, Refuses) {
  for (auto bad : {"",    "x",   "1x", "1Q",    "1..2",  "1 ", "1 Mi",  "Gi",    "--1",    "1e",
                   "1Gm", "nan", ".",  "1.2.3", "1e3Ki", "+",  "1e+-3", "1e1.5", "1e1000", "1mi"}) {
    EXPECT_FALSE(Quantity::parse(bad)) << bad;
    EXPECT_FALSE(quantity_value(bad)) << bad;
  }
  EXPECT_EQ(quantity_value("1Q").error().text.substr(0, 4), "\"1Q\"");
}

}  // namespace
}  // namespace hawser::kube
