# SPDX-License-Identifier: Apache-2.0
"""The packet paths: pods, ClusterIP, NodePort, UDP, sources, endpoints that come and go."""
import json
import subprocess

from harness import check, run


def other_node(e, pod):
    return next(n for n in e.cluster.nodes if n.name != pod["spec"]["nodeName"])


def case_service_paths(e):
    pods = e.deployment("web", 3)
    service = e.expose("web", "--type=NodePort")
    vip, port = service["spec"]["clusterIP"], service["spec"]["ports"][0]["nodePort"]
    client = e.cluster.pod_net(pods[0])
    node = other_node(e, pods[0])
    outside = e.cluster.hosts["outside"].net()
    e.reaches_all(client, f"http://{vip}", 3)
    for who, argv, url in (("pod to ClusterIP", client, f"http://{vip}"), ("node to ClusterIP", node.net(), f"http://{vip}"),
                           ("node to its own NodePort", node.net(), f"http://{node.address}:{port}"),
                           ("node to a NodePort on loopback", node.inside(), f"http://127.0.0.1:{port}"),
                           ("node to another's NodePort", node.net(), f"http://{e.cluster.hosts[pods[0]['spec']['nodeName']].address}:{port}"),
                           ("pod to NodePort", client, f"http://{node.address}:{port}"),
                           ("outside to NodePort", outside, f"http://{node.address}:{port}")):
        answered = set(e.answers(argv, url, 40))
        check(len(answered) == 3, f"{who}: {len(answered)} of 3 replicas answered 40 requests")


def case_sources(e):
    pods = e.deployment("web", 3)
    service = e.expose("web", "--type=NodePort")
    client = e.cluster.pod_net(pods[0])

    def seen(argv, url):
        out = run(*argv, "curl", "-sS", "--max-time", "3", url)
        return dict(p.split("=", 1) for p in out.split())["client"].rsplit(":", 1)[0]
    far = next(p for p in pods if p["spec"]["nodeName"] != pods[0]["spec"]["nodeName"])
    check(seen(client, f"http://{far['status']['podIP']}:8080") == pods[0]["status"]["podIP"], "pod to pod keeps the source")
    e.reaches_all(client, f"http://{service['spec']['clusterIP']}", 3)
    sources = {seen(client, f"http://{service['spec']['clusterIP']}") for _ in range(20)}
    # The pod reaches itself through the VIP as well (hairpin); only there is the source another.
    check(pods[0]["status"]["podIP"] in sources and len(sources) <= 2, f"pod to ClusterIP keeps the source: {sources}")
    e.cluster.hosts["outside"].net()
    node = e.cluster.nodes[0]
    source = seen(e.cluster.hosts["outside"].net(), f"http://{node.address}:{service['spec']['ports'][0]['nodePort']}")
    check(source != e.cluster.hosts["outside"].address, f"outside to NodePort is masqueraded, the pod saw {source}")


def case_udp_service(e):
    pods = e.deployment("web", 2)
    e.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "udp"},
             "spec": {"selector": {"app": "web"}, "ports": [{"port": 53, "targetPort": 8080, "protocol": "UDP"}]}})
    vip = e.get("service", "udp")["spec"]["clusterIP"]
    script = ("import socket,sys\nn=set()\nfor i in range(40):\n s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.settimeout(2)\n"
              f" s.sendto(b'x',('{vip}',53));n.add(s.recv(999).split()[0]);s.close()\nprint(len(n))")
    client = e.cluster.pod_net(pods[0])
    e.wait("UDP answers of both pods", lambda: subprocess.run([*client, "python3", "-c", script], capture_output=True,
                                                             text=True).stdout.strip() == "2", 15)


def case_udp_client_follows_the_endpoint(e):
    """A UDP socket that is never closed reaches the new pod after the old one is gone [X01]."""
    e.deployment("web", 1)
    e.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "udp"},
             "spec": {"selector": {"app": "web"}, "ports": [{"port": 53, "targetPort": 8080, "protocol": "UDP"}]}})
    vip = e.get("service", "udp")["spec"]["clusterIP"]
    script = ("import socket,sys,time\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.settimeout(0.2)\n"
              f"while True:\n try:\n  s.sendto(b'x',('{vip}',53));print(s.recv(999).split()[0].decode(),flush=True)\n"
              " except OSError: print('none',flush=True)\n time.sleep(0.05)")
    client = subprocess.Popen([*e.cluster.nodes[0].net(), "python3", "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        def next_pod(not_this=None):
            for _ in range(400):
                line = client.stdout.readline().strip()
                if line.startswith("pod=") and line != not_this:
                    return line
            check(False, "no answer from a pod other than " + str(not_this))
        first = next_pod()
        e.kubectl("delete", "pod", first[4:], "--now")
        e.ready_pods("app=web", 1)
        next_pod(not_this=first)
    finally:
        client.kill()
        client.wait()


def case_no_endpoints_is_refused(e):
    e.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "empty"},
             "spec": {"type": "NodePort", "selector": {"app": "none"}, "ports": [{"port": 80}]}})
    service = e.get("service", "empty")
    for url in (f"http://{service['spec']['clusterIP']}", f"http://192.0.2.12:{service['spec']['ports'][0]['nodePort']}"):
        def refused():
            p = subprocess.run([*e.cluster.nodes[0].net(), "curl", "-sS", "--max-time", "2", url], capture_output=True, text=True)
            return p.returncode == 7
        e.wait(f"{url} is refused", refused, 5)


