# SPDX-License-Identifier: Apache-2.0
"""Builds the fuzz targets with clang and runs each for a short, fixed time: python3 tests/fuzz [--seconds N] [TARGET...].
The closing line counts targets. An input that breaks one is kept in build-fuzz/crashes and printed with the command that repeats it; it belongs
into the unit test beside the code, and its fix into the same commit. ./test fuzz runs this."""
import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build-fuzz")
CORPUS = os.path.join(ROOT, "tests/fuzz/corpus")
CRASHES = os.path.join(BUILD, "crashes")
CLANG = "clang-19", "clang++-19"
OPTIONS = ["-Dfuzz=true", "-Dtests=false", "-Doptimization=1", "-Db_sanitize=address,undefined", "-Db_lundef=false"]
RUNS = 200_000
ENV = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}
PRINTED_BYTES = 2048


def build():
    prefix = "ccache " if shutil.which("ccache") else ""
    env = {**os.environ, "CC": prefix + CLANG[0], "CXX": prefix + CLANG[1]}
    return subprocess.run([os.path.join(ROOT, "tools/build"), BUILD, "fuzz", "--", *OPTIONS], env=env).returncode == 0


def describe_crash(target, output, path):
    """What a person needs: the reason, the input, and how to run it again."""
    reasons = [l for l in output.splitlines() if re.search(r"broken invariant|runtime error|ERROR: |Assertion|SUMMARY", l)]
    lines = reasons[:6] or output.splitlines()[-10:]
    if path:
        with open(path, "rb") as f:
            data = f.read()
        lines.append(f"input ({len(data)} bytes): {data[:PRINTED_BYTES].hex()}{'...' if len(data) > PRINTED_BYTES else ''}")
        lines.append(f"again: build-fuzz/tests/fuzz/fuzz_{target} {os.path.relpath(path, ROOT)}")
    return ["    | " + l for l in lines]


def run_target(target, seconds):
    """(passed, lines to print)"""
    program = os.path.join(BUILD, "tests/fuzz", "fuzz_" + target)
    with tempfile.TemporaryDirectory() as folder:
        # libFuzzer writes what it finds into the first folder; the seeds are only read.
        found = os.path.join(folder, "found")
        os.mkdir(found)
        argv = [program, f"-runs={RUNS}", f"-max_total_time={seconds}", "-seed=1", "-timeout=10", "-rss_limit_mb=2048",
                f"-artifact_prefix={CRASHES}/{target}-", found, os.path.join(CORPUS, target)]
        try:
            p = subprocess.run(argv, cwd=folder, env={**os.environ, **ENV}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, errors="replace", timeout=seconds + 60)
        except subprocess.TimeoutExpired:
            return False, [f"{target}: did not end"]
    if p.returncode == 0:
        done = re.search(r"Done (\d+) runs in (\d+) second", p.stdout)
        return True, [f"{target:16} {done.group(1)} runs in {done.group(2)} s" if done else target]
    written = re.search(r"Test unit written to (\S+)", p.stdout)
    return False, [f"{target}: FAILED", *describe_crash(target, p.stdout, written.group(1) if written else None)]


def main():
    targets = sorted(os.listdir(CORPUS))
    parser = argparse.ArgumentParser(prog="python3 tests/fuzz")
    parser.add_argument("--seconds", type=int, default=10, help="time for each target (10)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"none: all of {', '.join(targets)}")
    args = parser.parse_args()
    for t in args.targets:
        if t not in targets:
            parser.error(f"no target \"{t}\"")
    targets = args.targets or targets
    if not shutil.which(CLANG[1]):
        print(f"skipped: {CLANG[1]} is not installed")
        print(f"0 passed, 0 failed, {len(targets)} skipped")
        return 0
    if not build():
        print("the build failed")
        print(f"0 passed, {len(targets)} failed, 0 skipped")
        return 1
    os.makedirs(CRASHES, exist_ok=True)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for passed, lines in pool.map(lambda t: run_target(t, args.seconds), targets):
            failed += not passed
            print("\n".join(lines), flush=True)
    print(f"{len(targets) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


sys.exit(main())
