// SPDX-License-Identifier: Apache-2.0
#include "lib/testing/golden.h"

#include <cstdlib>

#include <gtest/gtest.h>

#include "lib/base/atomic_file.h"

namespace hawser::testing {
namespace {

bool updating() {
  if (std::getenv("HAWSER_UPDATE_GOLDEN")) return true;
  auto args = read_file("/proc/self/cmdline");
  return args && args->find(std::string_view("\0--update-golden", 16)) != std::string::npos;
}

// The first line that differs, with its number, is what a person needs from a long text.
std::string first_difference(std::string_view want, std::string_view got) {
  for (int line = 1;; line++) {
    auto w = want.substr(0, want.find('\n'));
    auto g = got.substr(0, got.find('\n'));
    if (w != g) return fmt::format("line {}\n  want: {}\n  got:  {}", line, w, g);
    if (w.size() == want.size() || g.size() == got.size())
      return fmt::format("after line {}: one text is longer", line);
    want.remove_prefix(w.size() + 1);
    got.remove_prefix(g.size() + 1);
  }
}

}  // namespace

std::string source_path(const std::string& path) {
  return std::string(HAWSER_SOURCE_ROOT "/") + path;
}

void expect_golden(const std::string& path, std::string_view actual) {
  std::string full = source_path(path);
  if (updating()) {
    auto folder = make_folders(full.substr(0, full.rfind('/')));
    auto wrote = write_file_if_changed(full, actual);
    EXPECT_TRUE(folder && wrote) << "cannot write " << full;
    return;
  }
  auto want = read_file(full);
  if (!want) {
    ADD_FAILURE() << want.error().text << "; run the test with --update-golden to make it. Got:\n" << actual;
    return;
  }
  if (*want != actual)
    ADD_FAILURE() << path << " differs at " << first_difference(*want, actual) << "\nwhole text:\n" << actual;
}

}  // namespace hawser::testing
