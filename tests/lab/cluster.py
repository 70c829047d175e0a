# SPDX-License-Identifier: Apache-2.0
"""The lab's cluster: a fabric, a control host, three nodes and an outside host, all network namespaces of this machine. Nothing in it reaches
the machine's own network; the API server also answers on 127.0.0.1 through a socket that is opened here and handed in.

            outside 198.51.100.10                 addresses: RFC 5737 documentation ranges
                 |
   fabric: router 198.51.100.1 / 192.0.2.1, bridge br0
      |          |           |           |
   control    node-1      node-2      node-3
   192.0.2.10 192.0.2.11  192.0.2.12  192.0.2.13"""
import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time

import image
from host import Host, LabError, remove_cgroups, run, wait_for

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NODES = ("node-1", "node-2", "node-3")
ADDRESSES = {"control": "192.0.2.10", "node-1": "192.0.2.11", "node-2": "192.0.2.12", "node-3": "192.0.2.13",
             "outside": "198.51.100.10"}
ROUTER, OUTSIDE_ROUTER = "192.0.2.1", "198.51.100.1"
CLUSTER_CIDR, SERVICE_CIDR = "10.244.0.0/16", "10.96.0.0/16"
# A node's containerd watches folders; the default of 128 inotify instances a user is too small for three of them.
SYSCTLS = {"fs.inotify.max_user_instances": 8192, "fs.inotify.max_user_watches": 524288}
CNI_CACHE = "/var/lib/cni"
IMAGES = {"echo": "localhost/hawser-echo:1", "pause": "localhost/hawser-pause:1", "busybox": "localhost/hawser-busybox:1"}

