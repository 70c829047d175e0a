// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/pod_config.h"

#include <algorithm>

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

#include "controlplane/agent/image_ref.h"
#include "controlplane/agent/pod_cgroup.h"
#include "controlplane/agent/pod_volumes.h"
#include "lib/base/atomic_file.h"
#include "lib/kube/object.h"
#include "lib/testing/temp_dir.h"

namespace hawser::agent {
namespace {

PodSpecPtr pod(const std::string& spec) {
  const auto text =
      R"({"metadata": {"name": "p", "namespace": "ns1", "uid": "u", "labels": {"app": "web"}}, "spec": )" + spec + "}";
  return parse_pod(std::make_shared<kube::Object>(boost::json::parse(text).as_object()));
}
kube::ObjectPtr object(const char* text) {
  return std::make_shared<kube::Object>(boost::json::parse(text).as_object());
}

Result<kube::ObjectPtr> lookup(const kube::Resource& kind, const std::string& name) {
  if (kind.kind == "ConfigMap" && name == "cm")
    return object(R"({"data": {"k": "v", "z": "zz"}, "binaryData": {"b": "AAE="}})");
  if (kind.kind == "Secret" && name == "s") return object(R"({"data": {"pw": "c2VzYW1l"}})");
  return fail(404, "{} \"{}\" not found", kind.kind == "Secret" ? "secrets" : "configmaps", name);
}

NodeSettings node() {
  NodeSettings n;
  n.node_name = "n1";
  n.node_ip = "192.0.2.1";
  n.capacity_milli_cpu = 4000;
  n.capacity_memory_bytes = 1 << 30;
  return n;
}

std::string get(const EnvList& env, std::string_view key) {
  const auto it = std::ranges::find_if(env, [&](const auto& e) { return e.first == key; });
  return it == env.end() ? "(none)" : it->second;
}

TEST(ImageRef, NormalizesAndRefuses) {
  EXPECT_EQ(normal_image_ref("nginx").value_or(""), "nginx:latest");
  EXPECT_EQ(normal_image_ref("localhost:5000/a/b:1").value_or(""), "localhost:5000/a/b:1");
  EXPECT_EQ(normal_image_ref("localhost:5000/a").value_or(""), "localhost:5000/a:latest");
  const std::string digest = "a@sha256:" + std::string(64, 'a');
  EXPECT_EQ(normal_image_ref(digest).value_or(""), digest);
  for (const char* bad : {"", "Nginx", "a//b", "a:", "a b", "-a", "a@sha256:xyz", "a:b:c", "a/_b", "a___b"})
    EXPECT_FALSE(normal_image_ref(bad)) << bad;
  EXPECT_TRUE(is_latest("nginx"));
  EXPECT_TRUE(is_latest("nginx:latest"));
  EXPECT_FALSE(is_latest("nginx:1"));
  EXPECT_FALSE(is_latest(digest));
}

TEST(Expand, Variables) {
  const std::string value = "V";
  const auto vars = [&](std::string_view n) { return n == "X" ? &value : nullptr; };
  struct Case {
    const char *in, *want;
  };
  for (const auto& c : std::vector<Case>{{"a$(X)b", "aVb"},
                                         {"$$(X)", "$(X)"},
                                         {"$(Y)", "$(Y)"},
                                         {"$(X", "$(X"},
                                         {"$", "$"},
                                         {"$X", "$X"},
                                         {"$$$(X)", "$V"}})
    EXPECT_EQ(expand(c.in, vars), c.want) << c.in;
}

TEST(Env, OrderReferencesAndServices) {
  const auto n = node();
  const auto spec = pod(R"J({"containers": [{"name": "a", "image": "i:1", "resources": {"limits": {"cpu": "1500m"}},
    "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "P_"}, {"secretRef": {"name": "none", "optional": true}}],
    "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)/$(P_k)/$(WEB_SERVICE_HOST)"}, {"name": "A", "value": "2"},
      {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pw"}}},
      {"name": "OPT", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "nope", "optional": true}}},
      {"name": "LBL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
      {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
      {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}}]}]})J");
  const auto services = service_env(
      {object(
           R"({"metadata": {"name": "web", "namespace": "ns1"}, "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80}]}})"),
       object(
           R"({"metadata": {"name": "kubernetes", "namespace": "default"}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 443}]}})"),
       object(
           R"({"metadata": {"name": "other", "namespace": "ns2"}, "spec": {"clusterIP": "10.96.0.8", "ports": [{"port": 1}]}})"),
       object(
           R"({"metadata": {"name": "head", "namespace": "ns1"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}})")},
      "ns1", true);
  auto env = make_env(*spec, spec->main[0], {.lookup = lookup, .services = services, .facts = {&n, {"10.0.0.1"}}});
  ASSERT_TRUE(env) << env.error().text;
  EXPECT_EQ(get(*env, "B"), "1/v/10.96.0.9");
  EXPECT_EQ(get(*env, "A"), "2");
  EXPECT_EQ(get(*env, "PW"), "sesame");
  EXPECT_EQ(get(*env, "OPT"), "(none)");
  EXPECT_EQ(get(*env, "LBL"), "web");
  EXPECT_EQ(get(*env, "CPU"), "2");
  EXPECT_EQ(get(*env, "MEM"), "1024");
  EXPECT_EQ(get(*env, "WEB_PORT_80_TCP"), "tcp://10.96.0.9:80");
  EXPECT_EQ(get(*env, "WEB_SERVICE_PORT_HTTP"), "80");
  EXPECT_EQ(get(*env, "KUBERNETES_SERVICE_PORT"), "443");
  EXPECT_EQ(get(*env, "OTHER_SERVICE_HOST"), "(none)");
  EXPECT_EQ(get(*env, "HEAD_SERVICE_HOST"), "(none)");
}

