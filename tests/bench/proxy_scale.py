# SPDX-License-Identifier: Apache-2.0
"""proxyd with 1,000, 10,000 and 50,000 Services of 5 endpoints: load, one change, memory; and what a new connection costs with one and with 10,000.

`./bench proxy-nft` has the peers' loads. Connections go through three kinds of node in turn: one that only tracks them (the limit), one with a single rule that
translates the address (the peer), and ours. Instructions are the processor's count of client, server and kernel, so they hardly depend on what else runs."""
import json
import os
import subprocess
import sys

import proxy_nft

BUILD = proxy_nft.BUILD
CHANGES = 300
CONNECT_SERVICES, CONNECT_SECONDS = 10000, 12
LINEAR = 1.5  # load of a Service at 50,000 against one at 10,000


def _loads(report, rounds, build):
    took = {n: [] for n in proxy_nft.SIZES}
    for _ in range(rounds):
        for services in proxy_nft.SIZES:
            took[services].append(proxy_nft.ours(services, CHANGES, build))
    for services, runs in took.items():
        report.add(f"proxy-scale-load-{services}", "ms", [r["load_ms"] for r in runs], proxy_nft.TARGET_MS[services])
        report.add(f"proxy-scale-load-cpu-{services}", "ms", [r["load_cpu_ms"] for r in runs], None)
        for name, share, target in (("p50", 0.5, 1), ("p99", 0.99, 5)):
            report.add(f"proxy-scale-change-{name}-{services}", "ms", [proxy_nft.percentile(r["change_ms"], share) for r in runs], target)
        report.add(f"proxy-scale-change-cpu-{services}", "ms", [r["change_cpu_ms"] for r in runs], None)
        report.add(f"proxy-scale-rss-{services}", "MiB", [r["rss_mib"] for r in runs], 60 if services == 10000 else None)
    for key, row in (("load_ms", "time"), ("load_cpu_ms", "cpu")):
        report.add(f"proxy-scale-linearity-{row}", "x", [b[key] / a[key] / 5 for a, b in zip(took[10000], took[50000])], LINEAR)


def _connect(build):
    done = subprocess.run([os.path.join(build, "tests/churn/hawser-proxy-connect"), str(CONNECT_SERVICES), str(CONNECT_SECONDS)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"bench: hawser-proxy-connect failed: {done.stderr[-300:]}")
    return json.loads(done.stdout)


def _connections(report, rounds, build):
    """Every row is of slices that lie beside each other in time; a ratio is the median of theirs."""
    runs = [_connect(build) for _ in range(rounds)]
    slices = {name: {what: [v for r in runs for v in r[name][what]] for what in runs[0][name]} for name in runs[0]}
    for what, unit, lower in (("per_second", "a second", False), ("cpu_us", "us", True), ("instructions", "instructions", True)):
        if not slices["one"][what]:
            print(f"bench: {what}: this machine does not count them", file=sys.stderr)
            continue
        for name, row in (("one", 1), ("many", CONNECT_SERVICES)):
            report.add(f"proxy-scale-connect-{what}-{row}", unit, slices[name][what], None, slices["bare_rule"][what], "one dnat rule",
                       slices["direct"][what], lower_is_better=lower)

        def ratio(a, b):
            return [x / y for x, y in zip(slices[a][what], slices[b][what])]
        report.add(f"proxy-scale-connect-{what}-1-to-direct", "x", ratio("one", "direct"), 0.98 if what == "per_second" else None, ratio("bare_rule", "direct"),
                   "one dnat rule", lower_is_better=lower)
        report.add(f"proxy-scale-connect-{what}-{CONNECT_SERVICES}-to-1", "x", ratio("many", "one"), 0.98 if what == "per_second" else 1.02, lower_is_better=lower)


def run(report, rounds, build=BUILD):
    _loads(report, rounds, build)
    _connections(report, rounds, build)
