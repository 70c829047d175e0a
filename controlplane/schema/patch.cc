// SPDX-License-Identifier: Apache-2.0
#include "controlplane/schema/patch.h"

#include "lib/kube/status.h"

namespace hawser::schema {
namespace {

Status status_of(const Error& e) {
  if (e.code == 400) return kube::bad_request(e.text);
  if (e.code == 413) return kube::too_large(e.text);
  Status s;
  s.code = 422;
  s.reason = "Invalid";
  s.message = "the server rejected our request due to an error in our request: " + e.text;
  return s;
}

Result<boost::json::value> patched(const Kind& k, kube::PatchType type, const Object& original,
                                   const boost::json::value& patch) {
  boost::json::value target(original);
  if (type == kube::PatchType::kJson) return apply_json_patch(std::move(target), patch);
  const auto* changes = patch.if_object();
  if (!changes) return fail(400, "error decoding patch: the patch is not an object");
  if (type == kube::PatchType::kMerge) {
    apply_merge_patch(target, patch);
    return target;
  }
  if (auto ok = apply_strategic_patch(*TypeTable::get().entry(k).type, target.get_object(), *changes); !ok)
    return propagate(ok);
  return target;
}

}  // namespace

Expected<Object> apply_patch(const Kind& k, kube::PatchType type, const Object& original, const value& patch) {
  auto result = patched(k, type, original, patch);
  if (!result) return std::unexpected(status_of(result.error()));
  auto* o = result->if_object();
  if (!o) return std::unexpected(kube::bad_request("the patched document is not an object"));
  return std::move(*o);
}

}  // namespace hawser::schema
