// SPDX-License-Identifier: Apache-2.0
// The conformance suite of store.h: what any implementation must do. To add one, write an Engine for it and name it in
// the INSTANTIATE_TEST_SUITE_P of conformance_test.cc. Tests only.
#pragma once

#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "controlplane/store/collector.h"
#include "controlplane/store/store.h"
#include "lib/base/clock.h"

namespace hawser::store {

// A place where stores of one kind live; destroying it removes what they left.
class Engine {
 public:
  virtual ~Engine() = default;
  // The first call makes an empty store; later ones, after the former was destroyed, open what it left if persistent().
  virtual Result<std::unique_ptr<Store>> open(Clock& clock) = 0;
  [[nodiscard]] virtual bool persistent() const = 0;
};

struct EngineCase {
  std::string name;
  std::unique_ptr<Engine> (*make)();
};

class StoreConformance : public testing::TestWithParam<EngineCase> {
 protected:
  void SetUp() override;
  Revision put(const std::string& key, const std::string& value, LeaseId lease = 0);
  Revision del(const std::string& key);
  // "a=x b=y": the keys and values of [key, end) at a revision.
  std::string dump(Revision at = 0, const std::string& key = "", const std::string& end = std::string(1, '\0'));

  FakeClock clock_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Store> store_;
};

}  // namespace hawser::store
