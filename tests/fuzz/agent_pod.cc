// SPDX-License-Identifier: Apache-2.0
// A Pod as the API server passes it on, to sandbox and container configurations: total for every pod that has the shape
// of one, valid or not.
#include "controlplane/agent/pod_config.h"
#include "controlplane/agent/pod_env.h"
#include "controlplane/agent/pod_spec.h"
#include "controlplane/schema/schema.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace hawser;
using fuzz::check;

void check_container(const agent::PodSpec& pod, const agent::ContainerSpec& c, const agent::NodeSettings& node) {
  agent::EnvInputs inputs;
  inputs.lookup = [](const kube::Resource&, const std::string& name) -> Result<kube::ObjectPtr> {
    return fail(404, "\"{}\" not found", name);
  };
  inputs.facts = {.node = &node, .pod_ips = {"10.244.1.2"}};
  auto env = agent::make_env(pod, c, inputs);
  if (!env) return check(!env.error().text.empty());
  agent::ContainerInputs given;
  given.env = *env;
  given.image = "image";
  auto config = agent::container_config(pod, c, node, std::move(given));
  if (!config) check(!config.error().text.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto& kind = *schema::find_kind("", "v1", "Pod");
  auto decoded =
      schema::decode(kind, fuzz::Input(data, size).rest(), schema::MediaType::kJson, schema::FieldValidation::kIgnore);
  if (!decoded) return 0;
  schema::set_defaults(kind, decoded->object);
  auto pod = agent::parse_pod(std::make_shared<const kube::Object>(std::move(decoded->object)));
  agent::NodeSettings node;
  node.node_name = "node-1";
  (void)agent::sandbox_config(*pod, node, agent::DnsConfig{}, 0);
  for (const auto* list : {&pod->init, &pod->main}) {
    for (const auto& c : *list) {
      check(c.name.empty() || pod->container(c.name) != nullptr, c.name);
      check_container(*pod, c, node);
    }
  }
  return 0;
}
