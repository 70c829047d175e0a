# SPDX-License-Identifier: Apache-2.0
"""python3 tests/vm [PATTERN...]: runs the scripts *_test.sh of this folder, each in a guest of its own with Debian's kernel, for what the machine's
own kernel does not have. README.md says how to write one. ./test vm runs this."""
import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from initramfs import Archive, Modules  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
# Software emulation on a busy machine: a guest that is alive but slow is not a failure.
GUEST_TIMEOUT_S = 600
BASE_COMMANDS = ("dash", "ip")
# busybox serves the rest; none of these may hide a real tool that a test asks for.
APPLETS = ("cat", "chmod", "cp", "cut", "date", "env", "grep", "head", "insmod", "kill", "ln", "ls", "mkdir", "mount", "mv", "poweroff", "rm", "sed", "sleep", "sort",
           "stat", "sysctl", "tail", "tr", "wc", "nc", "dmesg", "pidof", "seq", "test", "touch", "wget")


class Unavailable(Exception):
    """Why there can be no guest here."""


class Machine:
    """qemu and a kernel, unpacked below the build folder or installed."""

    def __init__(self, folder):
        unpack = subprocess.run([os.path.join(ROOT, "tools/unpack"), folder, "vm"], capture_output=True, text=True)
        if unpack.returncode != 0:
            raise Unavailable((unpack.stderr.strip().splitlines() or ["tools/unpack failed"])[-1])
        self.root = os.path.join(folder, "root")
        self.qemu = self.find("/usr/bin/qemu-system-x86_64", "qemu")
        self.kernel = self.find("/boot/vmlinuz-*", "a kernel")
        version = os.path.basename(self.kernel)[len("vmlinuz-"):]
        self.modules = Modules(self.find("/lib/modules/" + version, "the kernel's modules"))
        self.version = version

    def find(self, pattern, what):
        for root in (self.root, ""):
            found = sorted(glob.glob(root + pattern))
            if found:
                return found[-1]
        raise Unavailable(f"{what} is neither unpacked nor installed")

    def run(self, initramfs, folder):
        """Lines of the guest's second serial port as they come; the kernel's console goes to a file in `folder`."""
        libraries = ":".join(os.path.join(self.root, d, "x86_64-linux-gnu") for d in ("usr/lib", "lib"))
        # The libraries belong to the unpacked qemu only.
        env = {**os.environ, "LD_LIBRARY_PATH": libraries} if self.qemu.startswith(self.root) else dict(os.environ)
        firmware = [a for d in ("qemu", "seabios") for a in ("-L", os.path.join(self.root, "usr/share", d))]
        argv = [self.qemu, "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024", "-net", "none", "-no-reboot", "-display", "none", "-vga", "none",
                "-monitor", "none", *firmware, "-kernel", self.kernel, "-initrd", initramfs, "-append", "console=ttyS0 quiet loglevel=4 panic=-1",
                "-serial", "file:" + os.path.join(folder, "console"), "-serial", "stdio"]
        p = subprocess.Popen(["timeout", "--kill-after=5", str(GUEST_TIMEOUT_S), *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, env=env, text=True, errors="replace")
        try:
            for line in p.stdout:
                yield line.rstrip()
        finally:
            p.terminate()
            p.wait()


def read_header(path):
    """{modules: [...], commands: [...], programs: [...]} of the comments at a script's top."""
    wants = {"modules": [], "commands": [], "programs": []}
    with open(path) as f:
        for line in f:
            m = re.match(r"# (\w+): (.*)", line)
            if m and m.group(1) in wants:
                wants[m.group(1)] += m.group(2).split()
    return wants


def make_initramfs(script, machine, build, path):
    wants = read_header(script)
    archive = Archive()
    for name in ("proc", "sys", "dev", "tmp", "run", "etc", "root"):
        archive.folder(name)
    for command in (*BASE_COMMANDS, *wants["commands"]):
        source = shutil.which(command)
        if not source:
            raise Unavailable(f"{command} is not installed")
        archive.program(source, "/usr/bin/" + command)
    busybox = shutil.which("busybox")
    if not busybox:
        raise Unavailable("busybox is not installed")
    archive.program(busybox, "/usr/bin/busybox")
    for applet in APPLETS:
        if applet not in wants["commands"]:
            archive.link("/usr/bin/" + applet, "busybox")
    archive.link("/usr/bin/sh", "dash")
    for program in wants["programs"]:
        archive.program(os.path.join(build, program), "/usr/bin/" + os.path.basename(program))
    modules = machine.modules.in_order(wants["modules"])
    for i, module in enumerate(modules):
        archive.copy(module, f"/modules/{i:03}-{os.path.basename(module)}")
    for name in ("init", "library.sh"):
        archive.copy(os.path.join(HERE, name), "/" + name)
    archive.copy(script, "/test.sh")
    archive.write(path)


def run_script(script, machine, build, folder):
    """[(PASS|FAIL|SKIP, text)] of one script."""
    name = os.path.basename(script)[:-len("_test.sh")]
    initramfs = os.path.join(folder, name + ".cpio")
    make_initramfs(script, machine, build, initramfs)
    results, output, ended = [], [], False
    for line in machine.run(initramfs, folder):
        m = re.fullmatch(r"(PASS|FAIL|SKIP) (.+)", line)
        if m:
            results.append((m.group(1), f"{name}: {m.group(2)}"))
            print(f"{m.group(1)} {name}: {m.group(2)}", flush=True)
        elif line == "vm: end":
            ended = True
        else:
            output.append(line)
    if not ended:
        output.append("--- the kernel's console")
        with open(os.path.join(folder, "console"), errors="replace") as f:
            output += f.read().splitlines()[-30:]
        results.append(("FAIL", f"{name}: the guest ended before the script did"))
        print(" ".join(results[-1]))
    if not ended or any(r[0] == "FAIL" for r in results):
        print("\n".join("  | " + line for line in output[-150:]), flush=True)
    return results


def main():
    parser = argparse.ArgumentParser(prog="python3 tests/vm")
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="scripts whose name contains it; none: all")
    parser.add_argument("--build", default=os.path.join(ROOT, "build"), help="where our programs were built")
    parser.add_argument("--cache", default=os.path.join(ROOT, "build-vm"), help="where qemu and the kernel are unpacked")
    args = parser.parse_args()
    scripts = [s for s in sorted(glob.glob(os.path.join(HERE, "*_test.sh"))) if not args.patterns or any(p in os.path.basename(s) for p in args.patterns)]
    results = []
    try:
        machine = Machine(args.cache)
        with tempfile.TemporaryDirectory() as folder:
            for script in scripts:
                start = time.monotonic()
                results += run_script(script, machine, args.build, folder)
                print(f"{os.path.basename(script)}: {time.monotonic() - start:.0f} s, Linux {machine.version}", flush=True)
    except Unavailable as why:
        print(f"skipped: {why}")
        results.append(("SKIP", str(why)))
    count = {kind: sum(1 for r in results if r[0] == kind) for kind in ("PASS", "FAIL", "SKIP")}
    print(f"{count['PASS']} passed, {count['FAIL']} failed, {count['SKIP']} skipped")
    return 1 if count["FAIL"] else 0


sys.exit(main())