TEST(Env, ErrorsNameTheObject) {
  const auto n = node();
  struct Case {
    const char *ref, *want;
  };
  for (const auto& c :
       std::vector<Case>{{R"("secretKeyRef": {"name": "x", "key": "k"})", "secrets \"x\" not found"},
                         {R"("secretKeyRef": {"name": "s", "key": "k"})", "couldn't find key k in Secret ns1/s"},
                         {R"("fieldRef": {"fieldPath": "spec.magic"})", "fieldPath \"spec.magic\": not supported"}}) {
    const auto spec = pod(fmt::format(
        R"({{"containers": [{{"name": "a", "image": "i", "env": [{{"name": "E", "valueFrom": {{{}}}}}]}}]}})", c.ref));
    auto env = make_env(*spec, spec->main[0], {.lookup = lookup, .services = {}, .facts = {&n, {}}});
    ASSERT_FALSE(env);
    EXPECT_EQ(env.error().text, c.want);
  }
}

TEST(Dns, Policies) {
  auto n = node();
  n.cluster_dns = {"10.96.0.10"};
  const auto own = parse_resolv_conf("# x\nnameserver 192.0.2.53\nsearch example.org\noptions timeout:1 edns0\n");
  ASSERT_EQ(own.servers, std::vector<std::string>{"192.0.2.53"});
  const auto cluster = pod_dns(*pod(R"({"containers": []})"), n, own);
  EXPECT_EQ(cluster.servers, std::vector<std::string>{"10.96.0.10"});
  EXPECT_EQ(cluster.searches,
            (std::vector<std::string>{"ns1.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org"}));
  EXPECT_EQ(cluster.options, std::vector<std::string>{"ndots:5"});
  EXPECT_EQ(pod_dns(*pod(R"({"hostNetwork": true, "containers": []})"), n, own).servers, own.servers);
  EXPECT_EQ(pod_dns(*pod(R"({"dnsPolicy": "Default", "containers": []})"), n, own).options, own.options);
  const auto none = pod_dns(
      *pod(
          R"({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}]}, "containers": []})"),
      n, own);
  EXPECT_EQ(none.servers, std::vector<std::string>{"1.1.1.1"});
  EXPECT_EQ(none.options, std::vector<std::string>{"ndots:2"});
}

