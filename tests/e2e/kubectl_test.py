# SPDX-License-Identifier: Apache-2.0
"""What a person types: every command of the README, with every kubectl from 1.20 to 1.33 that the machine has."""
import json
import subprocess
import time

from harness import BUSYBOX, ECHO, check, condition

MANIFEST = f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings}}
data: {{greeting: hello, "on": "true"}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: app, labels: {{app: app}}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: app}}}}
  template:
    metadata: {{labels: {{app: app}}}}
    spec:
      containers:
      - name: echo
        image: {ECHO}
        env: [{{name: GREETING, valueFrom: {{configMapKeyRef: {{name: settings, key: greeting}}}}}}]
        ports: [{{containerPort: 8080, name: http}}]
---
apiVersion: v1
kind: Service
metadata: {{name: app}}
spec:
  selector: {{app: app}}
  ports: [{{port: 80, targetPort: http}}]
"""


def every_kubectl(function):
    function.every_kubectl = True
    return function


@every_kubectl
def case_readme_session(e):
    nodes = e.kubectl("get", "nodes", "-o", "wide", namespace=False).splitlines()
    check(len(nodes) == 4 and all(" Ready " in l for l in nodes[1:]), f"three Ready nodes wanted: {nodes}")
    check("INTERNAL-IP" in nodes[0] and "192.0.2.11" in nodes[1], f"wide node columns: {nodes[:2]}")
    pods = e.deployment("web", 3)
    check(len({p["spec"]["nodeName"] for p in pods}) == 3, "three replicas are to be spread over three nodes")
    check(len({p["status"]["podIP"] for p in pods}) == 3, "each pod has an address of its own")
    table = e.kubectl("get", "pods", "-o", "wide").splitlines()
    check(table[0].split()[:7] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"], table[0])
    check(all("1/1" in l and "Running" in l for l in table[1:]), "\n".join(table))
    service = e.expose("web", "--type=NodePort")
    check(30000 <= service["spec"]["ports"][0]["nodePort"] <= 32767, "node port range")
    check("80:" in e.kubectl("get", "services"), "PORT(S) column")
    e.kubectl("scale", "deployment", "web", "--replicas=5")
    e.ready_pods("app=web", 5)
    name = pods[0]["metadata"]["name"]
    check("serves TCP and UDP" in e.kubectl("logs", name), "log of the container")
    described = e.kubectl("describe", "pod", name)
    check("Scheduled" in described and "Started" in described, f"events in describe:\n{described}")
    check("Replicas:" in e.kubectl("describe", "deployment", "web"), "describe deployment")
    check("Endpoints:" in e.kubectl("describe", "service", "web"), "describe service")
    e.kubectl("describe", "node", "node-1", namespace=False)
    e.kubectl("label", "pod", name, "tier=front")
    check(name in e.kubectl("get", "pods", "-l", "tier=front"), "label selector")
    e.kubectl("annotate", "pod", name, "note=x")
    check("kind: Deployment" in e.kubectl("get", "deployment", "web", "-o", "yaml"), "-o yaml")
    check(e.namespace in e.kubectl("get", "pods", "--all-namespaces", namespace=False), "--all-namespaces")
    e.kubectl("delete", "service", "web")
    e.kubectl("delete", "deployment", "web")
    e.ready_pods("app=web", 0)


@every_kubectl
def case_apply(e):
    check("created" in e.kubectl("apply", "-f", "-", input=MANIFEST), "apply creates")
    e.ready_pods("app=app", 2)
    check("unchanged" in e.kubectl("apply", "-f", "-", input=MANIFEST), "apply again changes nothing")
    changed = MANIFEST.replace("replicas: 2", "replicas: 3").replace("name: http}]", "name: http}, {containerPort: 9090, name: side}]")
    check("deployment.apps/app configured" in e.kubectl("apply", "-f", "-", input=changed), "apply configures")
    e.ready_pods("app=app", 3)
    ports = e.get("deployment", "app")["spec"]["template"]["spec"]["containers"][0]["ports"]
    check([p["name"] for p in ports] == ["http", "side"], f"strategic merge of ports: {ports}")
    back = e.kubectl("apply", "-f", "-", input=MANIFEST)
    check("configured" in back, back)
    ports = e.get("deployment", "app")["spec"]["template"]["spec"]["containers"][0]["ports"]
    check([p["name"] for p in ports] == ["http"], f"a removed list item is removed: {ports}")
    e.kubectl("rollout", "status", "deployment/app", "--timeout=30s")
    check("true" in e.kubectl("get", "configmap", "settings", "-o", "jsonpath={.data.on}"), "a quoted key and value stay text")
    e.kubectl("delete", "-f", "-", input=MANIFEST)


@every_kubectl
def case_explain_and_discovery(e):
    check("replicas" in e.kubectl("explain", "deployment.spec"), "explain deployment.spec")
    check("containers" in e.kubectl("explain", "pod.spec", "--recursive"), "explain --recursive")
    resources = e.kubectl("api-resources", namespace=False)
    for word in ("deployments", "deploy", "endpointslices", "leases", "po"):
        check(word in resources, f"api-resources lacks {word}")
    check("apps/v1" in e.kubectl("api-versions", namespace=False), "api-versions")
    check("Server Version" in e.kubectl("version", namespace=False), "version")
    e.kubectl("cluster-info", namespace=False)


@every_kubectl
def case_manifest_with_a_typo(e):
    said = e.kubectl("apply", "-f", "-", input=MANIFEST.replace("replicas: 2", "replica: 2"), fails=True)
    check("replica" in said and "unknown field" in said, f"the error names the field: {said}")
    check("app" not in e.kubectl("get", "deployments", "-o", "name"), "nothing was made of the bad object")


@every_kubectl
def case_patch_and_edit(e):
    e.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "labels": {"a": "1"}}, "data": {"x": "1", "y": "2"}})
    e.kubectl("patch", "configmap", "c", "--type=merge", "-p", '{"data":{"x":null,"z":"3"}}')
    e.kubectl("patch", "configmap", "c", "--type=json", "-p", '[{"op":"replace","path":"/data/y","value":"4"}]')
    e.kubectl("patch", "configmap", "c", "-p", '{"metadata":{"labels":{"b":"2"}}}')
    got = e.get("configmap", "c")
    check(got["data"] == {"y": "4", "z": "3"} and got["metadata"]["labels"] == {"a": "1", "b": "2"}, f"after three patches: {got}")
    said = e.kubectl("patch", "configmap", "c", "--type=json", "-p", '[{"op":"test","path":"/data/y","value":"9"}]', fails=True)
    # kubectl 1.20 leaves the server's message out of an answer 422 without a kind.
    check("test" in said or said.strip() == "The request is invalid", said)
    e.kubectl("replace", "-f", "-", input=json.dumps({**got, "data": {"only": "this"}}))
    said = e.kubectl("replace", "-f", "-", input=json.dumps({**got, "data": {"lost": "update"}}), fails=True)
    check("Conflict" in said or "modified" in said, f"an old resourceVersion is a conflict: {said}")
    e.kubectl("label", "configmap", "c", "a-", "b=3", "--overwrite")
    check(e.get("configmap", "c")["metadata"]["labels"] == {"b": "3"}, "label removal")


@every_kubectl
def case_watch(e):
    watch = subprocess.Popen([e.path, "-n", e.namespace, "get", "configmaps", "-w", "--no-headers", "-o", "name"], env=e.kubectl_env,
                             stdout=subprocess.PIPE, text=True)
    try:
        e.kubectl("create", "configmap", "first", "--from-literal=a=b")
        seen = ""
        while "configmap/first" not in seen:
            line = watch.stdout.readline()
            check(line, "the watch ended")
            seen = line
    finally:
        watch.kill()
        watch.wait()


@every_kubectl
def case_rollout(e):
    e.deployment("web", 3)
    # An image that does not exist: the new revision never becomes available, so all old pods stay (25 % of 3, rounded down, may be away).
    e.kubectl("set", "image", "deployment/web", "hawser-echo=localhost/no-such-image:9")
    e.wait("a new pod that cannot start", lambda: len(e.pods("app=web")) == 4)
    ready = [p for p in e.pods("app=web") if condition(p, "Ready") and p["spec"]["containers"][0]["image"] == ECHO]
    check(len(ready) == 3, f"{len(ready)} of 3 old pods are Ready while the new one cannot start")
    check("REVISION" in e.kubectl("rollout", "history", "deployment/web"), "history")
    e.kubectl("rollout", "undo", "deployment/web")
    e.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    pods = e.ready_pods("app=web", 3)
    check(all(p["spec"]["containers"][0]["image"] == ECHO for p in pods), "undo brings the first image back")
    e.kubectl("rollout", "restart", "deployment/web")
    e.kubectl("rollout", "status", "deployment/web", "--timeout=60s")


@every_kubectl
def case_events_and_sorting(e):
    e.kubectl("run", "one", f"--image={ECHO}", "--restart=Never")
    e.ready_pods("run=one", 1)
    events = e.kubectl("get", "events", "--sort-by=.metadata.creationTimestamp")
    check("Scheduled" in events and "Pulled" in events, events)
    e.kubectl("delete", "pod", "one", "--now")


def case_logs_options(e):
    e.kubectl("run", "talk", f"--image={BUSYBOX}", "--restart=Never", "--command", "--", "sh", "-c",
              "for i in 1 2 3 4 5; do echo line $i; done; sleep 1; echo late; sleep 300")
    e.wait("late output", lambda: "late" in e.kubectl("logs", "talk") if e.pods("run=talk")[0]["status"].get("phase") == "Running" else False)
    check(e.kubectl("logs", "talk", "--tail=2").split() == ["line", "5", "late"], "--tail")
    check(e.kubectl("logs", "talk", "--timestamps").startswith("20"), "--timestamps")
    check(len(e.kubectl("logs", "talk", "--limit-bytes=6")) == 6, "--limit-bytes")
    follow = subprocess.Popen([e.path, "-n", e.namespace, "logs", "-f", "talk"], env=e.kubectl_env, stdout=subprocess.PIPE, text=True)
    check(follow.stdout.readline() == "line 1\n", "logs -f begins at the start")
    e.kubectl("delete", "pod", "talk", "--now")
    check("late" in follow.stdout.read(), "logs -f shows the rest and ends with the container")
    follow.wait(20)
    said = e.kubectl("logs", "nothing", fails=True)
    check('pods "nothing" not found' in said, said)


def case_anonymous_is_refused(e):
    import ssl
    import urllib.error
    import urllib.request
    port = e.cluster.api_port
    for path, want in (("/api/v1/pods", 401), ("/readyz", 200)):
        try:
            status = urllib.request.urlopen(f"https://127.0.0.1:{port}{path}", context=ssl._create_unverified_context(), timeout=5).status
            body = ""
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read().decode()
        check(status == want, f"{path} without a certificate: {status}")
        check(want != 401 or json.loads(body)["reason"] == "Unauthorized", body)


def case_paging_and_selectors(e):
    for i in range(7):
        e.kubectl("create", "configmap", f"c{i}", f"--from-literal=i={i}")
    names = e.kubectl("get", "configmaps", "--chunk-size=3", "-o", "name").split()
    check({f"configmap/c{i}" for i in range(7)} <= set(names), f"all pages: {names}")
    check(e.kubectl("get", "configmaps", "--field-selector=metadata.name=c3", "-o", "name").split() == ["configmap/c3"], "field selector")
    page = e.cluster.api("GET", f"/api/v1/namespaces/{e.namespace}/configmaps?limit=3")
    check(len(page["items"]) == 3 and page["metadata"]["continue"] and page["metadata"]["remainingItemCount"] >= 4, "limit and continue")


def case_namespace_deletion(e):
    e.kubectl("create", "namespace", "short-lived", namespace=False)
    e.cluster.api("POST", "/api/v1/namespaces/short-lived/configmaps", {"metadata": {"name": "x"}})
    e.kubectl("-n", "short-lived", "create", "deployment", "d", f"--image={ECHO}", namespace=False)
    start = time.monotonic()
    e.kubectl("delete", "namespace", "short-lived", namespace=False, timeout=60)
    check(time.monotonic() - start < 20, "deletion is prompt")
    check("short-lived" not in e.kubectl("get", "namespaces", namespace=False), "the namespace is gone")
