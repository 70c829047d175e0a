// SPDX-License-Identifier: Apache-2.0
#include "controlplane/schema/columns.h"
#include "controlplane/schema/schema_testing.h"
#include "controlplane/schema/type_table.h"
#include "lib/testing/golden.h"

namespace hawser::schema {
namespace {

constexpr std::int64_t kNow = 1'700'000'000;  // 2023-11-14T22:13:20Z

Object table_of(std::string_view kind, std::string_view yaml, IncludeObject include = IncludeObject::kNone) {
  const auto& k = kind_named(kind);
  auto decoded = decode(k, yaml, MediaType::kYaml, FieldValidation::kStrict);
  if (!decoded) {
    ADD_FAILURE() << decoded.error().message;
    return {};
  }
  std::vector<kube::ObjectPtr> items{std::make_shared<const Object>(std::move(decoded->object))};
  return table(k, items, include, kNow, true);
}

// "NAME=a|READY=1/1|..."
std::string row_of(const Object& t) {
  std::string out;
  const auto& columns = t.at("columnDefinitions").as_array();
  const auto& cells = t.at("rows").as_array().at(0).at("cells").as_array();
  for (std::size_t i = 0; i < columns.size(); i++) {
    std::string_view name = columns[i].at("name").as_string();
    auto cell = cells[i].is_string() ? std::string(cells[i].get_string()) : boost::json::serialize(cells[i]);
    out += fmt::format("{}{}={}", i ? "|" : "", name, cell);
  }
  return out;
}

TEST(Table, EveryComputedColumnExists) {
  for (const auto& k : TypeTable::get().all_kinds()) {
    for (const auto& c : TypeTable::get().entry(k).columns) {
      bool known = c.how.starts_with('@') ? find_cell(c.how.substr(1)) != nullptr : c.how.starts_with('.');
      EXPECT_TRUE(known) << k.kind << " " << c.name << " " << c.how;
    }
  }
}

struct Case {
  int line;
  std::string_view kind, yaml, want;
};

TEST(Table, Rows) {
  const Case cases[] = {
      {__LINE__, "ConfigMap",
       "metadata: {name: a, creationTimestamp: 2023-11-14T22:08:20Z}\ndata: {x: text}\nbinaryData: {z: eA==}",
       "Name=a|Data=2|Age=5m"},
      {__LINE__, "Secret", "metadata: {name: a}\ntype: Opaque", "Name=a|Type=Opaque|Data=0|Age=<unknown>"},
      {__LINE__, "ServiceAccount", "metadata: {name: a}\nsecrets: [{name: s}]", "Name=a|Secrets=1|Age=<unknown>"},
      {__LINE__, "Namespace", "metadata: {name: a}\nstatus: {phase: Active}", "Name=a|Status=Active|Age=<unknown>"},
      {__LINE__, "Service",
       "metadata: {name: a}\nspec: {type: NodePort, clusterIP: 10.96.0.9, selector: {b: c, a: b}, ports: [{port: 80, "
       "nodePort: 30080, protocol: TCP}, {port: 53, protocol: UDP}]}",
       "Name=a|Type=NodePort|Cluster-IP=10.96.0.9|External-IP=<none>|Port(s)=80:30080/TCP,53/"
       "UDP|Age=<unknown>|Selector=a=b,b=c"},
      {__LINE__, "Service", "metadata: {name: a}\nspec: {type: LoadBalancer, clusterIP: 10.96.0.9}",
       "Name=a|Type=LoadBalancer|Cluster-IP=10.96.0.9|External-IP=<pending>|Port(s)=<none>|Age=<unknown>|Selector=<"
       "none>"},
      {__LINE__, "Service",
       "metadata: {name: a}\nspec: {type: LoadBalancer, externalIPs: [192.0.2.1]}\nstatus: {loadBalancer: {ingress: "
       "[{ip: 198.51.100.1}, {hostname: h}]}}",
       "Name=a|Type=LoadBalancer|Cluster-IP=<none>|External-IP=198.51.100.1,h,192.0.2.1|Port(s)=<none>|Age=<unknown>|"
       "Selector=<none>"},
      {__LINE__, "Service", "metadata: {name: a}\nspec: {type: ExternalName, externalName: example.com}",
       "Name=a|Type=ExternalName|Cluster-IP=<none>|External-IP=example.com|Port(s)=<none>|Age=<unknown>|Selector=<"
       "none>"},
      {__LINE__, "Deployment",
       "metadata: {name: a}\nspec: {replicas: 3, selector: {matchLabels: {a: b}}, template: {spec: {containers: "
       "[{name: c, image: i}, {name: d, image: j}]}}}\nstatus: {readyReplicas: 1, updatedReplicas: 2}",
       "Name=a|Ready=1/3|Up-to-date=2|Available=0|Age=<unknown>|Containers=c,d|Images=i,j|Selector=a=b"},
      {__LINE__, "ReplicaSet",
       "metadata: {name: a}\nspec: {replicas: 3, selector: {matchLabels: {a: b}}}\nstatus: {replicas: 3, "
       "readyReplicas: 1}",
       "Name=a|Desired=3|Current=3|Ready=1|Age=<unknown>|Containers=|Images=|Selector=a=b"},
      {__LINE__, "Endpoints",
       "metadata: {name: a}\nsubsets: [{addresses: [{ip: 10.0.0.1}, {ip: 10.0.0.2}, {ip: '::1'}, {ip: 10.0.0.4}], "
       "ports: [{port: 80}]}]",
       "Name=a|Endpoints=10.0.0.1:80,10.0.0.2:80,[::1]:80 + 1 more...|Age=<unknown>"},
      {__LINE__, "Endpoints", "metadata: {name: a}", "Name=a|Endpoints=<none>|Age=<unknown>"},
      {__LINE__, "EndpointSlice",
       "metadata: {name: a}\naddressType: IPv4\nports: [{port: 80}, {}]\nendpoints: [{addresses: [10.0.0.1]}]",
       "Name=a|AddressType=IPv4|Ports=80,*|Endpoints=10.0.0.1|Age=<unknown>"},
      {__LINE__, "Lease", "metadata: {name: a}\nspec: {holderIdentity: node-1}", "Name=a|Holder=node-1|Age=<unknown>"},
      {__LINE__, "Node",
       "metadata: {name: a, labels: {node-role.kubernetes.io/worker: '', node-role.kubernetes.io/control-plane: "
       "''}}\nspec: {unschedulable: true}\nstatus: {conditions: [{type: Ready, status: 'True'}], addresses: [{type: "
       "InternalIP, address: 192.0.2.11}], nodeInfo: {kubeletVersion: v1, osImage: Debian}}",
       "Name=a|Status=Ready,SchedulingDisabled|Roles=control-plane,worker|Age=<unknown>|Version=v1|Internal-IP=192.0.2."
       "11|External-IP=<none>|OS-Image=Debian|Kernel-Version=<unknown>|Container-Runtime=<unknown>"},
      {__LINE__, "Event",
       "metadata: {name: a}\ninvolvedObject: {kind: Pod, name: p, fieldPath: 'spec.containers{c}'}\nreason: "
       "Killing\ntype: Normal\nmessage: ' Stopping '\nsource: {component: agent, host: node-1}\nfirstTimestamp: "
       "2023-11-14T22:12:20Z\nlastTimestamp: 2023-11-14T22:13:10Z\ncount: 3",
       "Last Seen=10s|Type=Normal|Reason=Killing|Object=pod/p|Subobject=spec.containers{c}|Source=agent, "
       "node-1|Message=Stopping|First Seen=60s|Count=3|Name=a"},
      {__LINE__, "Event",
       "metadata: {name: a}\ninvolvedObject: {kind: Node}\neventTime: 2023-11-14T22:13:00.000000Z\nreportingComponent: "
       "s",
       "Last Seen=20s|Type=|Reason=|Object=node|Subobject=|Source=s|Message=|First Seen=20s|Count=1|Name=a"},
  };
  for (const auto& c : cases) EXPECT_EQ(row_of(table_of(c.kind, c.yaml)), c.want) << "line " << c.line;
}

struct PodCase {
  int line;
  std::string_view yaml, ready, status, restarts;
};

TEST(Table, PodStatusWords) {
  const PodCase cases[] = {
      {__LINE__, "spec: {containers: [{name: c}]}\nstatus: {phase: Pending}", "0/1", "Pending", "0"},
      {__LINE__,
       "spec: {containers: [{name: c}]}\nstatus: {phase: Pending, containerStatuses: [{name: c, state: {waiting: "
       "{reason: ContainerCreating}}}]}",
       "0/1", "ContainerCreating", "0"},
      {__LINE__,
       "spec: {containers: [{name: c}]}\nstatus: {phase: Running, containerStatuses: [{name: c, ready: true, state: "
       "{running: {}}}]}",
       "1/1", "Running", "0"},
      {__LINE__,
       "spec: {containers: [{name: c}]}\nstatus: {phase: Running, containerStatuses: [{name: c, restartCount: 4, "
       "state: {waiting: {reason: CrashLoopBackOff}}, lastState: {terminated: {exitCode: 1, finishedAt: "
       "2023-11-14T22:13:00Z}}}]}",
       "0/1", "CrashLoopBackOff", "4 (20s ago)"},
      {__LINE__,
       "spec: {containers: [{name: c}]}\nstatus: {phase: Failed, containerStatuses: [{name: c, state: {terminated: "
       "{exitCode: 3}}}]}",
       "0/1", "ExitCode:3", "0"},
      {__LINE__,
       "spec: {containers: [{name: c}]}\nstatus: {phase: Failed, containerStatuses: [{name: c, state: {terminated: "
       "{exitCode: 137, signal: 9}}}]}",
       "0/1", "Signal:9", "0"},
      {__LINE__,
       "spec: {containers: [{name: c}]}\nstatus: {phase: Succeeded, containerStatuses: [{name: c, state: {terminated: "
       "{exitCode: 0, reason: Completed}}}]}",
       "0/1", "Completed", "0"},
      {__LINE__,
       "spec: {containers: [{name: c}, {name: d}]}\nstatus: {phase: Running, conditions: [{type: Ready, status: "
       "'False'}], containerStatuses: [{name: c, state: {terminated: {exitCode: 0, reason: Completed}}}, {name: d, "
       "ready: true, state: {running: {}}}]}",
       "1/2", "NotReady", "0"},
      {__LINE__,
       "spec: {containers: [{name: c}], initContainers: [{name: a}, {name: b}]}\nstatus: {phase: Pending, "
       "initContainerStatuses: [{name: a, state: {terminated: {exitCode: 0}}}, {name: b, state: {running: {}}}]}",
       "0/1", "Init:1/2", "0"},
      {__LINE__,
       "spec: {containers: [{name: c}], initContainers: [{name: a}]}\nstatus: {phase: Pending, initContainerStatuses: "
       "[{name: a, restartCount: 2, state: {waiting: {reason: CrashLoopBackOff}}}]}",
       "0/1", "Init:CrashLoopBackOff", "2"},
      {__LINE__,
       "spec: {containers: [{name: c}], initContainers: [{name: a}]}\nstatus: {phase: Pending, initContainerStatuses: "
       "[{name: a, state: {terminated: {exitCode: 7}}}]}",
       "0/1", "Init:ExitCode:7", "0"},
      {__LINE__,
       "spec: {containers: [{name: c}], initContainers: [{name: a, restartPolicy: Always}]}\nstatus: {phase: Running, "
       "initContainerStatuses: [{name: a, started: true, ready: true, restartCount: 1, state: {running: {}}}], "
       "containerStatuses: [{name: c, ready: true, state: {running: {}}}]}",
       "2/2", "Running", "1"},
      {__LINE__,
       "metadata: {deletionTimestamp: 2023-11-14T22:13:00Z}\nspec: {containers: [{name: c}]}\nstatus: {phase: Running}",
       "0/1", "Terminating", "0"},
      {__LINE__,
       "metadata: {deletionTimestamp: 2023-11-14T22:13:00Z}\nspec: {containers: [{name: c}]}\nstatus: {phase: Running, "
       "reason: NodeLost}",
       "0/1", "Unknown", "0"},
      {__LINE__, "spec: {containers: [{name: c}]}\nstatus: {phase: Failed, reason: Evicted}", "0/1", "Evicted", "0"},
      {__LINE__,
       "spec: {containers: [{name: c}]}\nstatus: {phase: Pending, conditions: [{type: PodScheduled, status: 'False', "
       "reason: SchedulingGated}]}",
       "0/1", "SchedulingGated", "0"},
  };
  for (const auto& c : cases) {
    auto t = table_of("Pod", c.yaml);
    const auto& cells = t.at("rows").as_array().at(0).at("cells").as_array();
    EXPECT_EQ(std::string_view(cells.at(1).as_string()), c.ready) << "line " << c.line;
    EXPECT_EQ(std::string_view(cells.at(2).as_string()), c.status) << "line " << c.line;
    EXPECT_EQ(std::string_view(cells.at(3).as_string()), c.restarts) << "line " << c.line;
  }
}

// The whole document, with each form of rows[].object.
TEST(Table, DocumentGolden) {
  std::string out;
  for (auto include : {IncludeObject::kNone, IncludeObject::kMetadata, IncludeObject::kObject})
    out +=
        boost::json::serialize(table_of("ConfigMap", "metadata: {name: a, labels: {x: text}}\ndata: {b: c}", include)) +
        "\n";
  testing::expect_golden("controlplane/schema/testdata/tables/configmap.json", out);
  const auto& k = kind_named("Pod");
  EXPECT_TRUE(table(k, {}, IncludeObject::kNone, kNow, false).at("columnDefinitions").is_null());
}

}  // namespace
}  // namespace hawser::schema
