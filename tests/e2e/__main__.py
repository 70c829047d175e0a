# SPDX-License-Identifier: Apache-2.0
"""python3 tests/e2e [PATTERN...]: brings up a cluster of its own (the quickstart's, in another folder and on a free port), drives it with
kubectl, and takes it down. Cases are the functions case_* of the modules in MODULES; PATTERN selects by part of the name."""
import argparse
import contextlib
import os
import re
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402
import errors_test  # noqa: E402
import fault_test  # noqa: E402
import kill_test  # noqa: E402
import kubectl_test  # noqa: E402
import leftovers  # noqa: E402
import network_test  # noqa: E402
import workload_test  # noqa: E402
from harness import Cluster, Environment, LabError, ROOT  # noqa: E402

MODULES = (kubectl_test, workload_test, network_test, errors_test, kill_test, fault_test)


@contextlib.contextmanager
def step(text):
    start = time.monotonic()
    yield
    print(f"{text}: {time.monotonic() - start:.1f} s", flush=True)


def collect(kubectls, newest, patterns):
    """[(name, function, kubectl)]; a function with `every_kubectl` runs once with each version."""
    out = []
    for module in MODULES:
        for name, function in vars(module).items():
            if not name.startswith("case_"):
                continue
            for version in sorted(kubectls) if getattr(function, "every_kubectl", False) else [newest]:
                title = name[5:] + (f"[{version}]" if getattr(function, "every_kubectl", False) else "")
                if not patterns or any(p in title for p in patterns):
                    out.append((title, function, kubectls[version]))
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("patterns", nargs="*")
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--keep", action="store_true", help="leave the cluster up; a second run uses it")
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("skipped: needs root\n0 passed, 0 failed, 1 skipped")
        return 0
    cluster = Cluster(os.path.join(args.build, "e2e-lab"), args.build)
    before = leftovers.snapshot()
    if not (cluster.is_up() and args.keep):
        if cluster.exists():
            cluster.down()
            before = leftovers.snapshot()
        try:
            cluster.up(step, 0)
        except LabError as e:
            print(f"FAIL cluster up: {e}\n0 passed, 1 failed, 0 skipped")
            cluster.down()
            return 1
    kubectls = harness.find_kubectls(args.build)
    print(f"kubectl versions: {', '.join(sorted(kubectls))}")
    newest = max(kubectls, key=lambda v: int(v.split(".")[1]))
    cases = collect(kubectls, newest, args.patterns)
    paths = {title: path for title, _, path in cases}
    serial = iter(range(1, 100000))

    def environment(title):
        namespace = f"e2e-{next(serial)}-" + re.sub("[^a-z0-9]+", "-", title.lower()).strip("-")[:40].rstrip("-")
        env = Environment(cluster, paths[title], namespace)
        cluster.api("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        return env

    functions = [(title, function) for title, function, _ in cases]
    if not args.keep and not args.patterns:
        # Last: nothing may be left when the cluster is gone. It needs no namespace.
        def nothing_left(_):
            cluster.down()
            leftovers.compare(before, leftovers.snapshot())
        functions.append(("down_leaves_nothing", nothing_left))
        paths["down_leaves_nothing"] = kubectls[newest]
        make = environment
        environment = lambda title: None if title == "down_leaves_nothing" else make(title)  # noqa: E731
    try:
        return 1 if harness.run_cases(functions, environment) else 0
    finally:
        if not args.keep:
            cluster.down()


sys.exit(main())
