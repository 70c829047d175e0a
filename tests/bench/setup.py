# SPDX-License-Identifier: Apache-2.0
"""A lab cluster for benchmarks, in a folder and on a port of its own."""
import contextlib
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "lab"))
from cluster import Cluster  # noqa: E402


@contextlib.contextmanager
def _quiet(_):
    yield


class Lab:
    def __enter__(self):
        build = os.path.join(ROOT, "build")
        self.cluster = Cluster(os.path.join(build, "bench-lab"), build)
        self.cluster.down()
        try:
            self.cluster.up(_quiet, 0)
        except BaseException:
            self.cluster.down()
            raise
        return self

    def __exit__(self, *_):
        self.cluster.down()

    def kubectl(self, *args):
        env = {**os.environ, "KUBECONFIG": self.cluster.kubeconfig, "HOME": self.cluster.folder}
        return subprocess.run([shutil.which("kubectl"), *args], env=env, check=True, capture_output=True, text=True).stdout

    def pods(self):
        return self.cluster.api("GET", "/api/v1/namespaces/default/pods")["items"]
