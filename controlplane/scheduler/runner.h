// SPDX-License-Identifier: Apache-2.0
// Runner: the scheduler. Gives each pod of its schedulerName that has no node one, through pods/binding.
//
// Theory of operation: informers of pods and nodes feed ClusterState and SchedulingQueue. One thread takes pod after
// pod, places it by the pure functions of placement.h and counts it on its node at once ("assumed"); the binding itself
// is written by a few other threads, several at a time, so that the store commits them as one group. A binding that
// fails takes the pod off its node and back into the queue. Nothing is polled: an idle cluster costs nothing.
#pragma once

#include <memory>
#include <string>

#include "lib/base/clock.h"
#include "lib/kube/client.h"

namespace hawser::scheduler {

struct Options {
  std::string name = "default-scheduler";
  Clock* clock = &system_clock();
};

class Runner {
 public:
  Runner(kube::Client& client, Options options);
  ~Runner();  // stops
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  // Returns at once; scheduling begins when pods and nodes are known.
  void start();
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hawser::scheduler
