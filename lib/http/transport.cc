// SPDX-License-Identifier: Apache-2.0
#include "lib/http/transport.h"

#include <algorithm>

#include <openssl/err.h>
#include <sys/socket.h>

#include "lib/base/ip.h"

namespace hawser::http {
namespace {

int bio_fd(BIO* b) {
  return static_cast<int>(reinterpret_cast<std::intptr_t>(BIO_get_data(b)));
}

// A socket BIO of our own, because OpenSSL's writes without MSG_NOSIGNAL and a library must not depend on the program
// ignoring SIGPIPE.
int bio_write(BIO* b, const char* data, int size) {
  BIO_clear_retry_flags(b);
  ssize_t n = ::send(bio_fd(b), data, static_cast<std::size_t>(size), MSG_NOSIGNAL);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_write(b);
  return static_cast<int>(n);
}
int bio_read(BIO* b, char* data, int size) {
  BIO_clear_retry_flags(b);
  ssize_t n = ::recv(bio_fd(b), data, static_cast<std::size_t>(size), 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_read(b);
  if (n == 0) BIO_set_flags(b, BIO_FLAGS_IN_EOF);
  return static_cast<int>(n);
}
long bio_ctrl(BIO* b, int command, long, void*) {
  if (command == BIO_CTRL_FLUSH) return 1;
  if (command == BIO_CTRL_EOF) return BIO_test_flags(b, BIO_FLAGS_IN_EOF) != 0;
  return 0;
}

const BIO_METHOD* socket_bio() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "hawser socket");
    BIO_meth_set_write(m, bio_write);
    BIO_meth_set_read(m, bio_read);
    BIO_meth_set_ctrl(m, bio_ctrl);
    return m;
  }();
  return method;
}

std::string text_of(ASN1_STRING* s) {
  unsigned char* utf8 = nullptr;
  int n = ASN1_STRING_to_UTF8(&utf8, s);
  if (n < 0) return {};
  std::string out(reinterpret_cast<char*>(utf8), static_cast<std::size_t>(n));
  OPENSSL_free(utf8);
  return out;
}

}  // namespace

Transport Transport::plain(int fd) {
  Transport t;
  t.fd_ = fd;
  return t;
}

Result<Transport> Transport::tls(int fd, TlsContext& tls) {
  Transport t = plain(fd);
  t.ssl_.reset(SSL_new(tls.impl().ctx.get()));
  BIO* bio = t.ssl_ ? BIO_new(socket_bio()) : nullptr;
  if (!bio) return fail_openssl("make TLS connection");
  BIO_set_data(bio, reinterpret_cast<void*>(static_cast<std::intptr_t>(fd)));
  BIO_set_init(bio, 1);
  SSL_set_bio(t.ssl_.get(), bio, bio);
  return t;
}

Result<Transport> Transport::server(int fd, TlsContext& context) {
  auto t = tls(fd, context);
  if (t) SSL_set_accept_state(t->ssl_.get());
  return t;
}

Result<Transport> Transport::client(int fd, TlsContext& context, const std::string& name) {
  auto t = tls(fd, context);
  if (!t) return t;
  SSL* ssl = t->ssl_.get();
  SSL_set_connect_state(ssl);
  bool numeric = IpAddr::parse(name).has_value();
  // RFC 6066 section 3: no address literals in SNI.
  if (!numeric) SSL_set_tlsext_host_name(ssl, name.c_str());
  if (context.impl().insecure) return t;
  int ok =
      numeric ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name.c_str()) : SSL_set1_host(ssl, name.c_str());
  if (ok != 1) return fail_openssl(fmt::format("TLS server name \"{}\"", name));
  return t;
}

