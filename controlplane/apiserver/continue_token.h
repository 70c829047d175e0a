// SPDX-License-Identifier: Apache-2.0
// The opaque `continue` of a paginated list: the revision the pages show, and the first key of the next page. The form
// is that of Kubernetes (unpadded base64url of JSON), though no client may look inside. Pure, any thread.
#pragma once

#include <optional>
#include <string>

#include "controlplane/store/store.h"

namespace hawser::apiserver {

struct ContinueToken {
  store::Revision revision = 0;  // -1: go on at the current state, an inconsistent list
  std::string start;             // key within the kind
  [[nodiscard]] std::string encode() const;
  static std::optional<ContinueToken> decode(std::string_view text);
};

[[nodiscard]] std::string base64(std::string_view data, bool url_safe);

}  // namespace hawser::apiserver
