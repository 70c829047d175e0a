# SPDX-License-Identifier: Apache-2.0
"""Pods as users write them: volumes, environment, probes, restarts, owners, and the daemons' own restarts."""
import os
import signal

from harness import BUSYBOX, ECHO, check, condition, run


def pod(name, script=None, image=BUSYBOX, **spec):
    container = {"name": "main", "image": image, **spec.pop("container", {})}
    if script:
        container["command"] = ["sh", "-c", script]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"name": name}},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, **spec}}


def finished(e, name):
    return e.wait(f"pod {name} to end", lambda: (p := e.get("pod", name))["status"].get("phase") in ("Succeeded", "Failed") and p)


def case_volumes_and_environment(e):
    e.kubectl("create", "configmap", "conf", "--from-literal=key=first", "--from-literal=other=o")
    e.kubectl("create", "secret", "generic", "sec", "--from-literal=password=hunter2")
    e.apply(pod("reader", "echo $GREETING $PASSWORD $ALL_other $(cat /conf/key) $(cat /sec/password) $POD_NAME $POD_IP $NODE; "
                          "echo shared > /scratch/x; stat -c %a /sec/password >&2; cat /scratch/x",
                restartPolicy="Never",
                volumes=[{"name": "conf", "configMap": {"name": "conf"}}, {"name": "sec", "secret": {"secretName": "sec", "defaultMode": 0o400}},
                         {"name": "scratch", "emptyDir": {}}],
                container={
                    "env": [{"name": "BASE", "value": "hello"}, {"name": "GREETING", "value": "$(BASE)-world"},
                            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "password"}}},
                            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                    "envFrom": [{"prefix": "ALL_", "configMapRef": {"name": "conf"}}],
                    "volumeMounts": [{"name": "conf", "mountPath": "/conf"}, {"name": "sec", "mountPath": "/sec", "readOnly": True},
                                     {"name": "scratch", "mountPath": "/scratch"}]}))
    done = finished(e, "reader")
    words = e.kubectl("logs", "reader").split()
    check(words[:6] == ["hello-world", "hunter2", "o", "first", "hunter2", "reader"], f"log: {words}")
    check(words[6] == done["status"]["podIP"] and words[7] == done["spec"]["nodeName"] and "shared" in words, f"log: {words}")


def case_configmap_update_reaches_the_volume(e):
    e.kubectl("create", "configmap", "conf", "--from-literal=key=one")
    e.apply(pod("follower", "while sleep 0.2; do cat /conf/key; echo; done", volumes=[{"name": "conf", "configMap": {"name": "conf"}}],
                container={"volumeMounts": [{"name": "conf", "mountPath": "/conf"}]}))
    e.ready_pods("name=follower", 1)
    e.kubectl("patch", "configmap", "conf", "-p", '{"data":{"key":"two"}}')
    e.wait("the new value in the mounted file", lambda: "two" in e.kubectl("logs", "follower", "--tail=1"), 90)


def case_missing_configmap_then_made(e):
    e.apply(pod("waiting", "sleep 300", container={"envFrom": [{"configMapRef": {"name": "later"}}]}))

    def reason():
        states = e.get("pod", "waiting")["status"].get("containerStatuses", [])
        return states and states[0]["state"].get("waiting", {})
    waiting = e.wait("a reason for waiting", lambda: (r := reason()) and r.get("reason") == "CreateContainerConfigError" and r)
    check('configmap "later" not found' in waiting["message"], f"message: {waiting}")
    e.kubectl("create", "configmap", "later", "--from-literal=a=b")
    e.ready_pods("name=waiting", 1, 60)


def case_init_containers(e):
    e.apply(pod("ordered", "cat /w/log", restartPolicy="Never", volumes=[{"name": "w", "emptyDir": {"medium": "Memory"}}],
                initContainers=[{"name": f"i{n}", "image": BUSYBOX, "command": ["sh", "-c", f"echo {n} >> /w/log"],
                                 "volumeMounts": [{"name": "w", "mountPath": "/w"}]} for n in (1, 2)],
                container={"volumeMounts": [{"name": "w", "mountPath": "/w"}]}))
    finished(e, "ordered")
    check(e.kubectl("logs", "ordered").split() == ["1", "2"], "init containers run in order, before the rest")


def case_restart_policy(e):
    e.apply(pod("fails", "exit 3", restartPolicy="Never"), pod("works", "exit 0", restartPolicy="OnFailure"), pod("loops", "echo up; exit 1"))
    failed = finished(e, "fails")
    check(failed["status"]["phase"] == "Failed", "Never: a failed container fails the pod")
    check(failed["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3, "exit code 3 is kept")
    check(finished(e, "works")["status"]["phase"] == "Succeeded", "OnFailure: success ends the pod")

    def crash_loop():
        s = e.get("pod", "loops")["status"].get("containerStatuses", [{}])[0]
        return s.get("restartCount", 0) >= 1 and s["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
    e.wait("CrashLoopBackOff", crash_loop, 60)
    check("CrashLoopBackOff" in e.kubectl("get", "pod", "loops"), "STATUS column")
    check("up" in e.kubectl("logs", "loops", "--previous"), "logs --previous")


def case_readiness_probes(e):
    probes = {"http": {"httpGet": {"path": "/healthz", "port": 8080}}, "tcp": {"tcpSocket": {"port": 8080}}}
    for name, probe in probes.items():
        e.apply(pod(name, image=ECHO, container={"readinessProbe": probe}))
        e.ready_pods(f"name={name}", 1)
    e.apply(pod("exec", "touch /tmp/ok; sleep 3; rm /tmp/ok; sleep 300", container={
        "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/ok"]}, "periodSeconds": 1, "failureThreshold": 1}}))
    e.ready_pods("name=exec", 1)
    e.wait("not Ready after the file is gone", lambda: not condition(e.get("pod", "exec"), "Ready"))
    check(e.get("pod", "exec")["status"]["containerStatuses"][0]["restartCount"] == 0, "readiness never restarts")


