# SPDX-License-Identifier: Apache-2.0
"""kill -9 of each daemon while requests run through the ClusterIP and the NodePort: none fails, and everything converges again."""
import os
import signal
import subprocess

from harness import check, condition


def _kill(e, host, service):
    old = e.wait(f"{service} on {host.name}", lambda: host.service_pid(service))
    os.kill(old, signal.SIGKILL)
    e.wait(f"{service} on {host.name} again", lambda: host.service_pid(service) not in (None, old), 15)


def _targets(e):
    for service in ("proxyd", "overlayd", "agent"):
        for node in e.cluster.nodes:
            yield node, service
    yield e.cluster.hosts["control"], "controlplane"


def case_kill_each_daemon_under_load(e):
    e.deployment("web", 3)
    service = e.expose("web", "--type=NodePort")
    vip, port = service["spec"]["clusterIP"], service["spec"]["ports"][0]["nodePort"]
    client = e.cluster.nodes[0]
    url = f"http://{e.cluster.nodes[1].address}:{port}"
    e.reaches_all(client.net(), f"http://{vip}", 3)
    e.reaches_all(e.cluster.hosts["outside"].net(), url, 3)
    with e.load(client.net(), f"http://{vip}", url) as inside, e.load(e.cluster.hosts["outside"].net(), url) as outside:
        for host, name in _targets(e):
            _kill(e, host, name)
        e.wait("the API server", lambda: e.cluster.api_ok("/readyz"))
    for who, result in (("node", inside), ("outside", outside)):
        check(result["failed"] == 0 and result["ok"] > 50, f"requests from {who}: {result}")
    # All of it still works: a change goes through every daemon.
    e.wait("nodes Ready", lambda: all(condition(n, "Ready") for n in e.get("nodes")["items"]))
    e.kubectl("scale", "deployment", "web", "--replicas=5")
    e.ready_pods("app=web", 5, 60)
    e.reaches_all(client.net(), f"http://{vip}", 5)


def case_restart_changes_nothing_in_the_kernel(e):
    """A daemon's start changes nothing that is right: links keep their ifindex, rules their handles."""
    e.deployment("web", 2)
    e.expose("web")
    node = e.cluster.nodes[0]

    def kernel():
        links = subprocess.run(node.net("ip", "-o", "link"), capture_output=True, text=True).stdout
        rules = subprocess.run(node.net("nft", "-a", "list", "ruleset"), capture_output=True, text=True).stdout
        routes = subprocess.run(node.net("ip", "route"), capture_output=True, text=True).stdout
        fdb = subprocess.run(node.net("bridge", "fdb", "show"), capture_output=True, text=True).stdout
        strip = [l for l in rules.splitlines() if "counter packets" not in l and "expires" not in l]
        return sorted(links.splitlines()), strip, sorted(routes.splitlines()), sorted(fdb.splitlines())
    # Pick chains of endpoint counts that no Service has any more may stay until a start; so the comparison begins after one.
    _kill(e, node, "proxyd")
    subprocess.run(["sleep", "2"])
    before = e.wait("a quiet kernel state", lambda: (k := kernel()) == kernel() and k)
    for service in ("overlayd", "proxyd"):
        _kill(e, node, service)
    subprocess.run(["sleep", "2"])
    after = kernel()
    for what, a, b in zip(("links", "rules", "routes", "fdb"), before, after):
        check(a == b, f"{what} changed by a restart: {set(map(str, a)) ^ set(map(str, b))}")


def case_api_server_away(e):
    """The API server is down for a while: what runs goes on, and what died meanwhile is noticed afterwards."""
    e.deployment("web", 3)
    vip = e.expose("web")["spec"]["clusterIP"]
    e.reaches_all(e.cluster.nodes[0].net(), f"http://{vip}", 3)
    control = e.cluster.hosts["control"]
    with e.load(e.cluster.nodes[0].net(), f"http://{vip}") as result:
        pid = control.service_pid("controlplane")
        os.kill(pid, signal.SIGSTOP)
        subprocess.run(["sleep", "5"])
        os.kill(pid, signal.SIGKILL)
        e.wait("the API server", lambda: e.cluster.api_ok("/readyz"))
    check(result["failed"] == 0 and result["ok"] > 50, f"requests: {result}")
    e.kubectl("scale", "deployment", "web", "--replicas=4")
    e.ready_pods("app=web", 4, 60)
