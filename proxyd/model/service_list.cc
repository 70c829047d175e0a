// SPDX-License-Identifier: Apache-2.0
#include "proxyd/model/service_list.h"

#include <algorithm>

#include "proxyd/model/desired_state.h"

namespace hawser::proxy {
namespace {

const std::string& key_of(const ServiceStatePtr& s) {
  return s->key;
}

}  // namespace

ServiceList::ServiceList(std::initializer_list<ServiceStatePtr> all) : ServiceList(std::vector<ServiceStatePtr>(all)) {}

ServiceList::ServiceList(std::vector<ServiceStatePtr> all) {
  std::ranges::sort(all, {}, key_of);
  append(std::move(all));
}

// Adds what comes after all that is there, in chunks of even size; a small chunk joins the one before it.
void ServiceList::append(Chunk services) {
  if (services.empty()) return;
  size_ += services.size();
  if (!chunks_.empty() && std::min(services.size(), chunks_.back()->size()) < kMinChunk) {
    Chunk joined = *chunks_.back();
    joined.insert(joined.end(), services.begin(), services.end());
    services = std::move(joined);
    chunks_.pop_back();
  }
  const std::size_t parts = (services.size() + kMaxChunk - 1) / kMaxChunk;
  for (std::size_t i = 0; i < parts; ++i) {
    const auto from = services.begin() + static_cast<std::ptrdiff_t>(services.size() * i / parts);
    const auto to = services.begin() + static_cast<std::ptrdiff_t>(services.size() * (i + 1) / parts);
    chunks_.push_back(std::make_shared<const Chunk>(from, to));
  }
}

ServiceList ServiceList::with(Changes changes) const {
  std::ranges::sort(changes, {}, &Changes::value_type::first);
  ServiceList r;
  r.chunks_.reserve(chunks_.size() + 1);
  auto c = changes.begin();
  for (std::size_t i = 0; i < chunks_.size(); ++i) {
    // What comes before the next chunk belongs into this one; before the first one, too.
    const auto end = i + 1 == chunks_.size() ? changes.end()
                                             : std::ranges::lower_bound(c, changes.end(), chunks_[i + 1]->front()->key,
                                                                        {}, &Changes::value_type::first);
    if (c == end) {
      r.chunks_.push_back(chunks_[i]);
      r.size_ += chunks_[i]->size();
      continue;
    }
    Chunk merged;
    merged.reserve(chunks_[i]->size() + static_cast<std::size_t>(end - c));
    const auto put = [&] {
      if (c->second) merged.push_back(std::move(c->second));
      ++c;
    };
    for (const auto& s : *chunks_[i]) {
      while (c != end && c->first < s->key) put();
      if (c != end && c->first == s->key)
        put();
      else
        merged.push_back(s);
    }
    while (c != end) put();
    r.append(std::move(merged));
  }
  Chunk rest;
  for (; c != changes.end(); ++c) {
    if (c->second) rest.push_back(std::move(c->second));
  }
  r.append(std::move(rest));
  return r;
}

void ServiceList::push_back(ServiceStatePtr s) {
  const std::string key = s->key;
  *this = with({{key, std::move(s)}});
}

void ServiceList::compare(const ServiceList& from, const ServiceList& to,
                          const std::function<void(const ServiceState&)>& gone,
                          const std::function<void(const ServiceState&)>& come) {
  auto a = from.begin(), b = to.begin();
  while (a != from.end() || b != to.end()) {
    if (a == from.end()) {
      come(**b++);
    } else if (b == to.end()) {
      gone(**a++);
    } else if (a.at_ == 0 && b.at_ == 0 && *a.chunk_ == *b.chunk_) {
      ++a.chunk_, ++b.chunk_;
    } else if (*a == *b) {
      ++a, ++b;
    } else if ((*a)->key <= (*b)->key) {
      gone(**a++);
    } else {
      come(**b++);
    }
  }
}

ServiceStatePtr ServiceList::find(const std::string& key) const {
  const auto after = std::ranges::upper_bound(chunks_, key, {},
                                              [](const ChunkPtr& c) -> const std::string& { return c->front()->key; });
  if (after == chunks_.begin()) return nullptr;
  const Chunk& chunk = **std::prev(after);
  const auto it = std::ranges::lower_bound(chunk, key, {}, key_of);
  return it != chunk.end() && (*it)->key == key ? *it : nullptr;
}

}  // namespace hawser::proxy
