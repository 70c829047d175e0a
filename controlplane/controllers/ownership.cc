// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/ownership.h"

namespace hawser::controllers {

Object controller_reference(std::string_view api_version, std::string_view kind, const Object& owner) {
  Object r;
  r["apiVersion"] = text(api_version);
  r["kind"] = text(kind);
  r["name"] = text(kube::name(owner));
  r["uid"] = text(kube::uid(owner));
  r["controller"] = true;
  r["blockOwnerDeletion"] = true;
  return r;
}

Claim claim(const Object& owner, const kube::LabelSelector& selector, std::span<const ObjectPtr> candidates) {
  Claim out;
  for (const ObjectPtr& o : candidates) {
    const std::string_view controller = kube::str(kube::controller_of(*o), {"uid"});
    const bool matches = selector.matches(labels(*o));
    if (!controller.empty()) {
      if (controller != kube::uid(owner)) continue;
      if (matches)
        out.owned.push_back(o);
      else if (!kube::deleting(owner))
        out.release.push_back(o);
      continue;
    }
    if (matches && !kube::deleting(owner) && !kube::deleting(*o)) out.adopt.push_back(o);
  }
  return out;
}

Object with_owner(const Object& o, const Object& reference) {
  Object out = o;
  Object& meta = kube::ensure(out, {"metadata"});
  Value& refs = meta["ownerReferences"];
  if (!refs.is_array()) refs = Array{};
  refs.get_array().push_back(reference);
  return out;
}

Object without_owner(const Object& o, std::string_view owner_uid) {
  Object out = o;
  Object& meta = kube::ensure(out, {"metadata"});
  Array kept;
  for (const Value& r : kube::arr(o, {"metadata", "ownerReferences"}))
    if (kube::str(kube::as_obj(r), {"uid"}) != owner_uid) kept.push_back(r);
  if (kept.empty())
    meta.erase("ownerReferences");
  else
    meta["ownerReferences"] = std::move(kept);
  return out;
}

}  // namespace hawser::controllers
