// SPDX-License-Identifier: Apache-2.0
// The implementations that the conformance suite runs against.
#include "controlplane/store/conformance.h"

#include "controlplane/store/temp_dir.h"

namespace hawser::store {
namespace {

class MemoryEngine final : public Engine {
 public:
  Result<std::unique_ptr<Store>> open(Clock& clock) override { return make_memory_store(&clock); }
  [[nodiscard]] bool persistent() const override { return false; }
};

class SqliteEngine final : public Engine {
 public:
  Result<std::unique_ptr<Store>> open(Clock& clock) override {
    return open_sqlite({.path = dir_.file("store.db"), .clock = &clock});
  }
  [[nodiscard]] bool persistent() const override { return true; }

 private:
  TempDir dir_;
};

template <class T>
std::unique_ptr<Engine> make() {
  return std::make_unique<T>();
}

}  // namespace

INSTANTIATE_TEST_SUITE_P(Engines, StoreConformance,
                         testing::Values(EngineCase{"memory", make<MemoryEngine>},
                                         EngineCase{"sqlite", make<SqliteEngine>}),
                         [](const auto& info) { return info.param.name; });

}  // namespace hawser::store
