// SPDX-License-Identifier: Apache-2.0
// Rules for names, labels, ports and paths, with the sentences Kubernetes uses for them. Each check returns the reasons
// why `s` is not valid, none if it is. Sources: RFC 1123, RFC 1035, the Kubernetes documentation of names, labels and
// annotations. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hawser::schema {

using Reasons = std::vector<std::string>;

[[nodiscard]] Reasons check_dns1123_label(std::string_view s);
[[nodiscard]] Reasons check_dns1123_subdomain(std::string_view s);
[[nodiscard]] Reasons check_dns1035_label(std::string_view s);
[[nodiscard]] Reasons check_qualified_name(std::string_view s);  // label and annotation keys, finalizers
[[nodiscard]] Reasons check_label_value(std::string_view s);
[[nodiscard]] Reasons check_path_segment(std::string_view s);  // names of kinds without stricter rules
[[nodiscard]] Reasons check_config_key(std::string_view s);    // keys of ConfigMap and Secret
[[nodiscard]] Reasons check_env_name(std::string_view s);
[[nodiscard]] Reasons check_port_name(std::string_view s);  // IANA service name
[[nodiscard]] Reasons check_port_number(std::int64_t port);

}  // namespace hawser::schema
