// SPDX-License-Identifier: Apache-2.0
// How to reach an API server and as whom: read from a kubeconfig file or a pod's service account, and written for our
// own users. Supported of a kubeconfig: clusters, users and contexts with certificates, tokens and their files;
// credential plugins (exec, auth-provider) are refused with an error that says so. Any thread.
#pragma once

#include <string>

#include "lib/base/result.h"
#include "lib/http/tls.h"

namespace hawser::kube {

struct ClientConfig {
  std::string server;       // "https://192.0.2.10:6443"
  std::string ca_pem;       // empty: the system's CAs
  http::PemPair own;        // client certificate, may be empty
  std::string token;        // bearer token, may be empty
  std::string token_file;   // read again as it is rotated; wins over token
  std::string server_name;  // the name in the server's certificate, if not the one in `server`
  std::string ns;           // default namespace, may be empty
  bool insecure = false;    // insecure-skip-tls-verify
};

// `context` empty: current-context. Errors name the file and the field.
Result<ClientConfig> load_kubeconfig(const std::string& path, const std::string& context = "");
// The same from text; relative file names in it start at `folder`.
Result<ClientConfig> parse_kubeconfig(const std::string& text, const std::string& folder,
                                      const std::string& context = "");

inline constexpr char kServiceAccountFolder[] = "/var/run/secrets/kubernetes.io/serviceaccount";
// From KUBERNETES_SERVICE_HOST and _PORT, and the token and CA in `folder`.
Result<ClientConfig> in_cluster_config(const std::string& folder = kServiceAccountFolder);

// What a daemon's --kubeconfig means: a path, or empty for in-cluster.
Result<ClientConfig> client_config(const std::string& kubeconfig_path);

// A kubeconfig with one cluster, user and context; certificates are embedded.
[[nodiscard]] std::string kubeconfig_text(const ClientConfig& c, const std::string& cluster, const std::string& user);
// The same into a file only its owner can read.
Result<> write_kubeconfig(const std::string& path, const ClientConfig& c, const std::string& cluster,
                          const std::string& user);

}  // namespace hawser::kube
