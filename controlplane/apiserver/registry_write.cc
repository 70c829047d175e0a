// SPDX-License-Identifier: Apache-2.0
// The writing half of the registry: create, update, patch, delete, and the commit they share.
#include <algorithm>

#include "controlplane/apiserver/registry.h"
#include "lib/base/random.h"

namespace hawser::apiserver {

using kube::FieldError;

namespace {

// A lost race is tried again this often before the client is told; each loss means somebody else's write went through.
constexpr int kMaxAttempts = 50;
// metadata.generateName: another suffix when the first is taken.
constexpr int kNameAttempts = 8;
constexpr std::size_t kMaxGeneratedBase = 58;  // 63 - 5
constexpr std::int64_t kEventTtlSeconds = 3600;
// One lease serves the events of a minute: an event lives up to that much longer.
constexpr auto kEventLeaseReuse = std::chrono::seconds(60);

constexpr std::string_view kModified =
    "the object has been modified; please apply your changes to the latest version and try again";

const Kind& namespaces_kind() {
  static const Kind& k = *schema::find_resource("", "v1", "namespaces");
  return k;
}

std::unexpected<kube::Status> conflict(const Kind& k, std::string_view name, std::string_view why) {
  return std::unexpected(kube::conflict(k.group, k.plural, name, why));
}

std::unexpected<kube::Status> store_failure(const Error& e) {
  return std::unexpected(e.code == ENOSPC ? kube::internal_error(fmt::format("the store is full: {}", e.text))
                                          : kube::internal_error(e.text));
}

bool is_service(const Kind& k) {
  return is_kind(k, "", "services");
}

// 409 for a uid or resourceVersion that the client named and that is not the current one.
Expected<> check_sent_identity(const Kind& k, const Entry& current, const Object& sent) {
  auto name = kube::name(*current.object);
  auto uid = kube::uid(sent);
  if (!uid.empty() && uid != kube::uid(*current.object)) {
    return conflict(k, name,
                    fmt::format("Precondition failed: UID in precondition: {}, UID in object meta: {}", uid,
                                kube::uid(*current.object)));
  }
  auto version = kube::resource_version(sent);
  if (!version.empty() && version != "0" && version != std::to_string(current.revision))
    return conflict(k, name, kModified);
  return {};
}

Expected<> check_preconditions(const Kind& k, const Entry& current, const DeleteRequest& r) {
  auto name = kube::name(*current.object);
  if (!r.uid.empty() && r.uid != kube::uid(*current.object)) {
    return conflict(
        k, name,
        fmt::format("the UID in the precondition ({}) does not match the UID in record ({}). The object might have "
                    "been deleted and then recreated",
                    r.uid, kube::uid(*current.object)));
  }
  if (!r.resource_version.empty() && r.resource_version != std::to_string(current.revision)) {
    return conflict(
        k, name,
        fmt::format("the ResourceVersion in the precondition ({}) does not match the ResourceVersion in record ({}). "
                    "The object might have been modified",
                    r.resource_version, current.revision));
  }
  return {};
}

Expected<> check_address(const Kind& k, ObjectName at, Object& o) {
  o["kind"] = k.kind;
  o["apiVersion"] = k.group_version();
  auto& metadata = kube::ensure(o, {"metadata"});
  auto name = kube::str(metadata, {"name"});
  auto ns = kube::str(metadata, {"namespace"});
  if (!at.name.empty() && !name.empty() && name != at.name) {
    return std::unexpected(kube::bad_request(
        fmt::format("the name of the object ({}) does not match the name on the URL ({})", name, at.name)));
  }
  if (k.namespaced && !ns.empty() && ns != at.ns) {
    return std::unexpected(
        kube::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
  }
  if (!at.name.empty()) metadata["name"] = at.name;
  if (k.namespaced) {
    metadata["namespace"] = at.ns;
  } else {
    metadata.erase("namespace");
  }
  return {};
}

kube::Status terminating(const Kind& k, std::string_view ns, std::string_view name) {
  auto s =
      kube::forbidden(k.group, k.plural, name,
                      fmt::format("unable to create new content in namespace {} because it is being terminated", ns));
  s.cause = "NamespaceTerminating";
  return s;
}

EntryPtr dry_entry(Object o, Revision revision) {
  auto stored = to_stored(o);
  return make_entry(std::move(o), stored, revision);
}

}  // namespace

store::Txn Registry::plan(const Commit& c, const std::string& key, const std::string& stored) {
  using store::Compare;
  using store::Op;
  store::Txn t;
  t.compare.push_back({.key = key, .target = Compare::Target::kModRevision, .number = c.expected});
  t.failure.push_back({.type = Op::Type::kGet, .key = key});
  if (!c.require_key.empty()) {
    t.compare.push_back({.key = c.require_key, .target = Compare::Target::kModRevision, .number = c.require_revision});
  }
  if (c.object) {
    t.success.push_back({.type = Op::Type::kPut, .key = key, .value = stored, .lease = c.lease});
  } else {
    t.success.push_back({.type = Op::Type::kDelete, .key = key});
  }
  for (auto& claim : c.allocation.claims) {
    t.compare.push_back({.key = claim.key, .target = Compare::Target::kVersion, .number = 0});
    t.failure.push_back({.type = Op::Type::kGet, .key = claim.key});
    t.success.push_back({.type = Op::Type::kPut, .key = claim.key, .value = c.key});
  }
  for (auto& released : c.allocation.release) t.success.push_back({.type = Op::Type::kDelete, .key = released});
  return t;
}

// A claimed value that somebody has: an error if the client asked for it, else another pick at the next attempt.
Expected<> Registry::explain_failure(const Commit& c, const store::TxnReply& reply) {
  std::vector<FieldError> taken;
  for (auto& claim : c.allocation.claims) {
    if (std::ranges::none_of(reply.got, [&](auto& kv) { return kv.key == claim.key; })) continue;
    allocator_.note_taken(claim.key);
    if (!claim.automatic) taken.push_back(claim.if_taken);
  }
  if (taken.empty()) return {};
  auto name = std::string_view(c.key).substr(c.key.find('/') + 1);
  return std::unexpected(kube::invalid(c.kind.group, c.kind.kind, name, std::move(taken)));
}

Expected<EntryPtr> Registry::commit(Commit c) {
  auto key = kind_prefix(c.kind) + c.key;
  auto stored = c.object ? to_stored(*c.object) : std::string();
  auto before = c.object ? nullptr : cache_.of(c.kind).get(c.key);
  auto txn = plan(c, key, stored);
  std::shared_ptr<Draft> draft;
  if (c.object) draft = cache_.announce(key, stored, std::move(*c.object));
  auto reply = store_.txn(txn);
  Expected<> seen;
  if (reply) seen = wait_for_cache(reply->revision);
  auto published = draft ? cache_.finish(draft) : nullptr;
  if (!reply) return store_failure(reply.error());
  if (!seen) return std::unexpected(seen.error());
  if (!reply->succeeded) {
    if (auto ok = explain_failure(c, *reply); !ok) return std::unexpected(ok.error());
    return EntryPtr();
  }
  if (!c.object) return before ? at_revision(*before, reply->revision) : EntryPtr();
  if (published && published->revision == reply->revision) return published;
  auto parsed = parse_entry(stored, reply->revision);
  if (!parsed) return store_failure(parsed.error());
  return std::move(*parsed);
}

Expected<store::LeaseId> Registry::event_lease() {
  std::lock_guard l(lease_mu_);
  auto now = clock_.now();
  if (lease_ == 0 || now - lease_granted_at_ > kEventLeaseReuse) {
    auto id = store_.lease_grant(kEventTtlSeconds + std::chrono::seconds(kEventLeaseReuse).count());
    if (!id) return store_failure(id.error());
    lease_ = *id;
    lease_granted_at_ = now;
  }
  return lease_;
}

// The namespace a new object goes into; null for a cluster-scoped kind.
Expected<EntryPtr> Registry::namespace_for(const Kind& k, std::string_view ns, std::string_view name) {
  if (!k.namespaced) return EntryPtr();
  auto e = cache_.of(namespaces_kind()).get(ns);
  if (!e) return std::unexpected(kube::not_found("", "namespaces", ns));
  if (kube::deleting(*e->object)) return std::unexpected(terminating(k, ns, name));
  return e;
}

Expected<EntryPtr> Registry::create_named(const Kind& k, std::string_view ns, Object o, const WriteOptions& w) {
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    auto home = namespace_for(k, ns, kube::name(o));
    if (!home) return std::unexpected(home.error());
    Commit c{.kind = k, .key = kube::key(o)};
    if (cache_.of(k).get(c.key)) return std::unexpected(kube::already_exists(k.group, k.plural, kube::name(o)));
    Object next = o;
    if (is_service(k)) {
      auto a = allocator_.allocate(nullptr, next);
      if (!a) return std::unexpected(a.error());
      c.allocation = std::move(*a);
    }
    if (w.dry_run) return dry_entry(std::move(next), 0);
    if (*home) {
      c.require_key = kind_prefix(namespaces_kind()) + std::string(ns);
      c.require_revision = (*home)->revision;
    }
    if (is_kind(k, "", "events")) {
      auto lease = event_lease();
      if (!lease) return std::unexpected(lease.error());
      c.lease = *lease;
    }
    c.object = std::move(next);
    auto done = commit(std::move(c));
    if (!done || *done) return done;
  }
  return conflict(k, kube::name(o), kModified);
}

Expected<EntryPtr> Registry::create(const Kind& k, std::string_view ns, Object o, const WriteOptions& w) {
  if (auto ok = check_address(k, {ns, ""}, o); !ok) return std::unexpected(ok.error());
  auto version = kube::resource_version(o);
  if (!version.empty() && version != "0") {
    return std::unexpected(kube::bad_request("resourceVersion should not be set on objects to be created"));
  }
  std::string base(kube::name(o).empty() ? kube::str(o, {"metadata", "generateName"}) : "");
  // The namespace comes first: nothing else is worth saying about an object that has no home.
  if (auto home = namespace_for(k, ns, kube::name(o)); !home) return std::unexpected(home.error());
  prepare_create(k, o, clock_.wall());
  schema::set_defaults(k, o);
  if (is_service(k)) ServiceAllocator::inherit(nullptr, o);
  if (base.size() > kMaxGeneratedBase) base.resize(kMaxGeneratedBase);
  for (int attempt = 1;; ++attempt) {
    if (!base.empty()) o["metadata"].as_object()["name"] = base + name_suffix();
    if (auto causes = schema::validate_create(k, o); !causes.empty()) {
      return std::unexpected(kube::invalid(k.group, k.kind, kube::name(o), std::move(causes)));
    }
    auto done = create_named(k, ns, o, w);
    bool taken = !done && done.error().reason == "AlreadyExists";
    if (!taken || base.empty() || attempt == kNameAttempts) return done;
  }
}

// One attempt; null when somebody was faster.
Expected<EntryPtr> Registry::try_update(const Kind& k, const EntryPtr& current, Object next, std::string_view sub,
                                        bool dry_run) {
  auto& old = *current->object;
  auto name = kube::name(old);
  if (auto ok = check_sent_identity(k, *current, next); !ok) return std::unexpected(ok.error());
  if (sub.empty() && kube::resource_version(next).empty() && !allows_unconditional_update(k)) {
    return std::unexpected(kube::invalid(
        k.group, k.kind, name,
        {{FieldError::Type::kInvalid, "metadata.resourceVersion", "0x0", "must be specified for an update"}}));
  }
  if (sub.empty() || sub == "status") schema::set_defaults(k, next);
  prepare_update(k, old, next, sub);
  if (is_service(k) && sub.empty()) ServiceAllocator::inherit(&old, next);
  next["metadata"].as_object()["resourceVersion"] = std::to_string(current->revision);
  if (auto causes = schema::validate_update(k, old, next, sub); !causes.empty()) {
    return std::unexpected(kube::invalid(k.group, k.kind, name, std::move(causes)));
  }
  Commit c{.kind = k, .key = current->key, .expected = current->revision};
  if (is_service(k) && sub.empty()) {
    auto a = allocator_.allocate(&old, next);
    if (!a) return std::unexpected(a.error());
    c.allocation = std::move(*a);
  }
  if (next == old) return current;
  bool vanishes = may_vanish(k, next) && !may_vanish(k, old);
  if (dry_run) return dry_entry(std::move(next), current->revision);
  if (vanishes) {
    if (is_service(k)) c.allocation = ServiceAllocator::release(old);
    auto gone = commit(std::move(c));
    if (!gone || !*gone) return gone;
    return dry_entry(std::move(next), (*gone)->revision);  // an update shows its object, even the last one
  }
  c.object = std::move(next);
  if (is_kind(k, "", "events")) {
    auto lease = event_lease();
    if (!lease) return std::unexpected(lease.error());
    c.lease = *lease;
  }
  return commit(std::move(c));
}

Expected<EntryPtr> Registry::mutate(const Kind& k, ObjectName at, std::string_view sub, const Change& change,
                                    const WriteOptions& w) {
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    auto current = get(k, at);
    if (!current) return current;
    auto next = change(*current);
    if (!next) return std::unexpected(next.error());
    auto done = try_update(k, *current, std::move(*next), sub, w.dry_run);
    if (!done || *done) return done;
  }
  return conflict(k, at.name, kModified);
}

