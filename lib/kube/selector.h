// SPDX-License-Identifier: Apache-2.0
// Label and field selectors. Source: "Labels and Selectors" and "Field Selectors" of the Kubernetes documentation.
// Pure, any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>

#include "lib/base/result.h"

namespace hawser::kube {

class LabelSelector {
 public:
  LabelSelector() = default;  // matches everything
  // Query form: "app=web,tier in (a,b),!legacy,replicas>2". Errors have code 400 and the text the API server answers.
  static Result<LabelSelector> parse(std::string_view text);
  // API form {matchLabels, matchExpressions}. An empty object matches everything.
  static Result<LabelSelector> from_object(const boost::json::object& selector);
  // Plain map form of Service and ReplicationController: all pairs must match.
  static LabelSelector from_map(const boost::json::object& labels);
  [[nodiscard]] bool matches(const boost::json::object& labels) const;
  [[nodiscard]] bool empty() const { return requirements_.empty(); }
  [[nodiscard]] std::string text() const;

 private:
  enum class Op { kIn, kNotIn, kExists, kNotExists, kLess, kGreater };
  struct Requirement {
    std::string key;
    Op op = Op::kExists;
    std::vector<std::string> values;
  };
  std::vector<Requirement> requirements_;
};

// "metadata.name=web,status.phase!=Running"; the caller checks which paths a kind supports.
struct FieldRequirement {
  std::string path;
  bool equal = true;
  std::string value;
};
Result<std::vector<FieldRequirement>> parse_field_selector(std::string_view text);

}  // namespace hawser::kube
