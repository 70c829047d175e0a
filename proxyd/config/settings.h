// SPDX-License-Identifier: Apache-2.0
// All that kube-proxy can be told, of every version from 1.20 on, in one table: the field of KubeProxyConfiguration
// v1alpha1, the flag, type and default; and for what has no meaning here one clause that says why. The reader of the
// file, the flags, --write-config-to and /configz all go by it. Pure, any thread. Source: Kubernetes,
// kube-proxy/config/v1alpha1/types.go and cmd/kube-proxy/app/options.go.
#pragma once

#include <span>

#include "proxyd/config/value.h"

namespace hawser::proxy {

struct Setting {
  const char* field;  // "iptables.masqueradeAll"; "" for a flag without a field
  const char* flag;   // without dashes; "" for a field without a flag
  Type type;
  const char* initial;  // null: unset
  // Why it changes nothing here; "" if it is honoured. Reported when it is set to something else than `initial`.
  const char* unused;
};

[[nodiscard]] std::span<const Setting> settings();
[[nodiscard]] const Setting* find_field(std::string_view field);

inline constexpr const char* kConfigApiVersion = "kubeproxy.config.k8s.io/v1alpha1";
inline constexpr const char* kConfigKind = "KubeProxyConfiguration";

}  // namespace hawser::proxy
