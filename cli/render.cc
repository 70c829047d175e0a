// SPDX-License-Identifier: Apache-2.0
#include "cli/render.h"

#include <algorithm>
#include <vector>

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>
#include <fmt/format.h>

namespace hawser::cli {
namespace {

namespace json = boost::json;
using Row = std::vector<std::string>;

std::string word(const json::object& o, std::string_view key) {
  const json::value* v = o.if_contains(key);
  if (v == nullptr) return "";
  if (const auto* s = v->if_string()) return std::string(*s);
  if (const auto* n = v->if_int64()) return std::to_string(*n);
  if (const auto* n = v->if_uint64()) return std::to_string(*n);
  if (const auto* b = v->if_bool()) return *b ? "true" : "false";
  return "";
}

const json::array& list(const json::object& o, std::string_view key) {
  static const json::array kNone;
  const json::value* v = o.if_contains(key);
  const auto* a = v == nullptr ? nullptr : v->if_array();
  return a == nullptr ? kNone : *a;
}

const json::object& part(const json::value& v) {
  static const json::object kNone;
  const auto* o = v.if_object();
  return o == nullptr ? kNone : *o;
}
const json::object& part(const json::object& o, std::string_view key) {
  const json::value* v = o.if_contains(key);
  return v == nullptr ? part(json::value()) : part(*v);
}

bool is(const json::object& o, std::string_view key) {
  return word(o, key) == "true";
}

Row words(const json::array& a) {
  Row r;
  for (const auto& v : a) {
    if (const auto* s = v.if_string()) r.emplace_back(*s);
  }
  return r;
}

// Columns two spaces apart, the last one as it is.
std::string table(const std::vector<Row>& rows) {
  std::vector<std::size_t> widths;
  for (const Row& r : rows) {
    widths.resize(std::max(widths.size(), r.size()));
    for (std::size_t i = 0; i < r.size(); ++i) widths[i] = std::max(widths[i], r[i].size());
  }
  std::string out;
  for (const Row& r : rows) {
    std::string line;
    for (std::size_t i = 0; i < r.size(); ++i) line += fmt::format("{:<{}}", r[i], widths[i] + 2);
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

// What one side has and the other lacks.
Row without(const Row& list, const Row& others) {
  Row r;
  for (const auto& x : list) {
    if (std::ranges::find(others, x) == others.end()) r.push_back(x);
  }
  return r;
}

std::string differences(const json::object& o, const std::string& indent) {
  const Row wanted = words(list(o, "wanted")), found = words(list(o, "found"));
  std::string out;
  for (const auto& x : without(wanted, found)) out += indent + "the kernel lacks " + x + "\n";
  for (const auto& x : without(found, wanted)) out += indent + "the kernel also has " + x + "\n";
  return out;
}

std::string head(const json::object& o) {
  std::string out = fmt::format("node {}, {}, generation {}, ruleset {}\n", word(o, "node"), word(o, "mode"),
                                word(o, "generation"), word(o, "ruleset"));
  if (!is(o, "settled")) {
    const std::string applied = word(o, "applied");
    out +=
        fmt::format("not at rest: the kernel was last written {}; a change is on its way, or the kernel refuses it\n",
                    applied.empty() ? "by no sync yet" : "at generation " + applied);
  }
  return out;
}

std::string end(const json::object& o) {
  return agrees(o) ? "model and kernel agree\n" : "MODEL AND KERNEL DISAGREE\n";
}

std::string dash(std::string s) {
  return s.empty() ? "-" : s;
}

}  // namespace

bool agrees(const json::object& answer) {
  return word(answer, "agree") != "false";
}

std::string render_services(const json::object& answer) {
  std::vector<Row> rows = {{"NAMESPACE", "NAME", "FRONTEND", "REACH", "ENDPOINTS", "READY", "STATE", "KERNEL"}};
  std::string wrong;
  for (const auto& v : list(answer, "services")) {
    const json::object& s = part(v);
    const std::string ready = word(s, "ready") + "/" + word(s, "endpoints");
    for (const auto& fv : list(s, "frontends")) {
      const json::object& f = part(fv);
      std::string endpoints = word(f, "endpoints");
      if (f.contains("local")) endpoints += " (" + word(f, "local") + " here)";
      rows.push_back({word(s, "namespace"), word(s, "name"), word(f, "key"), word(f, "reach"), endpoints, ready,
                      word(f, "state"), agrees(f) ? "agrees" : "DIFFERS"});
      if (agrees(f)) continue;
      wrong += fmt::format("{}/{} {}:\n", word(s, "namespace"), word(s, "name"), word(f, "key"));
      wrong += differences(f, "  ");
    }
  }
  return head(answer) + table(rows) + wrong + end(answer);
}

std::string render_endpoints(const json::object& answer) {
  std::vector<Row> rows = {
      {"ADDRESS", "PORT", "READY", "SERVING", "TERMINATING", "HERE", "WEIGHT", "SHARE", "SLICE", "WHY"}};
  for (const auto& v : list(answer, "endpoints")) {
    const json::object& e = part(v);
    const std::string port = word(e, "portName");
    rows.push_back({word(e, "address"), word(e, "port") + (port.empty() ? "" : " (" + port + ")"), word(e, "ready"),
                    word(e, "serving"), word(e, "terminating"), word(e, "local"), word(e, "weight"), word(e, "share"),
                    dash(fmt::format("{}", fmt::join(words(list(e, "slices")), ","))), word(e, "why")});
  }
  return head(answer) + "Service " + word(answer, "service") + "\n" + table(rows) + differences(answer, "") +
         end(answer);
}

std::string render_explain(const json::object& answer) {
  const json::object& q = part(answer, "query");
  std::string out = head(answer);
  const std::string destination = word(q, "destination");
  const bool v6 = destination.find(':') != destination.npos;
  out += fmt::format("{} -> {}:{}/{}\n", word(q, "source"), v6 ? "[" + destination + "]" : destination, word(q, "port"),
                     word(q, "protocol"));
  for (const auto& v : list(answer, "steps")) {
    const json::object& s = part(v);
    const std::string indent(17, ' ');
    const std::string name = fmt::format("  {:<15}", word(s, "step"));
    if (agrees(s)) {
      out += name + word(s, "kernel") + "\n";
    } else {
      out += name + "DISAGREE\n";
      out += indent + "model:  " + word(s, "model") + "\n" + indent + "kernel: " + word(s, "kernel") + "\n";
    }
    if (!word(s, "object").empty()) out += indent + word(s, "object") + "\n";
    for (const auto& e : words(list(s, "found"))) out += indent + e + "\n";
    out += agrees(s) ? "" : differences(s, indent);
  }
  const json::object& verdict = part(answer, "verdict");
  if (word(verdict, "model") == word(verdict, "kernel")) {
    out += "verdict: " + word(verdict, "kernel") + "\n";
  } else {
    out += "verdict: by the model " + word(verdict, "model") + "\n";
    out += "         by the kernel " + word(verdict, "kernel") + "\n";
  }
  return out + end(answer);
}

std::string render_status(const json::object& answer) {
  std::string out = head(answer);
  out += fmt::format("{} Services, {} frontends\n", word(answer, "services"), word(answer, "frontends"));
  const Row drift = words(list(answer, "drift"));
  if (!drift.empty()) out += fmt::format("differences: {}; the kernel\n", word(answer, "differences"));
  for (const auto& line : drift) out += "  " + line + "\n";
  return out + end(answer);
}

}  // namespace hawser::cli
