# SPDX-License-Identifier: Apache-2.0
"""Rules of the tree that a machine can check; ./test static runs it. Each rule is a function check_* that yields "place: what is wrong"."""
import json
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CODE = (".cc", ".h", ".c")
COMPONENTS = ("cni-plugin", "proxyd", "controlplane", "dpdk", "cli", "tests")
SIZES = "tools/sizes.json"
LINES = {"code": 800, "test": 1200}
FUNCTION_LINES = 100


def files(*suffixes):
    out = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [f for f in out.stdout.splitlines() if os.path.exists(os.path.join(ROOT, f)) and (not suffixes or f.endswith(suffixes))]


def read(path):
    with open(os.path.join(ROOT, path), errors="replace") as f:
        return f.read()


def is_test(path):
    return path.startswith("tests/") or path.endswith("_test.cc") or "/testing/" in path or "fake" in os.path.basename(path)


def check_includes():
    """Components include lib/ and their own folder; lib/X includes the lib/Y that lib/meson.build builds before it."""
    order = re.search(r"foreach l : \[(.*?)\]", read("lib/meson.build"), re.S).group(1)
    libs = re.findall(r"'(\w+)'", order)
    for path in files(*CODE):
        here = path.split("/")
        for included in re.findall(r'^#include "([^"]+)"', read(path), re.M):
            there = included.split("/")
            if there[0] in COMPONENTS and there[0] != here[0] and here[0] != "tests":
                yield f"{path}: includes {included} of another component"
            if here[0] == "lib" and there[0] == "lib" and here[1] != there[1] and not is_test(path) and "testing" not in here:
                if there[1] not in libs or libs.index(there[1]) > libs.index(here[1]):
                    yield f"{path}: lib/{here[1]} includes {included}, which is built after it"
            if there[0] not in COMPONENTS and there[0] not in ("lib", "ebpf") and "/" in included:
                yield f"{path}: include {included} does not start at the root"


def check_generated():
    for path in files():
        if path.endswith((".o", ".a", ".so", ".skel.h", ".pb.h", ".pb.cc", ".pyc")) or os.path.basename(path) == "vmlinux.h":
            yield f"{path}: generated files are not kept"


def check_licence_line():
    for path in files(*CODE, ".py", "meson.build"):
        if "SPDX-License-Identifier:" not in "\n".join(read(path).splitlines()[:3]):
            yield f"{path}: no SPDX line at the top"


def check_names():
    for path in files(*CODE):
        stem = os.path.basename(path).split(".")[0]
        if re.match(r"(util|common|helper|misc)s?(_|$)", stem):
            yield f"{path}: a catch-all name"
        if not re.fullmatch(r"[a-z0-9_]+", stem):
            yield f"{path}: file names are snake_case"


def check_headers():
    for path in files(".h"):
        text = read(path)
        if "#pragma once" not in text:
            yield f"{path}: no #pragma once"
        elif not re.match(r"(//.*\n){2,}", text):
            yield f"{path}: does not open with its contract"


FORBIDDEN = (
    # pattern, where it may stand, why
    (r"(?<![\w.>:])::?close\(|(?<![\w.>:_])close\((?!\))", ("lib/base/unique_fd.cc", "tests/images/"), "descriptors are closed by UniqueFd"),
    (r"\bAF_NETLINK\b", ("lib/netlink/", "lib/nft/"), "netlink sockets are made in one place"),
    (r"\b(?:hton|ntoh)[sl]\(", ("lib/base/", "tests/"), "byte order belongs to lib/base/endian.h"),
    (r"\b(?:sleep_for|usleep)\b", ("lib/base/", "tests/"), "waiting goes through Clock"),
    (r"\b(?:steady_clock|system_clock)::now\(", ("lib/base/",), "time comes from Clock"),
    (r"\bthrow\b", (), "errors are Result"),
    (r"(?<![_\w])(?:std::)?(?:exit|abort)\(", (), "only main.cc ends the process"),
    (r"#include <boost/(?:asio|beast)", ("lib/http/",), "Asio and Beast stay in lib/http"),
    (r"#include <spdlog", ("lib/base/log.cc",), "spdlog stays in lib/base/log.cc"),
    (r"#include <CLI/", (), "CLI11 is for main.cc"),
)


def check_forbidden():
    for path in files(*CODE):
        if is_test(path) or os.path.basename(path) in ("main.cc", "main_flags.cc"):
            continue
        text = re.sub(r"//.*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"", lambda m: re.sub(r"[^\n]", " ", m.group()), read(path), flags=re.S) \
            if path.endswith((".cc", ".c", ".h")) else read(path)
        for pattern, allowed, why in FORBIDDEN:
            if any(path.startswith(a) for a in allowed):
                continue
            source = read(path) if pattern.startswith("#include") else text
            for m in re.finditer(pattern, source):
                yield f"{path}:{source[:m.start()].count(chr(10)) + 1}: {m.group().strip()}: {why}"


def check_words():
    for path in files(*CODE, ".py", ".md", ".build", ".sh"):
        if path == "tools/check_tree.py":
            continue
        for i, line in enumerate(read(path).splitlines(), 1):
            if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
                yield f"{path}:{i}: unfinished work is an issue, not a comment"
            if re.search(r"(?<![\w.}*])/(?:work|home)/", line):
                yield f"{path}:{i}: a path of one machine"


def longest_functions():
    """{path:function: lines} over FUNCTION_LINES, by ctags; tables of test cases may be longer."""
    out = subprocess.run(["ctags", "--languages=C,C++", "--map-C++=+.h", "--kinds-C++=f", "--kinds-C=f", "--fields=+ne", "--output-format=json", "-L", "-"],
                         cwd=ROOT, input="\n".join(f for f in files(*CODE) if not is_test(f)), capture_output=True, text=True)
    long = {}
    for line in out.stdout.splitlines():
        tag = json.loads(line)
        if "end" in tag and tag["end"] - tag["line"] + 1 > FUNCTION_LINES:
            long[f"{tag['path']}:{tag['name']}"] = tag["end"] - tag["line"] + 1
    return long


def check_sizes():
    """Files and functions over the hard stops are listed in sizes.json with their size, which may only fall."""
    allowed = json.loads(read(SIZES)) if os.path.exists(os.path.join(ROOT, SIZES)) else {}
    found = {p: n for p in files(*CODE) if (n := read(p).count("\n")) > LINES["test" if is_test(p) else "code"]}
    found.update(longest_functions())
    for place, n in sorted(found.items()):
        if n > allowed.get(place, 0):
            yield f"{place}: {n} lines, more than {allowed.get(place, 'the hard stop')}"
    for place in sorted(set(allowed) - set(found)):
        yield f"{SIZES}: {place} is small now; remove its entry"


def check_format():
    code = files(".cc", ".h")
    out = subprocess.run(["clang-format", "--dry-run", "-ferror-limit=1", *code], cwd=ROOT, capture_output=True, text=True)
    for m in re.finditer(r"^(\S+?):(\d+):\d+: warning: code should be clang-formatted", out.stderr, re.M):
        yield f"{m.group(1)}:{m.group(2)}: not as .clang-format says (clang-format -i)"


def main():
    passed = failed = 0
    for name, function in list(globals().items()):
        if not name.startswith("check_"):
            continue
        wrong = list(function())
        if wrong:
            failed += 1
            print(f"FAIL {name[6:]}")
            for w in wrong[:40]:
                print(f"  {w}")
            if len(wrong) > 40:
                print(f"  and {len(wrong) - 40} more")
        else:
            passed += 1
            print(f"PASS {name[6:]}")
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


sys.exit(main())
