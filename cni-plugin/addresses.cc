// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/addresses.h"

#include <algorithm>

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>

#include "cni-plugin/attachment_result.h"
#include "cni-plugin/delegate.h"
#include "cni-plugin/ipam/store.h"
#include "lib/base/log.h"

namespace hawser::cni {
namespace {

// Which answer an error of the store is.
Code store_code(const Error& e) {
  switch (e.code) {
    case ENOSPC:
    case EADDRINUSE:
      return Code::kNoAddress;
    case EEXIST:
      return Code::kAlreadyAttached;
    case EINVAL:
      return Code::kInvalidConfig;
    default:
      return Code::kIo;
  }
}
template <class T>
std::unexpected<Failure> store_failure(const Result<T>& r) {
  return as_failure(store_code(r.error()), r);
}

class BuiltIn final : public AddressSource {
 public:
  explicit BuiltIn(const NodeFile* node) : node_(node) {}

  Outcome<GivenAddresses> add(const NetConf& conf, const ipam::Owner& owner) override {
    auto sets = range_sets(conf);
    if (!sets) return std::unexpected(sets.error());
    auto store = open(conf, *sets);
    if (!store) return store_failure(store);
    auto taken = store->take(*sets, owner, conf.requested);
    if (!taken) return store_failure(taken);
    GivenAddresses g{.routes = conf.routes, .dns = conf.dns};
    for (const auto& t : *taken) g.addresses.push_back({Cidr(t.address, t.range.subnet.prefix()), t.range.gateway});
    return g;
  }
  Outcome<> del(const NetConf& conf, const ipam::Owner& owner) override {
    auto store = ipam::Store::open(conf.ipam_folder);
    if (!store) return store_failure(store);
    auto freed = store->give_back(owner);
    if (!freed) return store_failure(freed);
    if (!freed->empty() || conf.host_local.empty()) return {};
    // A pod of host-local's that was not imported: the ranges were not known yet, or do not have its address.
    if (auto r = store->forget_host_local(conf.host_local, owner); !r) return store_failure(r);
    return {};
  }
  Outcome<> check(const NetConf& conf, const ipam::Owner& owner, const std::vector<IpAddr>& addresses) override {
    auto store = ipam::Store::open(conf.ipam_folder);
    if (!store) return store_failure(store);
    auto held = store->held_by(owner);
    if (!held) return store_failure(held);
    for (const auto& a : addresses) {
      if (std::ranges::find(*held, a) == held->end())
        return failure(Code::kCheckFailed, "address {} is not reserved for container {}", a, owner.container);
    }
    return {};
  }
  // The sweep itself is collect/sweep.h's; it must find what host-local has left.
  Outcome<> gc(const NetConf& conf) override {
    if (conf.host_local.empty()) return {};
    auto sets = range_sets(conf);
    if (!sets) return std::unexpected(sets.error());
    if (auto store = open(conf, *sets); !store) return store_failure(store);
    return {};
  }
  Outcome<> status(const NetConf& conf) override {
    auto sets = range_sets(conf);
    if (!sets) return failure(Code::kNotAvailable, "{}", sets.error().msg);
    auto store = open(conf, *sets);
    if (!store) return as_failure(Code::kNotAvailable, store);
    for (const auto& set : *sets) {
      auto free = store->available(set);
      if (!free) return as_failure(Code::kNotAvailable, free);
      if (*free == 0) return failure(Code::kNotAvailable, "no free address in {}", set[0].file_name());
    }
    return {};
  }
  [[nodiscard]] std::vector<ipam::Range> former_subnets(const NetConf& conf) const override {
    auto sets = range_sets(conf);
    if (!sets) return {};
    return ipam::Store::former_subnets(conf.ipam_folder, *sets);
  }
  Result<bool> retire(const NetConf& conf, const ipam::Range& range, const std::function<Result<>()>& drop) override {
    auto store = ipam::Store::open(conf.ipam_folder);
    if (!store) return propagate(store);
    return store->retire(range, drop);
  }