Expected<Written> Registry::update(const Kind& k, ObjectName at, Object o, std::string_view sub,
                                   const WriteOptions& w) {
  if (auto ok = check_address(k, at, o); !ok) return std::unexpected(ok.error());
  if (at.name.empty() || kube::name(o).empty()) {
    return std::unexpected(kube::bad_request("name must be provided"));
  }
  if (sub.empty() && creates_on_update(k) && !cache_.of(k).get(at.key())) {
    o["metadata"].as_object().erase("resourceVersion");
    auto made = create(k, at.ns, o, w);
    if (made) return Written{*made, true};
    if (made.error().reason != "AlreadyExists") return std::unexpected(made.error());
  }
  auto done = mutate(
      k, at, sub, [&](const EntryPtr&) -> Expected<Object> { return o; }, w);
  if (!done) return std::unexpected(done.error());
  return Written{*done, false};
}

Expected<EntryPtr> Registry::patch(const Kind& k, ObjectName at, kube::PatchType type, const Value& body,
                                   std::string_view sub, const WriteOptions& w) {
  auto change = [&](const EntryPtr& current) -> Expected<Object> {
    auto next = schema::apply_patch(k, type, *current->object, body);
    if (!next) return next;
    // The result is held to the same standard as a whole object sent by the client.
    auto conformed = schema::conform(k, std::move(*next), w.validation, w.findings);
    if (!conformed) return std::unexpected(conformed.error());
    if (auto ok = check_address(k, at, conformed->object); !ok) return std::unexpected(ok.error());
    if (w.warnings != nullptr) *w.warnings = std::move(conformed->warnings);
    return std::move(conformed->object);
  };
  return mutate(k, at, sub, change, w);
}

