// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/pod_env.h"

#include <algorithm>
#include <array>

#include "lib/kube/object.h"
#include "lib/kube/quantity.h"

namespace hawser::agent {
namespace {

using kube::Object;

Result<std::string> base64_decode(std::string_view in) {
  static constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  std::uint32_t bits = 0;
  int count = 0;
  for (char c : in) {
    if (c == '=' || c == '\n') continue;
    const auto v = kAlphabet.find(c);
    if (v == std::string_view::npos) return fail(EINVAL, "not base64");
    bits = bits << 6 | static_cast<std::uint32_t>(v);
    if (count += 6; count >= 8) {
      count -= 8;
      out.push_back(static_cast<char>(bits >> count & 0xff));
    }
  }
  return out;
}

std::string upper_name(std::string_view s) {
  std::string out(s);
  for (char& c : out) c = c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return out;
}

std::string join(const std::vector<std::string>& list) {
  std::string out;
  for (const auto& s : list) out += (out.empty() ? "" : ",") + s;
  return out;
}

// metadata.labels['key'] -> key
std::optional<std::string_view> subscript(std::string_view path, std::string_view prefix) {
  if (!path.starts_with(prefix) || !path.ends_with("']")) return std::nullopt;
  path.remove_prefix(prefix.size());
  if (!path.starts_with("['")) return std::nullopt;
  return path.substr(2, path.size() - 4);
}

// All pairs, one a line, values quoted: the file form of labels and annotations.
std::string map_text(const Object& map) {
  std::vector<std::string> lines;
  for (const auto& [k, v] : map) {
    std::string quoted;
    for (char c : v.is_string() ? std::string_view(v.get_string()) : std::string_view()) {
      if (c == '"' || c == '\\') quoted += '\\';
      quoted += c == '\n' ? std::string("\\n") : std::string(1, c);
    }
    lines.push_back(fmt::format("{}=\"{}\"", std::string_view(k), quoted));
  }
  std::ranges::sort(lines);
  std::string out;
  for (const auto& l : lines) out += (out.empty() ? "" : "\n") + l;
  return out;
}

void add_service(const Object& svc, StringMap& out) {
  const auto ip = kube::str(svc, {"spec", "clusterIP"});
  if (ip.empty() || ip == "None") return;
  const std::string name = upper_name(kube::name(svc));
  const auto& ports = kube::arr(svc, {"spec", "ports"});
  if (ports.empty()) return;
  const std::string host = ip.find(':') != std::string_view::npos ? fmt::format("[{}]", ip) : std::string(ip);
  out[name + "_SERVICE_HOST"] = ip;
  bool first = true;
  for (const auto& v : ports) {
    const Object& p = kube::as_obj(v);
    const auto port = kube::num(p, {"port"});
    auto protocol = kube::str(p, {"protocol"});
    if (protocol.empty()) protocol = "TCP";
    std::string lower(protocol);
    std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return std::tolower(c); });
    const std::string url = fmt::format("{}://{}:{}", lower, host, port);
    if (first) {
      out[name + "_SERVICE_PORT"] = std::to_string(port);
      out[name + "_PORT"] = url;
    }
    first = false;
    if (auto port_name = kube::str(p, {"name"}); !port_name.empty())
      out[name + "_SERVICE_PORT_" + upper_name(port_name)] = std::to_string(port);
    const std::string prefix = fmt::format("{}_PORT_{}_{}", name, port, protocol);
    out[prefix] = url;
    out[prefix + "_PROTO"] = lower;
    out[prefix + "_PORT"] = std::to_string(port);
    out[prefix + "_ADDR"] = ip;
  }
}

// Builds the list in order while keeping what $(VAR) may refer to.
class EnvBuilder {
 public:
  EnvBuilder(const PodSpec& spec, const ContainerSpec& c, const EnvInputs& in) : spec_(spec), c_(c), in_(in) {}

  Result<EnvList> build() {
    for (const auto& v : kube::arr(*c_.object, {"envFrom"}))
      if (auto r = from_source(kube::as_obj(v)); !r) return propagate(r);
    for (const auto& v : kube::arr(*c_.object, {"env"})) {
      const Object& e = kube::as_obj(v);
      auto value = value_of(e);
      if (!value) return propagate(value);
      if (*value) set(std::string(kube::str(e, {"name"})), **value);
    }
    for (const auto& [k, v] : in_.services)
      if (!find(k)) list_.emplace_back(k, v);
    return std::move(list_);
  }