TEST(Config, SandboxAndContainer) {
  auto n = node();
  n.cgroup_parent = "pods/";
  const auto spec = pod(
      R"J({"hostname": "h", "shareProcessNamespace": true, "securityContext": {"runAsUser": 5, "fsGroup": 7, "sysctls": [{"name": "net.x", "value": "1"}]},
    "containers": [{"name": "a", "image": "i:1", "command": ["run", "$(E)"], "ports": [{"containerPort": 80, "hostPort": 8080}],
      "resources": {"limits": {"cpu": "500m", "memory": "512Mi"}, "requests": {"cpu": "250m"}},
      "securityContext": {"runAsUser": 9, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"}}}]})J");
  const auto sb = sandbox_config(*spec, n, {}, 2);
  EXPECT_EQ(sb.hostname, "h");
  EXPECT_EQ(sb.cgroup_parent, "/pods/burstable/podu");
  EXPECT_EQ(sb.log_directory, "/var/log/pods/ns1_p_u");
  EXPECT_EQ(sb.labels.at(kLabelPodUid), "u");
  EXPECT_EQ(sb.labels.at("app"), "web");
  ASSERT_EQ(sb.port_mappings.size(), 1u);
  EXPECT_EQ(sb.namespaces.pid, NamespaceMode::kPod);
  auto c = container_config(*spec, spec->main[0], n,
                            {.env = {{"E", "x"}},
                             .mounts = {},
                             .image = "i:1",
                             .info = {},
                             .attempt = 3,
                             .restart_delay = std::chrono::seconds(20)});
  ASSERT_TRUE(c) << c.error().text;
  EXPECT_EQ(c->command, (std::vector<std::string>{"run", "x"}));
  EXPECT_EQ(c->log_path, "a/3.log");
  EXPECT_EQ(c->resources.cpu_shares, 256);
  EXPECT_EQ(c->resources.cpu_quota_us, 50000);
  EXPECT_EQ(c->resources.memory_limit_bytes, 512 << 20);
  EXPECT_EQ(c->run_as_user, 9);
  EXPECT_TRUE(c->read_only_rootfs && c->no_new_privs && !c->privileged);
  EXPECT_EQ(c->seccomp.type, SeccompProfile::Type::kRuntimeDefault);
  EXPECT_EQ(c->supplemental_groups, std::vector<std::int64_t>{7});
}

TEST(Config, RunAsNonRoot) {
  const auto spec =
      pod(R"({"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "a", "image": "i:1"}]})");
  Image root{.id = "x", .uid = 0};
  EXPECT_FALSE(container_config(*spec, spec->main[0], node(), {.image = "i:1", .info = root}));
  Image user{.id = "x", .uid = 5};
  EXPECT_TRUE(container_config(*spec, spec->main[0], node(), {.image = "i:1", .info = user}));
}

TEST(Cgroups, OfAPodAreFoundAndRemoved) {
  hawser::testing::TempDir dir;
  auto n = node();
  n.cgroup_parent = "pods";
  n.cgroup_root = dir.path();
  for (const char* c :
       {"memory/pods/podu-1", "cpu/pods/burstable/podu-2/c1", "pods/besteffort/podu-3", "cpu/pods/besteffort/other"})
    std::filesystem::create_directories(dir.file(c));
  EXPECT_EQ(pods_with_cgroups(n), (std::set<std::string>{"u-1", "u-2", "u-3"}));
  for (const char* uid : {"u-1", "u-2", "u-3", "unknown"}) remove_pod_cgroups(n, uid);
  EXPECT_TRUE(pods_with_cgroups(n).empty());
  EXPECT_TRUE(std::filesystem::exists(dir.file("cpu/pods/besteffort/other")));
}

