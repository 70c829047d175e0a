// SPDX-License-Identifier: Apache-2.0
// EndpointSliceCache: all slices by Service, merged when asked. Not thread-safe; the tracker's lock guards it.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "proxyd/model/endpoint.h"
#include "proxyd/model/service_port.h"

namespace hawser::proxy {

class EndpointSliceCache {
 public:
  // Puts slice `name` ("namespace/name") of `slice.service` in; false if it was there and equal.
  bool update(const std::string& name, Slice slice);
  // The Service that slice `name` is for; "" if it is not there.
  [[nodiscard]] std::string service_of(const std::string& name) const;
  // Takes a slice out; returns the Service it was for ("" if it was not there).
  std::string remove(const std::string& name);

  // Endpoints of a service port over all slices: matched by port name and protocol, one of each address and port [P40].
  // Doubles (an endpoint moving between slices) count once, as the most usable of them. Sorted by target.
  [[nodiscard]] std::vector<Endpoint> endpoints(const std::string& service, const ServicePort& port) const;
  // The slices themselves, by name.
  [[nodiscard]] std::map<std::string, Slice> slices(const std::string& service) const;

 private:
  std::unordered_map<std::string, std::string> service_of_;                   // slice -> service
  std::unordered_map<std::string, std::map<std::string, Slice>> by_service_;  // service -> slice -> content
};

}  // namespace hawser::proxy
