// SPDX-License-Identifier: Apache-2.0
// What is kept from giving out, and what host-local has given out before us (FEATURES C50, C51).
#include <filesystem>
#include <set>

#include <boost/json/parse.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cni-plugin/ipam/store.h"
#include "lib/testing/temp_dir.h"

namespace hawser::cni::ipam {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

IpAddr ip(const std::string& t) {
  return *IpAddr::parse(t);
}
Result<Range> range(const char* text) {
  return parse_range(boost::json::parse(text).get_object());
}

TEST(Exclude, BadValuesNameTheField) {
  struct Case {
    int line;
    const char *list, *error;
  };
  for (const Case& c : {
           Case{__LINE__, R"("10.1.2.3")", "exclude: must be a list"},
           Case{__LINE__, "[7]", "exclude: must hold strings"},
           Case{__LINE__, R"(["10.1.2"])", "exclude: "},
           Case{__LINE__, R"(["10.1.2.0/33"])", "exclude: "},
           Case{__LINE__, R"(["10.1.2.5/28"])", "exclude: 10.1.2.5/28 has host bits set"},
           Case{__LINE__, R"(["10.9.0.0/24"])", "exclude: 10.9.0.0/24 is not in subnet 10.1.2.0/24"},
           Case{__LINE__, R"(["fd00::1"])", "exclude: fd00::1/128 is not in subnet"},
           Case{__LINE__, R"(["10.1.2.0/25","10.1.2.128/25"])", "exclude: leaves no address of 10.1.2.1-10.1.2.254"},
           Case{__LINE__, R"(["10.0.0.0/8"])", "exclude: leaves no address"},
       }) {
    SCOPED_TRACE(c.line);
    auto r = range(fmt::format(R"({{"subnet":"10.1.2.0/24","exclude":{}}})", c.list).c_str());
    ASSERT_FALSE(r);
    EXPECT_THAT(r.error().text, HasSubstr(c.error));
  }
}

TEST(Exclude, BothFormsAndFamilies) {
  auto v4 = range(R"({"subnet":"10.1.2.0/29","exclude":["10.1.2.4/31","10.1.2.2"]})");
  ASSERT_TRUE(v4) << v4.error().text;
  EXPECT_EQ(v4->capacity(), 2u);
  EXPECT_TRUE(v4->gives(ip("10.1.2.3")) && v4->gives(ip("10.1.2.6")));
  EXPECT_FALSE(v4->gives(ip("10.1.2.1")) || v4->gives(ip("10.1.2.4")) || v4->gives(ip("10.1.2.5")));
  auto v6 = range(R"({"subnet":"fd00::/125","exclude":["fd00::4/126"]})");
  ASSERT_TRUE(v6) << v6.error().text;
  EXPECT_EQ(v6->capacity(), 2u);
}

class ImportTest : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directory(folder_); }
  Store open() {
    auto s = Store::open(dir_.file("net"), clock_);
    EXPECT_TRUE(s) << s.error().text;
    return std::move(*s);
  }
  Store::Imported import() {
    auto r = open().import_host_local(folder_, sets_);
    EXPECT_TRUE(r) << r.error().text;
    return r ? *r : Store::Imported();
  }
  void reserve(const std::string& address, const std::string& content) {
    ASSERT_TRUE(write_file(folder_ + "/" + address, content));
  }
  std::set<std::string> files() {
    std::set<std::string> out;
    for (const auto& e : std::filesystem::directory_iterator(folder_)) out.insert(e.path().filename().native());
    return out;
  }
  hawser::testing::TempDir dir_;
  FakeClock clock_;
  const std::string folder_ = dir_.file("host-local");
  std::vector<RangeSet> sets_{{*whole_subnet(*Cidr::parse("10.1.2.0/29"))},
                              {*whole_subnet(*Cidr::parse("fd00::/125"))}};
};

TEST_F(ImportTest, ExcludedAddressesAreNotGivenOutButStayHeld) {
  const RangeSet all = {*range(R"({"subnet":"10.1.2.0/29"})")};
  const RangeSet some = {*range(R"({"subnet":"10.1.2.0/29","exclude":["10.1.2.2","10.1.2.4/31"]})")};
  ASSERT_EQ(open().take({all}, {"c1", "eth0"}, {})->front().address, ip("10.1.2.2"));
  EXPECT_EQ(open().available(some), 2u) << "the one that is held is excluded anyway";
  EXPECT_EQ(open().take({some}, {"c2", "eth0"}, {})->front().address, ip("10.1.2.3"));
  auto asked = open().take({some}, {"c3", "eth0"}, {ip("10.1.2.4")});
  ASSERT_FALSE(asked);
  EXPECT_THAT(asked.error().text, HasSubstr("10.1.2.4: is excluded"));
  EXPECT_EQ(open().take({some}, {"c4", "eth0"}, {})->front().address, ip("10.1.2.6"));
  EXPECT_EQ(open().take({some}, {"c5", "eth0"}, {}).error().code, ENOSPC);
  EXPECT_EQ(open().available(some), 0u);
  EXPECT_THAT(*open().give_back({"c1", "eth0"}), ElementsAre(ip("10.1.2.2")));
}