TEST(Volumes, PayloadIsSwappedAtomically) {
  hawser::testing::TempDir dir;
  const auto spec = pod(R"({"containers": []})");
  const auto n = node();
  const PayloadInputs in{
      .lookup = lookup, .facts = {&n, {}}, .token = [](const auto&, auto) { return std::optional<std::string>(); }};
  const auto volume =
      boost::json::parse(
          R"({"name": "c", "configMap": {"name": "cm", "items": [{"key": "k", "path": "sub/x", "mode": 256}]}})")
          .as_object();
  auto payload = payload_of(*spec, volume, in);
  ASSERT_TRUE(payload) << payload.error().text;
  ASSERT_EQ(payload->size(), 1u);
  EXPECT_EQ(payload->at("sub/x").mode, 0400u);
  const auto path = dir.file("vol");
  EXPECT_TRUE(write_payload(path, *payload, -1).value_or(false));
  EXPECT_FALSE(write_payload(path, *payload, -1).value_or(true)) << "the second time changes nothing";
  EXPECT_EQ(read_file(path + "/sub/x").value_or(""), "v");
  EXPECT_TRUE(std::filesystem::is_symlink(path + "/..data"));
  EXPECT_TRUE(write_payload(path, {{"y", {"2", 0644}}}, -1).value_or(false));
  EXPECT_EQ(read_file(path + "/y").value_or(""), "2");
  EXPECT_FALSE(std::filesystem::exists(path + "/sub"));
  // Only ..data, its target and one name are left.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path), {}), 3);
}

TEST(Volumes, BadPathsAndMissingObjects) {
  const auto spec = pod(R"({"containers": []})");
  const auto n = node();
  const PayloadInputs in{.lookup = lookup, .facts = {&n, {}}, .token = nullptr};
  for (const char* bad : {R"({"configMap": {"name": "cm", "items": [{"key": "k", "path": "../x"}]}})",
                          R"({"configMap": {"name": "cm", "items": [{"key": "k", "path": "/x"}]}})",
                          R"({"configMap": {"name": "cm", "items": [{"key": "nope", "path": "x"}]}})",
                          R"({"secret": {"secretName": "gone"}})"})
    EXPECT_FALSE(payload_of(*spec, boost::json::parse(bad).as_object(), in)) << bad;
  EXPECT_TRUE(
      payload_of(*spec, boost::json::parse(R"({"secret": {"secretName": "gone", "optional": true}})").as_object(), in));
}

TEST(Volumes, HostsFile) {
  const auto spec = pod(
      R"({"hostname": "h", "subdomain": "sub", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["x", "y"]}], "containers": []})");
  const auto text = hosts_text(*spec, {"10.0.0.5"}, "", "cluster.local");
  EXPECT_NE(text.find("10.0.0.5\th.sub.ns1.svc.cluster.local\th\n"), std::string::npos) << text;
  EXPECT_NE(text.find("1.2.3.4\tx\ty\n"), std::string::npos);
}

TEST(Volumes, MountsStayInsideTheirVolume) {
  hawser::testing::TempDir dir;
  auto n = node();
  n.root_dir = dir.path();
  const auto spec = pod(
      R"({"volumes": [{"name": "e", "emptyDir": {}}], "containers": [{"name": "a", "image": "i", "volumeMounts": [{"name": "e", "mountPath": "/d", "subPath": "in"}]},
    {"name": "b", "image": "i", "volumeMounts": [{"name": "e", "mountPath": "/d", "subPath": "link"}]}]})");
  const PayloadInputs in{.lookup = lookup, .facts = {&n, {}}, .token = nullptr};
  ASSERT_TRUE(prepare_volumes(*spec, n, in));
  auto ok = volume_mounts(*spec, spec->main[0], 0, n, {});
  ASSERT_TRUE(ok) << ok.error().text;
  ASSERT_EQ(ok->size(), 3u);
  EXPECT_TRUE((*ok)[0].host_path.ends_with("/e/in"));
  std::filesystem::create_symlink("/etc", (*ok)[0].host_path.substr(0, (*ok)[0].host_path.size() - 2) + "link");
  EXPECT_FALSE(volume_mounts(*spec, spec->main[1], 0, n, {}));
  EXPECT_TRUE(remove_pod_dir(n, "u"));
  EXPECT_FALSE(std::filesystem::exists(n.pod_dir("u")));
  EXPECT_FALSE(remove_pod_dir(n, ""));
}

}  // namespace
}  // namespace hawser::agent