 private:
  static Result<ipam::Store> open(const NetConf& conf, const std::vector<ipam::RangeSet>& sets) {
    auto store = ipam::Store::open(conf.ipam_folder);
    if (!store || conf.host_local.empty()) return store;
    auto imported = store->import_host_local(conf.host_local, sets);
    if (!imported) return propagate(imported);
    for (const auto& why : imported->ignored) log::warn("import from host-local: left out: {}", why);
    return store;
  }
  Outcome<std::vector<ipam::RangeSet>> range_sets(const NetConf& conf) const {
    if (!conf.ranges.empty()) return conf.ranges;
    if (!node_)
      return failure(Code::kTryAgainLater, "{}: not there yet; is hawser-overlayd running and ready?", conf.node_file);
    std::vector<ipam::RangeSet> sets;
    for (const auto& cidr : node_->pod_cidrs) {
      auto range = ipam::whole_subnet(cidr);
      if (!range) return failure(Code::kInvalidConfig, "{}: podCIDRs: {}", conf.node_file, range.error().text);
      for (const auto& c : conf.exclude) {
        if (c.overlaps(cidr)) range->exclude.push_back(c);
      }
      sets.push_back({*range});
    }
    return sets;
  }
  const NodeFile* node_;
};

class Delegate final : public AddressSource {
 public:
  Delegate(std::vector<std::string> path) : path_(std::move(path)) {}

  Outcome<GivenAddresses> add(const NetConf& conf, const ipam::Owner&) override {
    auto printed = call(conf, "ADD");
    if (!printed) return std::unexpected(printed.error());
    auto given = read_result(conf, *printed);
    // It did hand something out; take that back before saying no.
    if (!given) (void)call(conf, "DEL");
    return given;
  }
  Outcome<> del(const NetConf& conf, const ipam::Owner&) override { return done(call(conf, "DEL")); }
  Outcome<> check(const NetConf& conf, const ipam::Owner&, const std::vector<IpAddr>&) override {
    return done(call(conf, "CHECK"));
  }
  Outcome<> gc(const NetConf& conf) override { return done(call(conf, "GC")); }
  Outcome<> status(const NetConf& conf) override { return done(call(conf, "STATUS")); }

 private:
  Outcome<std::string> call(const NetConf& conf, const char* command) {
    return run_delegate({.type = conf.ipam_type, .path = path_, .command = command, .input = conf.raw});
  }
  static Outcome<> done(const Outcome<std::string>& r) {
    if (!r) return std::unexpected(r.error());
    return {};
  }
  static Outcome<GivenAddresses> read_result(const NetConf& conf, const std::string& printed) {
    boost::system::error_code ec;
    auto v = boost::json::parse(printed, ec);
    if (ec || !v.is_object())
      return failure(Code::kDecode, "ipam.type {}: its result is not a JSON object", conf.ipam_type);
    auto result = from_version(v.get_object(), conf.version);
    if (!result) return std::unexpected(result.error());
    auto ips = result_ips(*result);
    if (!ips) return std::unexpected(ips.error());
    if (ips->empty()) return failure(Code::kNoAddress, "ipam.type {}: gave no address", conf.ipam_type);
    GivenAddresses g{.dns = conf.dns};
    for (const auto& ip : *ips) g.addresses.push_back({ip.address, ip.gateway});
    if (const auto* r = result->if_contains("routes"); r && r->is_array()) g.routes = r->get_array();
    if (const auto* d = result->if_contains("dns"); d && d->is_object() && g.dns.empty()) g.dns = d->get_object();
    return g;
  }
  std::vector<std::string> path_;
};

}  // namespace

std::unique_ptr<AddressSource> make_address_source(const NetConf& conf, const Environment& env, const NodeFile* node) {
  if (conf.ipam_type.empty()) return std::make_unique<BuiltIn>(node);
  return std::make_unique<Delegate>(env.path);
}

}  // namespace hawser::cni
