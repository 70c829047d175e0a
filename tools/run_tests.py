# SPDX-License-Identifier: Apache-2.0
"""Runs the test suites and counts single test cases, not programs: GoogleTest reports each case, our Python suites print the same closing line.
Called by ./test; the suites are the table SUITES below."""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# name: (build folder, meson options, meson suite or command, what it is). Sanitizer builds run the unit suite.
NORMAL = ("build", [])
ASAN = ("build-asan", ["-Db_sanitize=address,undefined", "-Doptimization=1", "-Dcpp_args=-g1"])
TSAN = ("build-tsan", ["-Db_sanitize=thread", "-Doptimization=1", "-Dcpp_args=-g1"])
SUITES = {
    "static": (None, ["python3", "tools/check_tree.py"], "rules of the tree that a machine can check"),
    "unit": (NORMAL, "unit", "pure code, fakes, goldens, truth tables, loopback"),
    "crash": (NORMAL, "crash", "kill -9 during writes"),
    "netns": (NORMAL, "netns", "real kernel objects and traffic in throw-away namespaces"),
    "cri": (NORMAL, "cri", "the agent against a real containerd; containerd and podman on our network"),
    "vm": (NORMAL, ["python3", "tests/vm"], "what this kernel lacks, in guests with Debian's (emulated, no KVM)"),
    "e2e": (NORMAL, ["python3", "tests/e2e"], "the quickstart's cluster, driven by kubectl"),
    "asan": (ASAN, "unit", "the unit suite under AddressSanitizer and UBSan"),
    "tsan": (TSAN, "unit", "the unit suite under ThreadSanitizer"),
    "fuzz": (None, ["python3", "tests/fuzz"], "every parser against generated input, by clang's libFuzzer"),
}
# Test programs that a suite which is a program of its own needs beside our programs.
ALSO_BUILT = {"vm": ["vm-programs"]}
SANITIZER_ENV = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}
CASE_TIMEOUT_S = 900


class Count:
    def __init__(self, passed=0, failed=0, skipped=0):
        self.passed, self.failed, self.skipped = passed, failed, skipped

    def __iadd__(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        return self

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def build(folder, options, suite, also=()):
    """Builds what `suite` needs in `folder`: its test programs and what those depend on, or, for a suite that is a program of its own, our programs.
    Returns meson's tests of the suite, None if the build failed."""
    path = os.path.join(ROOT, folder)

    def ninja(*targets):
        return subprocess.run([os.path.join(ROOT, "tools/build"), path, *targets, "--", *options]).returncode == 0

    def introspect(what):
        return json.loads(subprocess.run(["meson", "introspect", what, path], capture_output=True, text=True, check=True).stdout)
    if isinstance(suite, list):
        return [] if ninja("programs", *also) else None
    if not ninja("build.ninja"):
        return None
    tests = [t for t in introspect("--tests") if any(s.split(":")[-1] == suite for s in t["suite"])]
    files = {t["id"]: t["filename"] for t in introspect("--targets")}
    wanted = {os.path.relpath(f, path) for t in tests for f in [t["cmd"][0], *(f for d in t["depends"] for f in files[d])]}
    return tests if ninja(*sorted(wanted)) else None


def read_googletest(path):
    """Counts, failed names and {skip reason: how many} of one GoogleTest report."""
    count, failed, reasons = Count(), [], {}
    for case in xml.parse(path).getroot().iter("testcase"):
        skipped = case.find("skipped")
        if case.find("failure") is not None:
            count.failed += 1
            failed.append(f"{case.get('classname')}.{case.get('name')}")
        elif skipped is not None:
            count.skipped += 1
            lines = [l for l in (skipped.get("message") or "").splitlines() if l and not re.match(r".*:\d+$", l)]
            reason = lines[0] if lines else "no reason given"
            reasons[reason] = reasons.get(reason, 0) + 1
        elif case.get("status") == "run":
            count.passed += 1
    return count, failed, reasons


def run_program(test):
    """One test program of meson's list."""
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.xml")
        env = {**os.environ, **SANITIZER_ENV, **test.get("env", {}), "GTEST_OUTPUT": "xml:" + report}
        try:
            p = subprocess.run(test["cmd"], cwd=test.get("workdir") or ROOT, env=env, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, errors="replace", timeout=CASE_TIMEOUT_S)
            output, status = p.stdout, p.returncode
        except subprocess.TimeoutExpired as e:
            output = (e.stdout or b"").decode(errors="replace") if isinstance(e.stdout, bytes) else e.stdout or ""
            status = f"more than {CASE_TIMEOUT_S} s"
        if os.path.exists(report):
            count, failed, reasons = read_googletest(report)
        else:
            count, failed, reasons = Count(), [], {}
            if status == 0:
                count.passed = 1
        if status != 0 and not count.failed:
            # It died outside a case: a crash, a sanitizer's report, a time-out.
            count.failed, failed = 1, [f"ended with {status}"]
    print(f"  {test['name']:32} {count}", flush=True)
    for reason, n in reasons.items():
        print(f"    skipped {n}: {reason}")
    if count.failed:
        print(f"    failed: {', '.join(failed)}")
        print("\n".join("    | " + l for l in output.splitlines()[-60:]), flush=True)
    return count


def run_command(argv):
    """A suite that is a program of its own and ends with the closing line."""
    p = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    count = None
    for line in p.stdout:
        closing = re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped", line.strip())
        if closing:
            count = Count(*map(int, closing.groups()))
        else:
            print("  " + line.rstrip(), flush=True)
    status = p.wait()
    if count is None or (status and not count.failed):
        print(f"  {' '.join(argv)} ended with status {status}")
        count = count or Count()
        count.failed += 1
    print(f"  {count}")
    return count


def run_suite(name):
    where, what, about = SUITES[name]
    print(f"{name}: {about}", flush=True)
    tests = build(*where, what, ALSO_BUILT.get(name, ())) if where else []
    if tests is None:
        print("  the build failed")
        return Count(failed=1)
    if isinstance(what, list):
        return run_command(what)
    total = Count()
    for test in tests:
        total += run_program(test)
    return total


def main():
    parser = argparse.ArgumentParser(prog="test")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="suites to run; none: all")
    parser.add_argument("--list", action="store_true", help="name the suites and end")
    args = parser.parse_args()
    if args.list:
        for name, (_, _, about) in SUITES.items():
            print(f"{name:8} {about}")
        return 0
    unknown = [s for s in args.suites if s not in SUITES]
    if unknown:
        print(f"test: no suite \"{unknown[0]}\"; there are {', '.join(SUITES)}", file=sys.stderr)
        return 2
    total, times = Count(), []
    for name in args.suites or SUITES:
        start = time.monotonic()
        count = run_suite(name)
        total += count
        times.append((name, count, time.monotonic() - start))
    print("\nSuites:")
    for name, count, seconds in times:
        print(f"  {name:8} {count}, {seconds:.0f} s")
    print(total)
    return 1 if total.failed or not total.passed else 0


sys.exit(main())
