# SPDX-License-Identifier: Apache-2.0
"""python3 overlay_nodes.py PEERS KUBECONFIG: an API server that knows Nodes only, for ./bench overlay.

Serves list, watch and patch of PEERS simulated flannel nodes and the Node "self" over plain HTTP and writes a kubeconfig for it. Each line "move N" on standard
input gives one node another pod CIDR; the answer is the time just before the event was sent (CLOCK_MONOTONIC) and the new range."""
import json
import queue
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PREFIX = "flannel.alpha.coreos.com"


def node(name, number, cidr):
    mac = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
    return {"kind": "Node", "apiVersion": "v1",
            "metadata": {"name": name, "uid": name, "resourceVersion": "1",
                         "annotations": {f"{PREFIX}/backend-type": "vxlan", f"{PREFIX}/public-ip": f"192.0.{100 + (number >> 8)}.{number & 255}",
                                         f"{PREFIX}/backend-data": json.dumps({"VNI": 1, "VtepMAC": mac})}},
            "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
            # Of the size that a kubelet's Node has.
            "status": {"addresses": [{"type": "Hostname", "address": name}],
                       "capacity": {"cpu": "8", "memory": "32Gi", "pods": "110"},
                       "conditions": [{"type": t, "status": "False", "reason": "KubeletIsFine", "message": "the kubelet has nothing to say about it",
                                       "lastHeartbeatTime": "2026-01-01T00:00:00Z"} for t in ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready")],
                       "images": [{"names": [f"registry.example/project/image-{i}@sha256:{'0' * 64}"], "sizeBytes": 1234567} for i in range(10)]}}


class Nodes:
    def __init__(self, peers):
        self.lock, self.version, self.watchers = threading.Lock(), 1, []
        self.objects = {f"peer-{i}": node(f"peer-{i}", i, f"10.{100 + (i >> 8)}.{i & 255}.0/24") for i in range(peers)}
        self.objects["self"] = node("self", 65535, "10.90.0.0/24")
        self.objects["self"]["metadata"]["annotations"] = {}
        self.objects["self"]["status"]["addresses"] = [{"type": "InternalIP", "address": "192.0.2.11"}]

    def put(self, changed):
        with self.lock:
            self.version += 1
            changed["metadata"]["resourceVersion"] = str(self.version)
            self.objects[changed["metadata"]["name"]] = changed
            line = (json.dumps({"type": "MODIFIED", "object": changed}) + "\n").encode()
            now = time.monotonic()
            for w in self.watchers:
                w.put(line)
        return now


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    nodes = None

    def log_message(self, *_):
        pass

    def answer(self, o):
        body = json.dumps(o).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if "watch=" in self.path:
            return self.watch()
        with self.nodes.lock:
            items, version = list(self.nodes.objects.values()), self.nodes.version
        limit, at = 500, 0
        if "continue=" in self.path:
            at = int(self.path.split("continue=")[1].split("&")[0])
        metadata = {"resourceVersion": str(version)}
        if at + limit < len(items):
            metadata["continue"] = str(at + limit)
        self.answer({"kind": "NodeList", "apiVersion": "v1", "metadata": metadata, "items": items[at:at + limit]})

    def watch(self):
        mine = queue.Queue()
        with self.nodes.lock:
            self.nodes.watchers.append(mine)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while True:
            line = mine.get()
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.flush()

    def do_PATCH(self):
        patch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = self.path.split("?")[0].split("/")[4]
        with self.nodes.lock:
            changed = json.loads(json.dumps(self.nodes.objects[name]))
        changed["metadata"]["annotations"].update(patch.get("metadata", {}).get("annotations", {}))
        changed["status"]["conditions"] += patch.get("status", {}).get("conditions", [])
        self.nodes.put(changed)
        self.answer(changed)


def main():
    nodes = Nodes(int(sys.argv[1]))
    Handler.nodes = nodes
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with open(sys.argv[2], "w") as f:
        json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "c",
                   "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                   "users": [{"name": "c", "user": {}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]}, f)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    for line in sys.stdin:
        n = int(line.split()[1])
        name = f"peer-{n % (len(nodes.objects) - 1)}"
        moved = json.loads(json.dumps(nodes.objects[name]))
        cidr = f"10.80.{n}.0/24"
        moved["spec"] = {"podCIDR": cidr, "podCIDRs": [cidr]}
        print(nodes.put(moved), cidr, flush=True)


main()
