// SPDX-License-Identifier: Apache-2.0
#include "controlplane/schema/schema_testing.h"

namespace hawser::schema {
namespace {

struct Case {
  int line;
  std::string_view kind, yaml;
  std::string_view want;  // errors, one a line; empty: valid
};

const std::string kPodHead = "metadata: {name: a, namespace: d}\nspec:\n  containers:\n  - name: c\n    image: i\n";

TEST(ValidateCreate, Metadata) {
  const Case cases[] = {
      {__LINE__, "ConfigMap", "metadata: {name: ok, namespace: d}", ""},
      {__LINE__, "ConfigMap", "metadata: {namespace: d}",
       "metadata.name: Required value: name or generateName is required"},
      {__LINE__, "ConfigMap", "metadata: {name: A_b, namespace: d}",
       R"(metadata.name: Invalid value: "A_b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'))"},
      {__LINE__, "Namespace", "metadata: {name: a.b}", R"(metadata.name: Invalid value: "a.b": must not contain dots)"},
      {__LINE__, "Service", "metadata: {name: 1a, namespace: d}\nspec: {ports: [{port: 80}]}",
       R"(metadata.name: Invalid value: "1a": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?'))"},
      {__LINE__, "Namespace", "metadata: {name: a, namespace: b}",
       "metadata.namespace: Forbidden: not allowed on this type"},
      {__LINE__, "ConfigMap", "metadata: {name: a}", "metadata.namespace: Required value"},
      {__LINE__, "ConfigMap", "metadata: {name: a, namespace: d, labels: {'a b': c}}",
       R"(metadata.labels: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]'))"},
      {__LINE__, "ConfigMap", "metadata: {name: a, namespace: d, labels: {a: '-'}}",
       R"(metadata.labels: Invalid value: "-": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?'))"},
      {__LINE__, "ConfigMap", "metadata: {name: a, namespace: d, finalizers: [mine]}",
       R"(metadata.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified)"},
      {__LINE__, "ConfigMap",
       "metadata: {name: a, namespace: d, generateName: x-, ownerReferences: [{apiVersion: v1, kind: Pod, name: p}]}",
       R"(metadata.ownerReferences[0].uid: Invalid value: "": uid must not be empty)"},
  };
  for (const auto& c : cases) {
    const auto& k = kind_named(c.kind);
    EXPECT_EQ(texts(validate_create(k, object_of(k, c.yaml))), c.want) << "line " << c.line;
  }
}

TEST(ValidateCreate, AnnotationsAreBounded) {
  const auto& k = kind_named("ConfigMap");
  auto o = object_of(k, "metadata: {name: a, namespace: d, annotations: {x: text}}");
  o["metadata"].get_object()["annotations"].get_object()["x"] = std::string(256 * 1024, 'x');
  EXPECT_EQ(texts(validate_create(k, o)), "metadata.annotations: Too long: may not be more than 262144 bytes");
}

// `extra` continues the only container or, with two spaces, the spec.
TEST(ValidateCreate, Pod) {
  struct PodCase {
    int line;
    std::string_view extra, want;
  };
  const PodCase cases[] = {
      {__LINE__, "", ""},
      {__LINE__, "  - {name: c, image: i}\n", R"(spec.containers[1].name: Duplicate value: "c")"},
      {__LINE__, "  - {image: i}\n", "spec.containers[1].name: Required value"},
      {__LINE__, "  - {name: d}\n", "spec.containers[1].image: Required value"},
      {__LINE__, "    ports: [{containerPort: 70000}]\n",
       "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"},
      {__LINE__, "    ports: [{containerPort: 1, name: UPPER}]\n",
       "spec.containers[0].ports[0].name: Invalid value: \"UPPER\": must contain only alpha-numeric characters (a-z, "
       "0-9), and hyphens (-)\n"
       "spec.containers[0].ports[0].name: Invalid value: \"UPPER\": must contain at least one letter (a-z)"},
      {__LINE__, "    ports: [{containerPort: 1, name: a}, {containerPort: 2, name: a}]\n",
       R"(spec.containers[0].ports[1].name: Duplicate value: "a")"},
      {__LINE__, "    ports: [{containerPort: 1, protocol: ICMP}]\n",
       R"(spec.containers[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP")"},
      {__LINE__, "    imagePullPolicy: Sometimes\n",
       R"(spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never")"},
      {__LINE__, "    env: [{name: 'a=b'}]\n",
       R"(spec.containers[0].env[0].name: Invalid value: "a=b": a valid environment variable name must consist only of printable ASCII characters other than '=')"},
      {__LINE__, "    env: [{name: A, value: x, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]\n",
       R"(spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty)"},
      {__LINE__, "    volumeMounts: [{name: v, mountPath: /v}]\n",
       R"(spec.containers[0].volumeMounts[0].name: Not found: "v")"},
      {__LINE__, "    volumeMounts: [{name: v, mountPath: /v}, {name: v, mountPath: /v}]\n  volumes: [{name: v}]\n",
       R"(spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/v": must be unique)"},
      {__LINE__, "  volumes: [{name: v}, {name: v}]\n", R"(spec.volumes[1].name: Duplicate value: "v")"},
      {__LINE__, "  volumes: [{name: v, emptyDir: {}, hostPath: {path: /x}}]\n",
       "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"},
      {__LINE__, "  restartPolicy: Maybe\n",
       R"(spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "Never", "OnFailure")"},
      {__LINE__, "    livenessProbe: {}\n",
       "spec.containers[0].livenessProbe: Required value: must specify a handler type"},
      {__LINE__, "    livenessProbe: {tcpSocket: {port: 1}, httpGet: {port: 1}}\n",
       "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"},
      {__LINE__, "    livenessProbe: {tcpSocket: {port: 1}, successThreshold: 2}\n",
       "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"},
      {__LINE__, "    livenessProbe: {tcpSocket: {port: 0}, periodSeconds: -1}\n",
       "spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0\n"
       "spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive"},
      {__LINE__, "    resources: {requests: {cpu: 2}, limits: {cpu: 1}}\n",
       R"(spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1)"},
      {__LINE__, "    resources: {limits: {cpu: -1}}\n",
       "spec.containers[0].resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0\n"
       "spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"},
      {__LINE__, "  tolerations: [{operator: Equal}]\n",
       R"(spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys")"},
      {__LINE__, "  nodeSelector: {'a b': c}\n",
       R"(spec.nodeSelector: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]'))"},
      {__LINE__,
       "  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: []}}}\n",
       "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: "
       "must have at least one node selector term"},
      {__LINE__, "  terminationGracePeriodSeconds: -1\n",
       "spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0"},
      {__LINE__, "  dnsPolicy: None\n",
       "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None"},
      {__LINE__, "  hostAliases: [{ip: x}]\n",
       R"(spec.hostAliases[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff))"},
      {__LINE__, "  initContainers: [{name: init, image: i, readinessProbe: {tcpSocket: {port: 1}}}]\n",
       "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without "
       "restartPolicy=Always"},
      {__LINE__,
       "  initContainers: [{name: init, image: i, restartPolicy: Always, readinessProbe: {tcpSocket: {port: 1}}}]\n",
       ""},
  };
  const auto& k = kind_named("Pod");
  for (const auto& c : cases)
    EXPECT_EQ(texts(validate_create(k, object_of(k, kPodHead + std::string(c.extra)))), c.want) << "line " << c.line;
  EXPECT_EQ(texts(validate_create(k, object_of(k, "metadata: {name: a, namespace: d}\nspec: {containers: []}\n"))),
            "spec.containers: Required value");
}

TEST(ValidateCreate, OtherKinds) {
  const Case cases[] = {
      {__LINE__, "Service", "spec: {ports: [{port: 70000, targetPort: 80}]}",
       "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive"},
      {__LINE__, "Service", "spec: {ports: []}", "spec.ports: Required value"},
      {__LINE__, "Service", "spec: {clusterIP: None}", ""},
      {__LINE__, "Service", "spec: {type: Magic, ports: [{port: 1}]}",
       R"(spec.type: Unsupported value: "Magic": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort")"},
      {__LINE__, "Service", "spec: {ports: [{port: 1}, {port: 2, name: b}]}", "spec.ports[0].name: Required value"},
      {__LINE__, "Service", "spec: {ports: [{port: 1, name: a}, {port: 1, name: b}]}",
       R"(spec.ports[1]: Duplicate value: {"port":1,"protocol":"TCP"})"},
      {__LINE__, "Service", "spec: {ports: [{port: 1, nodePort: 30000}]}",
       "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"},
      {__LINE__, "Service",
       "spec: {type: NodePort, ports: [{port: 1, nodePort: 30000}, {port: 1, protocol: UDP, name: b, nodePort: "
       "30000}]}",
       "spec.ports[0].name: Required value"},
      {__LINE__, "Service", "spec: {clusterIP: None, type: NodePort, ports: [{port: 1}]}",
       R"(spec.clusterIPs[0]: Invalid value: "None": may not be set to 'None' for NodePort services)"},
      {__LINE__, "Service", "spec: {clusterIP: 10.0.0, ports: [{port: 1}]}",
       R"(spec.clusterIPs[0]: Invalid value: "10.0.0": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff))"},
      {__LINE__, "Service", "spec: {type: ExternalName}", "spec.externalName: Required value"},
      {__LINE__, "Service", "spec: {type: ExternalName, externalName: example.com}", ""},
      {__LINE__, "Service", "spec: {externalTrafficPolicy: Local, ports: [{port: 1}]}",
       R"(spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services)"},
      {__LINE__, "Service",
       "spec: {sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}, ports: [{port: 1}]}",
       "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than "
       "86400"},
      {__LINE__, "Deployment",
       "spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: c, "
       "image: i}]}}}",
       R"(spec.template.metadata.labels: Invalid value: {"a":"c"}: `selector` does not match template `labels`)"},
      {__LINE__, "Deployment",
       "spec: {replicas: -1, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: "
       "{containers: [{name: c, image: i}]}}}",
       "spec.replicas: Invalid value: -1: must be greater than or equal to 0"},
      {__LINE__, "Deployment",
       "spec: {selector: {matchLabels: {a: b}}, strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}, template: "
       "{metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}",
       "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"},
      {__LINE__, "Deployment",
       "spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {restartPolicy: Never, "
       "containers: [{name: c, image: i}]}}}",
       R"(spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always")"},
      {__LINE__, "Deployment", "spec: {template: {spec: {containers: [{name: c, image: i}]}}}",
       "spec.selector: Required value"},
      {__LINE__, "ReplicaSet",
       "spec: {selector: {matchExpressions: [{key: a, operator: Is}]}, template: {metadata: {labels: {a: b}}, spec: "
       "{containers: [{name: c, image: i}]}}}",
       R"(spec.selector.matchExpressions[0].operator: Invalid value: "Is": not a valid selector operator)"},
      {__LINE__, "ConfigMap", "data: {'a/b': c}",
       R"(data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+'))"},
      {__LINE__, "Secret", "type: kubernetes.io/tls\ndata: {tls.crt: eA==}", "data[tls.key]: Required value"},
      {__LINE__, "EndpointSlice", "addressType: IPv4\nendpoints: [{addresses: ['::1']}]",
       R"(endpoints[0].addresses[0]: Invalid value: "::1": must be an IPv4 address)"},
      {__LINE__, "EndpointSlice", "endpoints: []", "addressType: Required value"},
      {__LINE__, "Endpoints", "subsets: [{addresses: [{ip: x}]}]",
       R"(subsets[0].addresses[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff))"},
      {__LINE__, "Lease", "spec: {leaseDurationSeconds: 0}",
       "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"},
      {__LINE__, "Event", "involvedObject: {namespace: other}",
       R"(involvedObject.namespace: Invalid value: "other": does not match event.namespace)"},
  };
  for (const auto& c : cases) {
    const auto& k = kind_named(c.kind);
    auto yaml = "metadata: {name: a, namespace: d}\n" + std::string(c.yaml);
    EXPECT_EQ(texts(validate_create(k, object_of(k, yaml))), c.want) << "line " << c.line;
  }
}

struct UpdateCase {
  int line;
  std::string_view kind, before, after, want;
  std::string_view subresource = {};
};

TEST(ValidateUpdate, Table) {
  constexpr std::string_view kFixed =
      "spec: Forbidden: pod updates may not change fields other than "
      "`spec.containers[*].image`,`spec.initContainers[*].image`,"
      "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
      "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
  constexpr std::string_view kPod = "spec: {containers: [{name: c, image: i}]}";
  constexpr std::string_view kTemplate =
      "template: {metadata: {labels: {a: b, c: d}}, spec: {containers: [{name: c, image: i}]}}}";
  auto deployment = [&](std::string_view selector) {
    return "spec: {selector: {matchLabels: {" + std::string(selector) + "}}, " + std::string(kTemplate);
  };
  auto first = deployment("a: b");
  auto second = deployment("c: d");
  const UpdateCase cases[] = {
      {__LINE__, "Pod", kPod, "spec: {containers: [{name: c, image: j, imagePullPolicy: Never}]}", kFixed},
      {__LINE__, "Pod", kPod, "spec: {containers: [{name: c, image: 'i:2', imagePullPolicy: Never}]}", "", "status"},
      {__LINE__, "Pod", "spec: {containers: [{name: c, image: 'i:1'}]}",
       "spec: {containers: [{name: c, image: 'i:2'}]}", ""},
      {__LINE__, "Pod", kPod, "spec: {nodeName: node-1, containers: [{name: c, image: i}]}", kFixed},
      {__LINE__, "Pod", kPod, "spec: {containers: [{name: c, image: i}, {name: d, image: i}]}",
       "spec.containers: Forbidden: pod updates may not add or remove containers"},
      {__LINE__, "Pod", kPod, "spec: {tolerations: [{operator: Exists}], containers: [{name: c, image: i}]}", ""},
      {__LINE__, "Pod", "spec: {tolerations: [{operator: Exists}], containers: [{name: c, image: i}]}", kPod,
       "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"},
      {__LINE__, "Pod", "spec: {activeDeadlineSeconds: 5, containers: [{name: c, image: i}]}",
       "spec: {activeDeadlineSeconds: 9, containers: [{name: c, image: i}]}",
       "spec.activeDeadlineSeconds: Invalid value: 9: must be less than or equal to previous value"},
      {__LINE__, "Service", "spec: {clusterIP: 10.0.0.1, ports: [{port: 1}]}",
       "spec: {clusterIP: 10.0.0.2, ports: [{port: 1}]}",
       R"(spec.clusterIPs[0]: Invalid value: "10.0.0.2": may not change once set)"},
      {__LINE__, "Service", "spec: {clusterIP: 10.0.0.1, ports: [{port: 1}]}",
       "spec: {type: ExternalName, externalName: x.y}", ""},
      {__LINE__, "Deployment", first, second,
       R"(spec.selector: Invalid value: {"matchLabels":{"c":"d"}}: field is immutable)"},
      {__LINE__, "ConfigMap", "immutable: true\ndata: {a: b}", "immutable: true\ndata: {a: c}",
       "data: Forbidden: field is immutable when `immutable` is set"},
      {__LINE__, "ConfigMap", "immutable: true", "data: {a: c}",
       "immutable: Forbidden: field is immutable when `immutable` is set\ndata: Forbidden: field is immutable when "
       "`immutable` is set"},
      {__LINE__, "Secret", "type: a", "type: b", R"(type: Invalid value: "b": field is immutable)"},
      {__LINE__, "EndpointSlice", "addressType: IPv4\nendpoints: []", "addressType: IPv6\nendpoints: []",
       R"(addressType: Invalid value: "IPv6": field is immutable)"},
  };
  for (const auto& c : cases) {
    const auto& k = kind_named(c.kind);
    auto head = std::string("metadata: {name: a, namespace: d, uid: u}\n");
    auto before = object_of(k, head + std::string(c.before));
    auto after = object_of(k, head + std::string(c.after));
    EXPECT_EQ(texts(validate_update(k, before, after, c.subresource)), c.want) << "line " << c.line;
  }
}

TEST(ValidateUpdate, MetadataIsFixed) {
  const auto& k = kind_named("ConfigMap");
  auto before = object_of(k, "metadata: {name: a, namespace: d, uid: u, labels: {a: b}}");
  auto after = object_of(k, "metadata: {name: b, namespace: d, uid: v, labels: {a: c}}");
  EXPECT_EQ(texts(validate_update(k, before, after, "")),
            "metadata.name: Invalid value: \"b\": field is immutable\nmetadata.uid: Invalid value: \"v\": field is "
            "immutable");
}

}  // namespace
}  // namespace hawser::schema
