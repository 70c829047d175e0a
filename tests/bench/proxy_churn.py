# SPDX-License-Identifier: Apache-2.0
"""10,000 endpoint changes a minute for ten minutes (--seconds), with traffic, proxyd ended or killed every five seconds.

A real hawser-controlplane and a real hawser-proxyd in namespaces of their own; tests/churn/ledger.h says what counts as late and as a failure."""
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build")
CHANGES_A_MINUTE = 10000
SECONDS = 600
# Name in the program's answer, row, unit, target.
ROWS = (("failures", "failures", "requests", 0), ("late", "late", "requests", 0), ("late_at_restart", "late-at-restart", "requests", 0),
        ("lost_with_endpoint", "datagrams-lost-with-endpoint", "datagrams", None), ("latest_ms", "latest", "ms", 50),
        ("latest_running_ms", "latest-without-restart", "ms", 50), ("start_median_ms", "start-median", "ms", None), ("start_worst_ms", "start-worst", "ms", None),
        ("dead_within_grace", "dead-within-50ms", "requests", None))


def run(report, seconds, build=BUILD):
    programs = [os.path.join(build, p) for p in ("tests/churn/hawser-proxy-churn", "controlplane/hawser-controlplane", "proxyd/hawser-proxyd")]
    done = subprocess.run([*programs, str(seconds), str(CHANGES_A_MINUTE)], capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"bench: hawser-proxy-churn failed: {done.stderr[-300:]}")
    r = json.loads(done.stdout)
    report.add("proxy-churn-changes", "a minute", [r["changes"] * 60 / seconds], CHANGES_A_MINUTE * 0.99, lower_is_better=False)
    for name, value in (("requests", r["requests"]), ("restarts", r["restarts"]), ("kills", r["kills"])):
        report.add(f"proxy-churn-{name}", "in all", [value], None)
    for key, row, unit, target in ROWS:
        report.add(f"proxy-churn-{row}", unit, [r[key]], target)
    for line in r["first_failures"]:
        print(f"bench: {line}", file=sys.stderr, flush=True)
