// SPDX-License-Identifier: Apache-2.0
// EventRecorder: posts core/v1 Events about objects, for people who run `kubectl describe`. record() never blocks and
// never fails: events wait in a bounded queue and a thread of the recorder sends them. The same event again raises the
// count of the one there is (client-go's correlation without its spam filter). Any thread. What still waits at
// destruction is dropped.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "lib/base/clock.h"
#include "lib/kube/client.h"

namespace hawser::kube {

struct EventText {
  bool warning = false;
  std::string reason;      // "FailedScheduling"
  std::string message;     // cut at 1024 bytes, the API's limit
  std::string field_path;  // "spec.containers{web}", may be empty
};

class EventRecorder {
 public:
  // `component` is who says it ("hawser-agent"), `host` where (a node's name, may be empty).
  EventRecorder(Client& client, std::string component, std::string host = "", Clock& clock = system_clock());
  ~EventRecorder();
  EventRecorder(const EventRecorder&) = delete;
  EventRecorder& operator=(const EventRecorder&) = delete;

  // About the object `about` of kind `r`.
  void record(const Resource& r, const Object& about, EventText e);
  // Waits until all recorded so far are sent or given up; false if `timeout` passes first.
  bool flush(Nanos timeout);
  // Events lost to a full queue or an API that stayed away.
  [[nodiscard]] int dropped() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hawser::kube
