// SPDX-License-Identifier: Apache-2.0
// Address ranges, pools and the store. Crash safety: every operation is stopped after each of its writes, as a kill
// would, and the pool opened again.
#include <map>
#include <set>

#include <boost/json/parse.hpp>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "cni-plugin/ipam/store.h"
#include "lib/testing/temp_dir.h"

namespace hawser::cni::ipam {
namespace {

using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

IpAddr ip(const std::string& t) {
  return *IpAddr::parse(t);
}
Range subnet(const char* t) {
  return *whole_subnet(*Cidr::parse(t));
}
Owner owner(int n) {
  return {fmt::format("c{}", n), "eth0"};
}
Result<Range> range(const char* text) {
  return parse_range(boost::json::parse(text).get_object());
}

TEST(Range, Table) {
  struct Case {
    int line;
    const char* in;
    const char* first;  // or the error
    const char* last = nullptr;
    const char* gateway = nullptr;
  };
  for (const Case& c : {
           Case{__LINE__, R"({"subnet":"10.1.2.0/24"})", "10.1.2.1", "10.1.2.254", "10.1.2.1"},
           Case{__LINE__, R"({"subnet":"10.1.2.0/30"})", "10.1.2.1", "10.1.2.2", "10.1.2.1"},
           Case{__LINE__, R"({"subnet":"fd00::/126"})", "fd00::1", "fd00::3", "fd00::1"},
           Case{__LINE__, R"({"subnet":"10.1.2.0/24","rangeStart":"10.1.2.9","rangeEnd":"10.1.2.9"})", "10.1.2.9",
                "10.1.2.9", "10.1.2.1"},
           Case{__LINE__, R"({"subnet":"10.1.2.0/24","gateway":"10.1.2.254"})", "10.1.2.1", "10.1.2.254", "10.1.2.254"},
           Case{__LINE__, R"({"subnet":"10.1.2.0/31"})", "too small"},
           Case{__LINE__, R"({"subnet":"fd00::/127"})", "too small"},
           Case{__LINE__, R"({"subnet":"10.1.2.5/24"})", "host bits"},
           Case{__LINE__, R"({"subnet":"nonsense"})", "subnet"},
           Case{__LINE__, R"({})", "subnet: is missing"},
           Case{__LINE__, R"({"subnet":"10.1.2.0/24","rangeStart":"10.9.0.1"})",
                "rangeStart: 10.9.0.1 is not in subnet"},
           Case{__LINE__, R"({"subnet":"10.1.2.0/24","rangeStart":"10.1.2.9","rangeEnd":"10.1.2.3"})", "rangeEnd"},
       }) {
    SCOPED_TRACE(c.line);
    auto r = range(c.in);
    if (!c.last) {
      ASSERT_FALSE(r);
      EXPECT_THAT(r.error().text, HasSubstr(c.first));
      continue;
    }
    ASSERT_TRUE(r) << r.error().text;
    EXPECT_EQ(r->first, ip(c.first));
    EXPECT_EQ(r->last, ip(c.last));
    EXPECT_EQ(r->gateway, ip(c.gateway));
  }
  EXPECT_EQ(subnet("10.0.0.0/8").slots(), kMaxSlots);
  EXPECT_EQ(subnet("fd00::/64").slots(), kMaxSlots);
  EXPECT_GE(subnet("fd00::/64").slot_of(ip("fd00:0:0:0:8000::")), std::uint64_t{1} << 62);
}

TEST(Range, SetsThatOverlapAreRefused) {
  auto r = parse_range_sets(boost::json::parse(R"([[{"subnet":"10.1.0.0/16"}],[{"subnet":"10.1.2.0/24"}]])"));
  ASSERT_FALSE(r);
  EXPECT_THAT(r.error().text, HasSubstr("overlap"));
  EXPECT_FALSE(parse_range_sets(boost::json::parse("[[]]")));
  EXPECT_FALSE(parse_range_sets(boost::json::parse(R"({"subnet":"10.1.0.0/16"})")));
}

// The bytes of a pool, shared by all who open it; after `writes_left` writes it is as if the process had been killed.
struct Disk {
  std::map<std::uint64_t, std::uint8_t> bytes;
  int writes_left = 1 << 30;
};
class MemoryFile final : public PoolFile {
 public:
  explicit MemoryFile(Disk& d) : d_(d) {}
  Result<> read(std::uint64_t offset, std::span<std::uint8_t> into) override {
    for (auto& b : into) {
      auto it = d_.bytes.find(offset++);
      b = it == d_.bytes.end() ? 0 : it->second;
    }
    return {};
  }
  Result<> write(std::uint64_t offset, std::span<const std::uint8_t> from) override {
    if (d_.writes_left-- <= 0) return fail(EIO, "killed");
    for (auto b : from) d_.bytes[offset++] = b;
    return {};
  }

