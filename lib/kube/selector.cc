// SPDX-License-Identifier: Apache-2.0
#include "lib/kube/selector.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>

#include "lib/kube/object.h"

namespace hawser::kube {
namespace {

bool is_alnum(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0;
}

// A label value, or the name part of a key: at most 63 of [A-Za-z0-9_.-], letters or digits at both ends.
bool is_name(std::string_view s) {
  return !s.empty() && s.size() <= 63 && is_alnum(s.front()) && is_alnum(s.back()) &&
         std::ranges::all_of(s, [](char c) { return is_alnum(c) || c == '-' || c == '_' || c == '.'; });
}
bool is_dns_subdomain(std::string_view s) {
  return !s.empty() && s.size() <= 253 && is_alnum(s.front()) && is_alnum(s.back()) &&
         std::ranges::all_of(s, [](char c) { return is_alnum(c) || c == '-' || c == '.'; });
}
Result<> check_key(std::string_view key) {
  auto slash = key.find('/');
  bool ok = slash == key.npos ? is_name(key) : is_dns_subdomain(key.substr(0, slash)) && is_name(key.substr(slash + 1));
  if (!ok) return fail(400, "unable to parse requirement: invalid label key \"{}\"", key);
  return {};
}
Result<> check_values(std::string_view key, const std::vector<std::string>& values) {
  for (const auto& v : values)
    if (!v.empty() && !is_name(v))
      return fail(
          400,
          "unable to parse requirement: values[0][{}]: Invalid value: \"{}\": a valid label value is at most 63 "
          "letters, digits, '-', '_' and '.', with a letter or digit at both ends",
          key, v);
  return {};
}

// Tokens of the query form: names, and the symbols , ( ) ! = == != < >. Empty at the end.
class Lexer {
 public:
  explicit Lexer(std::string_view s) : rest_(s) {}
  std::string_view peek() {
    if (!ahead_) ahead_ = read();
    return *ahead_;
  }
  std::string_view next() {
    auto t = peek();
    ahead_.reset();
    return t;
  }

 private:
  static constexpr std::string_view kSpace = " \t\r\n";
  static constexpr std::string_view kSymbols = ",()!=<>";
  std::string_view read() {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(kSpace), rest_.size()));
    if (rest_.empty()) return {};
    std::size_t n = 1;
    if (!kSymbols.contains(rest_[0]))
      n = std::min(rest_.find_first_of(" \t\r\n,()!=<>"), rest_.size());
    else if (rest_.starts_with("==") || rest_.starts_with("!="))
      n = 2;
    auto token = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return token;
  }
  std::string_view rest_;
  std::optional<std::string_view> ahead_;
};

bool is_symbol(std::string_view token) {
  return token.empty() || std::string_view(",()!=<>").contains(token[0]);
}

// "(a,b,)": the empty value is allowed, as in Kubernetes.
Result<std::vector<std::string>> parse_values(Lexer& in) {
  if (in.peek() != "(") return fail(400, "unable to parse requirement: found '{}' expected: '('", in.peek());
  in.next();
  std::vector<std::string> values;
  for (;;) {
    std::string value;
    if (!is_symbol(in.peek())) value = in.next();
    values.push_back(std::move(value));
    auto t = in.next();
    if (t == ")") return values;
    if (t != ",") return fail(400, "unable to parse requirement: found '{}', expected: ',' or ')'", t);
  }
}

std::optional<std::int64_t> integer(std::string_view s) {
  std::int64_t n = 0;
  auto [end, ec] = std::from_chars(s.data(), s.data() + s.size(), n);
  if (s.empty() || ec != std::errc() || end != s.data() + s.size()) return std::nullopt;
  return n;
}

}  // namespace

Result<LabelSelector> LabelSelector::parse(std::string_view text) {
  LabelSelector out;
  Lexer in(text);
  if (in.peek().empty()) return out;
  for (;;) {
    Requirement r;
    bool negated = in.peek() == "!";
    if (negated) in.next();
    if (is_symbol(in.peek()))
      return fail(400, "unable to parse requirement: found '{}', expected: !, identifier, or 'end of string'",
                  in.peek());
    r.key = in.next();
    if (auto ok = check_key(r.key); !ok) return propagate(ok);
    auto op = in.peek();
    if (negated) {
      r.op = Op::kNotExists;
    } else if (op == "in" || op == "notin") {
      in.next();
      r.op = op == "in" ? Op::kIn : Op::kNotIn;
      auto values = parse_values(in);
      if (!values) return propagate(values);
      r.values = std::move(*values);
    } else if (op == "=" || op == "==" || op == "!=" || op == "<" || op == ">") {
      in.next();
      r.op = op == "!=" ? Op::kNotIn : op == "<" ? Op::kLess : op == ">" ? Op::kGreater : Op::kIn;
      r.values.emplace_back(is_symbol(in.peek()) ? std::string_view() : in.next());
      if ((r.op == Op::kLess || r.op == Op::kGreater) && !integer(r.values[0]))
        return fail(400, "unable to parse requirement: for 'Gt', 'Lt' operators, the value must be an integer");
    }
    if (auto ok = check_values(r.key, r.values); !ok) return propagate(ok);
    out.requirements_.push_back(std::move(r));
    auto t = in.next();
    if (t.empty()) break;
    if (t != ",") return fail(400, "unable to parse requirement: found '{}', expected: ',' or 'end of string'", t);
  }
  std::ranges::stable_sort(out.requirements_, {}, &Requirement::key);
  return out;
}

