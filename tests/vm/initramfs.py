# SPDX-License-Identifier: Apache-2.0
"""Writes the initramfs of a guest: a cpio archive (format newc) of programs of this machine with the shared libraries they load, and of kernel
modules in the order in which they must be loaded. Pure Python, no root."""
import os
import re
import stat
import subprocess


class Archive:
    """The archive in memory; folders are made as they are needed."""

    def __init__(self):
        self.entries = {}
        # Debian's layout, so that libraries are where the loader looks for them.
        for name in ("bin", "sbin", "lib", "lib64"):
            self.folder("usr/" + name)
            self.entries[name] = (stat.S_IFLNK | 0o777, b"usr/" + name.encode())

    def folder(self, path):
        parts = path.strip("/").split("/")
        for i in range(1, len(parts) + 1):
            self.entries.setdefault("/".join(parts[:i]), (stat.S_IFDIR | 0o755, b""))

    def file(self, path, content, mode=0o644):
        self.folder(os.path.dirname(path))
        self.entries[path.strip("/")] = (stat.S_IFREG | mode, content)

    def link(self, path, target):
        self.folder(os.path.dirname(path))
        self.entries[path.strip("/")] = (stat.S_IFLNK | 0o777, target.encode())

    def copy(self, source, path=None):
        """A file of this machine, by default under its own name."""
        path = path or os.path.join(os.path.realpath(os.path.dirname(source)), os.path.basename(source))
        with open(source, "rb") as f:
            self.file(path, f.read(), 0o755)

    def program(self, source, path=None):
        """An executable and every library that the loader would load for it."""
        self.copy(source, path)
        listed = subprocess.run(["ldd", source], capture_output=True, text=True)
        for library in re.findall(r"(/\S+) \(0x", listed.stdout):
            self.copy(library)

    def write(self, path):
        with open(path, "wb") as f:
            for i, (name, (mode, content)) in enumerate(list(self.entries.items()) + [("TRAILER!!!", (0, b""))]):
                fields = [i + 1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
                head = b"070701" + b"".join(b"%08X" % n for n in fields) + name.encode() + b"\0"
                f.write(head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4))


class Modules:
    """The modules of one kernel, by name."""

    def __init__(self, folder):
        self.paths = {}
        for here, _, names in os.walk(folder):
            for name in names:
                if name.endswith(".ko"):
                    self.paths[name[:-3].replace("-", "_")] = os.path.join(here, name)

    def needs(self, name):
        """What a module says it needs (its .modinfo section), or wants to find there before it; nothing for one that is built into the kernel."""
        path = self.paths.get(name)
        if not path:
            return []
        with open(path, "rb") as f:
            content = f.read()
        found = re.findall(rb"\0depends=([\w,-]*)\0", content) + re.findall(rb"\0softdep=pre: ([\w -]*)\0", content)
        names = [n.replace("-", "_") for text in found for n in re.split(r"[, ]", text.decode()) if n]
        # An algorithm is named by what it computes; its plain implementation is there in every kernel.
        return [n if n in self.paths or n + "_generic" not in self.paths else n + "_generic" for n in names]

    def in_order(self, names):
        """Paths of these modules and of all they need, the needed ones first."""
        done = {}

        def visit(name):
            if name in done:
                return
            done[name] = None
            for needed in self.needs(name):
                visit(needed)
            done[name] = done.pop(name)
        for name in names:
            visit(name.replace("-", "_"))
        return [self.paths[n] for n in done if n in self.paths]