 private:
  Disk& d_;
};

const Range kSmall = subnet("10.1.2.0/29");  // gives out .2 to .6
MonoTime at(int seconds) {
  return MonoTime(std::chrono::seconds(1000 + seconds));
}

Pool open_pool(Disk& d) {
  if (d.bytes.empty()) {
    MemoryFile f(d);
    EXPECT_TRUE(Pool::format(f, kSmall.slots(), "boot"));
  }
  auto p = Pool::open(std::make_unique<MemoryFile>(d), kSmall, "boot");
  EXPECT_TRUE(p);
  return std::move(*p);
}

TEST(Pool, RoundRobinSkipsTheGatewayAndLetsFreedAddressesRest) {
  Disk d;
  auto p = open_pool(d);
  EXPECT_EQ(p.take(owner(1), at(0)), ip("10.1.2.2"));
  EXPECT_EQ(p.take(owner(2), at(0)), ip("10.1.2.3"));
  ASSERT_TRUE(p.give_back(owner(1), at(1)));
  EXPECT_EQ(p.take(owner(3), at(1)), ip("10.1.2.4"));
  EXPECT_EQ(p.take(owner(4), at(1)), ip("10.1.2.5"));
  EXPECT_EQ(p.take(owner(5), at(1)), ip("10.1.2.6"));
  EXPECT_EQ(p.take(owner(6), at(2)), ip("10.1.2.2")) << "rest ends when nothing else is left";
  auto full = p.take(owner(7), at(3));
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ENOSPC);
}

TEST(Pool, QuarantineIsHonouredWhileThereIsAChoice) {
  Disk d;
  auto p = open_pool(d);
  for (int i = 1; i <= 5; i++) ASSERT_TRUE(p.take(owner(i), at(0)));
  ASSERT_TRUE(p.give_back(owner(1), at(10)));  // .2
  ASSERT_TRUE(p.give_back(owner(2), at(1)));   // .3, freed earlier
  EXPECT_EQ(p.take(owner(6), at(12)), ip("10.1.2.3")) << "of two that rest, the longer rested";
  ASSERT_TRUE(p.give_back(owner(6), at(13)));
  EXPECT_EQ(p.take(owner(7), at(60)), ip("10.1.2.2")) << "rested, and next in turn";
}

TEST(Pool, RequestedAddress) {
  Disk d;
  auto p = open_pool(d);
  EXPECT_EQ(p.take_requested(owner(1), ip("10.1.2.5"), at(0)), ip("10.1.2.5"));
  EXPECT_EQ(p.take_requested(owner(2), ip("10.1.2.5"), at(0)).error().code, EADDRINUSE);
  EXPECT_EQ(p.take_requested(owner(2), ip("10.1.2.1"), at(0)).error().code, EINVAL);
}

TEST(Pool, OtherBootOrLayoutIsStale) {
  Disk d;
  open_pool(d);
  EXPECT_EQ(Pool::open(std::make_unique<MemoryFile>(d), kSmall, "other").error().code, ESTALE);
  EXPECT_EQ(Pool::open(std::make_unique<MemoryFile>(d), subnet("10.1.2.0/28"), "boot").error().code, ESTALE);
}

// For every k: kill `op` at its k-th write, open the pool anew, and check what must hold whatever happened.
void kill_at_every_write(const std::function<void(Disk&)>& setup, const std::function<bool(Pool&)>& op) {
  for (int k = 0;; k++) {
    SCOPED_TRACE(k);
    Disk d;
    setup(d);
    bool done = false;
    {
      auto p = open_pool(d);
      d.writes_left = k;
      done = op(p);
    }
    d.writes_left = 1 << 30;
    auto p = open_pool(d);
    // Everything can be taken, no address twice, and after GC (keep none) all five are free again.
    std::set<IpAddr> held;
    const auto listed = p.list();  // a temporary in the loop's head would die before its body (until C++23's P2718)
    for (const auto& h : *listed) EXPECT_TRUE(held.insert(h.address).second);
    for (int i = 100; auto a = p.take(owner(i), at(100)); i++)
      EXPECT_TRUE(held.insert(*a).second) << a->text() << " given out twice";
    EXPECT_EQ(held.size(), 5u) << "an address leaked";
    if (done) return;
    ASSERT_LT(k, 20);
  }
}

TEST(PoolCrash, TakeNeverLeaksAndNeverDoubles) {
  kill_at_every_write([](Disk& d) { ASSERT_TRUE(open_pool(d).take(owner(1), at(0))); },
                      [](Pool& p) { return p.take(owner(2), at(1)).has_value(); });
}
TEST(PoolCrash, GiveBackNeverLeaksAndNeverDoubles) {
  kill_at_every_write([](Disk& d) { ASSERT_TRUE(open_pool(d).take(owner(1), at(0))); },
                      [](Pool& p) { return p.give_back(owner(1), at(1)).has_value(); });
}
TEST(PoolCrash, AHeldAddressIsAlwaysFoundByItsOwner) {
  for (int k = 0; k < 5; k++) {
    Disk d;
    {
      auto p = open_pool(d);
      d.writes_left = k;
      (void)p.take(owner(1), at(0));
    }
    d.writes_left = 1 << 30;
    auto p = open_pool(d);
    EXPECT_EQ(p.held_by(owner(1))->size(), p.list()->size()) << "killed after write " << k;
  }
}

class StoreTest : public ::testing::Test {
 protected:
  Store open() {
    auto s = Store::open(dir_.file("net"), clock_);
    EXPECT_TRUE(s) << s.error().text;
    return std::move(*s);
  }
  hawser::testing::TempDir dir_;
  FakeClock clock_;
  const std::vector<RangeSet> dual_{{subnet("10.1.2.0/29")}, {subnet("fd00::/126")}};
};

TEST_F(StoreTest, DualStackTakesOneOfEachOrNothing) {
  auto a = open().take(dual_, owner(1), {});
  ASSERT_TRUE(a) << a.error().text;
  ASSERT_EQ(a->size(), 2u);
  EXPECT_EQ((*a)[0].address, ip("10.1.2.2"));
  EXPECT_EQ((*a)[1].address, ip("fd00::2"));
  ASSERT_TRUE(open().take(dual_, owner(2), {}));
  auto full = open().take(dual_, owner(3), {});  // fd00::/126 has two to give
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ENOSPC);
  EXPECT_TRUE(open().held_by(owner(3))->empty()) << "the IPv4 address was given back";
}

