// SPDX-License-Identifier: Apache-2.0
// Short ways to write pods and nodes in the scheduler's tests.
#pragma once

#include <string>
#include <string_view>

#include <boost/json/parse.hpp>

#include "controlplane/scheduler/cluster_state.h"

namespace hawser::scheduler {

inline Object json(std::string_view text) {
  boost::system::error_code err;
  Value v = boost::json::parse(text, err);
  return err || !v.is_object() ? Object() : v.get_object();
}

// `spec` and `extra` are JSON object bodies without braces.
inline Object node_object(const std::string& name, const std::string& spec = "", const std::string& labels = "",
                          const std::string& allocatable = R"("cpu":"4","memory":"8Gi","pods":"110")") {
  return json(R"({"metadata":{"name":")" + name + R"(","labels":{"kubernetes.io/hostname":")" + name + "\"" +
              (labels.empty() ? "" : "," + labels) + R"(}},"spec":{)" + spec + R"(},"status":{"allocatable":{)" +
              allocatable + "}}}");
}
inline Object pod_object(const std::string& name, const std::string& spec = R"("containers":[{"name":"c"}])",
                         const std::string& meta = "") {
  return json(R"({"metadata":{"namespace":"default","name":")" + name + R"(","uid":"uid-)" + name + "\"" +
              (meta.empty() ? "" : "," + meta) + R"(},"spec":{)" + spec + "}}");
}
inline PodPtr pod_spec(const std::string& name, const std::string& spec = R"("containers":[{"name":"c"}])",
                       const std::string& meta = "") {
  return std::make_shared<const PodSpec>(PodSpec::from(std::make_shared<const Object>(pod_object(name, spec, meta))));
}

}  // namespace hawser::scheduler
