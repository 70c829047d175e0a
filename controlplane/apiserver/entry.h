// SPDX-License-Identifier: Apache-2.0
// Entry: one object at one revision, parsed and serialized, immutable and shared by every reader. And the stored form:
// the object as JSON without metadata.resourceVersion (which is the store's revision and known only after the write),
// laid out as {"kind":..,"apiVersion":..,"metadata":{...},...}, so that a revision is put in by one splice and never by
// a second serialization. Pure, any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "controlplane/schema/schema.h"
#include "controlplane/store/store.h"
#include "lib/kube/object.h"

namespace hawser::apiserver {

using kube::Expected;
using kube::Object;
using kube::ObjectPtr;
using kube::Value;
using schema::Kind;
using store::Revision;

struct Entry {
  std::string key;                          // "namespace/name", or "name"
  Revision revision = 0;                    // 0: not stored (dry run)
  ObjectPtr object;                         // with resourceVersion
  std::shared_ptr<const std::string> json;  // the same
};
using EntryPtr = std::shared_ptr<const Entry>;

// The object's stored form; resourceVersion and managedFields are left out.
[[nodiscard]] std::string to_stored(const Object& o);
// The stored form with `revision` put in; revision 0: as it is.
[[nodiscard]] std::string with_revision(std::string_view stored, Revision revision);
void set_revision(Object& o, Revision revision);

// An entry from an object that nobody else holds (moved in), or from stored bytes.
[[nodiscard]] EntryPtr make_entry(Object object, std::string_view stored, Revision revision);
Result<EntryPtr> parse_entry(std::string_view stored, Revision revision);
// The same object under another revision: what a DELETED event shows.
[[nodiscard]] EntryPtr at_revision(const Entry& e, Revision revision);

// Store keys. A kind's prefix ends with '/'.
[[nodiscard]] std::string kind_prefix(const Kind& k);
[[nodiscard]] std::string object_key(std::string_view ns, std::string_view name);

}  // namespace hawser::apiserver
