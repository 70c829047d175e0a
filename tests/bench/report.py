# SPDX-License-Identifier: Apache-2.0
"""Rows of results, as JSON lines or as a table, and the facts of the machine they were measured on."""
import json
import os
import platform
import statistics
import sys

COLUMNS = ("name", "unit", "ours", "peer", "peer_name", "limit", "ratio", "target", "met", "n", "spread")


def machine():
    with open("/proc/cpuinfo") as f:
        model = next((l.split(":", 1)[1].strip() for l in f if l.startswith("model name")), "unknown CPU")
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} x {model}, {gib:.0f} GiB, Linux {platform.release()}"


class Report:
    def __init__(self, as_json):
        self.as_json, self.rows = as_json, []
        print(f"# {machine()}", file=sys.stderr)

    def add(self, name, unit, ours, target, peer=None, peer_name=None, limit=None, lower_is_better=True):
        """ours, peer, limit: lists of rounds (peer and limit may be None). target: what `ours` must reach (None: nothing)."""
        median = statistics.median(ours)
        versus = statistics.median(peer) if peer else None
        row = {
            "name": name, "unit": unit, "ours": round(median, 3), "peer": round(versus, 3) if peer else None, "peer_name": peer_name,
            "limit": round(statistics.median(limit), 3) if limit else None,
            "ratio": float(f"{median / versus:.3g}") if versus else None, "target": target,
            "met": None if target is None else (median <= target) if lower_is_better else (median >= target), "n": len(ours),
            "spread": round((max(ours) - min(ours)) / median, 3) if median else 0}
        self.rows.append(row)
        if self.as_json:
            print(json.dumps(row), flush=True)

    def close(self):
        if self.as_json:
            return
        cells = [COLUMNS] + [tuple("-" if r[c] is None else str(r[c]) for c in COLUMNS) for r in self.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(COLUMNS))]
        for row in cells:
            print("  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip())
