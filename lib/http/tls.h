// SPDX-License-Identifier: Apache-2.0
// TLS contexts and a small certificate authority on OpenSSL, errors as Result. TLS 1.2 and later. Keys are ECDSA P-256.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/result.h"

namespace hawser::http {

struct PemPair {
  std::string cert;  // PEM, leaf first
  std::string key;   // PEM
};

class TlsContext {
 public:
  ~TlsContext();
  // Server: own certificate; client certificates are asked for, verified against client_ca_pem when sent, never
  // required.
  static Result<std::shared_ptr<TlsContext>> server(const PemPair& own, const std::string& client_ca_pem);
  // Client: the server must chain to ca_pem (unless `insecure`); `own` may be empty.
  static Result<std::shared_ptr<TlsContext>> client(const std::string& ca_pem, const PemPair& own,
                                                    bool insecure = false);
  struct Impl;
  Impl& impl() { return *impl_; }
  explicit TlsContext(std::unique_ptr<Impl> impl);

 private:
  std::unique_ptr<Impl> impl_;
};

struct CertRequest {
  std::string common_name;
  std::vector<std::string> organizations;
  std::vector<std::string> dns_names;
  std::vector<std::string> ip_addresses;
  bool server = false;  // extended key usage: serverAuth, else clientAuth
  std::chrono::hours valid{24 * 365};
};

Result<PemPair> make_ca(const std::string& common_name, std::chrono::hours valid = std::chrono::hours(24 * 3650));
Result<PemPair> issue(const PemPair& ca, const CertRequest& r);

}  // namespace hawser::http