Result<LabelSelector> LabelSelector::from_object(const boost::json::object& selector) {
  LabelSelector out = from_map(obj(selector, {"matchLabels"}));
  for (const auto& item : arr(selector, {"matchExpressions"})) {
    const Object& e = as_obj(item);
    Requirement r{.key = std::string(str(e, {"key"}))};
    if (auto ok = check_key(r.key); !ok) return propagate(ok);
    for (const auto& v : arr(e, {"values"}))
      if (const auto* s = v.if_string()) r.values.emplace_back(*s);
    auto op = str(e, {"operator"});
    bool with_values = op == "In" || op == "NotIn";
    if (with_values)
      r.op = op == "In" ? Op::kIn : Op::kNotIn;
    else if (op == "Exists")
      r.op = Op::kExists;
    else if (op == "DoesNotExist")
      r.op = Op::kNotExists;
    else
      return fail(400, "\"{}\" is not a valid label selector operator", op);
    if (with_values == r.values.empty())
      return fail(400, "matchExpressions key \"{}\": values must be {} when operator is {}", r.key,
                  with_values ? "given" : "empty", op);
    out.requirements_.push_back(std::move(r));
  }
  std::ranges::stable_sort(out.requirements_, {}, &Requirement::key);
  return out;
}

LabelSelector LabelSelector::from_map(const boost::json::object& labels) {
  LabelSelector out;
  for (const auto& [key, value] : labels) {
    const auto* s = value.if_string();
    out.requirements_.push_back({std::string(key), Op::kIn, {s ? std::string(*s) : std::string()}});
  }
  std::ranges::stable_sort(out.requirements_, {}, &Requirement::key);
  return out;
}

bool LabelSelector::matches(const boost::json::object& labels) const {
  return std::ranges::all_of(requirements_, [&](const Requirement& r) {
    const auto* v = labels.if_contains(r.key);
    const auto* s = v ? v->if_string() : nullptr;
    std::string_view value = s ? std::string_view(*s) : std::string_view();
    switch (r.op) {
      case Op::kExists:
        return s != nullptr;
      case Op::kNotExists:
        return s == nullptr;
      case Op::kIn:
        return s && std::ranges::find(r.values, value) != r.values.end();
      // An absent label is not in any set.
      case Op::kNotIn:
        return !s || std::ranges::find(r.values, value) == r.values.end();
      case Op::kLess:
      case Op::kGreater: {
        auto have = integer(value);
        auto bound = integer(r.values[0]);
        return have && bound && (r.op == Op::kLess ? *have < *bound : *have > *bound);
      }
    }
    return false;
  });
}

std::string LabelSelector::text() const {
  std::string out;
  for (const auto& r : requirements_) {
    if (!out.empty()) out += ',';
    switch (r.op) {
      case Op::kExists:
        out += r.key;
        break;
      case Op::kNotExists:
        out += "!" + r.key;
        break;
      case Op::kLess:
        out += r.key + "<" + r.values[0];
        break;
      case Op::kGreater:
        out += r.key + ">" + r.values[0];
        break;
      case Op::kIn:
      case Op::kNotIn:
        if (r.values.size() == 1)
          out += fmt::format("{}{}{}", r.key, r.op == Op::kIn ? "=" : "!=", r.values[0]);
        else
          out += fmt::format("{} {} ({})", r.key, r.op == Op::kIn ? "in" : "notin", fmt::join(r.values, ","));
    }
  }
  return out;
}

namespace {

// Up to the next separator that no backslash hides; consumes it.
std::string_view next_term(std::string_view& rest) {
  std::size_t i = 0;
  for (; i < rest.size() && rest[i] != ','; i++)
    if (rest[i] == '\\') i++;
  i = std::min(i, rest.size());
  auto term = rest.substr(0, i);
  rest.remove_prefix(std::min(i + 1, rest.size()));
  return term;
}

// \\ \, \= stand for the character itself; any other escape is an error.
std::optional<std::string> unescape(std::string_view s) {
  std::string out;
  for (std::size_t i = 0; i < s.size(); i++) {
    if (s[i] == '\\') {
      if (++i == s.size() || !std::string_view("\\,=").contains(s[i])) return std::nullopt;
    } else if (s[i] == ',' || s[i] == '=') {
      return std::nullopt;
    }
    out += s[i];
  }
  return out;
}

}  // namespace

Result<std::vector<FieldRequirement>> parse_field_selector(std::string_view text) {
  std::vector<FieldRequirement> out;
  for (std::string_view rest = text; !rest.empty();) {
    auto term = next_term(rest);
    if (term.empty()) continue;
    FieldRequirement r;
    auto at = term.find_first_of("=!");
    std::size_t width = 1;
    if (at != term.npos && term.substr(at).starts_with("!=")) {
      r.equal = false;
      width = 2;
    } else if (at != term.npos && term.substr(at).starts_with("==")) {
      width = 2;
    } else if (at == term.npos || term[at] == '!') {
      return fail(400, "invalid selector: '{}'; can't understand '{}'", text, term);
    }
    auto value = unescape(term.substr(at + width));
    if (!value) return fail(400, "invalid field selector: invalid escape in '{}'", term);
    r.path = term.substr(0, at);
    r.value = std::move(*value);
    out.push_back(std::move(r));
  }
  return out;
}

}  // namespace hawser::kube