def case_endpoints_come_and_go_without_failures(e):
    pods = e.deployment("web", 4)
    vip = e.expose("web")["spec"]["clusterIP"]
    e.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client", "labels": {"name": "client"}},
             "spec": {"containers": [{"name": "c", "image": "localhost/hawser-echo:1"}]}})
    client = e.cluster.pod_net(e.ready_pods("name=client", 1)[0])
    e.reaches_all(client, f"http://{vip}", 4)
    with e.load(client, f"http://{vip}") as result:
        for replicas in (6, 8, 6, 8):
            e.kubectl("scale", "deployment", "web", f"--replicas={replicas}")
            e.ready_pods("app=web", replicas)
    check(result["ok"] > 100, f"requests: {result}")
    # echo ends at once on SIGTERM, so a request that is under way in that instant may fail: scaling down is not counted here beyond that.
    check(result["failed"] <= 8, f"requests failed while scaling: {result}")
    del pods


def case_rolling_update_under_load(e):
    """Pods that wait in preStop until the endpoints are gone: not one request fails."""
    labels = {"app": "calm"}
    e.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "calm"}, "spec": {
        "replicas": 3, "selector": {"matchLabels": labels}, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 10, "containers": [{
            "name": "main", "image": "localhost/hawser-busybox:1", "command": ["sh", "-c", "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"],
            "lifecycle": {"preStop": {"exec": {"command": ["sleep", "2"]}}},
            "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}}]}}}})
    e.ready_pods("app=calm", 3)
    vip = e.expose("calm")["spec"]["clusterIP"]
    node = e.cluster.nodes[0]
    e.wait("the service answers", lambda: subprocess.run([*node.net(), "curl", "-fs", f"http://{vip}"], capture_output=True).returncode == 0)
    with e.load(node.net(), f"http://{vip}") as result:
        e.kubectl("rollout", "restart", "deployment/calm")
        e.kubectl("rollout", "status", "deployment/calm", "--timeout=60s", timeout=90)
        e.ready_pods("app=calm", 3, 30)
    check(result["failed"] == 0 and result["ok"] >= 50, f"requests during the update: {result}")


def case_session_affinity(e):
    pods = e.deployment("web", 3)
    e.expose("web", "--session-affinity=ClientIP")
    vip = e.get("service", "web")["spec"]["clusterIP"]
    client = e.cluster.pod_net(pods[0])
    e.wait("the service answers", lambda: _answers(e, client, f"http://{vip}"))
    check(len(set(e.answers(client, f"http://{vip}", 20))) == 1, "one client stays at one replica")


def _answers(e, argv, url):
    return subprocess.run([*argv, "curl", "-fs", "--max-time", "1", url], capture_output=True).returncode == 0


def case_kubernetes_service(e):
    service = e.cluster.api("GET", "/api/v1/namespaces/default/services/kubernetes")
    check(service["spec"]["clusterIP"] == "10.96.0.1", "the first address of the range")
    out = run(*e.cluster.nodes[0].net("curl", "-sSk", "--max-time", "3", "https://10.96.0.1/version"), check=False)
    check("gitVersion" in out or "Unauthorized" in out, f"the API server answers on its ClusterIP: {out[:200]}")


def case_full_size_packets_across_nodes(e):
    pods = e.deployment("web", 2)
    a, b = pods
    check(a["spec"]["nodeName"] != b["spec"]["nodeName"], "two pods on two nodes")
    link = json.loads(run(*e.cluster.pod_net(a, "ip", "-j", "link", "show", "eth0")))[0]
    size = link["mtu"] - 28
    run(*e.cluster.pod_net(a, "ping", "-c1", "-W2", "-M", "do", "-s", str(size), b["status"]["podIP"]))
