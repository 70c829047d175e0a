// SPDX-License-Identifier: Apache-2.0
// Internal to lib/http: what a handler sees of its connection. Runs on worker threads and wherever handlers keep their
// streams.
#pragma once

#include <memory>
#include <string_view>

#include "lib/http/server.h"

namespace hawser::http {

class Connection;
class ServerCore;
struct StreamState;

// The handler's end of a stream; `limit_bytes` may wait unsent before the stream is cut.
std::shared_ptr<Stream> make_stream_handle(std::shared_ptr<StreamState> state, std::shared_ptr<Connection> connection,
                                           std::size_t limit_bytes);

// Calls the server's handler for one request. Whatever it does, the request is answered once.
void run_handler(ServerCore& core, const Request& r, const std::shared_ptr<Connection>& connection);

// What the server itself answers.
Response refusal(const ServerOptions& o, int status, std::string_view text);

}  // namespace hawser::http
