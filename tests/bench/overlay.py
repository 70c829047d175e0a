# SPDX-License-Identifier: Apache-2.0
"""Pod to pod on one node and across two, beside a bridge and a kernel VXLAN with bridges; peers until routed; memory with 5,000 peers.

Nodes and pods are namespaces; ours are set up by the plugin and overlayd, the peer's by `ip` alone (cni0 and a static vxlan device on each node, as flannel
leaves them). The limit on one node is a veth pair with nothing between. The API server for the peers' part is a small one of our own (overlay_nodes.py)."""
import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build")
TRAFFIC = os.path.join(BUILD, "tests/bench/hawser-traffic")
OVERLAYD = os.path.join(BUILD, "cni-plugin/overlayd/hawser-overlayd")
PLUGIN = os.path.join(BUILD, "cni-plugin/hawser")
SECONDS = 1.0
PEERS = (1, 100, 5000)


def _run(*command, **more):
    return subprocess.run(command, check=True, capture_output=True, text=True, **more).stdout


def _wait(test, what, seconds=60):
    end = time.monotonic() + seconds
    while not test():
        if time.monotonic() > end:
            raise SystemExit(f"bench: {what} did not come in time")
        time.sleep(0.005)


class Hosts:
    """Namespaces of one benchmark, the processes in them and a folder; all gone at the end."""

    def __enter__(self):
        self.prefix, self.names, self.processes = f"hb{os.getpid()}", [], []
        self.folder = tempfile.mkdtemp(prefix="hawser-bench-")
        return self

    def __exit__(self, *_):
        for p in self.processes:
            p.send_signal(signal.SIGKILL)
            p.wait()
        for n in self.names:
            subprocess.run(["ip", "netns", "del", f"{self.prefix}-{n}"], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, name):
        _run("ip", "netns", "add", f"{self.prefix}-{name}")
        self.names.append(name)
        self.ip(name, "link set lo up")

    def ip(self, name, *lines):
        _run("ip", "-n", f"{self.prefix}-{name}", "-batch", "-", input="\n".join(lines) + "\n")

    def wire(self, a, a_name, b, b_name):
        self.ip(a, f"link add {a_name} type veth peer name {b_name} netns {self.prefix}-{b}", f"link set {a_name} up")
        self.ip(b, f"link set {b_name} up")

    def inside(self, name, *command):
        return ["ip", "netns", "exec", f"{self.prefix}-{name}", *command]

    def start(self, name, *command, **more):
        p = subprocess.Popen(self.inside(name, *command), stderr=open(os.path.join(self.folder, "log"), "a"), text=True, **more)
        self.processes.append(p)
        return p

    def file(self, *parts):
        path = os.path.join(self.folder, *parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path


def _fabric(hosts, name, nodes):
    hosts.add(name)
    hosts.ip(name, "link add br0 type bridge mcast_snooping 0", "link set br0 up")
    for i, node in enumerate(nodes, 1):
        hosts.add(node)
        hosts.wire(node, "eth0", name, f"port{i}")
        hosts.ip(name, f"link set port{i} master br0")
        hosts.ip(node, f"addr add 192.0.2.{10 + i}/24 dev eth0", "route add default via 192.0.2.1")


def _ours(hosts):
    """Pods a1, a2 on node n1 and b1 on n2; their addresses."""
    _fabric(hosts, "f", ["n1", "n2"])
    nodes = [{"name": f"n{i}", "podCIDRs": [f"10.244.{i}.0/24"], "publicIP": f"192.0.2.{10 + i}"} for i in (1, 2)]
    with open(hosts.file("subnets.json"), "w") as f:
        json.dump({"nodes": nodes}, f)
    for n in ("n1", "n2"):
        hosts.start(n, OVERLAYD, "--subnets-file", hosts.file("subnets.json"), "--node-name", n, "--cluster-cidr", "10.244.0.0/16",
                    "--run-dir", hosts.file(n, "run"), "--healthz-bind", "")
    addresses = {}
    for node, pod in (("n1", "a1"), ("n1", "a2"), ("n2", "b1")):
        _wait(lambda: os.path.exists(hosts.file(node, "run", "node.json")), "node.json")
        hosts.add(pod)
        conf = {"cniVersion": "1.0.0", "name": "bench", "type": "hawser", "nodeFile": hosts.file(node, "run", "node.json"),
                "ipam": {"dataDir": hosts.file(node, "ipam")}}
        env = {**os.environ, "CNI_COMMAND": "ADD", "CNI_CONTAINERID": pod, "CNI_NETNS": f"/run/netns/{hosts.prefix}-{pod}", "CNI_IFNAME": "eth0",
               "CNI_PATH": os.path.dirname(PLUGIN)}
        result = json.loads(_run(*hosts.inside(node, PLUGIN), input=json.dumps(conf), env=env))
        addresses[pod] = result["ips"][0]["address"].split("/")[0]
    return addresses


def _peer(hosts):
    """The same with a bridge on each node, c1, c2 on m1 and d1 on m2."""
    _fabric(hosts, "g", ["m1", "m2"])
    pods = {"m1": ["c1", "c2"], "m2": ["d1"]}
    addresses = {}
    for i, node in enumerate(pods, 1):
        other, mac = 3 - i, "02:00:00:00:00:0{}"
        hosts.ip(node, "link add cni0 type bridge", f"addr add 10.245.{i}.1/24 dev cni0", "link set cni0 mtu 1450 up",
                 f"link add flannel.1 address {mac.format(i)} type vxlan id 1 dev eth0 local 192.0.2.{10 + i} dstport 8472 nolearning",
                 "link set flannel.1 mtu 1450 up", f"addr add 10.245.{i}.0/32 dev flannel.1",
                 f"neigh add 10.245.{other}.0 lladdr {mac.format(other)} dev flannel.1 nud permanent",
                 f"route add 10.245.{other}.0/24 via 10.245.{other}.0 dev flannel.1 onlink")
        _run("bridge", "-n", f"{hosts.prefix}-{node}", "fdb", "add", mac.format(other), "dev", "flannel.1", "dst", f"192.0.2.{10 + other}")
        _run(*hosts.inside(node, "sysctl", "-qw", "net.ipv4.ip_forward=1"))
        for n, pod in enumerate(pods[node], 5):
            hosts.add(pod)
            hosts.wire(node, f"v{n}", pod, "eth0")
            hosts.ip(node, f"link set v{n} mtu 1450 master cni0")
            hosts.ip(pod, "link set eth0 mtu 1450", f"addr add 10.245.{i}.{n}/24 dev eth0", f"route add default via 10.245.{i}.1")
            addresses[pod] = f"10.245.{i}.{n}"
    return addresses


def _limit(hosts):
    for n in ("x", "y"):
        hosts.add(n)
    hosts.wire("x", "eth0", "y", "eth0")
    for i, n in enumerate(("x", "y"), 1):
        hosts.ip(n, "link set eth0 mtu 1450", f"addr add 10.246.0.{i}/24 dev eth0")
    return {"x": "10.246.0.1", "y": "10.246.0.2"}


def _measure(hosts, kind, source, address):
    rate, cpu = _run(*hosts.inside(source, TRAFFIC, kind, address, str(SECONDS))).split()
    return float(rate), float(cpu)


# Name of the rows, what is sent, unit, ns of CPU per ..., and the least of ours to the peer's: same node, across.
FLOWS = (("udp64", "udp", "packets/s", "packet", 1.03, 1.0), ("tcp", "tcp", "KiB/s", "KiB", 0.97, 0.97), ("rr", "rr", "transactions/s", "transaction", 1.0, 1.0))


def _data_path(report, rounds):
    with Hosts() as hosts:
        at = {**_ours(hosts), **_peer(hosts), **_limit(hosts)}
        ways = {"same-node": [("a1", "a2"), ("c1", "c2"), ("x", "y")], "cross-node": [("a1", "b1"), ("c1", "d1")]}
        for server in ("a2", "b1", "c2", "d1", "y"):
            hosts.start(server, TRAFFIC, "serve")
        for _, pairs in ways.items():
            for source, to in pairs:
                _wait(lambda: subprocess.run(hosts.inside(source, "bash", "-c", f"exec 3<>/dev/tcp/{at[to]}/7004"), capture_output=True).returncode == 0, to)
        for way, pairs in ways.items():
            for name, kind, unit, cost_of, same, cross in FLOWS:
                figures = [[] for _ in pairs]
                for i in range(rounds + 1):
                    for n, (source, to) in enumerate(pairs):
                        figures[n].append(_measure(hosts, kind, source, at[to]))
                rates = [[r for r, _ in f[1:]] for f in figures]  # the first round warms up
                costs = [[c for _, c in f[1:]] for f in figures]
                peer = "bridge" if way == "same-node" else "kernel VXLAN with bridges"
                least = same if way == "same-node" else cross
                limit = rates[2] if len(rates) > 2 else None
                report.add(f"overlay-{way}-{name}", unit, rates[0], round(least * statistics.median(rates[1]), 1), rates[1], peer, limit, lower_is_better=False)
                limit = costs[2] if len(costs) > 2 else None
                report.add(f"overlay-{way}-{name}-cpu", f"ns/{cost_of}", costs[0], round(1.1 * statistics.median(costs[1]), 1), costs[1], peer, limit)


@contextlib.contextmanager
def _simulated(hosts, peers):
    """overlayd on s1 against a small API server with that many other Nodes."""
    name = f"s{peers}"
    hosts.add(name)
    hosts.ip(name, "link add eth0 type bridge", "link set eth0 mtu 1500 up", "addr add 192.0.2.11/16 dev eth0")
    api = hosts.start(name, sys.executable, os.path.join(ROOT, "tests/bench/overlay_nodes.py"), str(peers), hosts.file(name, "kubeconfig"),
                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert api.stdout.readline() == "ready\n"
    daemon = hosts.start(name, OVERLAYD, "--kubeconfig", hosts.file(name, "kubeconfig"), "--node-name", "self", "--iface", "eth0",
                         "--cluster-cidr", "10.0.0.0/8", "--run-dir", hosts.file(name, "run"), "--healthz-bind", "", "--probe-seconds", "0")
    _wait(lambda: os.path.exists(hosts.file(name, "run", "node.json")), "node.json", 120)
    _wait(lambda: _run(*hosts.inside(name, "ip", "route")).count(" onlink") == peers, f"{peers} routes")
    monitor = hosts.start(name, "ip", "monitor", "route", stdout=subprocess.PIPE)
    yield name, api, daemon, monitor


def _rss_mib(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) / 1024


def _peer_changes(report, rounds):
    with Hosts() as hosts:
        for peers in PEERS:
            with _simulated(hosts, peers) as (_, api, daemon, monitor):
                times = []
                for i in range(rounds):
                    # A peer's range moves; the monitor shows the new route.
                    api.stdin.write(f"move {i}\n")
                    api.stdin.flush()
                    sent, cidr = api.stdout.readline().split()
                    while not (line := monitor.stdout.readline()).startswith(cidr):
                        assert line
                    times.append((time.monotonic() - float(sent)) * 1000)
                report.add(f"overlay-peer-change-to-route-{peers}", "ms", times, 1000)
                if peers == max(PEERS):
                    report.add("overlay-rss-5000-peers", "MiB", [_rss_mib(daemon.pid)], 30)


def run(report, rounds):
    _data_path(report, rounds)
    _peer_changes(report, rounds)
