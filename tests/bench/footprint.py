# SPDX-License-Identifier: Apache-2.0
"""Resident memory and idle CPU of the daemons of one node together, and of the control plane, with 100 pods running.

Memory is the sum of VmRSS, so pages that daemons share (libraries) count once for each. The recorded figures of Kubernetes 1.20.2 in the same lab are 142 MiB
a node for kubelet and kube-proxy alone and 580 MiB for the control plane."""
import os
import time

from pods import _ready, _wait
from setup import Lab

PODS = 100
DAEMONS = ("agent", "overlayd", "proxyd")
IDLE_SECONDS = 10


def _rss_mib(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(l.split()[1]) for l in f if l.startswith("VmRSS:")) / 1024


def _cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(report, rounds):
    node_rss, node_cpu, plane_rss, plane_cpu, single = [], [], [], [], {d: [] for d in DAEMONS}
    with Lab() as lab:
        lab.kubectl("create", "deployment", "bench", "--image=localhost/hawser-echo:1", f"--replicas={PODS}")
        _wait(lambda: _ready(lab) == PODS)
        node = lab.cluster.nodes[0]
        pids = {d: node.service_pid(d) for d in DAEMONS}
        plane = lab.cluster.hosts["control"].service_pid("controlplane")
        for _ in range(rounds):
            before = {p: _cpu_seconds(p) for p in [*pids.values(), plane]}
            time.sleep(IDLE_SECONDS)
            used = {p: (_cpu_seconds(p) - before[p]) / IDLE_SECONDS * 100 for p in before}
            for d, p in pids.items():
                single[d].append(_rss_mib(p))
            node_rss.append(sum(single[d][-1] for d in DAEMONS))
            node_cpu.append(sum(used[p] for p in pids.values()))
            plane_rss.append(_rss_mib(plane))
            plane_cpu.append(used[plane])
    report.add("node-daemons-rss", "MiB", node_rss, 40, peer_name="kubernetes 1.20.2, recorded: 142 MiB (kubelet, kube-proxy)")
    for d in DAEMONS:
        report.add(f"{d}-rss", "MiB", single[d], 40)
    report.add("control-plane-rss", "MiB", plane_rss, 60, peer_name="kubernetes 1.20.2, recorded: 580 MiB")
    report.add("node-daemons-idle-cpu", "% of a core", node_cpu, 5)
    report.add("control-plane-idle-cpu", "% of a core", plane_cpu, 2)
