// SPDX-License-Identifier: Apache-2.0
// Rollback: a stack of undo actions for multi-step setup. Each step pushes how to take it back; leaving the scope
// without commit() runs them, last first. Undo actions must not fail loudly: they treat "not there" as done. One
// thread.
//
//   Rollback undo;
//   if (auto r = add_link(l); !r) return propagate(r);
//   undo.push([&] { (void)remove_link(l); });
//   ...
//   undo.commit();
#pragma once

#include <functional>
#include <utility>
#include <vector>

namespace hawser {

class Rollback {
 public:
  Rollback() = default;
  Rollback(Rollback&& o) noexcept : undo_(std::exchange(o.undo_, {})) {}
  Rollback& operator=(Rollback&&) = delete;
  ~Rollback() { run(); }

  void push(std::function<void()> undo) { undo_.push_back(std::move(undo)); }
  // The setup succeeded: forget every action.
  void commit() { undo_.clear(); }
  // Takes everything back now instead of at the end of the scope.
  void run() {
    while (!undo_.empty()) {
      auto last = std::move(undo_.back());
      undo_.pop_back();
      last();
    }
  }
  [[nodiscard]] bool empty() const { return undo_.empty(); }

 private:
  std::vector<std::function<void()>> undo_;
};

}  // namespace hawser