Expected<Deleted> Registry::remove(const Kind& k, ObjectName at, const DeleteRequest& r) {
  if (is_kind(k, "", "namespaces") && (at.name == "default" || at.name == "kube-system" || at.name == "kube-public")) {
    return std::unexpected(kube::forbidden("", "namespaces", at.name, "this namespace may not be deleted"));
  }
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    auto current = get(k, at);
    if (!current) return std::unexpected(current.error());
    auto& entry = *current;
    if (auto ok = check_preconditions(k, *entry, r); !ok) return std::unexpected(ok.error());
    auto marked = mark_deleted(k, *entry->object, r, clock_.wall());
    if (marked && *marked == *entry->object) return Deleted{entry, false};
    if (r.dry_run) return Deleted{marked ? dry_entry(std::move(*marked), entry->revision) : entry, !marked};
    Commit c{.kind = k, .key = entry->key, .expected = entry->revision, .object = std::move(marked)};
    bool gone = !c.object;
    if (gone && is_service(k)) c.allocation = ServiceAllocator::release(*entry->object);
    auto done = commit(std::move(c));
    if (!done) return std::unexpected(done.error());
    if (*done) return Deleted{*done, gone};
  }
  return conflict(k, at.name, kModified);
}

Expected<ListReply> Registry::remove_collection(const Kind& k, const ListRequest& l, const DeleteRequest& r) {
  auto found = list(k, l);
  if (!found) return found;
  for (auto& e : found->items) {
    auto done = remove(k, {kube::ns(*e->object), kube::name(*e->object)}, r);
    if (done) {
      e = done->entry;
    } else if (done.error().code != 404) {
      return std::unexpected(done.error());
    }
  }
  return found;
}

}  // namespace hawser::apiserver
