# SPDX-License-Identifier: Apache-2.0
"""python3 tests/lab up|demo|down|status|exec ...: what ./quickstart calls once everything is built."""
import argparse
import contextlib
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import ROOT, Cluster, NODES  # noqa: E402
import demo  # noqa: E402
from host import LabError  # noqa: E402


@contextlib.contextmanager
def step(text):
    start = time.monotonic()
    print(f"  {text} ...", end="", flush=True)
    try:
        yield
    except BaseException:
        print(" FAILED", flush=True)
        raise
    print(f" {time.monotonic() - start:.1f} s", flush=True)


def how_to(cluster):
    print(f"""
Use it:
    export KUBECONFIG={cluster.kubeconfig}
    kubectl get nodes -o wide
    kubectl create deployment web --image=localhost/hawser-echo:1 --replicas=3
    kubectl expose deployment web --port=80 --target-port=8080 --type=NodePort
    ./quickstart exec node-1 curl -s http://CLUSTER-IP          a command on a node (or on: outside, control)
    ./quickstart exec pod/NAME ip addr                          a command of this machine in a pod's network
    ./quickstart exec node-1 {cluster.binary('cli/hawser')} services    Services of a node, compared with its kernel
Take it down:
    ./quickstart down""")


def up(cluster, args):
    if cluster.is_up() and cluster.api_ok("/readyz"):
        print("The cluster is up already.")
        how_to(cluster)
        return 0
    if cluster.exists():
        print("Removing what is left of an earlier cluster.")
        cluster.down()
    start = time.monotonic()
    try:
        cluster.up(step, args.api_port)
    except BaseException as e:
        if not args.keep_failed:
            if not isinstance(e, KeyboardInterrupt):
                save_logs(cluster)
            cluster.down()
        raise
    print(f"Up in {time.monotonic() - start:.1f} s.")
    failed = 0 if args.no_demo else demo.run(cluster)
    how_to(cluster)
    return 1 if failed else 0


def save_logs(cluster):
    """The last lines of each log, since the folder goes away with the failed cluster."""
    for host in cluster.hosts.values():
        folder = os.path.join(host.folder, "log")
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            path = os.path.join(folder, name)
            if not os.path.isfile(path) or not os.path.getsize(path):
                continue
            with open(path, errors="replace") as f:
                for line in f.readlines()[-5:]:
                    print(f"    {host.name}/{name}: {line.rstrip()}", file=sys.stderr)


def status(cluster, args):
    if not cluster.exists():
        print("The cluster is down.")
        return 3
    for host in cluster.hosts.values():
        print(f"{host.name:8} {host.address or '':15} {'pid %d' % host.pid() if host.outer_pid() else 'ended'}")
    print(f"API server {'ready' if cluster.api_ok('/readyz') else 'not ready'}")
    return 0 if cluster.is_up() else 1


def execute(cluster, args):
    if not args.command:
        raise LabError("exec: no command given")
    if args.where.startswith("pod/"):
        namespace, _, name = args.where[4:].rpartition("/")
        pod = cluster.api("GET", f"/api/v1/namespaces/{namespace or 'default'}/pods/{name}")
        return subprocess.run(cluster.pod_net(pod, *args.command)).returncode
    if args.where not in cluster.hosts:
        raise LabError(f"exec: no host \"{args.where}\"; hosts are {', '.join(cluster.hosts)}, pods are pod/NAME or pod/NAMESPACE/NAME")
    return subprocess.run(cluster.hosts[args.where].inside(*args.command)).returncode


def main():
    parser = argparse.ArgumentParser(prog="quickstart", description="A three-node Hawser cluster on this machine.")
    parser.add_argument("--folder", default=os.path.join(ROOT, ".lab"), help="where the cluster keeps its files")
    parser.add_argument("--build", default=os.path.join(ROOT, "build"), help="the build folder")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("up", help="bring the cluster up and run the demo")
    verb.add_argument("--api-port", type=int, default=6443, help="port of the API server on 127.0.0.1")
    verb.add_argument("--no-demo", action="store_true")
    verb.add_argument("--keep-failed", action="store_true", help="do not remove a cluster that failed to come up")
    verb.set_defaults(run=up)
    verbs.add_parser("demo", help="run the demo again").set_defaults(run=lambda c, a: 1 if demo.run(c) else 0)
    verbs.add_parser("down", help="remove everything").set_defaults(run=lambda c, a: c.down() or print("The cluster is down; nothing is left.") or 0)
    verbs.add_parser("status").set_defaults(run=status)
    verb = verbs.add_parser("exec", help="run a command on a host or in a pod's network")
    verb.add_argument("where")
    verb.add_argument("command", nargs=argparse.REMAINDER)
    verb.set_defaults(run=execute)
    args = parser.parse_args()
    try:
        return args.run(Cluster(args.folder, args.build), args)
    except LabError as e:
        print(f"quickstart: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


sys.exit(main())
