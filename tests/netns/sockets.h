// SPDX-License-Identifier: Apache-2.0
// IPv4 sockets in throw-away hosts, used from the test's thread: who reaches whom, and as whom. Waits end with what
// they wait for; only a packet that does not come costs time.
#pragma once

#include <cstdint>
#include <string>

#include <netinet/in.h>

#include "lib/base/unique_fd.h"
#include "tests/netns/host.h"

namespace hawser::testing {

inline constexpr int kPatienceMs = 2000;

sockaddr_in v4(const char* addr, std::uint16_t port);
UniqueFd socket_in(const Host& h, int type);  // SOCK_*
UniqueFd listen_in(const Host& h, int type, std::uint16_t port);
bool readable(const UniqueFd& fd, int patience_ms = kPatienceMs);
// Whether a connection from `from` to the address arrives at `server`; the peer's address goes to *source.
bool connects(const Host& from, const char* addr, std::uint16_t port, const UniqueFd& server,
              std::string* source = nullptr);
bool send_to(const UniqueFd& fd, const char* addr, std::uint16_t port);
bool arrives(const UniqueFd& server, int patience_ms = kPatienceMs);

}  // namespace hawser::testing
