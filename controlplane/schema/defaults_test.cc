// SPDX-License-Identifier: Apache-2.0
#include "controlplane/schema/schema_testing.h"
#include "lib/testing/golden.h"

namespace hawser::schema {
namespace {

struct Case {
  std::string_view name, kind, yaml;
};

// Each case's object with its defaults is the golden file of its name.
TEST(Defaults, Goldens) {
  const Case cases[] = {
      {"pod", "Pod", R"(
metadata: {name: a}
spec:
  serviceAccountName: robot
  containers:
  - name: one
    image: web
    resources: {limits: {cpu: 0.5, memory: 64Mi}, requests: {cpu: 100m}}
    ports: [{containerPort: 80}]
    livenessProbe: {httpGet: {port: 80}}
    env: [{name: WHO, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
  - {name: two, image: "localhost:5000/web:v1"}
  volumes:
  - name: scratch
  - {name: c, configMap: {name: c}}
  - {name: p, projected: {sources: [{serviceAccountToken: {path: token}}]}}
)"},
      {"pod-host-network", "Pod", R"(
metadata: {name: a}
spec: {hostNetwork: true, containers: [{name: one, image: "web@sha256:00", ports: [{containerPort: 80}]}]}
)"},
      {"service-cluster-ip", "Service", "metadata: {name: a}\nspec: {ports: [{port: 80}]}\n"},
      {"service-load-balancer", "Service",
       "metadata: {name: a}\nspec: {type: LoadBalancer, sessionAffinity: ClientIP, ports: [{port: 80, targetPort: "
       "web}]}\n"},
      {"deployment", "Deployment", R"(
metadata: {name: a}
spec:
  selector: {matchLabels: {a: b}}
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: one, image: "web:v1", resources: {limits: {cpu: 1}}}]}}
)"},
      {"deployment-recreate", "Deployment", "metadata: {name: a}\nspec: {strategy: {type: Recreate}}\n"},
      {"replicaset", "ReplicaSet", "metadata: {name: a}\nspec: {minReadySeconds: 3}\n"},
      {"secret", "Secret", "metadata: {name: a}\nstringData: {user: me}\ndata: {x: eA==}\n"},
      {"namespace", "Namespace", "metadata: {name: a}\n"},
      {"endpointslice", "EndpointSlice",
       "metadata: {name: a}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [10.0.0.1]}]\n"},
      {"node", "Node", "metadata: {name: a}\nstatus: {capacity: {cpu: 4, pods: 110}}\n"},
  };
  for (const auto& c : cases) {
    const auto& k = kind_named(c.kind);
    auto o = object_of(k, c.yaml);
    testing::expect_golden(fmt::format("controlplane/schema/testdata/defaults/{}.json", c.name),
                           boost::json::serialize(o) + "\n");
    auto again = o;
    set_defaults(k, again);
    EXPECT_EQ(again, o) << c.name << ": defaulting twice changes the object";
  }
}

}  // namespace
}  // namespace hawser::schema
