// SPDX-License-Identifier: Apache-2.0
// The certificate authority half of tls.h.
#include <array>
#include <functional>

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rand.h>

#include "lib/base/clock.h"
#include "lib/base/ip.h"
#include "lib/http/openssl_handle.h"
#include "lib/http/tls.h"

namespace hawser::http {
namespace {

using NamesPtr = std::unique_ptr<GENERAL_NAMES, FreeWith<GENERAL_NAMES_free>>;

Result<std::string> pem_of(const std::function<int(BIO*)>& write) {
  BioPtr bio(BIO_new(BIO_s_mem()));
  if (!bio || write(bio.get()) != 1) return fail_openssl("write PEM");
  char* data = nullptr;
  long size = BIO_get_mem_data(bio.get(), &data);
  return std::string(data, static_cast<std::size_t>(size));
}

Result<PemPair> pair_of(X509* cert, EVP_PKEY* key) {
  auto c = pem_of([&](BIO* b) { return PEM_write_bio_X509(b, cert); });
  if (!c) return propagate(c);
  auto k = pem_of([&](BIO* b) { return PEM_write_bio_PKCS8PrivateKey(b, key, nullptr, nullptr, 0, nullptr, nullptr); });
  if (!k) return propagate(k);
  return PemPair{std::move(*c), std::move(*k)};
}

Result<> add_name(X509_NAME* name, int nid, const std::string& value) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(value.data());
  if (X509_NAME_add_entry_by_NID(name, nid, MBSTRING_UTF8, bytes, static_cast<int>(value.size()), -1, 0) != 1)
    return fail_openssl(fmt::format("certificate name \"{}\"", value));
  return {};
}

// `config` is of our own writing; what comes from outside (names) never goes through this text form.
Result<> add_extension(X509* cert, X509* issuer, int nid, const char* config) {
  X509V3_CTX ctx;
  X509V3_set_ctx(&ctx, issuer, cert, nullptr, nullptr, 0);
  X509_EXTENSION* e = X509V3_EXT_conf_nid(nullptr, &ctx, nid, config);
  if (!e) return fail_openssl(fmt::format("certificate extension {}", config));
  int ok = X509_add_ext(cert, e, -1);
  X509_EXTENSION_free(e);
  if (ok != 1) return fail_openssl("certificate extension");
  return {};
}

// Version, serial, validity and key; names and extensions are the caller's.
Result<CertPtr> blank(EVP_PKEY* key, std::chrono::hours valid) {
  CertPtr cert(X509_new());
  std::array<unsigned char, 16> serial;
  if (!cert || RAND_bytes(serial.data(), serial.size()) != 1) return fail_openssl("make certificate");
  serial[0] &= 0x7f;  // positive, at most 20 bytes (RFC 5280 section 4.1.2.2)
  BIGNUM* number = BN_bin2bn(serial.data(), serial.size(), nullptr);
  BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert.get()));
  BN_free(number);
  X509_set_version(cert.get(), X509_VERSION_3);
  auto now = std::chrono::system_clock::to_time_t(
      std::chrono::time_point_cast<std::chrono::system_clock::duration>(system_clock().wall()));
  // An hour back: nodes whose clocks are a little behind accept it at once.
  ASN1_TIME_set(X509_getm_notBefore(cert.get()), now - 3600);
  ASN1_TIME_set(X509_getm_notAfter(cert.get()), now + std::chrono::seconds(valid).count());
  if (X509_set_pubkey(cert.get(), key) != 1) return fail_openssl("certificate key");
  return cert;
}

Result<> sign(X509* cert, EVP_PKEY* key) {
  if (X509_sign(cert, key, EVP_sha256()) == 0) return fail_openssl("sign certificate");
  return {};
}

Result<> add_alternative(GENERAL_NAMES* names, int type, ASN1_STRING* value) {
  GENERAL_NAME* one = GENERAL_NAME_new();
  if (!one || !value) return fail_openssl("subject alternative name");
  GENERAL_NAME_set0_value(one, type, value);
  sk_GENERAL_NAME_push(names, one);
  return {};
}

