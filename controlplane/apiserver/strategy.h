// SPDX-License-Identifier: Apache-2.0
// Strategy: what the API server itself decides about an object, kind by kind: the fields a client cannot set, the split
// between an object and its subresources, admission defaults of pods, and what deletion means. Source: the API
// conventions and the registry strategies of Kubernetes (public behaviour). Pure, any thread.
#pragma once

#include <optional>
#include <string>

#include "controlplane/apiserver/entry.h"
#include "lib/base/clock.h"

namespace hawser::apiserver {

inline constexpr std::string_view kNamespaceFinalizer = "kubernetes";
inline constexpr std::string_view kOrphanFinalizer = "orphan";
inline constexpr std::string_view kForegroundFinalizer = "foregroundDeletion";

[[nodiscard]] bool is_kind(const Kind& k, std::string_view group, std::string_view plural);

// Fresh identity, empty status, admission defaults.
void prepare_create(const Kind& k, Object& o, WallTime now);

// `next` as a client sent it for `subresource` ("", "status", "finalize", ...) becomes what may be stored after `old`.
void prepare_update(const Kind& k, const Object& old, Object& next, std::string_view subresource);

// PUT to a name that does not exist creates it.
[[nodiscard]] bool creates_on_update(const Kind& k);
// PUT without resourceVersion overwrites.
[[nodiscard]] bool allows_unconditional_update(const Kind& k);
// DELETE answers with the object rather than with a Status.
[[nodiscard]] bool returns_deleted(const Kind& k);

// metav1.DeleteOptions as sent.
struct DeleteRequest {
  std::optional<std::int64_t> grace_seconds;
  std::string uid, resource_version;  // preconditions
  std::string propagation;            // "", Background, Foreground, Orphan
  bool dry_run = false;
};

// What a deletion turns the object into; nothing: it goes at once.
[[nodiscard]] std::optional<Object> mark_deleted(const Kind& k, const Object& current, const DeleteRequest& r,
                                                 WallTime now);
// True when nothing holds a deleted object any more: no finalizer and no grace period to wait for.
[[nodiscard]] bool may_vanish(const Kind& k, const Object& o);

}  // namespace hawser::apiserver
