// SPDX-License-Identifier: Apache-2.0
#include "proxyd/config/config.h"

#include <algorithm>
#include <set>

#include <sys/socket.h>

#include "lib/base/ip.h"

namespace hawser::proxy {
namespace {

// Of the flags, those that count beside a file.
bool beside_file(std::string_view flag) {
  // The last three are ours: no field of the file could say them.
  return flag == "hostname-override" || flag == "master" || flag == "v" || flag == "service-cidr" ||
         flag == "icmp-echo" || flag == "cgroup-root";
}

std::string place(const Setting& s) {
  return *s.field ? s.field : std::string("--") + s.flag;
}

// One flag into every field that it stands for. Lists of several occurrences add up.
Result<> set_flag(const GivenFlag& given, std::set<std::string>& extended, Config& c) {
  const auto& [name, text] = given;
  bool known = false;
  for (const Setting& s : settings()) {
    if (s.flag != name) continue;
    known = true;
    const bool many = s.type == Type::kList || s.type == Type::kSwitches;
    Value parts = many ? split_list(text) : Value{text};
    for (const auto& part : parts)
      if (auto r = check_text(s.type, part); !r) return propagate(r, "--{} \"{}\"", name, part);
    if (many && !extended.insert(place(s)).second) {
      Value all = c.list(place(s));
      all.insert(all.end(), parts.begin(), parts.end());
      parts = std::move(all);
    }
    c.set(place(s), std::move(parts));
  }
  if (!known) return fail(EINVAL, "--{}: not a flag of kube-proxy", name);
  return {};
}

// --healthz-port and --metrics-port of old versions: the port of the address, 0 for none.
Result<> apply_port(std::string_view flag, std::string_view field, Config& c) {
  const Value* v = c.get(flag);
  if (!v) return {};
  const auto port = parse_int(v->front());
  if (!port || *port < 0 || *port > 65535) return fail(EINVAL, "{} {}: want 0 to 65535", flag, v->front());
  const std::string address = c.text(field);
  const std::string host = address.substr(0, address.rfind(':'));
  c.set(field, {*port == 0 ? "" : fmt::format("{}:{}", host, *port)});
  return {};
}

// An address without a port gets the usual one; an empty one in a file means the usual address [kube-proxy, defaults].
Result<> complete_bind(std::string_view field, bool from_file, Config& c) {
  const std::string initial = find_field(field)->initial;
  const auto port = initial.substr(initial.rfind(':'));
  std::string address = c.text(field);
  const auto bind = IpAddr::parse(c.text("bindAddress"));
  const bool v6 = bind && bind->family() == AF_INET6;
  if ((address.empty() && from_file) || !c.given(field)) {
    address = !v6 ? initial : (field.starts_with("metrics") ? "[::1]" : "[::]") + port;
  } else if (const auto ip = IpAddr::parse(address)) {
    address = ip->family() == AF_INET6 ? fmt::format("[{}]{}", address, port) : address + port;
  }
  c.set(field, {address});
  return {};
}

bool is_quiet(const Setting& s, const Value& v) {
  if (v.empty()) return true;
  const std::string& text = v.front();
  const char* initial = s.initial ? s.initial : "";
  if (v.size() == 1 && text == initial) return true;
  switch (s.type) {
    case Type::kBool:
      return parse_bool(text) == parse_bool(s.initial ? s.initial : "false");
    case Type::kDuration: {
      const auto d = parse_duration(text);
      return d == Nanos{0} || d == parse_duration(initial);
    }
    case Type::kInt:
    case Type::kNumber:
      return std::stod(text) == 0 || (s.initial && std::stod(text) == std::stod(s.initial));
    default:
      return v.size() == 1 && text.empty();
  }
}

void note_unused(Config& c) {
  const bool ipvs = c.text("mode") == "ipvs";
  for (const Setting& s : settings()) {
    if (!*s.unused || !c.given(place(s)) || is_quiet(s, *c.get(place(s)))) continue;
    if (ipvs && std::string_view(s.field).starts_with("ipvs.")) continue;
    c.notes.push_back(fmt::format("{} has no effect: {}", place(s), s.unused));
  }
}

}  // namespace

const Value* Config::get(std::string_view field) const {
  const auto at = values_.find(field);
  if (at != values_.end()) return &at->second;
  static const std::map<std::string, Value, std::less<>> defaults = [] {
    std::map<std::string, Value, std::less<>> out;
    for (const Setting& s : settings())
      if (s.initial) out.emplace(place(s), Value{s.initial});
    return out;
  }();
  const auto by_table = defaults.find(field);
  return by_table == defaults.end() ? nullptr : &by_table->second;
}

std::string Config::text(std::string_view field) const {
  const Value* v = get(field);
  return v && !v->empty() ? v->front() : std::string();
}
bool Config::flag(std::string_view field) const {
  return parse_bool(text(field)).value_or(false);
}
std::int64_t Config::number(std::string_view field) const {
  return parse_int(text(field)).value_or(0);
}
Nanos Config::duration(std::string_view field) const {
  return parse_duration(text(field)).value_or(Nanos{0});
}
Value Config::list(std::string_view field) const {
  const Value* v = get(field);
  return v ? *v : Value{};
}

std::vector<std::string> normalize_args(const std::vector<std::string>& args) {
  const auto digits = [](std::string_view s) { return !s.empty() && s.find_first_not_of("0123456789") == s.npos; };
  std::vector<std::string> out;
  for (std::size_t i = 0; i < args.size(); ++i) {
    std::string a = args[i];
    if (a.starts_with("--")) {
      std::replace(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(std::min(a.find('='), a.size())), '_', '-');
    } else if (a == "-v") {
      const bool level = i + 1 < args.size() && digits(args[i + 1]);
      a = level ? "--v=" + args[++i] : "--verbose";
    } else if (a.starts_with("-v=")) {
      a = "--v=" + a.substr(3);
    } else if (a.starts_with("-v") && digits(std::string_view(a).substr(2))) {
      a = "--v=" + a.substr(2);
    }
    out.push_back(std::move(a));
  }
  return out;
}

Result<Config> resolve_config(const std::optional<std::string>& file, const std::vector<GivenFlag>& flags) {
  Config c;
  if (file) {
    auto parsed = parse_config(*file);
    if (!parsed) return propagate(parsed, "--config");
    c = std::move(*parsed);
  }
  std::set<std::string> extended, ignored;
  for (const GivenFlag& f : flags) {
    if (file && !beside_file(f.first)) {
      // Still one error for a wrong value, wherever it stands.
      Config aside;
      std::set<std::string> none;
      if (auto r = set_flag(f, none, aside); !r) return propagate(r);
      if (ignored.insert(f.first).second)
        c.notes.push_back(fmt::format("--{} has no effect beside --config, as with kube-proxy", f.first));
      continue;
    }
    if (auto r = set_flag(f, extended, c); !r) return propagate(r);
  }
  for (std::string_view field : {"healthzBindAddress", "metricsBindAddress"})
    if (auto r = complete_bind(field, file.has_value(), c); !r) return propagate(r);
  if (auto r = apply_port("--healthz-port", "healthzBindAddress", c); !r) return propagate(r);
  if (auto r = apply_port("--metrics-port", "metricsBindAddress", c); !r) return propagate(r);
  note_unused(c);
  return c;
}

}  // namespace hawser::proxy