Result<> add_alternatives(X509* cert, const CertRequest& r) {
  if (r.dns_names.empty() && r.ip_addresses.empty()) return {};
  NamesPtr names(GENERAL_NAMES_new());
  for (const auto& dns : r.dns_names) {
    ASN1_STRING* value = ASN1_IA5STRING_new();
    ASN1_STRING_set(value, dns.data(), static_cast<int>(dns.size()));
    if (auto ok = add_alternative(names.get(), GEN_DNS, value); !ok) return ok;
  }
  for (const auto& text : r.ip_addresses) {
    auto ip = IpAddr::parse(text);
    if (!ip) return propagate(ip, "certificate address");
    ASN1_STRING* value = ASN1_OCTET_STRING_new();
    ASN1_STRING_set(value, ip->bytes().data(), static_cast<int>(ip->bytes().size()));
    if (auto ok = add_alternative(names.get(), GEN_IPADD, value); !ok) return ok;
  }
  if (X509_add1_ext_i2d(cert, NID_subject_alt_name, names.get(), 0, X509V3_ADD_DEFAULT) != 1)
    return fail_openssl("subject alternative names");
  return {};
}

}  // namespace

Result<PemPair> make_ca(const std::string& common_name, std::chrono::hours valid) {
  KeyPtr key(EVP_EC_gen("P-256"));
  if (!key) return fail_openssl("make CA key");
  auto cert = blank(key.get(), valid);
  if (!cert) return propagate(cert);
  X509* c = cert->get();
  if (auto r = add_name(X509_get_subject_name(c), NID_commonName, common_name); !r) return propagate(r);
  X509_set_issuer_name(c, X509_get_subject_name(c));
  for (auto [nid, config] : {std::pair{NID_basic_constraints, "critical,CA:TRUE"},
                             std::pair{NID_key_usage, "critical,digitalSignature,keyCertSign,cRLSign"},
                             std::pair{NID_subject_key_identifier, "hash"}})
    if (auto r = add_extension(c, c, nid, config); !r) return propagate(r);
  if (auto r = sign(c, key.get()); !r) return propagate(r);
  return pair_of(c, key.get());
}

Result<PemPair> issue(const PemPair& ca, const CertRequest& r) {
  auto ca_cert = parse_certificate(ca.cert);
  if (!ca_cert) return propagate(ca_cert, "CA");
  auto ca_key = parse_key(ca.key);
  if (!ca_key) return propagate(ca_key, "CA");
  KeyPtr key(EVP_EC_gen("P-256"));
  if (!key) return fail_openssl("make key");
  auto cert = blank(key.get(), r.valid);
  if (!cert) return propagate(cert);
  X509* c = cert->get();
  X509_NAME* subject = X509_get_subject_name(c);
  for (const auto& o : r.organizations)
    if (auto ok = add_name(subject, NID_organizationName, o); !ok) return propagate(ok);
  if (auto ok = add_name(subject, NID_commonName, r.common_name); !ok) return propagate(ok);
  X509_set_issuer_name(c, X509_get_subject_name(ca_cert->get()));
  for (auto [nid, config] :
       {std::pair{NID_basic_constraints, "critical,CA:FALSE"}, std::pair{NID_key_usage, "critical,digitalSignature"},
        std::pair{NID_ext_key_usage, r.server ? "serverAuth" : "clientAuth"},
        std::pair{NID_subject_key_identifier, "hash"}, std::pair{NID_authority_key_identifier, "keyid:always"}})
    if (auto ok = add_extension(c, ca_cert->get(), nid, config); !ok) return propagate(ok);
  if (auto ok = add_alternatives(c, r); !ok) return propagate(ok);
  if (auto ok = sign(c, ca_key->get()); !ok) return propagate(ok);
  return pair_of(c, key.get());
}

}  // namespace hawser::http
