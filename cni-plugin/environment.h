// SPDX-License-Identifier: Apache-2.0
// Environment: the invocation parameters of a CNI verb, read by a table of variables and validated as the reference
// library does (FEATURES C02, C13). Pure: the variables come through a function.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "cni-plugin/failure.h"

namespace hawser::cni {

enum class Verb { kAdd, kDel, kCheck, kGc, kStatus, kVersion };

struct Environment {
  Verb verb = Verb::kVersion;
  std::string container;
  std::string netns;
  std::string ifname;
  std::map<std::string, std::string> args;  // CNI_ARGS, "K=V;K=V"
  std::vector<std::string> path;            // CNI_PATH
  bool netns_override = false;
};

using GetEnv = std::function<std::string(const char*)>;

// CNI_COMMAND must not be empty: a plugin run without it explains itself instead.
Outcome<Environment> read_environment(const GetEnv& get);

// Names a runtime may give. Empty: the name is good; else what is wrong with it.
[[nodiscard]] std::string identifier_fault(std::string_view name);      // container id, network name
[[nodiscard]] std::string interface_name_fault(std::string_view name);  // 1-15 characters, no "/", ":" or white space

}  // namespace hawser::cni
