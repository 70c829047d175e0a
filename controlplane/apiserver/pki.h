// SPDX-License-Identifier: Apache-2.0
// The cluster's keys on disk, and kubeconfig files made from them. The CA is made once, under a file lock, so that the
// daemon and the `kubeconfig` subcommand may start at the same time. The serving certificate is issued anew at each
// start: its names follow the flags and it never runs out under a daemon that is restarted now and then. Every key file
// has mode 0600.
#pragma once

#include <string>
#include <vector>

#include "lib/base/result.h"
#include "lib/http/tls.h"

namespace hawser::apiserver {

struct Pki {
  std::string ca_pem;
  http::PemPair serving;
  http::PemPair agent_client;  // what we show to agents
};

struct PkiOptions {
  std::string data_dir;                // keys go to data_dir/pki
  std::vector<std::string> addresses;  // of the serving certificate
  std::vector<std::string> names;
};

// Makes what is missing.
Result<Pki> prepare_pki(const PkiOptions& o);

struct KubeconfigRequest {
  std::string data_dir;
  std::string user;
  std::vector<std::string> groups;
  std::string server;  // "https://192.0.2.10:6443"
  std::string out;
};
// Issues a client certificate and writes a kubeconfig with it.
Result<> write_kubeconfig(const KubeconfigRequest& r);

}  // namespace hawser::apiserver
