// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <unordered_set>

#include <boost/json/basic_parser_impl.hpp>
#include <boost/json/value_stack.hpp>

#include "controlplane/schema/parse.h"

namespace hawser::schema {
namespace {

namespace json = boost::json;

// Builds the tree and watches for repeated keys. boost::json calls it while it reads; a false return stops the parse.
class TreeHandler {
 public:
  constexpr static std::size_t max_object_size = static_cast<std::size_t>(-1);
  constexpr static std::size_t max_array_size = static_cast<std::size_t>(-1);
  constexpr static std::size_t max_key_size = static_cast<std::size_t>(-1);
  constexpr static std::size_t max_string_size = static_cast<std::size_t>(-1);

  explicit TreeHandler(std::vector<std::string>& duplicates) : duplicates_(duplicates) { stack_.reset(); }

  bool on_document_begin(json::error_code&) { return true; }
  bool on_document_end(json::error_code&) { return true; }
  bool on_object_begin(json::error_code&) {
    begin_value();
    levels_.push_back({});
    return true;
  }
  bool on_object_end(std::size_t n, json::error_code&) {
    levels_.pop_back();
    stack_.push_object(n);
    return true;
  }
  bool on_array_begin(json::error_code&) {
    begin_value();
    levels_.push_back({.array = true});
    return true;
  }
  bool on_array_end(std::size_t n, json::error_code&) {
    levels_.pop_back();
    stack_.push_array(n);
    return true;
  }
  bool on_key_part(json::string_view s, std::size_t, json::error_code&) {
    key_.append(s.data(), s.size());
    stack_.push_chars(s);
    return true;
  }
  bool on_key(json::string_view s, std::size_t, json::error_code&) {
    key_.append(s.data(), s.size());
    bool seen = !levels_.back().add(std::move(key_));
    key_.clear();
    if (seen) duplicates_.push_back("duplicate field \"" + path() + "\"");
    stack_.push_key(s);
    return true;
  }
  bool on_string_part(json::string_view s, std::size_t, json::error_code&) {
    stack_.push_chars(s);
    return true;
  }
  bool on_string(json::string_view s, std::size_t, json::error_code&) {
    begin_value();
    stack_.push_string(s);
    return true;
  }
  bool on_number_part(json::string_view, json::error_code&) { return true; }
  bool on_int64(std::int64_t i, json::string_view, json::error_code&) {
    begin_value();
    stack_.push_int64(i);
    return true;
  }
  bool on_uint64(std::uint64_t u, json::string_view, json::error_code&) {
    begin_value();
    stack_.push_uint64(u);
    return true;
  }
  bool on_double(double d, json::string_view, json::error_code& ec) {
    // "1e400", or "0e400", which boost::json makes a NaN of: neither can be written as JSON again.
    if (!std::isfinite(d)) {
      ec = json::error::exponent_overflow;
      return false;
    }
    begin_value();
    stack_.push_double(d);
    return true;
  }
  bool on_bool(bool b, json::error_code&) {
    begin_value();
    stack_.push_bool(b);
    return true;
  }
  bool on_null(json::error_code&) {
    begin_value();
    stack_.push_null();
    return true;
  }
  bool on_comment_part(json::string_view, json::error_code&) { return true; }
  bool on_comment(json::string_view, json::error_code&) { return true; }

  json::value release() { return stack_.release(); }

 private:
  struct Level {
    bool array = false;
    std::size_t count = 0;  // elements begun
    std::vector<std::string> keys;
    std::unordered_set<std::string> index;  // of keys, once they are many: searching them would take quadratic time

    // False if the object has the key already.
    bool add(std::string key) {
      constexpr std::size_t kMany = 32;
      if (keys.size() == kMany) index.insert(keys.begin(), keys.end());
      bool is_new = keys.size() < kMany ? std::ranges::find(keys, key) == keys.end() : index.insert(key).second;
      keys.push_back(std::move(key));
      return is_new;
    }
  };

  void begin_value() {
    if (!levels_.empty()) levels_.back().count++;
  }

  std::string path() const {
    std::string out;
    for (const auto& l : levels_) {
      if (l.array) {
        out += fmt::format("[{}]", l.count - 1);
      } else if (!l.keys.empty()) {
        if (!out.empty()) out += '.';
        out += l.keys.back();
      }
    }
    return out;
  }

  std::vector<std::string>& duplicates_;
  json::value_stack stack_;
  std::vector<Level> levels_;
  std::string key_;
};

}  // namespace

Result<json::value> parse_json(std::string_view text, std::vector<std::string>& duplicates) {
  json::parse_options options;
  options.max_depth = kMaxDepth;
  json::basic_parser<TreeHandler> parser(options, duplicates);
  json::error_code ec;
  auto read = parser.write_some(false, text.data(), text.size(), ec);
  if (!ec && read < text.size() && text.find_first_not_of(" \t\r\n", read) != std::string_view::npos)
    ec = json::error::extra_data;
  if (ec) return fail(0, "{} at byte {}", ec.message(), read);
  return parser.handler().release();
}

}  // namespace hawser::schema
