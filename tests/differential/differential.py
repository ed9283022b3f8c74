"""Sends the same random requests to a real Chroma server and to ours, and prints every difference. See README.md."""

from __future__ import annotations

import argparse
import collections
import contextlib
import signal
import sys
import time

from pair import Options, Report
from server import Reference, Server
from walk import Walk


def main() -> int:
    arguments = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # a reference that was started is stopped with us
    options = Options(arguments.ops, arguments.hostile, arguments.messages, arguments.verbose)
    first, _, last = arguments.seeds.partition("..")
    failed = []
    for seed in range(int(first), int(last or first) + 1):
        began = time.monotonic()
        given = contextlib.nullcontext(arguments.reference)
        with given if arguments.reference else Reference() as reference:
            report = Walk(Server(reference), Server(arguments.url), seed, options).run()
        print(summary(seed, report, time.monotonic() - began), flush=True)
        if report.differences:
            failed.append(seed)
    print(f"differences in the seeds {failed}" if failed else "no differences")
    return 1 if failed else 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="our server")
    parser.add_argument("--seeds", default="1..3", help="one, or a range such as 1..20")
    parser.add_argument("--ops", type=int, default=1000, help="requests of a seed")
    parser.add_argument("--hostile", action="store_true", help="also what the reference cannot cope with")
    parser.add_argument("--messages", action="store_true", help="error messages must be equal too")
    parser.add_argument("--verbose", action="store_true", help="print every request")
    parser.add_argument("--reference", help="a Chroma server to use instead of a fresh one for each seed")
    return parser.parse_args()


def summary(seed: int, report: Report, seconds: float) -> str:
    kinds = collections.Counter(kind for _, kind, _ in report.differences)
    parts = [f"seed {seed}: {report.requests} requests in {seconds:.0f} s, {len(report.differences)} differences"]
    parts += [f"{kind} {count}" for kind, count in sorted(kinds.items())]
    statuses = " ".join(f"{status}={count}" for status, count in sorted(report.statuses.items()))
    parts.append(f"reference {statuses}")
    parts += [f"{what} {count}" for what, count in sorted((report.known + report.notes).items())]
    return "; ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
