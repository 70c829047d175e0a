// SPDX-License-Identifier: Apache-2.0
// ServiceList: the Services of a state, sorted by key, as one value of which copies and changed versions share all that
// is equal: a change costs the same with ten Services and with fifty thousand, near enough. It is a list of immutable
// chunks; a changed version has new chunks only where something changed. Thread-safe as far as it is const.
#pragma once

#include <cstddef>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace hawser::proxy {

struct ServiceState;
using ServiceStatePtr = std::shared_ptr<const ServiceState>;

class ServiceList {
 public:
  using Chunk = std::vector<ServiceStatePtr>;  // never empty
  using ChunkPtr = std::shared_ptr<const Chunk>;
  static constexpr std::size_t kMaxChunk = 128, kMinChunk = 32;

  class Iterator {
   public:
    using iterator_concept = std::forward_iterator_tag;
    using iterator_category = std::forward_iterator_tag;
    using value_type = ServiceStatePtr;
    using difference_type = std::ptrdiff_t;
    using pointer = const ServiceStatePtr*;
    using reference = const ServiceStatePtr&;
    Iterator() = default;
    reference operator*() const { return (**chunk_)[at_]; }
    pointer operator->() const { return &**this; }
    Iterator& operator++() {
      if (++at_ == (*chunk_)->size()) ++chunk_, at_ = 0;
      return *this;
    }
    Iterator operator++(int) {
      Iterator before = *this;
      ++*this;
      return before;
    }
    bool operator==(const Iterator&) const = default;

   private:
    friend class ServiceList;
    explicit Iterator(const ChunkPtr* chunk) : chunk_(chunk) {}
    const ChunkPtr* chunk_ = nullptr;
    std::size_t at_ = 0;
  };
  using value_type = ServiceStatePtr;
  using const_iterator = Iterator;
  using iterator = Iterator;

  ServiceList() = default;
  // Of any order, with each key once.
  ServiceList(std::initializer_list<ServiceStatePtr> all);
  explicit ServiceList(std::vector<ServiceStatePtr> all);

  // With these instead; by key, each once, null: without it.
  using Changes = std::vector<std::pair<std::string, ServiceStatePtr>>;
  [[nodiscard]] ServiceList with(Changes changes) const;
  // Adds it, or puts it in place of the one of its name. Many at once: with().
  void push_back(ServiceStatePtr s);
  // Calls `gone` for what only `from` has and `come` for what only `to` has, by pointer, each in order.
  static void compare(const ServiceList& from, const ServiceList& to,
                      const std::function<void(const ServiceState&)>& gone,
                      const std::function<void(const ServiceState&)>& come);

  [[nodiscard]] ServiceStatePtr find(const std::string& key) const;  // null: not there
  [[nodiscard]] Iterator begin() const { return Iterator(chunks_.data()); }
  [[nodiscard]] Iterator end() const { return Iterator(chunks_.data() + chunks_.size()); }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  // Goes through the chunks.
  [[nodiscard]] const ServiceStatePtr& operator[](std::size_t n) const {
    auto c = chunks_.begin();
    for (; n >= (*c)->size(); ++c) n -= (*c)->size();
    return (**c)[n];
  }
  [[nodiscard]] const std::vector<ChunkPtr>& chunks() const { return chunks_; }

 private:
  void append(Chunk services);
  std::vector<ChunkPtr> chunks_;
  std::size_t size_ = 0;
};

}  // namespace hawser::proxy
