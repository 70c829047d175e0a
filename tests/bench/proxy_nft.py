# SPDX-License-Identifier: Apache-2.0
"""Services into the kernel: proxyd's nft back end beside iptables-restore and `nft -f` with rules of kube-proxy's shape; all Services, one change, memory.

Each load is into a network namespace of its own. Ours starts from parsed API objects (a change: from the event's JSON text), the peers from finished text
(kube_rules.py), so what kube-proxy spends on making it is not counted. A peer that needs more than LONGEST for a size, or would if it were linear, is left out
from that size on; one that needs more than SLOW is measured in the first round only."""
import collections
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import kube_rules

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build")
SIZES = (1000, 10000, 50000)
CHANGES_AT, CHANGES = 10000, 200  # changes of the peers: as many of them as take PEER_SECONDS
LONGEST, SLOW, PEER_SECONDS = 60, 10, 10  # seconds
TARGET_MS = {1000: 50, 10000: 500, 50000: 2500}  # 10,000 in half a second, and linear

Peer = collections.namedtuple("Peer", "name command load change")
IPTABLES = ("-w", "5", "--noflush")
PEERS = (Peer("nft -f", ("nft", "-f", "-"), kube_rules.nft_load, kube_rules.nft_change),
         Peer("iptables-nft-restore", ("iptables-nft-restore", *IPTABLES), kube_rules.iptables_load, kube_rules.iptables_change),
         Peer("iptables-legacy-restore", ("iptables-legacy-restore", *IPTABLES), kube_rules.iptables_load, kube_rules.iptables_change))


def _note(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Namespace:
    def __enter__(self):
        self.name = f"hbp{os.getpid()}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        return self

    def __exit__(self, *_):
        subprocess.run(["ip", "netns", "exec", self.name, "nft", "flush", "ruleset"], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", self.name], check=False)

    def feed(self, command, text):
        """Milliseconds and CPU milliseconds of the command with that input; none: it took too long. Raises with its words when it failed."""
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        try:
            done = subprocess.run(["nsenter", f"--net=/run/netns/{self.name}", *command], input=text, text=True, capture_output=True, timeout=LONGEST)
        except subprocess.TimeoutExpired:
            return None
        ms, after = (time.monotonic() - start) * 1000, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise OSError(done.stderr.strip().splitlines()[0][:200] if done.stderr.strip() else f"exit status {done.returncode}")
        return ms, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def ours(services, changes, build):
    done = subprocess.run([os.path.join(build, "tests/bench/hawser-proxy-bench"), str(services), str(changes)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"bench: hawser-proxy-bench failed: {done.stderr[-300:]}")
    return json.loads(done.stdout)


def _changes(ns, peer):
    times, start = [], time.monotonic()
    while len(times) < CHANGES and time.monotonic() - start < PEER_SECONDS:
        n = len(times)
        i = n * 17 % CHANGES_AT
        times.append(ns.feed(peer.command, peer.change(CHANGES_AT, i, i, n + 1 + CHANGES_AT)))
    return times


def _round(peer, services, changes):
    """Milliseconds of a full load and, asked for, what changes took; none: too slow for the bench, or not on this machine."""
    with Namespace() as ns:
        try:
            took = ns.feed(peer.command, peer.load(services))
            if took is None:
                return None
            return took[0], _changes(ns, peer) if changes else []
        except OSError as e:
            _note(f"{peer.name} left out: {e}")
            return None


def _settle():
    """The kernel frees a namespace's rules in the background, which the next subject would pay for."""
    time.sleep(1)


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def _size(report, services, rounds, peers, build):
    """One size; the peers that took part, and how long they took for it."""
    changes = CHANGES if services == CHANGES_AT else 0
    mine, theirs = [], {p: [] for p in peers}
    for _ in range(rounds):
        mine.append(ours(services, changes, build))
        _settle()
        for p in [p for p, took in theirs.items() if not took or took[0][0] < SLOW * 1000]:
            took = _round(p, services, changes)
            if took is None:
                _note(f"{p.name}: no load of {services} Services within {LONGEST} s; left out from here on")
                del theirs[p]
            else:
                theirs[p].append(took)
            _settle()
    load = [o["load_ms"] for o in mine]
    if not theirs:
        report.add(f"proxy-nft-load-{services}", "ms", load, TARGET_MS[services])
    for p, took in theirs.items():
        report.add(f"proxy-nft-load-{services}", "ms", load, TARGET_MS[services], [t[0] for t in took], p.name)
    if changes:
        _change_rows(report, mine, theirs)
    return {p: statistics.median(t[0] for t in took) for p, took in theirs.items()}


def _change_rows(report, mine, theirs):
    """Of each round its median and its 99th percentile; the row is the median over the rounds."""
    for p, took in list(theirs.items()) or [(None, None)]:
        peer = [[c[0] for c in t[1]] for t in took] if took else None
        for name, share, target in (("p50", 0.5, 1), ("p99", 0.99, 5)):
            report.add(f"proxy-nft-change-{name}", "ms", [percentile(o["change_ms"], share) for o in mine], target,
                       [percentile(t, share) for t in peer] if peer else None, p and p.name)
        cpu = [statistics.fmean(c[1] for c in t[1]) for t in took] if took else None
        report.add("proxy-nft-change-cpu", "ms", [o["change_cpu_ms"] for o in mine], 1, cpu, p and p.name)
    report.add(f"proxy-nft-rss-{CHANGES_AT}", "MiB", [o["rss_mib"] for o in mine], 60)


def run(report, rounds, build=BUILD):
    peers, last = {p: 0 for p in PEERS}, 1
    for services in SIZES:
        for p in [p for p, ms in peers.items() if ms * services / last > LONGEST * 1000]:
            _note(f"{p.name}: {services} Services would take more than {LONGEST} s; left out")
            del peers[p]
        peers, last = _size(report, services, rounds, list(peers), build), services
