// SPDX-License-Identifier: Apache-2.0
// Golden files: expected text kept beside the test, one file per case. A test program run with --update-golden (or with
// HAWSER_UPDATE_GOLDEN=1) rewrites them; the diff is then reviewed as a change of behaviour.
#pragma once

#include <string>
#include <string_view>

namespace hawser::testing {

// Fails the current test unless `actual` equals the file; `path` is relative to the source root:
// "proxyd/nft/testdata/x.txt".
void expect_golden(const std::string& path, std::string_view actual);

// Absolute path of a file of the source tree.
[[nodiscard]] std::string source_path(const std::string& path);

}  // namespace hawser::testing
