// SPDX-License-Identifier: Apache-2.0
// HTTP messages as plain values, shared by client and server. Header names compare without case (RFC 9110 section 5.1).
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hawser::http {

class Headers {
 public:
  void set(std::string_view name, std::string_view value);  // replaces every header of that name
  void add(std::string_view name, std::string_view value);
  [[nodiscard]] std::string_view get(std::string_view name) const;  // first value, "" if absent
  [[nodiscard]] const std::vector<std::pair<std::string, std::string>>& all() const { return list_; }

 private:
  std::vector<std::pair<std::string, std::string>> list_;
};

// The verified identity of a TLS client certificate: common name and organizations. Empty user: no certificate was
// sent.
struct PeerIdentity {
  std::string user;
  std::vector<std::string> groups;
};

struct Request {
  std::string method = "GET";  // upper case
  std::string target;          // path and query as sent, percent-encoded: "/api/v1/pods?watch=1"
  Headers headers;
  std::string body;
  PeerIdentity peer;        // server side only
  std::string remote;       // server side only: "ip:port"
  unsigned local_port = 0;  // server side only: where it came in

  [[nodiscard]] std::string_view path() const;                   // before '?', still encoded
  [[nodiscard]] std::string query(std::string_view name) const;  // first value, decoded; "" if absent
  [[nodiscard]] bool has_query(std::string_view name) const;
};

struct Response {
  int status = 200;
  Headers headers;
  std::string body;
};

[[nodiscard]] std::string percent_decode(std::string_view s);
[[nodiscard]] std::string percent_encode(std::string_view s);  // for one path segment or query value

}  // namespace hawser::http