def case_unready_pod_leaves_the_service(e):
    e.apply(pod("flaky", "touch /tmp/ok; httpd -p 8080 -h /tmp; sleep 300", container={
        "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/ok"]}, "periodSeconds": 1, "failureThreshold": 1}}))
    e.ready_pods("name=flaky", 1)
    e.kubectl("expose", "pod", "flaky", "--port=80", "--target-port=8080")
    ready = lambda: [a for s in e.get("endpoints", "flaky").get("subsets", []) for a in s.get("addresses", [])]  # noqa: E731
    e.wait("an address", ready)
    # The file is in the container's root; the sandbox's processes have none of that name.
    node = e.cluster.hosts[e.get("pod", "flaky")["spec"]["nodeName"]]
    run(*node.inside("sh", "-c", "rm -f /proc/[0-9]*/root/tmp/ok"))
    e.wait("no ready address", lambda: not ready())
    slices = e.get("endpointslices", None, "-l", "kubernetes.io/service-name=flaky")["items"]
    check(slices[0]["endpoints"][0]["conditions"]["ready"] is False, f"slice conditions: {slices[0]['endpoints']}")


def case_liveness_restarts(e):
    e.apply(pod("sick", "sleep 300", container={
        "livenessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2}}))
    e.wait("a restart", lambda: e.get("pod", "sick")["status"].get("containerStatuses", [{}])[0].get("restartCount", 0) >= 1, 40)


def case_owner_references(e):
    e.deployment("web", 2)
    rs = e.get("replicasets")["items"][0]
    check(rs["metadata"]["ownerReferences"][0]["kind"] == "Deployment", "the ReplicaSet names its owner")
    e.kubectl("delete", "deployment", "web", "--cascade=orphan")
    check(len(e.pods("app=web")) == 2 and e.get("replicasets")["items"], "orphans stay")
    e.kubectl("delete", "replicaset", rs["metadata"]["name"])
    e.ready_pods("app=web", 0)
    e.deployment("web", 2)
    e.kubectl("delete", "deployment", "web")
    e.ready_pods("app=web", 0)
    e.wait("no ReplicaSet", lambda: not e.get("replicasets")["items"])


def case_lost_pod_is_replaced(e):
    pods = e.deployment("web", 3)
    e.kubectl("delete", "pod", pods[0]["metadata"]["name"])
    fresh = e.ready_pods("app=web", 3)
    check({p["metadata"]["name"] for p in fresh} != {p["metadata"]["name"] for p in pods}, "a new pod takes the place")


def case_scheduling(e):
    e.kubectl("label", "node", "node-2", "disk=ssd", "--overwrite", namespace=False)
    e.apply(pod("picky", image=ECHO, nodeSelector={"disk": "ssd"}))
    check(e.ready_pods("name=picky", 1)[0]["spec"]["nodeName"] == "node-2", "node selector")
    e.apply(pod("nowhere", image=ECHO, nodeSelector={"disk": "tape"}),
            pod("huge", image=ECHO, container={"resources": {"requests": {"cpu": "1000"}}}))

    def message(name):
        for c in e.get("pod", name)["status"].get("conditions", []):
            if c["type"] == "PodScheduled" and c["status"] == "False":
                return c["message"]
    said = e.wait("a reason", lambda: message("huge"))
    check("0/3 nodes are available: 3 Insufficient cpu" in said, said)
    check("0/3 nodes are available" in e.wait("a reason", lambda: message("nowhere")), "node selector that fits no node")
    check("FailedScheduling" in e.kubectl("describe", "pod", "huge"), "event")
    e.kubectl("taint", "node", "node-3", "only=me:NoSchedule", namespace=False)
    try:
        pods = e.deployment("web", 4)
        check(all(p["spec"]["nodeName"] != "node-3" for p in pods), "a taint keeps pods away")
    finally:
        e.kubectl("taint", "node", "node-3", "only-", namespace=False)
        e.kubectl("label", "node", "node-2", "disk-", namespace=False)
    e.kubectl("label", "node", "node-1", "disk=tape", namespace=False)
    try:
        e.ready_pods("name=nowhere", 1)
    finally:
        e.kubectl("label", "node", "node-1", "disk-", namespace=False)


def container_ids(e, label):
    return sorted(s["containerID"] for p in e.pods(label) for s in p["status"]["containerStatuses"])


def case_agent_and_containerd_restart_keep_containers(e):
    e.deployment("web", 6)
    before = container_ids(e, "app=web")
    for service in ("agent", "containerd"):
        for node in e.cluster.nodes:
            old = node.service_pid(service)
            os.kill(old, signal.SIGKILL)
            e.wait(f"{service} on {node.name} again", lambda: node.service_pid(service) not in (None, old))
        e.wait("nodes Ready", lambda: all(condition(n, "Ready") for n in e.get("nodes")["items"]))
        e.kubectl("delete", "pod", e.pods("app=web")[0]["metadata"]["name"])  # it still acts
        e.ready_pods("app=web", 6, 60)
        after = container_ids(e, "app=web")
        check(len(set(before) & set(after)) == 5, f"{service} restart: 5 of 6 containers go on, {len(set(before) & set(after))} did")
        check(all(s["restartCount"] == 0 for p in e.pods("app=web") for s in p["status"]["containerStatuses"]), "no restarts")
        before = after
