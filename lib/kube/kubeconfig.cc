// SPDX-License-Identifier: Apache-2.0
#include "lib/kube/kubeconfig.h"

#include <cstdlib>

#include <yaml-cpp/yaml.h>

#include "lib/base/atomic_file.h"
#include "lib/base/base64.h"

namespace hawser::kube {
namespace {

// The text at `key` of a mapping; "" if it is missing or no scalar.
std::string text_at(const YAML::Node& n, const char* key) {
  if (!n.IsMap()) return {};
  YAML::Node v = n[key];
  return v && v.IsScalar() ? v.Scalar() : std::string();
}

// The item called `name` of the list `list`, its part `part` ("cluster", "user", "context").
Result<YAML::Node> named(const YAML::Node& root, const char* list, const std::string& name, const char* part) {
  YAML::Node items = root[list];
  if (items && items.IsSequence())
    for (const auto& item : items)
      if (text_at(item, "name") == name) {
        YAML::Node found = item[part];
        return found && found.IsMap() ? found : YAML::Node(YAML::NodeType::Map);
      }
  return fail(ENOENT, "{}: no entry named \"{}\"", list, name);
}

// A field that is either given in base64 ("x-data") or as the name of a file ("x").
Result<std::string> data_or_file(const YAML::Node& n, const std::string& field, const std::string& folder) {
  if (auto data = text_at(n, (field + "-data").c_str()); !data.empty()) {
    auto decoded = base64_decode(data);
    if (!decoded) return propagate(decoded, "{}-data", field);
    return decoded;
  }
  auto file = text_at(n, field.c_str());
  if (file.empty()) return std::string();
  auto content = read_file(file.starts_with('/') ? file : folder + "/" + file);
  if (!content) return propagate(content, "{}", field);
  return content;
}

Result<> read_cluster(const YAML::Node& cluster, const std::string& folder, ClientConfig& out) {
  out.server = text_at(cluster, "server");
  if (out.server.empty()) return fail(EINVAL, "clusters: server is missing");
  auto ca = data_or_file(cluster, "certificate-authority", folder);
  if (!ca) return propagate(ca);
  out.ca_pem = std::move(*ca);
  out.server_name = text_at(cluster, "tls-server-name");
  out.insecure = text_at(cluster, "insecure-skip-tls-verify") == "true";
  return {};
}

Result<> read_user(const YAML::Node& user, const std::string& folder, ClientConfig& out) {
  for (const char* plugin : {"exec", "auth-provider"})
    if (user[plugin])
      return fail(ENOTSUP, "users: {} credentials are not supported; use a certificate or a token", plugin);
  auto cert = data_or_file(user, "client-certificate", folder);
  if (!cert) return propagate(cert);
  auto key = data_or_file(user, "client-key", folder);
  if (!key) return propagate(key);
  if (cert->empty() != key->empty())
    return fail(EINVAL, "users: client-certificate and client-key must be given together");
  out.own = {std::move(*cert), std::move(*key)};
  out.token = text_at(user, "token");
  out.token_file = text_at(user, "tokenFile");
  if (!out.token_file.empty() && !out.token_file.starts_with('/')) out.token_file = folder + "/" + out.token_file;
  return {};
}

Result<ClientConfig> read_config(const YAML::Node& root, const std::string& folder, std::string context) {
  if (!root.IsMap()) return fail(EINVAL, "not a kubeconfig: no mapping at its top");
  if (context.empty()) context = text_at(root, "current-context");
  if (context.empty()) return fail(EINVAL, "current-context is not set");
  auto chosen = named(root, "contexts", context, "context");
  if (!chosen) return propagate(chosen);
  auto cluster = named(root, "clusters", text_at(*chosen, "cluster"), "cluster");
  if (!cluster) return propagate(cluster);
  ClientConfig out;
  out.ns = text_at(*chosen, "namespace");
  if (auto r = read_cluster(*cluster, folder, out); !r) return propagate(r);
  auto user_name = text_at(*chosen, "user");
  if (user_name.empty()) return out;
  auto user = named(root, "users", user_name, "user");
  if (!user) return propagate(user);
  if (auto r = read_user(*user, folder, out); !r) return propagate(r);
  return out;
}

// A YAML double-quoted scalar. Bytes that YAML does not take as they are get escaped.
std::string quoted(std::string_view s) {
  std::string out = "\"";
  for (char c : s) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20)
      out += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
    else
      out += c;
  }
  return out + "\"";
}

}  // namespace