TEST_F(ImportTest, ReservationsAreHeldFromThenOn) {
  reserve("10.1.2.2", "c1\r\neth0");
  reserve("fd00::2", "c1\r\neth0");
  reserve("10.1.2.4", "old\n");  // from before 0.8
  reserve("last_reserved_ip.0", "10.1.2.4");
  reserve("lock", "");
  auto done = import();
  EXPECT_EQ(done.held, 3);
  EXPECT_THAT(done.ignored, IsEmpty());
  EXPECT_THAT(*open().held_by({"c1", "eth0"}), UnorderedElementsAre(ip("10.1.2.2"), ip("fd00::2")));
  EXPECT_THAT(*open().held_by({"old", "eth0"}), ElementsAre(ip("10.1.2.4")));
  EXPECT_EQ(open().take(sets_, {"c1", "eth0"}, {}).error().code, EEXIST) << "its pod is attached";
  auto next = open().take(sets_, {"c2", "eth0"}, {});
  ASSERT_TRUE(next) << next.error().text;
  EXPECT_EQ((*next)[0].address, ip("10.1.2.5")) << "the rotation goes on after the last one";
  EXPECT_EQ((*next)[1].address, ip("fd00::3"));
  EXPECT_THAT(*open().give_back({"c1", "eth0"}), UnorderedElementsAre(ip("10.1.2.2"), ip("fd00::2")));
  EXPECT_THAT(files(), UnorderedElementsAre("10.1.2.4", "last_reserved_ip.0", "lock"));
}

TEST_F(ImportTest, IsDoneOnce) {
  reserve("10.1.2.2", "c1\r\neth0");
  EXPECT_EQ(import().held, 1);
  reserve("10.1.2.3", "c2\r\neth0");
  EXPECT_EQ(import().held, 0);
  EXPECT_THAT(*open().held_by({"c2", "eth0"}), IsEmpty());
}

TEST_F(ImportTest, AFolderThatIsNotThereIsAskedForAgain) {
  std::filesystem::remove(folder_);
  EXPECT_EQ(import().held, 0);
  std::filesystem::create_directory(folder_);
  reserve("10.1.2.2", "c1\r\neth0");
  EXPECT_EQ(import().held, 1);
}

TEST_F(ImportTest, WhatCannotBeTakenOverIsNamed) {
  ASSERT_TRUE(open().take({sets_[0]}, {"ours", "eth0"}, {ip("10.1.2.5")}));
  reserve("10.1.2.2", "");              // a power cut
  reserve("10.1.2.3", "../x\r\neth0");  // nobody's id
  reserve("10.1.2.4", "c1\r\nsixteen-chars-xx");
  reserve("10.1.2.5", "c5\r\neth0");   // given out by both
  reserve("10.7.7.7", "c7\r\neth0");   // of an earlier range
  reserve("10.1.2.06", "c1\r\neth0");  // no address
  auto done = import();
  EXPECT_EQ(done.held, 0);
  EXPECT_THAT(done.ignored, UnorderedElementsAre(HasSubstr("10.1.2.2 is empty"), HasSubstr("10.1.2.3 the container id"),
                                                 HasSubstr("10.1.2.4 the interface name"),
                                                 HasSubstr("10.1.2.5: held by container ours"),
                                                 HasSubstr("10.7.7.7 is in no configured range")));
}

TEST_F(ImportTest, GcAndTheCollectorSeeWhetherTheReservationStands) {
  reserve("10.1.2.2", "c1\r\neth0");
  reserve("10.1.2.3", "c2\r\neth0");
  reserve("10.1.2.4", "c3\r\neth0");
  ASSERT_EQ(import().held, 3);
  ASSERT_TRUE(std::filesystem::remove(folder_ + "/10.1.2.3"));  // host-local's own DEL
  reserve("10.1.2.4", "other\r\neth0");                         // and its next ADD
  auto dropped = open().keep_only([](const Held& h) { return h.imported; });
  ASSERT_EQ(dropped->size(), 2u);
  EXPECT_EQ((*dropped)[0].owner.container, "c2");
  EXPECT_EQ((*dropped)[1].owner.container, "c3");
  EXPECT_TRUE(files().contains("10.1.2.4")) << "another's reservation is left alone";
  ASSERT_EQ(open().keep_only([](const Held&) { return false; })->size(), 1u);
  EXPECT_THAT(files(), ::testing::Not(::testing::Contains("10.1.2.2")));
}

TEST_F(ImportTest, OneFolderForBothIsNotLockedTwice) {
  const auto folder = dir_.file("net");
  std::filesystem::create_directory(folder);
  ASSERT_TRUE(write_file(folder + "/10.1.2.2", "c1\r\neth0"));
  auto store = open();
  EXPECT_EQ(store.import_host_local(folder, sets_)->held, 1);
  EXPECT_TRUE(store.give_back({"c1", "eth0"}));
  EXPECT_FALSE(std::filesystem::exists(folder + "/10.1.2.2"));
}

TEST_F(ImportTest, OneOwnerCanBeForgottenWithoutAnImport) {
  reserve("10.1.2.2", "c1\r\neth0");
  reserve("10.1.2.3", "c1\r\neth1");
  ASSERT_TRUE(open().forget_host_local(folder_, {"c1", "eth0"}));
  EXPECT_THAT(files(), UnorderedElementsAre("10.1.2.3", "lock"));
  EXPECT_TRUE(open().forget_host_local(dir_.file("none"), {"c1", "eth0"}));
}

}  // namespace
}  // namespace hawser::cni::ipam
