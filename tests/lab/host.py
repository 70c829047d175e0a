# SPDX-License-Identifier: Apache-2.0
"""Lab hosts: network, mount, UTS, IPC, PID and cgroup namespaces with a first process of their own (lab_init.cc). A host lives as long as
that process: end it, and the kernel ends everything in it and takes its links, mounts and rules away."""
import json
import os
import signal
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CGROUP_ROOT = "/sys/fs/cgroup"


class LabError(Exception):
    """One sentence for the person at the terminal."""


def run(*argv, check=True, input=None, timeout=60):
    """Runs a command and returns its output; a failure is a LabError with what it said."""
    p = subprocess.run(argv, input=input, capture_output=True, text=True, timeout=timeout)
    if check and p.returncode:
        raise LabError(f"{' '.join(argv)}: {(p.stderr or p.stdout).strip() or 'status %d' % p.returncode}")
    return p.stdout


def wait_for(what, test, seconds, interval=0.02):
    """Calls test() until it is true; a LabError that names `what` after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = test()
        if value:
            return value
        if time.monotonic() > end:
            raise LabError(f"{what}: not within {seconds} s")
        time.sleep(interval)


def cgroup_hierarchies():
    """[(folder below /sys/fs/cgroup, mount options or 'cgroup2')]; [('', 'cgroup2')] on a machine with cgroup v2 only."""
    if os.path.exists(f"{CGROUP_ROOT}/cgroup.controllers"):
        return [("", "cgroup2")]
    found = []
    with open("/proc/self/mounts") as mounts:
        for line in mounts:
            _, where, kind, options, *_ = line.split()
            if not where.startswith(CGROUP_ROOT + "/"):
                continue
            folder = where[len(CGROUP_ROOT) + 1:]
            if kind == "cgroup2":
                found.append((folder, "cgroup2"))
            elif kind == "cgroup":
                skip = {"rw", "relatime", "nosuid", "nodev", "noexec", "xattr"}
                keep = [o for o in options.split(",") if o not in skip and not o.startswith("release_agent")]
                found.append((folder, ",".join(keep)))
    if not found:
        raise LabError("no cgroup file system is mounted below /sys/fs/cgroup")
    return found


def make_cgroups(parent, name):
    """The host's subtree PARENT/NAME in every hierarchy; returns the folders."""
    folders = []
    for folder, options in cgroup_hierarchies():
        top = os.path.join(CGROUP_ROOT, folder)
        for part in (parent, name):
            below = os.path.join(top, part)
            os.makedirs(below, exist_ok=True)
            if "cpuset" in options.split(","):
                for knob in ("cpuset.cpus", "cpuset.mems"):  # a v1 cpuset starts empty, and then takes no process
                    with open(os.path.join(top, knob)) as f:
                        value = f.read()
                    with open(os.path.join(below, knob), "w") as f:
                        f.write(value)
            if options == "cgroup2" and not folder and part == parent:
                for group in (top, below):
                    with open(os.path.join(group, "cgroup.controllers")) as f:
                        wanted = " ".join("+" + c for c in f.read().split())
                    with open(os.path.join(group, "cgroup.subtree_control"), "w") as f:
                        f.write(wanted)
            top = below
        folders.append(top)
    return folders


def remove_cgroups(parent):
    """Removes the lab's subtree PARENT from every hierarchy; the processes in it must have ended."""
    for folder, _ in cgroup_hierarchies():
        top = os.path.join(CGROUP_ROOT, folder, parent)
        for path, _, _ in os.walk(top, topdown=False):
            try:
                wait_for(f"remove cgroup {path}", lambda: _rmdir(path), 5)
            except FileNotFoundError:
                pass


def _rmdir(path):
    try:
        os.rmdir(path)
        return True
    except OSError:
        return not os.path.exists(path)


