// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/pki.h"

#include "controlplane/apiserver/continue_token.h"
#include "lib/base/atomic_file.h"

namespace hawser::apiserver {

namespace {

constexpr auto kServingValid = std::chrono::hours(24 * 365 * 2);
constexpr auto kClientValid = std::chrono::hours(24 * 365 * 5);
constexpr WriteFileOptions kSecret{.mode = 0600, .durable = true};
constexpr WriteFileOptions kPublic{.mode = 0644, .durable = true};

std::string folder(const std::string& data_dir) {
  return data_dir + "/pki";
}

Result<> save(const std::string& stem, const http::PemPair& p) {
  // The key first: a certificate without its key would look complete.
  if (auto ok = write_file(stem + ".key", p.key, kSecret); !ok) return ok;
  return write_file(stem + ".crt", p.cert, kPublic);
}

// The pair at `stem`, or an ENOENT error.
Result<http::PemPair> load(const std::string& stem) {
  auto cert = read_file(stem + ".crt");
  if (!cert) return propagate(cert);
  auto key = read_file(stem + ".key");
  if (!key) return propagate(key);
  return http::PemPair{std::move(*cert), std::move(*key)};
}

template <class Make>
Result<http::PemPair> load_or_make(const std::string& stem, const Make& make) {
  auto have = load(stem);
  if (have || !is_not_found(have.error())) return have;
  auto made = make();
  if (!made) return made;
  if (auto ok = save(stem, *made); !ok) return propagate(ok);
  return made;
}

Result<http::PemPair> ca_of(const std::string& data_dir) {
  auto dir = folder(data_dir);
  if (auto ok = make_folders(dir, 0700); !ok) return propagate(ok);
  auto lock = FileLock::acquire(dir + "/lock");
  if (!lock) return propagate(lock);
  return load_or_make(dir + "/ca", [] { return http::make_ca("hawser-ca"); });
}

std::string base64_line(std::string_view key, std::string_view pem) {
  return fmt::format("    {}: {}\n", key, base64(pem, false));
}

}  // namespace

Result<Pki> prepare_pki(const PkiOptions& o) {
  auto ca = ca_of(o.data_dir);
  if (!ca) return propagate(ca, "certificate authority");
  Pki pki{.ca_pem = ca->cert};
  auto dir = folder(o.data_dir);
  auto serving = http::issue(*ca, {.common_name = "kube-apiserver",
                                   .dns_names = o.names,
                                   .ip_addresses = o.addresses,
                                   .server = true,
                                   .valid = kServingValid});
  if (!serving) return propagate(serving, "serving certificate");
  if (auto ok = save(dir + "/apiserver", *serving); !ok) return propagate(ok);
  pki.serving = std::move(*serving);
  auto client = load_or_make(dir + "/apiserver-kubelet-client", [&] {
    return http::issue(
        *ca,
        {.common_name = "kube-apiserver-kubelet-client", .organizations = {"system:masters"}, .valid = kClientValid});
  });
  if (!client) return propagate(client, "agent client certificate");
  pki.agent_client = std::move(*client);
  return pki;
}

Result<> write_kubeconfig(const KubeconfigRequest& r) {
  auto ca = ca_of(r.data_dir);
  if (!ca) return propagate(ca, "certificate authority");
  auto own = http::issue(*ca, {.common_name = r.user, .organizations = r.groups, .valid = kClientValid});
  if (!own) return propagate(own, "client certificate of {}", r.user);
  std::string text = "apiVersion: v1\nkind: Config\nclusters:\n- name: hawser\n  cluster:\n";
  text += base64_line("certificate-authority-data", ca->cert);
  text += fmt::format("    server: {}\n", r.server);
  text += fmt::format("contexts:\n- name: hawser\n  context:\n    cluster: hawser\n    user: \"{0}\"\n", r.user);
  text += fmt::format("current-context: hawser\nusers:\n- name: \"{}\"\n  user:\n", r.user);
  text += base64_line("client-certificate-data", own->cert);
  text += base64_line("client-key-data", own->key);
  return write_file(r.out, text, kSecret);
}

}  // namespace hawser::apiserver
