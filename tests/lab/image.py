# SPDX-License-Identifier: Apache-2.0
"""Writes container images: one layer of plain files, as an OCI image layout in a tar file (OCI image spec 1.0), which
containerd imports. There is no registry in the lab, and nothing is downloaded."""
import hashlib
import io
import json
import tarfile


def _tar(entries):
    """entries: (name, bytes or None for a folder, mode). Times and owners are fixed, so equal input gives equal bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data, mode in entries:
            info = tarfile.TarInfo(name)
            info.mode = mode
            if data is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            elif isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def write(path, ref, files, entrypoint, env=(), cmd=(), links=()):
    """One image `ref` to the tar file `path`. files: {path in the image: path on this machine}; links: (path, target)."""
    folders = sorted({"/".join(name.strip("/").split("/")[:i]) for name in [*files, *(l[0] for l in links)]
                      for i in range(1, name.strip("/").count("/") + 1)} | {"tmp", "etc", "proc", "sys", "dev"})
    entries = [(f, None, 0o1777 if f == "tmp" else 0o755) for f in folders]
    for name, source in sorted(files.items()):
        with open(source, "rb") as f:
            entries.append((name.strip("/"), f.read(), 0o755))
    entries += [(name.strip("/"), target, 0o777) for name, target in links]
    layer = _tar(entries)

    blobs = {}

    def blob(media_type, data):
        if not isinstance(data, bytes):
            data = json.dumps(data, sort_keys=True).encode()
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(data)}

    layer_ref = blob("application/vnd.oci.image.layer.v1.tar", layer)
    config = blob("application/vnd.oci.image.config.v1+json", {
        "architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": list(entrypoint), "Cmd": list(cmd),
                   "Env": ["PATH=/bin:/usr/bin:/sbin:/usr/sbin", *env]},
        "rootfs": {"type": "layers", "diff_ids": [layer_ref["digest"]]}})
    manifest = blob("application/vnd.oci.image.manifest.v1+json", {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [layer_ref]})
    manifest["annotations"] = {"io.containerd.image.name": ref, "org.opencontainers.image.ref.name": ref.rsplit(":", 1)[1]}
    index = {"schemaVersion": 2, "manifests": [manifest]}
    with open(path, "wb") as f:
        f.write(_tar([("blobs", None, 0o755), ("blobs/sha256", None, 0o755),
                      *(("blobs/sha256/" + d, b, 0o644) for d, b in sorted(blobs.items())),
                      ("index.json", json.dumps(index).encode(), 0o644),
                      ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}', 0o644)]))
