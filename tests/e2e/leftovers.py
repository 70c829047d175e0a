# SPDX-License-Identifier: Apache-2.0
"""What a cluster could leave behind on the machine: a snapshot before and after must be equal."""
import glob
import os
import time

from harness import Failed, run


def _namespaces():
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
        except OSError:
            pass
    return found


def _commands():
    names = ("hawser", "containerd", "runc", "lab_init")
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                argv = f.read().split(b"\0")
            name = os.path.basename(argv[0].decode(errors="replace"))
            if any(name.startswith(n) for n in names):
                found.add(f"{pid} {name}")
        except OSError:
            pass
    return found


def _read(path):
    try:
        with open(path) as f:
            return f.read()
    except OSError as e:
        return str(e)


def snapshot():
    sysctls = ["/proc/sys/fs/inotify/max_user_instances", "/proc/sys/fs/inotify/max_user_watches",
               "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf/all/forwarding"]
    return {
        "links": {l.split(":")[1].strip() for l in run("ip", "-o", "link").splitlines()},
        "routes": set(run("ip", "route", "show", "table", "all").splitlines()),
        "mounts": {l.split()[1] for l in _read("/proc/self/mounts").splitlines()},
        "cgroups": {p for p in glob.glob("/sys/fs/cgroup/*/hawser*") + glob.glob("/sys/fs/cgroup/hawser*")},
        "network namespaces": _namespaces(),
        "processes": _commands(),
        "named namespaces": set(glob.glob("/run/netns/*")),
        "files": set(glob.glob("/run/hawser*") + glob.glob("/run/containerd*") + glob.glob("/var/lib/hawser*") +
                     glob.glob("/var/lib/cni/*") + glob.glob("/etc/cni/*") + glob.glob("/var/log/pods/*") +
                     glob.glob("/opt/cni/bin/hawser*")),
        "sysctls": {f"{p}={_read(p)}" for p in sysctls},
    }


def compare(before, after):
    # The kernel takes a namespace away a moment after its last process.
    for _ in range(50):
        extra = {what: sorted(after[what] - before[what]) for what in before if after[what] - before[what]}
        if not extra:
            return
        time.sleep(0.1)
        after = snapshot()
    raise Failed(f"left behind: {extra}")
