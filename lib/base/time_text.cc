// SPDX-License-Identifier: Apache-2.0
#include "lib/base/time_text.h"

#include <charconv>

namespace hawser {
namespace {

using namespace std::chrono;

std::string seconds_text(WallTime t) {
  auto day = floor<days>(t);
  year_month_day ymd(day);
  hh_mm_ss time(floor<seconds>(t - day));
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", static_cast<int>(ymd.year()),
                     static_cast<unsigned>(ymd.month()), static_cast<unsigned>(ymd.day()), time.hours().count(),
                     time.minutes().count(), time.seconds().count());
}

// Reads exactly `width` digits followed by one of `after` ('\0': anything).
class Reader {
 public:
  explicit Reader(std::string_view s) : s_(s) {}
  int digits(std::size_t width) {
    int v = 0;
    if (s_.size() < width) return bad();
    for (std::size_t i = 0; i < width; i++) {
      if (s_[i] < '0' || s_[i] > '9') return bad();
      v = v * 10 + (s_[i] - '0');
    }
    s_.remove_prefix(width);
    return v;
  }
  bool accept(char c) {
    if (s_.empty() || s_[0] != c) return false;
    s_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!accept(c)) bad();
  }
  nanoseconds fraction() {
    nanoseconds sum{0};
    std::int64_t unit = 100'000'000;
    if (s_.empty() || s_[0] < '0' || s_[0] > '9') bad();
    while (!s_.empty() && s_[0] >= '0' && s_[0] <= '9') {
      sum += nanoseconds((s_[0] - '0') * unit);
      unit /= 10;
      s_.remove_prefix(1);
    }
    return sum;
  }
  minutes zone() {
    if (accept('Z') || accept('z')) return minutes(0);
    int sign = accept('-') ? -1 : 1;
    if (sign > 0) expect('+');
    int h = digits(2);
    expect(':');
    int m = digits(2);
    if (h > 23 || m > 59) bad();
    return minutes(sign * (h * 60 + m));
  }
  int bad() {
    ok_ = false;
    s_ = {};
    return 0;
  }
  [[nodiscard]] bool done() const { return ok_ && s_.empty(); }

 private:
  std::string_view s_;
  bool ok_ = true;
};

}  // namespace

std::string rfc3339(WallTime t) {
  return seconds_text(t) + "Z";
}

std::string rfc3339_micro(WallTime t) {
  auto part = floor<microseconds>(t - floor<seconds>(t));
  return fmt::format("{}.{:06}Z", seconds_text(t), part.count());
}

Result<WallTime> parse_rfc3339(std::string_view text) {
  Reader r(text);
  int y = r.digits(4);
  r.expect('-');
  int mo = r.digits(2);
  r.expect('-');
  int d = r.digits(2);
  if (!r.accept('t')) r.expect('T');
  int h = r.digits(2);
  r.expect(':');
  int mi = r.digits(2);
  r.expect(':');
  int s = r.digits(2);
  nanoseconds fraction = r.accept('.') ? r.fraction() : nanoseconds(0);
  minutes zone = r.zone();
  year_month_day ymd{year(y), month(static_cast<unsigned>(mo)), day(static_cast<unsigned>(d))};
  // Second 60 is a leap second; like the rest of the world's clocks we let it run into the next minute.
  // Years outside 1678..2262 do not fit 64-bit nanoseconds.
  if (!r.done() || !ymd.ok() || h > 23 || mi > 59 || s > 60 || y < 1678 || y > 2261)
    return fail(EINVAL, "\"{}\" is not an RFC 3339 time", text.substr(0, 64));
  return WallTime(sys_days(ymd)) + hours(h) + minutes(mi) + seconds(s) + fraction - zone;
}

}  // namespace hawser
