// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/continue_token.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "lib/kube/object.h"

namespace hawser::apiserver {

namespace {

constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

std::optional<std::string> decode_base64url(std::string_view text) {
  std::string out;
  std::uint32_t bits = 0;
  int count = 0;
  for (char c : text) {
    auto at = c == '-' ? 62 : c == '_' ? 63 : kAlphabet.find(c);
    if (at == std::string_view::npos) return std::nullopt;
    bits = bits << 6 | static_cast<std::uint32_t>(at);
    count += 6;
    if (count >= 8) {
      count -= 8;
      out += static_cast<char>(bits >> count & 0xff);
    }
  }
  return out;
}

}  // namespace

std::string base64(std::string_view data, bool url_safe) {
  std::string out;
  auto digit = [&](std::uint32_t v) {
    if (v < 62) return kAlphabet[v];
    if (url_safe) return v == 62 ? '-' : '_';
    return v == 62 ? '+' : '/';
  };
  for (std::size_t i = 0; i < data.size(); i += 3) {
    std::uint32_t group = 0;
    auto n = std::min<std::size_t>(3, data.size() - i);
    for (std::size_t j = 0; j < 3; ++j) {
      group = group << 8 | (j < n ? static_cast<unsigned char>(data[i + j]) : 0u);
    }
    for (std::size_t j = 0; j < n + 1; ++j) out += digit(group >> (18 - 6 * j) & 63);
    if (!url_safe) out.append(3 - n, '=');
  }
  return out;
}

std::string ContinueToken::encode() const {
  kube::Object o{{"v", "meta.k8s.io/v1"}, {"rv", revision}, {"start", start}};
  return base64(boost::json::serialize(o), true);
}

std::optional<ContinueToken> ContinueToken::decode(std::string_view text) {
  auto raw = decode_base64url(text);
  if (!raw) return std::nullopt;
  boost::system::error_code ec;
  auto v = boost::json::parse(*raw, ec);
  if (ec || !v.is_object()) return std::nullopt;
  auto& o = v.get_object();
  ContinueToken t{kube::num(o, {"rv"}), std::string(kube::str(o, {"start"}))};
  if (kube::str(o, {"v"}) != "meta.k8s.io/v1" || t.revision == 0 || t.start.empty()) return std::nullopt;
  return t;
}

}  // namespace hawser::apiserver
