// SPDX-License-Identifier: Apache-2.0
// Watches over HTTP: a Watcher that writes event lines into a response stream, and WatchHub, whose one thread sends
// bookmarks, ends watches at their timeout and forgets those whose client left. Any thread.
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "controlplane/apiserver/render.h"
#include "controlplane/apiserver/request_options.h"
#include "lib/http/server.h"

namespace hawser::apiserver {

class HttpWatch;

class WatchHub {
 public:
  WatchHub(Registry& registry, Clock& clock);
  ~WatchHub();
  WatchHub(const WatchHub&) = delete;
  WatchHub& operator=(const WatchHub&) = delete;

  // Answers the request with a stream and feeds it from then on.
  void serve(const Kind& k, const ListParams& p, const View& v, http::Responder& out);
  // Ends every watch; later ones end at once.
  void stop();
  [[nodiscard]] std::size_t size() const;

 private:
  void run();
  // Handles what is due at `now`.
  void sweep(MonoTime now);

  Registry& registry_;
  Clock& clock_;
  mutable std::mutex mu_;
  std::condition_variable cv_;
  bool stopping_ = false;                            // guarded by mu_
  std::vector<std::shared_ptr<HttpWatch>> watches_;  // guarded by mu_
  std::thread thread_;
};

}  // namespace hawser::apiserver