TEST_F(StoreTest, OneOwnerOnce) {
  ASSERT_TRUE(open().take(dual_, owner(1), {}));
  EXPECT_EQ(open().take(dual_, owner(1), {}).error().code, EEXIST);
  EXPECT_TRUE(open().take(dual_, {"c1", "eth1"}, {}));
}

TEST_F(StoreTest, EveryRequestedAddressMustBeUsed) {
  auto r = open().take(dual_, owner(1), {ip("10.1.2.4"), ip("fd00::3")});
  ASSERT_TRUE(r) << r.error().text;
  EXPECT_THAT(*open().held_by(owner(1)), UnorderedElementsAre(ip("10.1.2.4"), ip("fd00::3")));
  auto outside = open().take(dual_, owner(2), {ip("192.0.2.1")});
  ASSERT_FALSE(outside);
  EXPECT_THAT(outside.error().text, HasSubstr("192.0.2.1"));
  EXPECT_TRUE(open().held_by(owner(2))->empty());
}

TEST_F(StoreTest, PoolsOfAnEarlierRangeServeUntilTheirLastPod) {
  ASSERT_TRUE(open().take({{subnet("10.1.2.0/29")}}, owner(1), {}));
  ASSERT_TRUE(open().take({{subnet("10.7.7.0/24")}}, owner(2), {}));
  EXPECT_THAT(*open().give_back(owner(1)), UnorderedElementsAre(ip("10.1.2.2")));
  EXPECT_TRUE(open().give_back(owner(1))->empty());
}

