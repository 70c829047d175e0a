# SPDX-License-Identifier: Apache-2.0
"""The quickstart's demo: six ways a packet goes through the cluster, each tried for real and printed as OK or FAILED with the reason."""
import subprocess
import time

from host import LabError, wait_for

NAMESPACE = "hawser-demo"
REPLICAS = 3


def run(cluster):
    """Runs the demo in its own namespace, which it removes; returns the number of failed rows."""
    print("\nDemo: deployment echo (3 replicas) behind a NodePort Service, in namespace " + NAMESPACE)
    failed = 0
    try:
        pods, service = _set_up(cluster)
        for name, check in _checks(cluster, pods, service):
            try:
                detail = check()
                print(f"  {name:44} OK      {detail}")
            except (LabError, OSError, subprocess.TimeoutExpired) as e:
                failed += 1
                print(f"  {name:44} FAILED  {e}")
    except LabError as e:
        print(f"  set-up FAILED: {e}")
        failed += 1
    finally:
        _take_down(cluster)
    return failed


def _set_up(cluster):
    base = f"/api/v1/namespaces/{NAMESPACE}"
    if cluster.api_ok(base):
        _take_down(cluster)
    cluster.api("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    labels = {"app": "echo"}
    cluster.api("POST", f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments", {
        "metadata": {"name": "echo", "labels": labels},
        "spec": {"replicas": REPLICAS, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "echo", "image": "localhost/hawser-echo:1",
                                     "ports": [{"containerPort": 8080}],
                                     "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}}}]}}}})
    service = cluster.api("POST", base + "/services", {
        "metadata": {"name": "echo"},
        "spec": {"type": "NodePort", "selector": labels, "ports": [{"port": 80, "targetPort": 8080}]}})

    def ready_pods():
        pods = cluster.api("GET", base + "/pods")["items"]
        ready = [p for p in pods if any(c["type"] == "Ready" and c["status"] == "True"
                                        for c in p.get("status", {}).get("conditions", []))]
        return ready if len(ready) == REPLICAS else None

    start = time.monotonic()
    pods = wait_for("3 pods Ready", ready_pods, 30, 0.05)
    print(f"  {'3 pods Ready':44} OK      {time.monotonic() - start:.1f} s, on {', '.join(sorted(p['spec']['nodeName'] for p in pods))}")
    wait_for("all replicas behind the Service", lambda: len(_answers(
        cluster, cluster.hosts["node-1"].net, f"http://{service['spec']['clusterIP']}", 12)) == REPLICAS, 10, 0.05)
    return pods, service


def _take_down(cluster):
    try:
        cluster.api("DELETE", f"/api/v1/namespaces/{NAMESPACE}")
        wait_for(f"namespace {NAMESPACE} gone", lambda: not cluster.api_ok(f"/api/v1/namespaces/{NAMESPACE}"), 20, 0.05)
    except (LabError, OSError):
        pass


def _curl(argv, url):
    p = subprocess.run(argv + ["curl", "-sS", "--max-time", "3", url], capture_output=True, text=True, timeout=10)
    if p.returncode:
        raise LabError(p.stderr.strip() or f"curl: status {p.returncode}")
    answer = dict(part.split("=", 1) for part in p.stdout.split() if "=" in part)
    if "pod" not in answer:
        raise LabError(f"unexpected answer {p.stdout[:80]!r}")
    return answer


def _answers(cluster, net, url, times):
    """The names of the pods that answered."""
    pods = set()
    for _ in range(times):
        try:
            pods.add(_curl(net(), url)["pod"])
        except LabError:
            pass
    return pods


def _spread(argv, url, times=24):
    answers = [_curl(argv, url) for _ in range(times)]
    pods = {a["pod"] for a in answers}
    if len(pods) != REPLICAS:
        raise LabError(f"{times} requests reached {len(pods)} of {REPLICAS} replicas")
    return f"{times} requests, answers from {len(pods)} replicas"


def _checks(cluster, pods, service):
    by_node = {p["spec"]["nodeName"]: p for p in pods}
    first = pods[0]
    here = first["spec"]["nodeName"]
    from_pod = cluster.pod_net(first)
    vip, node_port = service["spec"]["clusterIP"], service["spec"]["ports"][0]["nodePort"]
    outside = cluster.hosts["outside"]

    def same_node():
        # A second pod on the first one's node, so that the packet stays on it whatever the scheduler chose.
        name = "neighbour"
        cluster.api("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", {
            "metadata": {"name": name},
            "spec": {"nodeName": here, "containers": [{"name": "echo", "image": "localhost/hawser-echo:1"}]}})
        ip = wait_for("the neighbour pod's address", lambda: cluster.api(
            "GET", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}").get("status", {}).get("podIP"), 20, 0.05)
        answer = wait_for("an answer of the neighbour pod", lambda: _try(from_pod, f"http://{ip}:8080"), 10, 0.05)
        return _pod_source(answer, first)

    def across():
        other = next((p for n, p in by_node.items() if n != here), None)
        if not other:
            raise LabError("all replicas run on one node")
        return _pod_source(_curl(from_pod, f"http://{other['status']['podIP']}:8080"), first)

    def masqueraded():
        server = subprocess.Popen(
            outside.net(cluster.binary("tests/images/hawser-echo")), env={"PORT": "8080", "NODE_NAME": "outside"},
            stdout=subprocess.DEVNULL)
        try:
            answer = wait_for("an answer from outside", lambda: _try(from_pod, f"http://{outside.address}:8080"), 5, 0.05)
        finally:
            server.kill()
            server.wait()
        seen = answer["client"].rsplit(":", 1)[0]
        if seen != cluster.hosts[here].address:
            raise LabError(f"the outside host saw {seen}, want the node's {cluster.hosts[here].address}")
        return f"the outside host sees the node, {seen}"

    other_node = next(n for n in cluster.nodes if n.name != here)
    return [
        ("pod to pod, same node", same_node),
        ("pod to pod, across nodes (VXLAN)", across),
        (f"pod to ClusterIP {vip}:80", lambda: _spread(from_pod, f"http://{vip}")),
        (f"node {other_node.name} to ClusterIP", lambda: _spread(other_node.net(), f"http://{vip}")),
        (f"node {other_node.name} to NodePort {node_port}", lambda: _spread(
            other_node.net(), f"http://{other_node.address}:{node_port}")),
        (f"outside host to NodePort {node_port}", lambda: _spread(outside.net(), f"http://{other_node.address}:{node_port}")),
        ("pod to outside, masqueraded", masqueraded),
    ]


def _try(argv, url):
    try:
        return _curl(argv, url)
    except LabError:
        return None


def _pod_source(answer, pod):
    seen = answer["client"].rsplit(":", 1)[0]
    if seen != pod["status"]["podIP"]:
        raise LabError(f"{answer['pod']} saw {seen}, want the pod's own {pod['status']['podIP']}")
    return f"{answer['pod']} on {answer['node']} sees the pod's own address {seen}"