Io Transport::result_of(int ret, const char* step) {
  int err = errno;
  switch (SSL_get_error(ssl_.get(), ret)) {
    case SSL_ERROR_WANT_READ:
      return Io::kWantRead;
    case SSL_ERROR_WANT_WRITE:
      return Io::kWantWrite;
    case SSL_ERROR_ZERO_RETURN:
      return Io::kEof;
    default:
      break;
  }
  broken_ = true;
  unsigned long code = ERR_peek_error();
  if (!code) {
    error_ = err ? fail_errno(err, step).error() : Error{ECONNRESET, std::string(step) + ": connection closed", {}};
    return Io::kError;
  }
  if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_HTTP_REQUEST) plain_http_ = true;
  long verify = SSL_get_verify_result(ssl_.get());
  if (ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED && verify != X509_V_OK) {
    ERR_clear_error();
    error_ = Error{
        EPROTO, fmt::format("{}: certificate of the server: {}", step, X509_verify_cert_error_string(verify)), {}};
  } else {
    error_ = fail_openssl(step).error();
  }
  return Io::kError;
}

Io Transport::handshake() {
  if (!ssl_) return Io::kOk;
  ERR_clear_error();
  errno = 0;
  int r = SSL_do_handshake(ssl_.get());
  if (r == 1) return Io::kOk;
  Io io = result_of(r, "TLS handshake");
  if (io != Io::kEof) return io;
  error_ = Error{ECONNRESET, "TLS handshake: connection closed", {}};
  return Io::kError;
}

Io Transport::read(std::span<char> into, std::size_t& n) {
  n = 0;
  if (ssl_) {
    ERR_clear_error();
    errno = 0;
    int r = SSL_read_ex(ssl_.get(), into.data(), into.size(), &n);
    return r == 1 ? Io::kOk : result_of(r, "read");
  }
  ssize_t r;
  do r = ::recv(fd_, into.data(), into.size(), 0);
  while (r < 0 && errno == EINTR);
  if (r > 0) n = static_cast<std::size_t>(r);
  if (r > 0) return Io::kOk;
  if (r == 0) return Io::kEof;
  if (errno == EAGAIN) return Io::kWantRead;
  error_ = fail_errno(errno, "read").error();
  return Io::kError;
}

Io Transport::write(std::string_view data, std::size_t& n) {
  n = 0;
  if (data.empty()) return Io::kOk;
  if (ssl_) {
    ERR_clear_error();
    errno = 0;
    int r = SSL_write_ex(ssl_.get(), data.data(), data.size(), &n);
    return r == 1 ? Io::kOk : result_of(r, "write");
  }
  ssize_t r;
  do r = ::send(fd_, data.data(), data.size(), MSG_NOSIGNAL);
  while (r < 0 && errno == EINTR);
  if (r >= 0) n = static_cast<std::size_t>(r);
  if (r >= 0) return Io::kOk;
  if (errno == EAGAIN) return Io::kWantWrite;
  error_ = fail_errno(errno, "write").error();
  return Io::kError;
}

void Transport::close_notify() {
  if (!ssl_ || broken_ || !SSL_is_init_finished(ssl_.get())) return;
  ERR_clear_error();
  SSL_shutdown(ssl_.get());
  ERR_clear_error();
}

PeerIdentity Transport::peer_identity() const {
  PeerIdentity id;
  if (!ssl_ || SSL_get_ex_data(ssl_.get(), peer_rejected_index()) || SSL_get_verify_result(ssl_.get()) != X509_V_OK)
    return id;
  X509* cert = SSL_get0_peer_certificate(ssl_.get());
  if (!cert) return id;
  X509_NAME* name = X509_get_subject_name(cert);
  for (int i = 0; i < X509_NAME_entry_count(name); i++) {
    X509_NAME_ENTRY* e = X509_NAME_get_entry(name, i);
    int nid = OBJ_obj2nid(X509_NAME_ENTRY_get_object(e));
    if (nid == NID_commonName) id.user = text_of(X509_NAME_ENTRY_get_data(e));
    if (nid == NID_organizationName) id.groups.push_back(text_of(X509_NAME_ENTRY_get_data(e)));
  }
  // Groups without a user would be an identity nobody was given.
  if (id.user.empty()) id.groups.clear();
  return id;
}

}  // namespace hawser::http
