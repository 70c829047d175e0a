# SPDX-License-Identifier: Apache-2.0
"""30 replicas from `kubectl create deployment` to all Ready, and back to none.

The limit is the same work asked of the three containerds directly, with nothing above them: sandbox, container and start through CRI, ten pods a
node, all nodes at once (cri_limit.cc). There is no Kubernetes among Debian's packages to run beside it; the recorded figures of Kubernetes 1.20.2 in the
same lab on such a machine are 3.4 to 3.9 s up and 44 to 56 s down."""
import subprocess
import time

from setup import Lab

REPLICAS = 30
RECORDED = "kubernetes 1.20.2, recorded: up 3.4-3.9 s, down 44-56 s"


def _wait(test, seconds=120):
    end = time.monotonic() + seconds
    while not test():
        if time.monotonic() > end:
            raise SystemExit("bench: pods did not get there in time")
        time.sleep(0.02)


def _ready(lab):
    pods = lab.pods()
    return sum(any(c["type"] == "Ready" and c["status"] == "True" for c in p.get("status", {}).get("conditions", [])) for p in pods)


def _limit(lab):
    """Seconds that the three containerds need for the same pods on their own, up and down."""
    processes = [subprocess.Popen(node.inside(lab.cluster.binary("tests/bench/hawser-cri-limit"), str(REPLICAS // len(lab.cluster.nodes))),
                                  stdout=subprocess.PIPE, text=True) for node in lab.cluster.nodes]
    times = [tuple(map(float, p.communicate(timeout=120)[0].split())) for p in processes]
    return max(t[0] for t in times), max(t[1] for t in times)


def run(report, rounds):
    up, down, limit_up, limit_down = [], [], [], []
    with Lab() as lab:
        for i in range(rounds + 1):
            a, b = _limit(lab)
            start = time.monotonic()
            lab.kubectl("create", "deployment", "bench", "--image=localhost/hawser-echo:1", f"--replicas={REPLICAS}")
            _wait(lambda: _ready(lab) == REPLICAS)
            ready = time.monotonic()
            lab.kubectl("delete", "deployment", "bench", "--wait=false")
            _wait(lambda: not lab.pods())
            gone = time.monotonic()
            if i:  # the first round warms caches and is not counted
                up.append(ready - start)
                down.append(gone - ready)
                limit_up.append(a)
                limit_down.append(b)
    report.add("pods-30-ready", "s", up, 3.0, peer_name=RECORDED, limit=limit_up)
    report.add("pods-30-gone", "s", down, 5.0, peer_name=RECORDED, limit=limit_down)
