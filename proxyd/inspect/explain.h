// SPDX-License-Identifier: Apache-2.0
// "Where does this connection go, and why": the steps of a first packet through this node's Services, each with what
// the model says, what the kernel holds, the objects both come from and whether they agree. Pure.
//
// Steps, in the order of the packet: frontend, source-ranges, policy, affinity, endpoints, masquerade, conntrack,
// rules. Some are left out where the packet does not come to them.
#pragma once

#include <boost/json/object.hpp>

#include "proxyd/inspect/walk.h"

namespace hawser::proxy {

// {"query": {...}, "node", "mode", "generation", "applied", "ruleset", "settled", "service", "steps": [{"step",
// "object", "model", "kernel", "wanted": [...], "found": [...], "agree"}], "verdict": {"model", "kernel"}, "agree"}
[[nodiscard]] boost::json::object explain(const Query& q, const Facts& f);

// The head that every answer has: node, mode, the generations and whether they are at rest.
void put_generations(const Facts& f, boost::json::object& out);
[[nodiscard]] std::string target_words(const Target& t);
[[nodiscard]] std::string key_words(const SideId& id);  // "10.96.0.10:80/tcp", "node port 30080/tcp"

}  // namespace hawser::proxy
