// SPDX-License-Identifier: Apache-2.0
// EtcdClient: the few etcd v3 calls that leases need, over etcd's own JSON gateway (/v3/...), which is part of every
// etcd since 3.4. gRPC would cost the daemon more memory than all the rest of it. Blocking; any thread. Endpoints are
// tried in turn; errors of etcd carry its text.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <vector>

#include <boost/json/object.hpp>

#include "lib/http/client.h"

namespace hawser::overlay {

struct EtcdOptions {
  std::vector<std::string> endpoints;  // "http://127.0.0.1:2379"
  std::string ca_file, cert_file, key_file;
  std::string user, password;
};

struct EtcdKey {
  std::string key, value;
  std::int64_t mod_revision = 0, lease = 0;  // lease 0: none
};
struct EtcdRange {
  std::int64_t revision = 0;
  std::vector<EtcdKey> keys;
};
struct EtcdEvent {
  bool deleted = false;
  EtcdKey key;
};

class EtcdClient {
 public:
  static Result<std::unique_ptr<EtcdClient>> make(const EtcdOptions& options);

  Result<EtcdRange> range(const std::string& key, bool prefix);
  // Writes if the key's mod revision is still `expected` (0: it does not exist). false: it is not.
  Result<bool> put_if(const EtcdKey& wanted, std::int64_t expected);
  Result<std::int64_t> grant(std::int64_t ttl_seconds);
  // The time it lives from now on in seconds; 0: there is no such lease.
  Result<std::int64_t> keep_alive(std::int64_t lease);
  // Until `on_event` returns false, the server ends it (success) or an error; is_gone(error): compacted.
  Result<> watch(const std::string& prefix, std::int64_t from_revision,
                 const std::function<bool(const std::vector<EtcdEvent>&, std::int64_t revision)>& on_events,
                 std::stop_token stop);

 private:
  struct Endpoint {
    std::string base;
    std::unique_ptr<http::Client> client;
  };
  explicit EtcdClient(EtcdOptions options) : options_(std::move(options)) {}
  Result<boost::json::object> call(const std::string& path, const boost::json::object& body);
  Result<boost::json::object> call_one(Endpoint& e, const std::string& path, const boost::json::object& body);
  Result<> log_in(Endpoint& e);
  http::Request request(const std::string& path, const boost::json::object& body);
  std::size_t current();
  std::string token();

  const EtcdOptions options_;
  std::vector<Endpoint> endpoints_;
  std::mutex mu_;
  std::size_t at_ = 0;  // guarded by mu_; the endpoint that worked last
  std::string token_;   // guarded by mu_
};

}  // namespace hawser::overlay