TEST_F(StoreTest, AFormerSubnetIsRetiredOnceNothingOfItIsHeld) {
  const auto folder = dir_.file("net");
  const std::vector<RangeSet> now{{subnet("10.1.3.0/29")}, dual_[1]};
  EXPECT_THAT(Store::former_subnets(folder, now), ::testing::IsEmpty());
  ASSERT_TRUE(open().take(dual_, owner(1), {}));
  EXPECT_THAT(Store::former_subnets(folder, dual_), ::testing::IsEmpty());
  EXPECT_THAT(Store::former_subnets(folder, now), ::testing::ElementsAre(subnet("10.1.2.0/29")));
  int drops = 0;
  auto drop = [&] { return drops++ == 0 ? Result<>(fail(EIO, "the kernel")) : Result<>(); };
  EXPECT_FALSE(*open().retire(subnet("10.1.2.0/29"), drop));
  EXPECT_EQ(drops, 0) << "an address is held";
  ASSERT_TRUE(open().give_back(owner(1)));
  EXPECT_FALSE(open().retire(subnet("10.1.2.0/29"), drop));
  EXPECT_EQ(Store::former_subnets(folder, now).size(), 1u) << "what failed is tried again";
  EXPECT_TRUE(*open().retire(subnet("10.1.2.0/29"), drop));
  EXPECT_THAT(Store::former_subnets(folder, now), ::testing::IsEmpty());
  EXPECT_TRUE(*open().retire(subnet("10.1.2.0/29"), drop)) << "gone already";
  EXPECT_EQ(drops, 2);
}

TEST(Range, AWholeSubnetIsKnownByItsEnds) {
  for (const char* text : {"10.1.2.0/24", "10.0.0.0/8", "10.1.2.4/30", "fd00:1::/64", "fd00::4/126"})
    EXPECT_EQ(whole_subnet_between(subnet(text).first, subnet(text).last), subnet(text)) << text;
  EXPECT_FALSE(whole_subnet_between(ip("10.1.2.10"), ip("10.1.2.20")));
  EXPECT_FALSE(whole_subnet_between(ip("10.1.2.1"), ip("fd00::1")));
}

TEST_F(StoreTest, KeepOnlyIsGc) {
  for (int i = 1; i <= 4; i++) ASSERT_TRUE(open().take({{subnet("10.1.2.0/29")}}, owner(i), {}));
  auto dropped = open().keep_only([](const Held& h) { return h.owner == owner(2) || h.owner == owner(4); });
  ASSERT_EQ(dropped->size(), 2u);
  EXPECT_EQ((*dropped)[0].owner, owner(1));
  EXPECT_EQ((*dropped)[1].owner, owner(3));
  EXPECT_EQ(open().list()->size(), 2u);
  EXPECT_EQ(open().available({subnet("10.1.2.0/29")}), 3u);
}

// Only the tags that were ever used are read; where they end is not known of a file from before that was noted.
TEST(Store, FindsWhatIsHeldFarOutInOldAndNewFiles) {
  hawser::testing::TempDir dir;
  const auto range = subnet("fd00:1::/64");
  {
    auto store = Store::open(dir.path());
    ASSERT_TRUE(store);
    ASSERT_TRUE(store->take({{range}}, owner(1), {ip("fd00:1::ff00")}));
  }
  EXPECT_THAT(*Store::open(dir.path())->held_by(owner(1)), UnorderedElementsAre(ip("fd00:1::ff00")));
  auto file = UniqueFd::open((dir.path() + "/pool-" + range.file_name()).c_str(), O_RDWR);
  ASSERT_TRUE(file);
  const std::uint32_t unknown = 0;
  ASSERT_EQ(pwrite(file->get(), &unknown, sizeof unknown, offsetof(PoolHeader, tagged)), 4);
  EXPECT_THAT(*Store::open(dir.path())->held_by(owner(1)), UnorderedElementsAre(ip("fd00:1::ff00")));
  ASSERT_TRUE(Store::open(dir.path())->take({{range}}, owner(2), {}));
  EXPECT_EQ(Store::open(dir.path())->list()->size(), 2u);
  EXPECT_EQ(Store::open(dir.path())->give_back(owner(1))->size(), 1u);
  EXPECT_EQ(Store::open(dir.path())->list()->size(), 1u);
}

}  // namespace
}  // namespace hawser::cni::ipam
