# SPDX-License-Identifier: Apache-2.0
"""python3 tests/bench [NAME...] [--json]: one row a figure: ours, the peer and the limit in the same run, medians of interleaved rounds.
With --json one JSON object a line: name, unit, ours, peer, peer_name, limit, ratio, target, met, n, spread."""
import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import cni  # noqa: E402
import footprint  # noqa: E402
import overlay  # noqa: E402
import pods  # noqa: E402
import proxy_churn  # noqa: E402
import proxy_nft  # noqa: E402
import proxy_scale  # noqa: E402
from report import Report  # noqa: E402

BENCHMARKS = {"pods": pods, "footprint": footprint, "cni": cni, "overlay": overlay, "proxy-nft": proxy_nft, "proxy-scale": proxy_scale,
              "proxy-churn": proxy_churn}


def main():
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--list", action="store_true", help="name the benchmarks and end")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=proxy_churn.SECONDS, help="length of proxy-churn (%(default)s)")
    args = parser.parse_args()
    if args.list:
        for name, module in BENCHMARKS.items():
            print(f"{name:12} {module.__doc__.splitlines()[0]}")
        return 0
    unknown = [n for n in args.names if n not in BENCHMARKS]
    if unknown:
        print(f"bench: no benchmark \"{unknown[0]}\"; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    report = Report(args.json)
    for name in args.names or BENCHMARKS:
        # A soak has a length in place of rounds.
        BENCHMARKS[name].run(report, args.seconds if name == "proxy-churn" else args.rounds)
    report.close()
    return 0


sys.exit(main())
