// SPDX-License-Identifier: Apache-2.0
// Internal to lib/http: owners for OpenSSL objects, its error texts, and what TlsContext holds.
#pragma once

#include <memory>
#include <string>

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "lib/base/result.h"
#include "lib/http/tls.h"

namespace hawser::http {

template <auto Free>
struct FreeWith {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};
using BioPtr = std::unique_ptr<BIO, FreeWith<BIO_free_all>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;
using CertPtr = std::unique_ptr<X509, FreeWith<X509_free>>;
using SslPtr = std::unique_ptr<SSL, FreeWith<SSL_free>>;
using SslContextPtr = std::unique_ptr<SSL_CTX, FreeWith<SSL_CTX_free>>;

struct TlsContext::Impl {
  SslContextPtr ctx;
  bool insecure = false;
};

// The thread's OpenSSL errors as one Error; clears them.
std::unexpected<Error> fail_openssl(std::string what);

Result<CertPtr> parse_certificate(const std::string& pem);
Result<KeyPtr> parse_key(const std::string& pem);

// ex_data index on SSL: non-null after the peer's certificate failed verification.
int peer_rejected_index();

}  // namespace hawser::http
