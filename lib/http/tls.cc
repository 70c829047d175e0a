// SPDX-License-Identifier: Apache-2.0
#include "lib/http/tls.h"

#include <string_view>

#include <openssl/err.h>
#include <openssl/pem.h>

#include "lib/http/openssl_handle.h"

namespace hawser::http {
namespace {

constexpr unsigned char kAlpn[] = "\x08http/1.1";
constexpr unsigned kAlpnBytes = sizeof kAlpn - 1;

int select_alpn(SSL*, const unsigned char** out, unsigned char* out_bytes, const unsigned char* in, unsigned in_bytes,
                void*) {
  // The OpenSSL signature wants a mutable pointer although it only points it into `in` or kAlpn.
  auto** chosen = const_cast<unsigned char**>(out);
  if (SSL_select_next_proto(chosen, out_bytes, kAlpn, kAlpnBytes, in, in_bytes) == OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_OK;
  return SSL_TLSEXT_ERR_ALERT_FATAL;  // RFC 7301 section 3.2: no_application_protocol
}

// A client certificate that does not verify must not end the handshake: the API server answers such a client 401, in
// words, as Kubernetes does. The connection then has no identity.
int note_rejected_peer(int ok, X509_STORE_CTX* store) {
  if (ok) return 1;
  auto* ssl = static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
  SSL_set_ex_data(ssl, peer_rejected_index(), ssl);
  return 1;
}

Result<> trust(SSL_CTX* ctx, const std::string& pem) {
  BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  int count = 0;
  for (;;) {
    CertPtr cert(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
    if (!cert) break;
    // OpenSSL fills a certificate's cache of its extensions at first use; done here, connections on several threads
    // only read it.
    X509_check_purpose(cert.get(), -1, 0);
    if (X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), cert.get()) != 1) return fail_openssl("add CA certificate");
    // The list of names a server sends lets clients pick the certificate that fits.
    SSL_CTX_add_client_CA(ctx, cert.get());
    count++;
  }
  ERR_clear_error();
  if (!count) return fail(EINVAL, "CA: no certificate in the PEM text");
  return {};
}

Result<> use_own(SSL_CTX* ctx, const PemPair& own) {
  BioPtr bio(BIO_new_mem_buf(own.cert.data(), static_cast<int>(own.cert.size())));
  CertPtr leaf(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  if (!leaf) return fail_openssl("certificate: not a PEM certificate");
  if (SSL_CTX_use_certificate(ctx, leaf.get()) != 1) return fail_openssl("use certificate");
  while (X509* more = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr))
    if (SSL_CTX_add0_chain_cert(ctx, more) != 1) {
      X509_free(more);
      return fail_openssl("use certificate chain");
    }
  ERR_clear_error();
  auto key = parse_key(own.key);
  if (!key) return propagate(key);
  if (SSL_CTX_use_PrivateKey(ctx, key->get()) != 1) return fail_openssl("use private key");
  if (SSL_CTX_check_private_key(ctx) != 1) return fail_openssl("private key does not belong to the certificate");
  return {};
}

Result<SslContextPtr> base_context(const SSL_METHOD* method) {
  SslContextPtr ctx(SSL_CTX_new(method));
  if (!ctx) return fail_openssl("make TLS context");
  SSL_CTX_set_min_proto_version(ctx.get(), TLS1_2_VERSION);
  // RELEASE_BUFFERS: an idle connection (a watch) gives back its 2 x 17 KiB of record buffers.
  SSL_CTX_set_mode(ctx.get(),
                   SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  // Nonblocking sockets: a read that met only handshake data must come back rather than try again.
  SSL_CTX_clear_mode(ctx.get(), SSL_MODE_AUTO_RETRY);
  // No resumption: connections live long, and a resumed session would skip the check of the client certificate.
  // Peers that close without close_notify are common, and HTTP's own framing tells whether a message is whole.
  SSL_CTX_set_options(ctx.get(), SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_session_cache_mode(ctx.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(ctx.get(), 0);
  return ctx;
}

std::shared_ptr<TlsContext> wrap(SslContextPtr ctx, bool insecure) {
  auto impl = std::make_unique<TlsContext::Impl>();
  impl->ctx = std::move(ctx);
  impl->insecure = insecure;
  return std::make_shared<TlsContext>(std::move(impl));
}

}  // namespace

TlsContext::TlsContext(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TlsContext::~TlsContext() = default;

Result<std::shared_ptr<TlsContext>> TlsContext::server(const PemPair& own, const std::string& client_ca_pem) {
  auto ctx = base_context(TLS_server_method());
  if (!ctx) return propagate(ctx);
  if (auto r = use_own(ctx->get(), own); !r) return propagate(r, "TLS server");
  if (!client_ca_pem.empty()) {
    if (auto r = trust(ctx->get(), client_ca_pem); !r) return propagate(r, "TLS server: client");
    SSL_CTX_set_verify(ctx->get(), SSL_VERIFY_PEER, note_rejected_peer);
  }
  SSL_CTX_set_alpn_select_cb(ctx->get(), select_alpn, nullptr);
  return wrap(std::move(*ctx), false);
}

Result<std::shared_ptr<TlsContext>> TlsContext::client(const std::string& ca_pem, const PemPair& own, bool insecure) {
  auto ctx = base_context(TLS_client_method());
  if (!ctx) return propagate(ctx);
  if (!insecure && ca_pem.empty()) {
    if (SSL_CTX_set_default_verify_paths(ctx->get()) != 1) return fail_openssl("TLS client: system CA certificates");
  } else if (!ca_pem.empty()) {
    if (auto r = trust(ctx->get(), ca_pem); !r) return propagate(r, "TLS client");
  }
  SSL_CTX_set_verify(ctx->get(), insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, nullptr);
  if (!own.cert.empty())
    if (auto r = use_own(ctx->get(), own); !r) return propagate(r, "TLS client");
  SSL_CTX_set_alpn_protos(ctx->get(), kAlpn, kAlpnBytes);
  return wrap(std::move(*ctx), insecure);
}

std::unexpected<Error> fail_openssl(std::string what) {
  unsigned long first = ERR_peek_error();
  char text[256] = "";
  if (first) ERR_error_string_n(first, text, sizeof text);
  ERR_clear_error();
  return fail(EPROTO, "{}{}{}", what, *text ? ": " : "", text);
}

Result<CertPtr> parse_certificate(const std::string& pem) {
  BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  CertPtr cert(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  if (!cert) return fail_openssl("certificate: not a PEM certificate");
  return cert;
}
Result<KeyPtr> parse_key(const std::string& pem) {
  BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  // The empty password keeps OpenSSL from asking for one on the terminal.
  KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, const_cast<char*>("")));
  if (!key) return fail_openssl("private key: not an unencrypted PEM key");
  return key;
}

int peer_rejected_index() {
  static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return index;
}

}  // namespace hawser::http
