// SPDX-License-Identifier: Apache-2.0
#include "lib/kube/fake_client.h"

#include <algorithm>
#include <charconv>

#include "lib/base/random.h"
#include "lib/base/time_text.h"
#include "lib/kube/json_patch.h"
#include "lib/kube/object.h"
#include "lib/kube/selector.h"
#include "lib/kube/status.h"

namespace hawser::kube {
namespace {

std::string table_name(const Resource& r) {
  return fmt::format("{}.{}", r.plural, r.group);
}
std::string key_of(std::string_view ns, std::string_view name) {
  return ns.empty() ? std::string(name) : fmt::format("{}/{}", ns, name);
}
std::unexpected<Error> fail_with(const Status& s) {
  return std::unexpected(s.to_error());
}

std::string_view field(const Object& o, std::string_view path) {
  const Object* at = &o;
  while (true) {
    auto dot = path.find('.');
    const Value* v = at->if_contains(path.substr(0, dot));
    if (!v) return {};
    if (dot == path.npos) return v->is_string() ? std::string_view(v->get_string()) : std::string_view();
    if (!v->is_object()) return {};
    at = &v->get_object();
    path.remove_prefix(dot + 1);
  }
}

bool has_finalizers(const Object& o) {
  return !arr(o, {"metadata", "finalizers"}).empty();
}

}  // namespace

struct FakeClient::Filter {
  std::string ns;
  LabelSelector labels;
  std::vector<FieldRequirement> fields;

