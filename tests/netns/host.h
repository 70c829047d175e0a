// SPDX-License-Identifier: Apache-2.0
// Host: a throw-away network namespace that stands for one machine, with commands run inside as oracles. Several of
// them joined by Host::wire() or by a bridge in a further one make a small network. Never the machine's own namespace.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "lib/base/netns.h"

namespace hawser::testing {

// Waits until `done`, looking every few milliseconds. The limit is what a loaded machine may need.
bool eventually(const std::function<bool()>& done, std::chrono::milliseconds limit = std::chrono::seconds(20));

class Host {
 public:
  // With lo up. EPERM without the privilege: skip the test, saying so.
  static Result<Host> make();
  // Runs `fn` on the calling thread inside; sockets opened there stay inside.
  void run(const std::function<void()>& fn) const;
  // Both output streams of a shell command; its exit status goes to *status.
  std::string sh(const std::string& command, int* status = nullptr) const;
  // True if the command ends with status 0; else its output is reported as a test failure.
  bool ok(const std::string& command) const;
  [[nodiscard]] const NetNs& netns() const { return ns_; }
  [[nodiscard]] std::string path() const;  // names the namespace while this object lives
  // A veth pair: `name` here, `far_name` there, both up.
  bool wire(const std::string& name, const Host& far, const std::string& far_name) const;

 private:
  explicit Host(NetNs ns) : ns_(std::move(ns)) {}
  NetNs ns_;
};

}  // namespace hawser::testing