class Host:
    """One lab host. `folder` holds its files: services.json, logs, state of its programs."""

    def __init__(self, name, folder, cgroup_parent, address=None):
        self.name, self.folder, self.cgroup_parent, self.address = name, folder, cgroup_parent, address
        self.services = {}

    @property
    def pid_file(self):
        return os.path.join(self.folder, "pid")

    def start(self, init, hosts_file, fds=()):
        """Begins the host; ready() tells when it is done. `fds` stay open in it."""
        os.makedirs(os.path.join(self.folder, "log"), exist_ok=True)
        hierarchies = cgroup_hierarchies()
        self._write("cgroup_version", "2" if hierarchies == [("", "cgroup2")] else "1")
        self._write("cgroups", "".join(f"{f} {o}\n" for f, o in hierarchies))
        self._write("hosts", hosts_file)
        self._write_services()
        join = "".join(f"echo $$ > '{g}/cgroup.procs'; " for g in make_cgroups(self.cgroup_parent, self.name))
        self.process = subprocess.Popen(
            ["sh", "-c", join + 'exec unshare --mount --uts --ipc --net --pid --cgroup --fork --kill-child "$@"', "sh",
             os.path.join(HERE, "host_setup"), self.name, self.folder, init],
            stdin=subprocess.DEVNULL, stdout=open(os.path.join(self.folder, "log", "init.log"), "a"),
            stderr=subprocess.STDOUT, pass_fds=fds, start_new_session=True)
        self._write("pid", f"{self.process.pid} {_start_time(self.process.pid)}")

    def ready(self):
        if self.process.poll() is not None:
            with open(os.path.join(self.folder, "log", "init.log")) as f:
                raise LabError(f"host {self.name} did not start: {f.read().strip()}")
        return os.path.exists(os.path.join(self.folder, "ready"))

    def outer_pid(self):
        """The process on the machine that holds the host; None if it has ended (a reused pid does not count)."""
        try:
            with open(self.pid_file) as f:
                pid, started = f.read().split()
            return int(pid) if _alive(int(pid)) and _start_time(int(pid)) == started else None
        except (OSError, ValueError):
            return None

    def pid(self):
        """The host's first process, as the machine numbers it."""
        outer = self.outer_pid()
        if not outer:
            raise LabError(f"host {self.name} is not running")
        children = _children(outer)
        if not children:
            raise LabError(f"host {self.name} has no first process")
        return children[0]

    def kill(self):
        """Ends the host and all that runs in it, at once."""
        outer = self.outer_pid()
        if outer:
            pids = _children(outer) or [outer]
            os.kill(pids[0], signal.SIGKILL)
            wait_for(f"end of host {self.name}", lambda: not _alive(pids[0]) and not _alive(outer), 10)

    def set_services(self, services):
        """services: {name: {argv, env, listen, fds}}. Starts, restarts and ends what differs."""
        self.services = services
        self._write_services()
        if self.outer_pid():
            os.kill(self.pid(), signal.SIGHUP)

    def service_pid(self, name):
        """The pid, on the machine, of a running service; None if it is not running."""
        with open(os.path.join(self.folder, "services.json")) as f:
            wanted = {s["name"]: s["argv"] for s in json.load(f)["services"]}[name]
        for pid in _children(self.pid()):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as c:
                    if c.read().split(b"\0")[:-1] == [a.encode() for a in wanted]:
                        return pid
            except OSError:
                pass
        return None

    def inside(self, *argv):
        """argv that runs a command in all of this host's namespaces, and in its cgroup v2: programs attached there see it as any process of the host."""
        join = "".join(f"echo 0 > {CGROUP_ROOT}/{folder or 'init'}/cgroup.procs; " for folder, kind in cgroup_hierarchies() if kind == "cgroup2")
        return ["nsenter", "-t", str(self.pid()), "-m", "-u", "-i", "-n", "-p", "-C", "--", *(["sh", "-c", join + 'exec "$@"', "sh"] if join else []), *argv]

    def net(self, *argv):
        """argv that runs a command of the machine in this host's network namespace only."""
        return ["nsenter", f"--net=/proc/{self.pid()}/ns/net", "--", *argv]

    def _write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path + ".new", "w") as f:
            f.write(text)
        os.rename(path + ".new", path)

    def _write_services(self):
        entries = [{"name": n, "log": os.path.join(self.folder, "log", n + ".log"), **s} for n, s in self.services.items()]
        self._write("services.json", json.dumps({"services": entries}, indent=1))


def _stat(pid):
    """The fields of /proc/PID/stat that follow the command's name."""
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rsplit(")", 1)[1].split()


def _children(parent):
    """Pids of the live children of a process. (/proc/PID/task/PID/children is not in every kernel.)"""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, ppid = _stat(pid)[:2]
            if int(ppid) == parent and state != "Z":
                found.append(int(pid))
        except OSError:
            pass
    return found


def _alive(pid):
    try:
        return _stat(pid)[0] not in "ZX"
    except OSError:
        return False


def _start_time(pid):
    return _stat(pid)[19]