CONTAINERD_CONFIG = """version = 2
root = "{folder}/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_bin}"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def sysctl(name, value=None):
    path = "/proc/sys/" + name.replace(".", "/")
    with open(path, "r+" if value is not None else "r") as f:
        old = f.read().strip()
        if value is not None:
            f.seek(0)
            f.write(str(value))
        return old


class Cluster:
    def __init__(self, folder, build):
        self.folder, self.build = os.path.abspath(folder), os.path.abspath(build)
        # Two clusters of different folders share nothing, their cgroups neither.
        self.cgroup_parent = "hawser-" + hashlib.sha256(self.folder.encode()).hexdigest()[:8]
        self.hosts = {n: Host(n, self._path("hosts", n), self.cgroup_parent, a) for n, a in {"fabric": None, **ADDRESSES}.items()}
        self.nodes = [self.hosts[n] for n in NODES]

    def _path(self, *parts):
        return os.path.join(self.folder, *parts)

    @property
    def kubeconfig(self):
        return self._path("kubeconfig")

    def binary(self, name):
        return os.path.join(self.build, name)

    def is_up(self):
        return all(h.outer_pid() for h in self.hosts.values())

    def exists(self):
        return os.path.exists(self._path("state.json"))

    # --- up -------------------------------------------------------------------------------------------------------------------------

    def up(self, step, api_port=6443):
        """step(text): context manager that prints one line of progress. api_port 0: any free one."""
        with step("hosts: control, 3 nodes, outside, one fabric"):
            self._prepare(api_port)
            self._start_hosts()
            self._connect()
        with step("control plane: API server, controllers, scheduler"):
            self._start_control_plane()
        with step("containerd on 3 nodes, images hawser-echo, hawser-pause, hawser-busybox"):
            self._start_containerd()
            self._import_images()
        with step("agent, overlayd and proxyd on 3 nodes"):
            self._start_node_daemons()
        with step("three nodes Ready"):
            self.wait_nodes_ready(60)

    def _prepare(self, api_port):
        if os.geteuid() != 0:
            raise LabError("the lab needs root: it makes namespaces")
        os.makedirs(self.folder, mode=0o755, exist_ok=True)
        # SO_REUSEADDR as any server: a port in TIME_WAIT is free, one that is listened on is not.
        self.api_socket = socket.socket()
        self.api_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.api_socket.bind(("127.0.0.1", api_port))
        except OSError as e:
            raise LabError(f"127.0.0.1:{api_port} for the API server: {e.strerror}; free it or give --api-port") from e
        self.api_socket.listen(1024)
        state = {"sysctls": {n: sysctl(n) for n in SYSCTLS}, "api_port": self.api_socket.getsockname()[1],
                 "made_cni_cache": not os.path.isdir(CNI_CACHE)}
        with open(self._path("state.json"), "w") as f:
            json.dump(state, f)
        os.makedirs(CNI_CACHE, exist_ok=True)  # a place for each host to mount its own on
        for name, least in SYSCTLS.items():
            if int(state["sysctls"][name]) < least:
                sysctl(name, least)

    def _start_hosts(self):
        names = "".join(f"{a} {n}\n" for n, a in ADDRESSES.items())
        for host in self.hosts.values():
            shutil.rmtree(host.folder, ignore_errors=True)
            fds = [self.api_socket.fileno()] if host.name == "control" else []
            host.start(self.binary("tests/lab/hawser-lab-init"), names, fds)
        for host in self.hosts.values():
            wait_for(f"host {host.name}", host.ready, 15)

    def _connect(self):
        """Cables: one veth pair from each host's eth0 to the fabric. Made inside the fabric's namespace, so none is ever in the machine's own."""
        fabric = self.hosts["fabric"]
        batch = [f"link add br0 type bridge", "link set br0 up", f"addr add {ROUTER}/24 dev br0"]
        for i, (name, address) in enumerate(ADDRESSES.items()):
            batch += [f"link add port{i} type veth peer name eth0 netns {self.hosts[name].pid()}", f"link set port{i} up"]
            batch += [f"addr add {OUTSIDE_ROUTER}/24 dev port{i}" if name == "outside" else f"link set port{i} master br0"]
        # The world beyond answers at once that it is not there, instead of letting connections hang.
        batch += ["route add unreachable default"]
        run(*fabric.net("ip", "-batch", "-"), input="\n".join(batch) + "\n")
        # Bridged frames are not to pass the fabric's own netfilter: it is a wire here.
        run(*fabric.net("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward;"
                        "f=/proc/sys/net/bridge/bridge-nf-call-iptables; [ ! -e $f ] || echo 0 > $f"))
        for name, address in ADDRESSES.items():
            router = OUTSIDE_ROUTER if name == "outside" else ROUTER
            run(*self.hosts[name].net("ip", "-batch", "-"),
                input=f"addr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {router}\n")

    def _start_control_plane(self):
        control = self.hosts["control"]
        self.control_plane_service = {
            "argv": [self.binary("controlplane/hawser-controlplane"), "--data-dir", self._path("hosts", "control", "data"),
                     "--advertise-address", ADDRESSES["control"], "--tls-san", "127.0.0.1", "--service-cidr", SERVICE_CIDR,
                     "--cluster-cidr", CLUSTER_CIDR],
            "listen": ["0.0.0.0:6443"], "fds": [self.api_socket.fileno()]}
        os.makedirs(self._path("hosts", "control", "data"), mode=0o700)
        control.set_services({"controlplane": self.control_plane_service})
        admin = self._path("hosts", "control", "data", "admin.kubeconfig")
        wait_for("the control plane's admin.kubeconfig", lambda: os.path.exists(admin), 20)
        self._write_kubeconfig("kubernetes-admin", "system:masters", f"https://127.0.0.1:{self.api_port}", self.kubeconfig)
        self.api_socket.close()
        wait_for("the API server", lambda: self.api_ok("/readyz"), 20)

    def _write_kubeconfig(self, user, group, server, path):
        run(self.binary("controlplane/hawser-controlplane"), "kubeconfig", "--data-dir", self._path("hosts", "control", "data"),
            "--user", user, "--group", group, "--server", server, "--out", path)

    def _start_containerd(self):
        cni_bin = self._path("cni-bin")
        os.makedirs(cni_bin, exist_ok=True)
        for name in ("hawser", "loopback"):  # one binary: containerd also calls a plugin of this second name for each sandbox
            link = os.path.join(cni_bin, name)
            if not os.path.lexists(link):
                os.symlink(self.binary("cni-plugin/hawser"), link)
        for node in self.nodes:
            with open(os.path.join(node.folder, "containerd.toml"), "w") as f:
                f.write(CONTAINERD_CONFIG.format(folder=node.folder, cni_bin=cni_bin, pause=IMAGES["pause"]))
            node.set_services({"containerd": {"argv": ["containerd", "--config", os.path.join(node.folder, "containerd.toml"),
                                                       "--log-level", "warn"]}})

    def _import_images(self):
        images = self._path("images")
        os.makedirs(images, exist_ok=True)
        image.write(f"{images}/pause.tar", IMAGES["pause"], {"pause": self.binary("tests/images/hawser-pause")}, ["/pause"])
        busybox = shutil.which("busybox") or "/bin/busybox"
        applets = run(busybox, "--list").split()
        image.write(f"{images}/busybox.tar", IMAGES["busybox"], {"bin/busybox": busybox}, [], cmd=["sh"],
                    links=[("bin/" + a, "busybox") for a in applets if a != "busybox"])
        waiting = []
        for node in self.nodes:
            # The node's name is stamped into the image, so that an answer tells its node without a downward API entry.
            image.write(f"{images}/echo-{node.name}.tar", IMAGES["echo"], {"hawser-echo": self.binary("tests/images/hawser-echo")},
                        ["/hawser-echo"], env=[f"NODE_NAME={node.name}"])
            wait_for(f"containerd on {node.name}", lambda: subprocess.run(
                node.inside("ctr", "version"), capture_output=True).returncode == 0, 30, 0.1)
            for name in ("pause", "busybox", f"echo-{node.name}"):
                waiting.append((node, subprocess.Popen(
                    node.inside("ctr", "-n", "k8s.io", "images", "import", f"{images}/{name}.tar"),
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)))
        for node, process in waiting:
            out, _ = process.communicate(timeout=60)
            if process.returncode:
                raise LabError(f"import images on {node.name}: {out.strip()}")

    def _start_node_daemons(self):
        for node in self.nodes:
            path = os.path.join(node.folder, "kubeconfig")
            self._write_kubeconfig(f"system:node:{node.name}", "system:nodes", f"https://{ADDRESSES['control']}:6443", path)
            common = ["--kubeconfig", path, "--node-name", node.name]
            node.set_services({**node.services,
                "overlayd": {"argv": [self.binary("cni-plugin/overlayd/hawser-overlayd"), *common, "--iface", "eth0",
                                      "--cluster-cidr", CLUSTER_CIDR, "--cni-conf-dir", "/etc/cni/net.d", "--run-dir", "/run/hawser"]},
                "proxyd": {"argv": [self.binary("proxyd/hawser-proxyd"), *common, "--cluster-cidr", CLUSTER_CIDR]},
                "agent": {"argv": [self.binary("controlplane/agent/hawser-agent"), *common, "--node-ip", node.address,
                                   "--cri", "unix:///run/containerd/containerd.sock", "--root", os.path.join(node.folder, "agent"),
                                   "--listen", "0.0.0.0:10250", "--cgroup-parent", "/pods",
                                   "--pod-log-dir", os.path.join(node.folder, "log", "pods"), "--max-pods", "110"]}})

    def wait_nodes_ready(self, seconds):
        def ready():
            nodes = self.api("GET", "/api/v1/nodes")["items"]
            return [n for n in nodes if any(c["type"] == "Ready" and c["status"] == "True"
                                            for c in n.get("status", {}).get("conditions", []))]
        try:
            wait_for("three nodes Ready", lambda: len(ready()) == len(NODES), seconds, 0.05)
        except LabError as e:
            raise LabError(f"{e}; logs are in {self._path('hosts')}/*/log/") from e

    # --- down -----------------------------------------------------------------------------------------------------------------------

    def down(self):
        """Ends the hosts and takes back everything that was changed outside them. Whatever half of an `up` is there goes too."""
        for host in self.hosts.values():
            host.kill()
        remove_cgroups(self.cgroup_parent)
        if self.exists():
            for name, value in self._state()["sysctls"].items():
                sysctl(name, value)
            if self._state().get("made_cni_cache"):
                with contextlib.suppress(OSError):
                    os.rmdir(CNI_CACHE)
        shutil.rmtree(self.folder, ignore_errors=True)
        if os.path.exists(self.folder):
            raise LabError(f"{self.folder} could not be removed")

    # --- use ------------------------------------------------------------------------------------------------------------------------

    @property
    def api_port(self):
        return self._state()["api_port"]

    def _state(self):
        with open(self._path("state.json")) as f:
            return json.load(f)

    def _tls(self):
        if not getattr(self, "_tls_context", None):
            with open(self.kubeconfig) as f:
                text = f.read()
            data = {k: base64.b64decode(v) for k, v in re.findall(r"(\S+-data): \"?([A-Za-z0-9+/=]+)", text)}
            context = ssl.create_default_context(cadata=data["certificate-authority-data"].decode())
            with tempfile.NamedTemporaryFile() as pair:
                pair.write(data["client-certificate-data"] + data["client-key-data"])
                pair.flush()
                context.load_cert_chain(pair.name)
            self._tls_context = context
        return self._tls_context

    def api(self, method, path, body=None, content_type="application/json"):
        """One API call as the administrator; returns the JSON, raises LabError with the server's message."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.api_port, context=self._tls(), timeout=30)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": content_type})
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if response.status >= 400:
            try:
                raise LabError(f"{method} {path}: {json.loads(data)['message']}")
            except (ValueError, KeyError):
                raise LabError(f"{method} {path}: HTTP {response.status}") from None
        return json.loads(data) if response.getheader("Content-Type", "").startswith("application/json") else data

    def api_ok(self, path):
        try:
            self.api("GET", path)
            return True
        except (OSError, LabError, http.client.HTTPException):
            return False

    def pod_pid(self, pod):
        """(node, pid on the machine) of a process in the pod's network namespace; pod: a Pod object."""
        node = self.hosts[pod["spec"]["nodeName"]]
        uid = pod["metadata"]["uid"]
        for line in run(*node.inside("ctr", "-n", "k8s.io", "tasks", "ls")).splitlines()[1:]:
            container, inner, state = line.split()[:3]
            if state != "RUNNING":
                continue
            with open(f"/proc/{node.pid()}/root/run/containerd/io.containerd.runtime.v2.task/k8s.io/{container}/config.json") as f:
                spec = json.load(f)
            if uid in json.dumps(spec.get("annotations", {})):
                # /proc inside the host numbers processes as the host does.
                return node, int(inner)
        raise LabError(f"pod {pod['metadata']['name']} has no running container on {node.name}")

    def pod_net(self, pod, *argv):
        """argv that runs a command of the machine in the pod's network namespace."""
        node, inner = self.pod_pid(pod)
        return node.inside("nsenter", f"--net=/proc/{inner}/ns/net", "--", *argv)
