# SPDX-License-Identifier: Apache-2.0
"""Bad input: each gets one clear error where the user or the operator looks, and nothing else breaks."""
import json
import os
import subprocess
import tempfile

from harness import check


def case_image_that_does_not_exist(e):
    e.kubectl("run", "ghost", "--image=localhost/no-such-image:9")

    def waiting():
        states = e.get("pod", "ghost")["status"].get("containerStatuses", [])
        return states and states[0]["state"].get("waiting", {})
    got = e.wait("the reason", lambda: (w := waiting()) and w.get("reason") in ("ErrImagePull", "ImagePullBackOff") and w)
    check("no-such-image" in got["message"], f"message: {got}")
    check("Failed" in e.kubectl("describe", "pod", "ghost"), "event")
    e.kubectl("delete", "pod", "ghost", "--now")


def case_port_70000(e):
    bad = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 70000}]}}
    said = e.kubectl("create", "-f", "-", input=json.dumps(bad), fails=True)
    check('The Service "s" is invalid' in said and "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive" in said, said)
    check("s" not in e.kubectl("get", "services", "-o", "name").split(), "nothing was made")


def case_names_and_conflicts(e):
    said = e.kubectl("create", "configmap", "Bad_Name", fails=True)
    check("a lowercase RFC 1123 subdomain must consist of" in said or "a DNS-1123 subdomain must consist of" in said, said)
    e.kubectl("create", "configmap", "twice")
    check('configmaps "twice" already exists' in e.kubectl("create", "configmap", "twice", fails=True), "already exists")
    check('namespaces "nope" not found' in e.kubectl("-n", "nope", "create", "configmap", "c", fails=True, namespace=False), "namespace")
    check('deployments.apps "nope" not found' in e.kubectl("get", "deployment", "nope", fails=True), "not found names the group")
    e.kubectl("create", "service", "nodeport", "first", "--tcp=80", "--node-port=31999")
    said = e.kubectl("create", "service", "nodeport", "second", "--tcp=80", "--node-port=31999", fails=True)
    check("spec.ports[0].nodePort: Invalid value: 31999: provided port is already allocated" in said, said)
    vip = e.get("service", "first")["spec"]["clusterIP"]
    said = e.kubectl("create", "service", "clusterip", "third", "--tcp=80", f"--clusterip={vip}", fails=True)
    check("provided IP is already allocated" in said, said)
    said = e.kubectl("create", "service", "nodeport", "low", "--tcp=80", "--node-port=80", fails=True)
    check("provided port is not in the valid range" in said, said)


def case_immutable_fields(e):
    e.deployment("web", 1)
    said = e.kubectl("patch", "deployment", "web", "-p", '{"spec":{"selector":{"matchLabels":{"x":"y"}}}}', fails=True)
    check("field is immutable" in said, said)
    pod = e.pods("app=web")[0]["metadata"]["name"]
    said = e.kubectl("patch", "pod", pod, "-p", '{"spec":{"hostNetwork":true}}', fails=True)
    check("pod updates may not change fields other than" in said, said)


def run_control_plane(e, folder, *extra):
    """A second control plane that is to fail; returns what it said."""
    p = subprocess.run([*e.cluster.hosts["outside"].net(), e.cluster.binary("controlplane/hawser-controlplane"), "--data-dir", folder,
                        "--advertise-address", "198.51.100.10", *extra], capture_output=True, text=True, timeout=30)
    check(p.returncode == 1, f"exit status {p.returncode}, wanted 1: {p.stderr}")
    return p.stderr


def case_control_plane_start_errors(e):
    with tempfile.TemporaryDirectory() as folder:
        holder = subprocess.Popen([*e.cluster.hosts["outside"].net(), "python3", "-c",
                                   "import socket,sys\ns=socket.socket();s.bind(('0.0.0.0',6443));s.listen()\nprint('ok',flush=True);sys.stdin.read()"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        holder.stdout.readline()
        try:
            said = run_control_plane(e, folder, "--listen", "0.0.0.0:6443")
            check("6443" in said and "in use" in said, f"busy port: {said}")
        finally:
            holder.kill()
            holder.wait()
        said = run_control_plane(e, folder, "--service-cidr", "10.96.0.0/99")
        check("service-cidr" in said and "10.96.0.0/99" in said, f"bad CIDR: {said}")
        with open(os.path.join(folder, "file"), "w"):
            said = run_control_plane(e, os.path.join(folder, "file"), "--listen", "0.0.0.0:7443")
        check(os.path.join(folder, "file") in said, f"a data folder that is a file: {said}")


def case_daemon_start_errors(e):
    for binary, *flags in (("cni-plugin/overlayd/hawser-overlayd", "--cluster-cidr", "10.244.0.0/16", "--run-dir", "/nonexistent"),
                           ("proxyd/hawser-proxyd", "--cluster-cidr", "10.244.0.0/16"), ("controlplane/agent/hawser-agent", "--node-ip", "192.0.2.99")):
        p = subprocess.run([*e.cluster.hosts["outside"].net(), e.cluster.binary(binary), "--kubeconfig", "/nonexistent/kubeconfig",
                            "--node-name", "x", *flags], capture_output=True, text=True, timeout=20)
        check(p.returncode == 1, f"{binary}: exit status {p.returncode}: {p.stderr}")
        check("/nonexistent/kubeconfig" in p.stderr, f"{binary}: the error names the file: {p.stderr}")


def case_full_disk(e):
    """A store whose disk is full says so, still reads, and goes on when there is room again."""
    folder = tempfile.mkdtemp()
    script = f"""
set -e
mount -t tmpfs -o size=3m tmpfs {folder}
exec "$@"
"""
    ip = e.cluster.hosts["outside"]
    p = subprocess.Popen([*ip.net(), "unshare", "-m", "sh", "-c", script, "sh", e.cluster.binary("controlplane/hawser-controlplane"),
                          "--data-dir", folder, "--listen", "127.0.0.1:7443", "--advertise-address", "127.0.0.1"],
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        inside = ["nsenter", "-t", str(p.pid), "-m", "-n", "--"]
        kubectl = [*inside, e.path, "--kubeconfig", f"{folder}/admin.kubeconfig", "--server", "https://127.0.0.1:7443"]

        def run(*args, input=None):
            return subprocess.run([*kubectl, *args], capture_output=True, text=True, input=input, timeout=30)
        e.wait("the second API server", lambda: run("get", "namespace", "default").returncode == 0)
        said = ""
        for i in range(40):
            got = run("create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"big{i}"},
                                                            "data": {"x": "y" * 200000}}))
            if got.returncode:
                said = got.stderr
                break
        check("full" in said or "No space" in said, f"the error tells that the disk is full: {said[:300]}")
        check(run("get", "configmap", "big0").returncode == 0, "reads still work")
        subprocess.run([*inside, "mount", "-o", "remount,size=64m", folder], check=True)
        e.wait("writes work again", lambda: run("create", "configmap", "after").returncode == 0, 20)
    finally:
        p.kill()
        p.wait()
        os.rmdir(folder)


def case_node_port_range_and_unknown_kind(e):
    said = e.kubectl("apply", "-f", "-", input='{"apiVersion":"v1","kind":"Frobnicator","metadata":{"name":"x"}}', fails=True)
    check("no matches for kind" in said, said)
    said = e.kubectl("get", "frobnicators", fails=True)
    check("doesn't have a resource type" in said, said)
