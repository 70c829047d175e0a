// SPDX-License-Identifier: Apache-2.0
#include "controlplane/schema/scalar.h"

#include <gtest/gtest.h>

#include "controlplane/schema/columns.h"
#include "controlplane/schema/image.h"

namespace hawser::schema {
namespace {

TEST(Time, ParsesAndPrints) {
  EXPECT_EQ(*parse_time_us("1970-01-01T00:00:00Z"), 0);
  EXPECT_EQ(*parse_time_us("2024-02-29T12:34:56.789+02:00"), 1709202896789000);
  EXPECT_EQ(time_text(1709202896), "2024-02-29T10:34:56Z");
  EXPECT_EQ(time_text(-1), "1969-12-31T23:59:59Z");
  EXPECT_EQ(micro_time_text(1709202896000007), "2024-02-29T10:34:56.000007Z");
  for (auto bad : {"", "2024-02-30T00:00:00Z", "2024-01-01", "2024-01-01T00:00:00", "2024-01-01T24:00:00Z",
                   "2024-01-01T00:00:00.Z", "2024-01-01T00:00:00+25:00", "20240-01-01T00:00:00Z"})
    EXPECT_FALSE(parse_time_us(bad)) << bad;
}

TEST(Base64, EncodesAndChecks) {
  for (auto [plain, code] :
       {std::pair{"", ""}, std::pair{"a", "YQ=="}, std::pair{"ab", "YWI="}, std::pair{"abc", "YWJj"}}) {
    EXPECT_EQ(base64_encode(plain), code);
    EXPECT_FALSE(base64_error(code)) << code;
    EXPECT_EQ(base64_decoded_size(code), std::string_view(plain).size());
  }
  EXPECT_EQ(base64_error("YQ"), 2u);
  EXPECT_EQ(base64_error("Y!=="), 1u);
  EXPECT_EQ(base64_error("YQ==YQ=="), 4u);
  EXPECT_FALSE(base64_error("YW\nJj"));
}

TEST(Image, Parts) {
  struct Case {
    std::string_view in, name, tag, digest;
  };
  for (const auto& c :
       {Case{"web", "web", "latest", ""}, Case{"web:v1", "web", "v1", ""},
        Case{"h:5000/web", "h:5000/web", "latest", ""}, Case{"h:5000/web:v1@sha256:0", "h:5000/web", "v1", "sha256:0"},
        Case{"web@sha256:0", "web", "", "sha256:0"}}) {
    auto r = parse_image(c.in);
    EXPECT_EQ(r.name, c.name) << c.in;
    EXPECT_EQ(r.tag, c.tag) << c.in;
    EXPECT_EQ(r.digest, c.digest) << c.in;
  }
}

TEST(HumanDuration, Table) {
  struct Case {
    std::int64_t seconds;
    std::string_view want;
  };
  constexpr std::int64_t kHour = 3600, kDay = 86400;
  for (const auto& c :
       {Case{-5, "<invalid>"}, Case{-1, "0s"}, Case{0, "0s"}, Case{119, "119s"}, Case{120, "2m"}, Case{125, "2m5s"},
        Case{600, "10m"}, Case{179 * 60, "179m"}, Case{3 * kHour, "3h"}, Case{3 * kHour + 60, "3h1m"},
        Case{47 * kHour, "47h"}, Case{2 * kDay, "2d"}, Case{2 * kDay + 5 * kHour, "2d5h"}, Case{9 * kDay, "9d"},
        Case{800 * kDay, "2y70d"}, Case{3000 * kDay, "8y"}})
    EXPECT_EQ(human_duration(c.seconds), c.want) << c.seconds;
}

}  // namespace
}  // namespace hawser::schema
