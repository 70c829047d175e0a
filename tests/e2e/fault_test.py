# SPDX-License-Identifier: Apache-2.0
"""Faults while pods come and go: whatever is killed and whenever, everything converges and nothing of a pod stays on its node."""
import os
import random
import signal
import subprocess
import time

from harness import check, condition
from workload_test import pod

GRACE_SECONDS = 40  # how long a node may be silent before it counts as gone


def leftovers(e):
    """{node: {what: names}} of everything on the nodes that belongs to pods. Empty when no pod is left.

    Names in /run/netns are not counted: containerd 1.6 pins a namespace before it records the sandbox, and one killed in between forgets the name. Nothing
    is in such a namespace: links and addresses are counted."""
    found = {}
    for node in e.cluster.nodes:
        agent, logs = os.path.join(node.folder, "agent", "pods"), os.path.join(node.folder, "log", "pods")
        commands = {
            "containers": "ctr -n k8s.io containers ls -q", "tasks": "ctr -n k8s.io tasks ls -q", "pod folders": f"ls {agent}", "log folders": f"ls {logs}",
            "mounts": f"grep -o ' {agent}/[^ ]*' /proc/self/mountinfo",
            "cgroups": "find /sys/fs/cgroup -type d -name 'pod[0-9a-f]*-*'", "addresses": "find /run/hawser/ipam -type f -name '10.*'",
            "links": "ip -o link show type veth | cut -d: -f2 | grep -v eth0"}
        for what, command in commands.items():
            names = subprocess.run(node.inside("sh", "-c", command), capture_output=True, text=True).stdout.split()
            if names:
                found.setdefault(node.name, {})[what] = names[:5]
    return found


def no_leftovers(e, seconds=90):
    # Folders of a pod whose agent was killed between two steps are swept every 30 s.
    end = time.monotonic() + seconds
    while (left := leftovers(e)) and time.monotonic() < end:
        time.sleep(1)
    check(not left, f"left on the nodes: {left}")


def tell_what_is_left(e, label):
    """For a failure that cannot be had again at will: the pods, and the last words of the daemons of their nodes."""
    pods = e.pods(label)
    print(f"  leftovers: {leftovers(e)}")
    for p in pods:
        containers = [(c["name"], c["state"]) for c in p["status"].get("containerStatuses", [])]
        print(f"  {p['metadata']['name']} on {p['spec'].get('nodeName')}, deleted {p['metadata'].get('deletionTimestamp')}: {p['status'].get('phase')} {containers}")
    for log in [os.path.join(e.cluster.hosts["control"].folder, "log", "controlplane.log")] + [
            os.path.join(e.cluster.hosts[n].folder, "log", f"{s}.log") for n in sorted({p["spec"].get("nodeName") for p in pods} - {None}) for s in ("agent", "containerd")]:
        with open(log, errors="replace") as f:
            print(f"  {log}:", *f.read().splitlines()[-12:], sep="\n    ", flush=True)


def pods_of_others(e):
    return [p for p in e.cluster.api("GET", "/api/v1/pods")["items"] if p["metadata"]["namespace"] != e.namespace]


def case_kills_during_creation_and_deletion(e):
    e.wait("the pods of earlier cases to go", lambda: not pods_of_others(e), 60)
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    e.kubectl("create", "secret", "generic", "sec", "--from-literal=a=b")
    victims = [(n, s) for n in e.cluster.nodes for s in ("agent", "containerd")] + [(e.cluster.hosts["control"], "controlplane")]

    def kill_some(count):
        for _ in range(count):
            time.sleep(chance.uniform(0.05, 0.5))
            host, service = chance.choice(victims)
            pid = host.service_pid(service)
            if pid:
                os.kill(pid, signal.SIGKILL)

    def settled(count):
        return e.ready_pods("app=storm", count, 120)
    template = pod("x", "sleep 3000", volumes=[{"name": "s", "secret": {"secretName": "sec"}}], container={"volumeMounts": [{"name": "s", "mountPath": "/s"}]})
    try:
        e.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "storm"}, "spec": {
            "replicas": 50, "selector": {"matchLabels": {"app": "storm"}},
            "template": {"metadata": {"labels": {"app": "storm"}}, "spec": template["spec"]}}})
        kill_some(6)
        e.wait("the API server", lambda: e.cluster.api_ok("/readyz"), 60)
        settled(50)
        e.kubectl("delete", "deployment", "storm", "--wait=false")
        kill_some(6)
        e.wait("the API server", lambda: e.cluster.api_ok("/readyz"), 60)
        settled(0)
        no_leftovers(e)
    except Exception:
        print(f"  random seed {seed}", flush=True)
        tell_what_is_left(e, "app=storm")
        raise


