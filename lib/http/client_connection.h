// SPDX-License-Identifier: Apache-2.0
// Internal to lib/http: one connection of the client, with blocking calls that end at a deadline or when told to stop.
// One thread at a time.
#pragma once

#include <memory>
#include <string>

#include "lib/base/clock.h"
#include "lib/base/ip.h"
#include "lib/base/unique_fd.h"
#include "lib/http/client.h"
#include "lib/http/transport.h"

namespace hawser::http {

// Wakes a waiting call from another thread.
class StopSignal {
 public:
  static Result<std::unique_ptr<StopSignal>> make();
  void raise();
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  UniqueFd fd_;
};

class ClientConnection {
 public:
  // Tries each address of the name; connect_timeout covers the TLS handshake too.
  static Result<std::unique_ptr<ClientConnection>> connect(const ClientOptions& o, StopSignal* stop);

  // Appends at least a byte to `out`; false at the end of the stream. ETIMEDOUT after the deadline, ECANCELED when
  // stopped.
  Result<bool> read(std::string& out, MonoTime deadline);
  Result<> write(std::string_view data, MonoTime deadline, std::size_t& written);

  // False if the server closed it, or sent something nobody asked for.
  [[nodiscard]] bool usable() const;
  void set_stop(StopSignal* stop) { stop_ = stop; }
  void touch() { last_used_ = system_clock().now(); }
  [[nodiscard]] MonoTime last_used() const { return last_used_; }
  // Bytes read since start_counting().
  void start_counting() { received_ = 0; }
  [[nodiscard]] std::size_t received() const { return received_; }

 private:
  Result<> open(const IpAddr& ip, std::uint16_t port, MonoTime deadline);
  Result<> secure(const ClientOptions& o, MonoTime deadline);
  Result<> wait(short events, MonoTime deadline);
  UniqueFd fd_;
  Transport transport_;
  StopSignal* stop_ = nullptr;
  MonoTime last_used_{};
  std::size_t received_ = 0;
};

}  // namespace hawser::http
