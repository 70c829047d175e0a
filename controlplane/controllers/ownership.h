// SPDX-License-Identifier: Apache-2.0
// Owner references: making them, and deciding which objects a controller owns, adopts or lets go. Pure, any thread.
// Source: "Owners and Dependents" and the ControllerRef rules of the Kubernetes documentation: an object belongs to the
// one controller its reference names; an orphan that matches the selector is adopted; an owned object that no longer
// matches is released.
#pragma once

#include <span>
#include <vector>

#include "controlplane/controllers/pod_state.h"
#include "lib/kube/selector.h"

namespace hawser::controllers {

// The controller reference {apiVersion, kind, name, uid, controller, blockOwnerDeletion} to `owner`.
[[nodiscard]] Object controller_reference(std::string_view api_version, std::string_view kind, const Object& owner);

struct Claim {
  std::vector<ObjectPtr> owned;
  std::vector<ObjectPtr> adopt;
  std::vector<ObjectPtr> release;
};
// `candidates` are the objects of the owner's namespace. An owner or orphan that is being deleted adopts, is adopted,
// nothing.
[[nodiscard]] Claim claim(const Object& owner, const kube::LabelSelector& selector,
                          std::span<const ObjectPtr> candidates);

// `o` with `reference` added, or without any reference to `owner_uid`.
[[nodiscard]] Object with_owner(const Object& o, const Object& reference);
[[nodiscard]] Object without_owner(const Object& o, std::string_view owner_uid);

}  // namespace hawser::controllers
