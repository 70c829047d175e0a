// SPDX-License-Identifier: Apache-2.0
// FdLeakCheck: fails the running test if the process has more open descriptors when it is destroyed than when it was
// made. Make it first in a test or a fixture, when no other thread opens or closes descriptors.
#pragma once

#include <map>
#include <string>

namespace hawser::testing {

class FdLeakCheck {
 public:
  FdLeakCheck();
  ~FdLeakCheck();
  FdLeakCheck(const FdLeakCheck&) = delete;
  FdLeakCheck& operator=(const FdLeakCheck&) = delete;

 private:
  std::map<int, std::string> before_;  // descriptor -> what it refers to
};

}  // namespace hawser::testing