 private:
  const std::string* find(std::string_view name) const {
    for (const auto& [k, v] : list_)
      if (k == name) return &v;
    return nullptr;
  }
  void set(const std::string& name, std::string value) {
    for (auto& [k, v] : list_) {
      if (k == name) {
        v = std::move(value);
        return;
      }
    }
    list_.emplace_back(name, std::move(value));
  }

  // nullopt: optional and not there.
  Result<std::optional<kube::ObjectPtr>> lookup(const kube::Resource& kind, const Object& ref) {
    auto r = in_.lookup(kind, std::string(kube::str(ref, {"name"})));
    if (r) return std::optional(*r);
    if (is_not_found(r.error()) && kube::flag(ref, {"optional"})) return std::optional<kube::ObjectPtr>();
    return std::unexpected(std::move(r.error()));
  }

  Result<> from_source(const Object& source) {
    const bool secret = kube::find(source, {"secretRef"}) != nullptr;
    const Object& ref = kube::obj(source, {secret ? "secretRef" : "configMapRef"});
    auto object = lookup(secret ? kube::kSecrets : kube::kConfigMaps, ref);
    if (!object) return propagate(object);
    if (!*object) return {};
    for (const auto& key : object_keys(***object)) {
      if (auto v = object_key(***object, secret, key)) set(std::string(kube::str(source, {"prefix"})) + key, *v);
    }
    return {};
  }

  Result<std::optional<std::string>> value_of(const Object& e) {
    const Object& from = kube::obj(e, {"valueFrom"});
    if (from.empty()) {
      return std::optional(expand(kube::str(e, {"value"}), [&](std::string_view name) -> const std::string* {
        if (const auto* v = find(name)) return v;
        const auto it = in_.services.find(std::string(name));
        return it == in_.services.end() ? nullptr : &it->second;
      }));
    }
    if (kube::find(from, {"fieldRef"})) {
      auto v = field_value(spec_, kube::str(from, {"fieldRef", "fieldPath"}), in_.facts);
      if (!v) return propagate(v);
      return std::optional(*v);
    }
    if (kube::find(from, {"resourceFieldRef"})) return resource_ref(kube::obj(from, {"resourceFieldRef"}));
    const bool secret = kube::find(from, {"secretKeyRef"}) != nullptr;
    return key_ref(secret, kube::obj(from, {secret ? "secretKeyRef" : "configMapKeyRef"}));
  }

  Result<std::optional<std::string>> resource_ref(const Object& ref) {
    const auto named = kube::str(ref, {"containerName"});
    const ContainerSpec* target = named.empty() ? &c_ : spec_.container(named);
    if (!target) return fail(EINVAL, "container {} not found", named);
    auto v = resource_value(*target->object, kube::str(ref, {"resource"}), kube::str(ref, {"divisor"}), in_.facts);
    if (!v) return propagate(v);
    return std::optional(*v);
  }

  Result<std::optional<std::string>> key_ref(bool secret, const Object& ref) {
    auto object = lookup(secret ? kube::kSecrets : kube::kConfigMaps, ref);
    if (!object) return propagate(object);
    if (!*object) return std::optional<std::string>();
    auto v = object_key(***object, secret, kube::str(ref, {"key"}));
    if (v || kube::flag(ref, {"optional"})) return v;
    return fail(ENOENT, "couldn't find key {} in {} {}/{}", kube::str(ref, {"key"}), secret ? "Secret" : "ConfigMap",
                spec_.ns, kube::str(ref, {"name"}));
  }

  const PodSpec& spec_;
  const ContainerSpec& c_;
  const EnvInputs& in_;
  EnvList list_;
};

}  // namespace

std::string expand(std::string_view text, const std::function<const std::string*(std::string_view)>& vars) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '$' || i + 1 == text.size()) {
      out += text[i];
    } else if (text[i + 1] == '$') {
      out += '$';
      ++i;
    } else if (const auto close = text.find(')', i); text[i + 1] == '(' && close != std::string_view::npos) {
      const auto name = text.substr(i + 2, close - i - 2);
      const std::string* v = vars(name);
      out += v ? *v : std::string(text.substr(i, close - i + 1));
      i = close;
    } else {
      out += '$';
    }
  }
  return out;
}

