// SPDX-License-Identifier: Apache-2.0
// The reading half of the registry: get, list, watch.
#include "controlplane/apiserver/registry.h"

#include <algorithm>

#include "controlplane/apiserver/continue_token.h"

namespace hawser::apiserver {

namespace {

constexpr auto kFutureWait = std::chrono::seconds(3);
// Requests that may wait for a version at once. Each holds a worker; those beyond are told at once what the others hear
// in the end: come again in a second.
constexpr int kMaxFutureWaiters = 3;

kube::Status too_large_version(Revision asked, Revision current) {
  auto s = kube::timeout(fmt::format("Too large resource version: {}, current: {}", asked, current), 1);
  s.cause = "ResourceVersionTooLarge";
  return s;
}

kube::Status expired_token(const ContinueToken& t) {
  auto s = kube::expired(
      "The provided continue parameter is too old to display a consistent list result. You can start a new list "
      "without the "
      "continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
      "Continuing "
      "with the provided token results in an inconsistent list - objects that were created, modified, or deleted "
      "between the "
      "time the first chunk was returned and now may show up in the list.");
  s.continue_token = ContinueToken{-1, t.start}.encode();
  return s;
}

// Cuts `items` (all from `start` on) to a page.
void paginate(ListReply& reply, const ListRequest& r) {
  auto limit = static_cast<std::size_t>(r.limit);
  if (r.limit <= 0 || reply.items.size() <= limit) return;
  reply.continue_token = ContinueToken{reply.revision, reply.items[limit]->key}.encode();
  // With a selector the rest is not known without reading it, so Kubernetes leaves the number out.
  if (r.filter.labels.empty() && r.filter.fields.empty()) {
    reply.remaining = static_cast<std::int64_t>(reply.items.size() - limit);
  }
  reply.items.resize(limit);
}

}  // namespace

Registry::Registry(store::Store& store, WatchCache& cache, ServiceAllocator& allocator, Clock& clock)
    : store_(store), cache_(cache), allocator_(allocator), clock_(clock) {}

Expected<> Registry::check_selectable(const Kind& k, const Filter& f) {
  for (auto& r : f.fields) {
    if (r.path == "metadata.name" || (r.path == "metadata.namespace" && k.namespaced)) continue;
    if (std::ranges::find(k.selectable, r.path) != k.selectable.end()) continue;
    // kubectl puts the sentence around it.
    return std::unexpected(kube::bad_request(fmt::format("field label not supported: {}", r.path)));
  }
  return {};
}

Expected<> Registry::wait_for_cache(Revision r) {
  if (cache_.wait_for(r, std::chrono::seconds(10))) return {};
  return std::unexpected(kube::internal_error(fmt::format("the watch cache did not reach revision {}", r)));
}

Expected<> Registry::wait_for_asked(Revision r) {
  if (r <= cache_.progress()) return {};
  // One that the store has is on its way to the cache; only those of the real future are bounded.
  bool future = r > store_.revision();
  bool may_wait = !future || ++future_waiters_ <= kMaxFutureWaiters;
  bool reached = may_wait && cache_.wait_for(r, kFutureWait);
  if (future) --future_waiters_;
  if (reached) return {};
  return std::unexpected(too_large_version(r, cache_.progress()));
}

Expected<EntryPtr> Registry::get(const Kind& k, ObjectName at, Revision not_older_than) {
  if (auto ok = wait_for_asked(not_older_than); !ok) return std::unexpected(ok.error());
  auto e = cache_.of(k).get(at.key());
  if (!e) return std::unexpected(kube::not_found(k.group, k.plural, at.name));
  return e;
}

Expected<ListReply> Registry::list(const Kind& k, const ListRequest& r) {
  if (auto ok = check_selectable(k, r.filter); !ok) return std::unexpected(ok.error());
  if (!r.continue_token.empty()) {
    if (r.resource_version.value_or(0) != 0) {
      return std::unexpected(kube::bad_request("specifying resource version is not allowed when using continue"));
    }
    auto token = ContinueToken::decode(r.continue_token);
    if (!token) return std::unexpected(kube::bad_request("continue key is not valid"));
    auto page = list_at(k, r, token->revision < 0 ? cache_.progress() : token->revision, token->start);
    if (!page && page.error().code == 410) return std::unexpected(expired_token(*token));
    return page;
  }
  auto wanted = r.resource_version.value_or(0);
  if (auto ok = wait_for_asked(wanted); !ok) return std::unexpected(ok.error());
  // A page of a given version was exact before resourceVersionMatch existed.
  bool exact = r.match == VersionMatch::kExact || (r.match == VersionMatch::kUnset && r.limit > 0);
  if (wanted > 0 && exact) return list_at(k, r, wanted, "");
  auto snapshot = cache_.of(k).list(r.filter, cache_.progress());
  ListReply reply{.revision = snapshot.revision, .items = std::move(snapshot.items)};
  paginate(reply, r);
  return reply;
}

// The state of exactly `revision`, from `start` on.
Expected<ListReply> Registry::list_at(const Kind& k, const ListRequest& r, Revision revision,
                                      const std::string& start) {
  ListReply reply{.revision = revision};
  auto snapshot = cache_.of(k).list(r.filter, cache_.progress());
  if (cache_.of(k).last_change() <= revision) {
    reply.items = std::move(snapshot.items);
    std::erase_if(reply.items, [&](auto& e) { return e->key < start; });
    paginate(reply, r);
    return reply;
  }
  auto prefix = kind_prefix(k);
  auto got = store_.range({.key = prefix + start, .end = store::prefix_end(prefix), .revision = revision});
  if (!got) {
    if (is_gone(got.error())) {
      return std::unexpected(kube::expired(fmt::format("The resourceVersion for the provided list is too old.")));
    }
    return std::unexpected(kube::internal_error(got.error().text));
  }
  for (auto& kv : got->kvs) {
    auto e = parse_entry(kv.value, kv.mod_revision);
    if (e && r.filter.matches(**e)) reply.items.push_back(std::move(*e));
  }
  paginate(reply, r);
  return reply;
}

Expected<> Registry::watch(const Kind& k, const WatchRequest& r, const std::shared_ptr<Watcher>& w) {
  if (auto ok = check_selectable(k, r.filter); !ok) return ok;
  auto wanted = r.resource_version.value_or(0);
  if (auto ok = wait_for_asked(wanted); !ok) return ok;
  WatchStart start{.after = r.from_now ? cache_.progress() : wanted,
                   .initial_state = !r.from_now && (wanted == 0 || r.send_initial_events),
                   .initial_bookmark = r.send_initial_events};
  return cache_.of(k).subscribe(w, r.filter, start, cache_.progress());
}

}  // namespace hawser::apiserver
