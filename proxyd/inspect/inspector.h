// SPDX-License-Identifier: Apache-2.0
// Inspector: answers a person's questions about this node's Services over HTTP, in JSON. Paths, all GET:
//
//   /inspect/status                                is the kernel as the model wants it
//   /inspect/services?namespace=NS
//   /inspect/endpoints?service=NS/NAME
//   /inspect/explain?source=ADDRESS&destination=ADDRESS|NAME:PORT&protocol=tcp|udp|sctp&interface=NAME
//
// It has netlink sockets of its own, so that it reads the kernel without the sync thread; one thread at a time (the
// metrics server has one worker). It changes nothing.
//
// A reading beside a sync would compare two different times. It is therefore taken again, a few times, until the model
// did not move meanwhile; an answer that never found it at rest says "settled": false.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "lib/http/message.h"
#include "lib/netlink/conntrack.h"
#include "lib/netlink/rtnl.h"
#include "lib/nft/runner.h"
#include "proxyd/health/health.h"
#include "proxyd/inspect/walk.h"

namespace hawser::proxy {

// Where it reads; owned by the caller.
struct InspectSources {
  const Tracker& tracker;
  const ProxyHealth& health;
  nft::NftRunner& nft;
  netlink::Conntrack& conntrack;
  netlink::Rtnl& rtnl;
  netlink::Ipvs* ipvs = nullptr;  // mode ipvs
};

class Inspector {
 public:
  // `ipvs` in mode ipvs.
  Inspector(InspectSources from, const TrafficOptions& options, std::optional<IpvsOptions> ipvs = {})
      : from_(from), options_(ipvs ? rules_options(options) : options), ipvs_(std::move(ipvs)) {}

  // Nothing: not a path of ours.
  [[nodiscard]] std::optional<http::Response> answer(const http::Request& r);

 private:
  struct Asked {
    std::string service;  // "" = none, "*" = all
    std::optional<Query> query;
  };
  Result<Facts> gather(const Asked& asked);
  Result<KernelFacts> read_kernel(const std::optional<Query>& q);
  Result<> add_ipvs(const Asked& asked, Facts& f);
  [[nodiscard]] ModelFacts read_model(const Asked& asked) const;
  Result<std::string> answer_text(std::string_view what, const http::Request& r);
  Result<Query> parse_query(const http::Request& r) const;
  Result<Target> destination_of(std::string_view text, const IpAddr& source, std::uint8_t protocol) const;

  InspectSources from_;
  const TrafficOptions options_;  // of the rules
  const std::optional<IpvsOptions> ipvs_;
};

// An Inspector with sockets of its own in the calling thread's network namespace, as the metrics address takes it.
// `tracker` and `health` must outlive it. `ipvs` in mode ipvs.
[[nodiscard]] Result<std::function<std::optional<http::Response>(const http::Request&)>> inspect_kernel(
    const std::optional<IpvsOptions>& ipvs, const Tracker& tracker, const ProxyHealth& health,
    const TrafficOptions& options);

// "10.96.0.10:80", "[fd00::1]:80", "web:80", "default/web:http": what stands before and after the last colon.
struct HostPort {
  std::string host, port;
};
[[nodiscard]] Result<HostPort> split_host_port(std::string_view text);

}  // namespace hawser::proxy