def case_silent_node(e):
    """An agent that is not heard of: its node is not Ready, its pods leave; heard again: all is Ready at once."""
    tolerations = [{"key": f"node.kubernetes.io/{k}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": s}
                   for k, s in (("unreachable", 300), ("not-ready", 300))]
    node = e.cluster.nodes[1]
    stays = pod("stays", "sleep 3000", nodeSelector={"kubernetes.io/hostname": node.name}, tolerations=tolerations)
    leaves = pod("leaves", "sleep 3000", nodeSelector={"kubernetes.io/hostname": node.name},
                 tolerations=[{**t, "tolerationSeconds": 2} for t in tolerations])
    e.apply(stays, leaves)
    e.ready_pods("name=stays", 1)
    e.ready_pods("name=leaves", 1)
    agent = node.service_pid("agent")
    os.kill(agent, signal.SIGSTOP)
    try:
        e.wait("the node not Ready", lambda: not condition(e.get("node", node.name), "Ready"), GRACE_SECONDS + 25)
        e.wait("its pods not Ready", lambda: not condition(e.get("pod", "stays"), "Ready"), 10)
        e.wait("the pod to be told to leave", lambda: "deletionTimestamp" in e.get("pod", "leaves")["metadata"], 20)
    finally:
        os.kill(agent, signal.SIGCONT)
    e.wait("the node Ready", lambda: condition(e.get("node", node.name), "Ready"), 15)
    e.ready_pods("name=stays", 1, 15)
    e.wait("the other pod gone", lambda: not e.pods("name=leaves"), 15)
    e.wait("no taint left", lambda: not e.get("node", node.name)["spec"].get("taints"), 10)
    check(e.get("pod", "stays")["status"]["containerStatuses"][0]["restartCount"] == 0, "the container ran on")


def case_node_object_deleted(e):
    """Somebody deletes a Node that lives: it registers again."""
    node = e.cluster.nodes[2]
    before = e.get("node", node.name)["metadata"]["uid"]
    e.kubectl("delete", "node", node.name, namespace=False)
    e.wait("the Node again", lambda: any(n["metadata"]["uid"] != before and n["metadata"]["name"] == node.name and condition(n, "Ready")
                                         for n in e.get("nodes")["items"]), 30)


def case_secrets_lie_in_memory(e):
    e.kubectl("create", "secret", "generic", "sec", "--from-literal=a=b")
    e.apply(pod("holder", "sleep 3000", volumes=[{"name": "s", "secret": {"secretName": "sec"}}], container={"volumeMounts": [{"name": "s", "mountPath": "/s"}]}))
    p = e.ready_pods("name=holder", 1)[0]
    node = e.cluster.hosts[p["spec"]["nodeName"]]

    def mounts():
        text = subprocess.run(node.inside("cat", "/proc/self/mountinfo"), capture_output=True, text=True).stdout
        return [line for line in text.splitlines() if p["metadata"]["uid"] in line]
    check(any("kubernetes.io~secret/s" in m and " tmpfs " in m for m in mounts()), f"mounts: {mounts()}")
    os.kill(node.service_pid("agent"), signal.SIGKILL)
    e.kubectl("delete", "pod", "holder", "--grace-period=0", "--force")
    e.wait("no mount of the pod", lambda: not mounts(), 60)