Result<std::string> field_value(const PodSpec& spec, std::string_view path, const PodFacts& facts) {
  const Object& o = *spec.object;
  if (auto key = subscript(path, "metadata.labels")) return std::string(kube::str(o, {"metadata", "labels", *key}));
  if (auto key = subscript(path, "metadata.annotations"))
    return std::string(kube::str(o, {"metadata", "annotations", *key}));
  if (path == "metadata.labels") return map_text(kube::obj(o, {"metadata", "labels"}));
  if (path == "metadata.annotations") return map_text(kube::obj(o, {"metadata", "annotations"}));
  if (path == "metadata.name") return spec.name;
  if (path == "metadata.namespace") return spec.ns;
  if (path == "metadata.uid") return spec.uid;
  if (path == "spec.nodeName") return facts.node->node_name;
  if (path == "spec.serviceAccountName") return std::string(kube::str(o, {"spec", "serviceAccountName"}));
  if (path == "status.hostIP" || path == "status.hostIPs") return facts.node->node_ip;
  if (path == "status.podIP") return facts.pod_ips.empty() ? std::string() : facts.pod_ips.front();
  if (path == "status.podIPs") return join(facts.pod_ips);
  return fail(EINVAL, "fieldPath {:?}: not supported", path);
}

Result<std::string> resource_value(const Object& container, std::string_view resource, std::string_view divisor,
                                   const PodFacts& facts) {
  const auto dot = resource.find('.');
  const auto which = resource.substr(0, dot);
  const auto name = dot == std::string_view::npos ? std::string_view() : resource.substr(dot + 1);
  if ((which != "limits" && which != "requests") || name.empty())
    return fail(EINVAL, "resource {:?}: not supported", resource);
  const kube::Value* v = kube::find(container, {"resources", which, name});
  if (!v && which == "requests") v = kube::find(container, {"resources", "limits", name});
  // Without a limit the node's capacity is the limit.
  std::int64_t milli = name == "cpu"      ? facts.node->capacity_milli_cpu
                       : name == "memory" ? facts.node->capacity_memory_bytes * 1000
                                          : 0;
  if (!v && which == "requests") milli = 0;
  if (v) {
    auto parsed = v->is_string() ? kube::quantity_milli_value(std::string_view(v->get_string()))
                                 : Result<std::int64_t>(v->is_int64() ? v->get_int64() * 1000 : 0);
    if (!parsed) return propagate(parsed, "resource {}", resource);
    milli = *parsed;
  }
  auto unit = kube::quantity_milli_value(divisor.empty() || divisor == "0" ? "1" : divisor);
  if (!unit || *unit <= 0) return fail(EINVAL, "divisor {:?}: not a positive quantity", divisor);
  return std::to_string(milli / *unit + (milli % *unit > 0 ? 1 : 0));  // rounded up, without a sum that may overflow
}

StringMap service_env(const std::vector<kube::ObjectPtr>& services, std::string_view ns, bool links) {
  StringMap out;
  // The pod's own namespace wins over the API server's service of the same name.
  for (const auto& s : services)
    if (kube::ns(*s) == "default" && kube::name(*s) == "kubernetes") add_service(*s, out);
  if (!links) return out;
  for (const auto& s : services)
    if (kube::ns(*s) == ns) add_service(*s, out);
  return out;
}

Result<EnvList> make_env(const PodSpec& spec, const ContainerSpec& container, const EnvInputs& in) {
  return EnvBuilder(spec, container, in).build();
}

std::optional<std::string> object_key(const Object& object, bool secret, std::string_view key) {
  if (const auto* v = kube::find(object, {"data", key}); v && v->is_string()) {
    if (!secret) return std::string(v->get_string());
    auto decoded = base64_decode(std::string_view(v->get_string()));
    return decoded ? std::optional(*decoded) : std::nullopt;
  }
  if (const auto* v = kube::find(object, {"binaryData", key}); v && v->is_string() && !secret) {
    auto decoded = base64_decode(std::string_view(v->get_string()));
    return decoded ? std::optional(*decoded) : std::nullopt;
  }
  return std::nullopt;
}

std::vector<std::string> object_keys(const Object& object) {
  std::vector<std::string> out;
  for (const char* field : {"data", "binaryData"})
    for (const auto& [k, v] : kube::obj(object, {field})) out.emplace_back(k);
  std::ranges::sort(out);
  return out;
}

}  // namespace hawser::agent
