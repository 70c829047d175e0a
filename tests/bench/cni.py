# SPDX-License-Identifier: Apache-2.0
"""One pod attached and detached by the CNI plugin, and 100 at once, against Debian's bridge with host-local.

Each operation is a process, started by cni_driver.cc in a network namespace of its own, as a runtime does it; CPU includes what an operation leaves
running. The limit is that driver as a program of its own which issues only the bare netlink messages."""
import json
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build")
PEER = "/usr/lib/cni/bridge"
SEQUENTIAL, PARALLEL = 20, 100
LATENCY_SHARE, CPU_SHARE = 5, 10  # the targets: at most 1/5 of the peer's time and 1/10 of its CPU


def _measure(binary, config, folder, build):
    path = os.path.join(folder, "config")
    with open(path, "w") as f:
        json.dump(config, f)
    driver = os.path.join(build, "tests/bench/hawser-cni-bench")
    run = subprocess.run([driver, str(SEQUENTIAL), str(PARALLEL), path, binary], capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"bench: {binary} failed: {run.stdout[-300:]}{run.stderr[-300:]}")
    return json.loads(run.stdout)


def _subjects(folder, build):
    node_file = os.path.join(folder, "node.json")
    with open(node_file, "w") as f:
        json.dump({"node": "bench", "podCIDRs": ["10.244.0.0/22"], "mtu": 1450}, f)
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.245.0.0/22"}]], "dataDir": os.path.join(folder, "host-local")}
    return {"ours": (os.path.join(build, "cni-plugin/hawser"), {"cniVersion": "1.0.0", "name": "bench", "type": "hawser", "nodeFile": node_file}),
            "peer": (PEER, {"cniVersion": "1.0.0", "name": "peer", "type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "mtu": 1450, "ipam": ipam}),
            "limit": ("limit", {})}


def run(report, rounds, build=BUILD):
    if not os.access(PEER, os.X_OK):
        print("bench: needs /usr/lib/cni/bridge (containernetworking-plugins)", file=sys.stderr)
        return
    rows = {}
    for i in range(rounds + 1):
        for who in ("ours", "peer", "limit"):
            with tempfile.TemporaryDirectory() as folder:
                binary, config = _subjects(folder, build)[who]
                result = _measure(binary, config, folder, build)
            if i:  # the first round warms caches and is not counted
                for key, value in result.items():
                    rows.setdefault(key, {}).setdefault(who, []).append(statistics.median(value) if isinstance(value, list) else value)
    for key, name, share in (("ADD_ms", "cni-add", LATENCY_SHARE), ("DEL_ms", "cni-del", LATENCY_SHARE),
                             ("ADD_cpu_ms", "cni-add-cpu", CPU_SHARE), ("DEL_cpu_ms", "cni-del-cpu", CPU_SHARE),
                             ("ADD_parallel_ms", f"cni-{PARALLEL}-adds", LATENCY_SHARE), ("DEL_parallel_ms", f"cni-{PARALLEL}-dels", LATENCY_SHARE)):
        row = rows[key]
        report.add(name, "ms", row["ours"], round(statistics.median(row["peer"]) / share, 3), peer=row["peer"], peer_name="bridge, host-local",
                   limit=row["limit"])