  static Result<Filter> make(const ListOptions& o) {
    auto labels = LabelSelector::parse(o.label_selector);
    if (!labels) return propagate(labels);
    auto fields = parse_field_selector(o.field_selector);
    if (!fields) return propagate(fields);
    return Filter{o.ns, std::move(*labels), std::move(*fields)};
  }
  [[nodiscard]] bool matches(const ObjectPtr& o) const {
    if (!o || (!ns.empty() && kube::ns(*o) != ns) || !labels.matches(obj(*o, {"metadata", "labels"}))) return false;
    return std::ranges::all_of(fields, [&](const auto& f) { return (field(*o, f.path) == f.value) == f.equal; });
  }
  // The event a watcher with this filter sees for a change; empty if none.
  [[nodiscard]] std::optional<WatchEvent> event(const Change& c) const {
    bool before = matches(c.old);
    bool after = matches(c.current);
    if (before && after) return WatchEvent{EventType::kModified, c.current};
    if (after) return WatchEvent{EventType::kAdded, c.current};
    if (!before) return std::nullopt;
    // The last state, under the version of the change: that is what a resumed watch must continue from.
    Object last = c.current ? *c.current : *c.old;
    ensure(last, {"metadata"})["resourceVersion"] = std::to_string(c.version);
    return WatchEvent{EventType::kDeleted, std::make_shared<const Object>(std::move(last))};
  }
};

Result<> FakeClient::begin(Call call) {
  std::function<std::optional<Error>(const Call&)> fault;
  {
    std::lock_guard l(mu_);
    calls_.push_back(call);
    fault = fault_;
  }
  if (!fault) return {};
  if (auto e = fault(call)) return std::unexpected(std::move(*e));
  return {};
}

Result<ObjectPtr> FakeClient::find_locked(const Resource& r, std::string_view ns, std::string_view name) {
  auto& table = tables_[table_name(r)];
  auto it = table.find(key_of(ns, name));
  if (it == table.end()) return fail_with(not_found(r.group, r.plural, name));
  return it->second;
}

ObjectPtr FakeClient::store_locked(const Resource& r, Object o, const ObjectPtr& old) {
  ensure(o, {"metadata"})["resourceVersion"] = std::to_string(++version_);
  auto stored = std::make_shared<const Object>(std::move(o));
  tables_[table_name(r)][key(*stored)] = stored;
  history_.push_back({version_, table_name(r), old, stored});
  cv_.notify_all();
  return stored;
}

void FakeClient::erase_locked(const Resource& r, const ObjectPtr& old) {
  tables_[table_name(r)].erase(key(*old));
  history_.push_back({++version_, table_name(r), old, nullptr});
  cv_.notify_all();
}

Result<ObjectPtr> FakeClient::get(const Resource& r, std::string_view ns, std::string_view name) {
  if (auto ok = begin({"get", std::string(r.plural), std::string(ns), std::string(name), ""}); !ok)
    return propagate(ok);
  std::lock_guard l(mu_);
  return find_locked(r, ns, name);
}

Result<ObjectList> FakeClient::list(const Resource& r, const ListOptions& o) {
  if (auto ok = begin({"list", std::string(r.plural), o.ns, "", ""}); !ok) return propagate(ok);
  auto filter = Filter::make(o);
  if (!filter) return propagate(filter);
  std::lock_guard l(mu_);
  ObjectList out{std::to_string(version_), {}};
  for (const auto& [k, object] : tables_[table_name(r)])
    if (filter->matches(object)) out.items.push_back(object);
  return out;
}

Result<ObjectPtr> FakeClient::create(const Resource& r, std::string_view ns, const Object& o) {
  Object copy = o;
  Object& meta = ensure(copy, {"metadata"});
  if (name(copy).empty() && !str(copy, {"metadata", "generateName"}).empty())
    meta["name"] = std::string(str(copy, {"metadata", "generateName"})) + name_suffix();
  if (r.namespaced && !ns.empty()) meta["namespace"] = ns;
  if (auto ok = begin({"create", std::string(r.plural), std::string(ns), std::string(name(copy)), ""}); !ok)
    return propagate(ok);
  if (name(copy).empty()) return fail_with(bad_request("name or generateName is required"));
  meta["uid"] = uuid_v4();
  meta["creationTimestamp"] = rfc3339(clock_.wall());
  meta["generation"] = 1;
  copy["kind"] = r.kind;
  copy["apiVersion"] = r.group.empty() ? std::string(r.version) : fmt::format("{}/{}", r.group, r.version);
  std::lock_guard l(mu_);
  if (tables_[table_name(r)].contains(key(copy))) return fail_with(already_exists(r.group, r.plural, name(copy)));
  return store_locked(r, std::move(copy), nullptr);
}

Result<ObjectPtr> FakeClient::update_locked(const Resource& r, const Object& o, std::string_view subresource) {
  auto found = find_locked(r, ns(o), name(o));
  if (!found) return found;
  const ObjectPtr old = *found;
  auto wanted = resource_version(o);
  if (!wanted.empty() && wanted != resource_version(*old))
    return fail_with(
        conflict(r.group, r.plural, name(o),
                 "the object has been modified; please apply your changes to the latest version and try again"));
  Object next = subresource == "status" ? *old : o;
  const Object& status_from = subresource == "status" ? o : *old;
  if (const Value* status = find(status_from, {"status"}))
    next["status"] = *status;
  else
    next.erase("status");
  Object& meta = ensure(next, {"metadata"});
  for (const char* kept : {"uid", "creationTimestamp", "deletionTimestamp", "generation", "resourceVersion"})
    if (const Value* v = find(*old, {"metadata", kept})) meta[kept] = *v;
  if (next == *old) return old;
  if (obj(next, {"spec"}) != obj(*old, {"spec"})) meta["generation"] = num(*old, {"metadata", "generation"}) + 1;
  if (deleting(next) && !has_finalizers(next) && has_finalizers(*old)) {
    erase_locked(r, old);
    return old;
  }
  return store_locked(r, std::move(next), old);
}

Result<ObjectPtr> FakeClient::update(const Resource& r, const Object& o, std::string_view subresource) {
  if (auto ok =
          begin({"update", std::string(r.plural), std::string(ns(o)), std::string(name(o)), std::string(subresource)});
      !ok)
    return propagate(ok);
  std::lock_guard l(mu_);
  return update_locked(r, o, subresource);
}

Result<ObjectPtr> FakeClient::patch(const Resource& r, std::string_view ns, std::string_view name, PatchType type,
                                    const boost::json::value& body, std::string_view subresource) {
  if (auto ok = begin({"patch", std::string(r.plural), std::string(ns), std::string(name), std::string(subresource)});
      !ok)
    return propagate(ok);
  std::lock_guard l(mu_);
  auto found = find_locked(r, ns, name);
  if (!found) return found;
  Value v(**found);
  if (auto ok = apply_patch(v, type, body); !ok) return propagate(ok);
  return update_locked(r, as_obj(v), subresource);
}

Result<> FakeClient::remove(const Resource& r, std::string_view ns, std::string_view name, const DeleteOptions& o) {
  if (auto ok = begin({"delete", std::string(r.plural), std::string(ns), std::string(name), ""}); !ok) return ok;
  std::lock_guard l(mu_);
  auto found = find_locked(r, ns, name);
  if (!found) return propagate(found);
  const ObjectPtr old = *found;
  if ((!o.uid.empty() && o.uid != uid(*old)) ||
      (!o.resource_version.empty() && o.resource_version != resource_version(*old)))
    return fail_with(conflict(r.group, r.plural, name, "the precondition of the delete does not hold"));
  // A pod on a node goes when its agent says so, by a second delete without grace.
  std::int64_t grace =
      o.grace_period_seconds >= 0 ? o.grace_period_seconds : num(*old, {"spec", "terminationGracePeriodSeconds"}, 30);
  bool graceful = r.plural == "pods" && !str(*old, {"spec", "nodeName"}).empty() && grace > 0;
  if (!graceful && !has_finalizers(*old)) {
    erase_locked(r, old);
    return {};
  }
  if (deleting(*old)) return {};
  Object next = *old;
  Object& meta = ensure(next, {"metadata"});
  meta["deletionTimestamp"] = rfc3339(clock_.wall() + std::chrono::seconds(graceful ? grace : 0));
  if (graceful) meta["deletionGracePeriodSeconds"] = grace;
  store_locked(r, std::move(next), old);
  return {};
}

Result<ObjectPtr> FakeClient::bind_locked(const Resource& r, const ObjectPtr& pod, const Object& binding) {
  if (auto node = str(*pod, {"spec", "nodeName"}); !node.empty())
    return fail_with(conflict(r.group, "pods/binding", name(*pod),
                              fmt::format("pod {} is already assigned to node \"{}\"", name(*pod), node)));
  Object next = *pod;
  ensure(next, {"spec"})["nodeName"] = str(binding, {"target", "name"});
  return store_locked(r, std::move(next), pod);
}

Result<ObjectPtr> FakeClient::create_sub(const Resource& r, std::string_view ns, std::string_view name,
                                         std::string_view subresource, const Object& o) {
  if (auto ok = begin({"create", std::string(r.plural), std::string(ns), std::string(name), std::string(subresource)});
      !ok)
    return propagate(ok);
  std::lock_guard l(mu_);
  auto found = find_locked(r, ns, name);
  if (!found) return found;
  if (subresource == "binding") return bind_locked(r, *found, o);
  if (subresource == "token") {
    Object answer = o;
    ensure(answer, {"status"})["token"] = fmt::format("token-of-{}", name);
    ensure(answer, {"status"})["expirationTimestamp"] = rfc3339(clock_.wall() + std::chrono::hours(1));
    return std::make_shared<const Object>(std::move(answer));
  }
  return fail_with(not_found(r.group, fmt::format("{}/{}", r.plural, subresource), name));
}

Result<> FakeClient::watch(const Resource& r, const WatchOptions& o,
                           const std::function<bool(const WatchEvent&)>& on_event, std::stop_token stop) {
  if (auto ok = begin({"watch", std::string(r.plural), o.ns, "", ""}); !ok) return ok;
  auto filter = Filter::make(o);
  if (!filter) return propagate(filter);
  std::int64_t seen = 0;
  std::from_chars(o.resource_version.data(), o.resource_version.data() + o.resource_version.size(), seen);
  // Made before the lock is taken and gone after it is given back: its callback takes it.
  std::stop_callback wake(stop, [this] {
    std::lock_guard w(mu_);
    cv_.notify_all();
  });
  std::unique_lock l(mu_);
  if (seen < compacted_) return fail_with(expired(fmt::format("too old resource version: {} ({})", seen, compacted_)));
  const std::string table = table_name(r);
  const int breaks = breaks_;
  watching_++;
  cv_.notify_all();
  Result<> result;
  if (o.on_open) {
    l.unlock();
    o.on_open();
    l.lock();
  }
  for (bool more = true; more && !stop.stop_requested();) {
    if (breaks_ != breaks) {
      if (break_error_) result = std::unexpected(*break_error_);
      break;
    }
    auto next = std::ranges::find_if(history_, [&](const Change& c) { return c.version > seen; });
    if (next == history_.end()) {
      cv_.wait(l);
      continue;
    }
    Change c = *next;
    seen = c.version;
    std::optional<WatchEvent> e;
    if (c.bookmark)
      e = WatchEvent{EventType::kBookmark, c.current};
    else if (c.resource == table)
      e = filter->event(c);
    if (!e) continue;
    l.unlock();
    more = on_event(*e);
    l.lock();
  }
  watching_--;
  cv_.notify_all();
  return result;
}

void FakeClient::set_fault(std::function<std::optional<Error>(const Call&)> fault) {
  std::lock_guard l(mu_);
  fault_ = std::move(fault);
}
void FakeClient::break_watches(std::optional<Error> with) {
  std::lock_guard l(mu_);
  breaks_++;
  break_error_ = std::move(with);
  cv_.notify_all();
}
void FakeClient::compact() {
  std::lock_guard l(mu_);
  history_.clear();
  compacted_ = version_;
}
void FakeClient::bookmark() {
  std::lock_guard l(mu_);
  Object o{{"metadata", {{"resourceVersion", std::to_string(++version_)}}}};
  history_.push_back({version_, "", nullptr, std::make_shared<const Object>(std::move(o)), true});
  cv_.notify_all();
}
int FakeClient::watching() const {
  std::lock_guard l(mu_);
  return watching_;
}
std::vector<FakeClient::Call> FakeClient::calls() const {
  std::lock_guard l(mu_);
  return calls_;
}
void FakeClient::clear_calls() {
  std::lock_guard l(mu_);
  calls_.clear();
}

}  // namespace hawser::kube
