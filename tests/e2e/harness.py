# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end cases share: the cluster under test, kubectl in every version the machine has, and request loops that count failures."""
import contextlib
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "lab"))
from cluster import Cluster  # noqa: E402
from host import LabError, run, wait_for  # noqa: E402

ECHO, BUSYBOX = "localhost/hawser-echo:1", "localhost/hawser-busybox:1"


class Skip(Exception):
    """The case cannot run on this machine; the text says why."""


class Failed(Exception):
    pass


def check(condition, text):
    if not condition:
        raise Failed(text)


def find_kubectls(folder):
    """{version: path}: every kubectl of 1.20 to 1.33 that is here. Where a newer kubectl is installed, Debian's 1.20 cannot be
    installed beside it, so its package is unpacked into `folder`."""
    found = {}
    candidates = [shutil.which("kubectl"), *sorted(glob.glob("/usr/lib/google-cloud-sdk/bin/kubectl.1.*"))]
    old = os.path.join(folder, "kubernetes-client")
    if not os.path.exists(old + "/usr/bin/kubectl"):
        os.makedirs(old, exist_ok=True)
        subprocess.run("apt-get download -q kubernetes-client && dpkg -x kubernetes-client_*.deb .", shell=True, cwd=old,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    candidates.append(old + "/usr/bin/kubectl")
    for path in candidates:
        if path and os.path.exists(path):
            out = subprocess.run([path, "version", "--client", "-o", "json"], capture_output=True, text=True)
            if out.returncode == 0:
                v = json.loads(out.stdout)["clientVersion"]
                found.setdefault(f"{v['major']}.{re.match('[0-9]+', v['minor']).group()}", path)
    return found


class Environment:
    """One cluster and one kubectl; each case gets a namespace of its own."""

    def __init__(self, cluster, kubectl_path, namespace):
        self.cluster, self.path, self.namespace = cluster, kubectl_path, namespace
        self.kubectl_env = {**os.environ, "KUBECONFIG": cluster.kubeconfig, "HOME": cluster.folder}

    def kubectl(self, *args, input=None, fails=False, namespace=True, timeout=60):
        """Runs kubectl; returns its output, or, with fails=True, what it said when it failed as it should."""
        argv = [self.path, *(["-n", self.namespace] if namespace else []), *args]
        p = subprocess.run(argv, capture_output=True, text=True, input=input, env=self.kubectl_env, timeout=timeout)
        if bool(p.returncode) != fails:
            raise Failed(f"kubectl {' '.join(args)}: status {p.returncode}: {(p.stderr + p.stdout).strip()[:600]}")
        return p.stderr + p.stdout if fails else p.stdout

    def get(self, kind, name=None, *args):
        return json.loads(self.kubectl("get", kind, *([name] if name else []), "-o", "json", *args))

    def apply(self, *objects):
        self.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def pods(self, label=None):
        return self.get("pods", None, *(["-l", label] if label else []))["items"]

    def wait(self, what, test, seconds=30):
        return wait_for(what, test, seconds, 0.1)

    def ready_pods(self, label, count, seconds=30):
        """Waits for `count` Ready pods that are not on their way out, and none else; returns them."""
        def ready():
            pods = [p for p in self.pods(label) if "deletionTimestamp" not in p["metadata"]]
            good = [p for p in pods if condition(p, "Ready")]
            return good if len(good) == count == len(pods) else None
        if count == 0:
            return self.wait(f"no pod with {label}", lambda: not self.pods(label), seconds)
        return self.wait(f"{count} Ready pods with {label}", ready, seconds)

    def deployment(self, name, replicas, image=ECHO, wait=True):
        self.kubectl("create", "deployment", name, f"--image={image}", f"--replicas={replicas}")
        return self.ready_pods(f"app={name}", replicas) if wait else None

    def expose(self, name, *extra, kind="deployment", port=80, target=8080):
        self.kubectl("expose", kind, name, f"--port={port}", f"--target-port={target}", *extra)
        return self.get("service", name)

    def answers(self, argv, url, times=24):
        """Pod names that answered `times` requests; every request must be answered."""
        pods = []
        for _ in range(times):
            out = run(*argv, "curl", "-sS", "--max-time", "3", url)
            pods.append(dict(p.split("=", 1) for p in out.split())["pod"])
        return pods

    def reaches_all(self, argv, url, count, seconds=10):
        """Waits until repeated requests are answered by `count` different pods."""
        def test():
            try:
                return len(set(self.answers(argv, url))) == count
            except LabError:
                return False
        self.wait(f"{url} answered by {count} pods", test, seconds)

    @contextlib.contextmanager
    def load(self, argv, *urls):
        """Requests in a loop, each on a new connection, while the block runs; afterwards the dict has ok, failed, errors."""
        script = os.path.join(ROOT, "tests/e2e/load.py")
        p = subprocess.Popen([*argv, sys.executable, script, *urls], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        result = {}
        try:
            p.stdout.readline()  # it has begun
            yield result
        finally:
            p.stdin.close()
            out = p.stdout.read()
            p.wait(30)
            result.update(json.loads(out.strip().splitlines()[-1]))


def condition(obj, kind):
    return any(c["type"] == kind and c["status"] == "True" for c in obj.get("status", {}).get("conditions", []))


def run_cases(cases, make_environment):
    """Runs [(name, function)] and prints a line each and the closing line; returns the number of failures."""
    passed = failed = skipped = 0
    for name, function in cases:
        env = None
        try:
            env = make_environment(name)
            function(env)
            passed += 1
            print(f"PASS {name}", flush=True)
        except Skip as e:
            skipped += 1
            print(f"SKIP {name}: {e}", flush=True)
        except Exception as e:  # a broken case must not hide the others
            failed += 1
            print(f"FAIL {name}: {e}", flush=True)
            if not isinstance(e, (Failed, LabError)):
                traceback.print_exc(file=sys.stdout)
        finally:
            if env:
                try:
                    env.cluster.api("DELETE", f"/api/v1/namespaces/{env.namespace}")
                except LabError:
                    pass
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return failed