Result<ClientConfig> parse_kubeconfig(const std::string& text, const std::string& folder, const std::string& context) {
  try {
    return read_config(YAML::Load(text), folder, context);
  } catch (const YAML::Exception& e) {
    return fail(EINVAL, "not YAML: {}", e.what());
  }
}

Result<ClientConfig> load_kubeconfig(const std::string& path, const std::string& context) {
  auto text = read_file(path);
  if (!text) return propagate(text, "kubeconfig");
  auto slash = path.rfind('/');
  auto config = parse_kubeconfig(*text, slash == std::string::npos ? "." : path.substr(0, slash), context);
  if (!config) return propagate(config, "kubeconfig {}", path);
  return config;
}

Result<ClientConfig> in_cluster_config(const std::string& folder) {
  const char* host = std::getenv("KUBERNETES_SERVICE_HOST");
  const char* port = std::getenv("KUBERNETES_SERVICE_PORT");
  if (!host || !port || !*host || !*port)
    return fail(ENOENT, "no kubeconfig given, and not in a pod (KUBERNETES_SERVICE_HOST and _PORT are not set)");
  ClientConfig out;
  bool v6 = std::string_view(host).contains(':');
  out.server = v6 ? fmt::format("https://[{}]:{}", host, port) : fmt::format("https://{}:{}", host, port);
  auto ca = read_file(folder + "/ca.crt");
  if (!ca) return propagate(ca, "in-cluster CA");
  out.ca_pem = std::move(*ca);
  out.token_file = folder + "/token";
  if (auto token = read_file(out.token_file); !token) return propagate(token, "in-cluster token");
  if (auto ns = read_file(folder + "/namespace")) out.ns = *ns;
  return out;
}

Result<ClientConfig> client_config(const std::string& kubeconfig_path) {
  return kubeconfig_path.empty() ? in_cluster_config() : load_kubeconfig(kubeconfig_path);
}

std::string kubeconfig_text(const ClientConfig& c, const std::string& cluster, const std::string& user) {
  std::string context = user + "@" + cluster;
  std::string out = "apiVersion: v1\nkind: Config\nclusters:\n- name: " + quoted(cluster) + "\n  cluster:\n";
  out += "    server: " + quoted(c.server) + "\n";
  if (!c.ca_pem.empty()) out += "    certificate-authority-data: " + base64_encode(c.ca_pem) + "\n";
  if (!c.server_name.empty()) out += "    tls-server-name: " + quoted(c.server_name) + "\n";
  if (c.insecure) out += "    insecure-skip-tls-verify: true\n";
  out += "users:\n- name: " + quoted(user) + "\n  user:";
  std::string credentials;
  if (!c.own.cert.empty()) credentials += "\n    client-certificate-data: " + base64_encode(c.own.cert);
  if (!c.own.key.empty()) credentials += "\n    client-key-data: " + base64_encode(c.own.key);
  if (!c.token.empty()) credentials += "\n    token: " + quoted(c.token);
  if (!c.token_file.empty()) credentials += "\n    tokenFile: " + quoted(c.token_file);
  out += credentials.empty() ? " {}" : credentials;
  out += "\ncontexts:\n- name: " + quoted(context) + "\n  context:\n    cluster: " + quoted(cluster) +
         "\n    user: " + quoted(user) + "\n";
  if (!c.ns.empty()) out += "    namespace: " + quoted(c.ns) + "\n";
  return out + "current-context: " + quoted(context) + "\n";
}

Result<> write_kubeconfig(const std::string& path, const ClientConfig& c, const std::string& cluster,
                          const std::string& user) {
  return write_file(path, kubeconfig_text(c, cluster, user), {.mode = 0600});
}

}  // namespace hawser::kube
