"""`python -m benchmarks.fuzz --count 1000`: run bad inputs and say what became of them."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.fuzz.runs import FAULTS, fuzz


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first case; a case depends on its number alone"
    )
    parser.add_argument("--kind", help="only this kind")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--seeds", type=Path, help="keep the valid inputs here")
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="edge-fuzz-") as scratch:
        seeds = arguments.seeds or Path(scratch) / "seeds"
        numbers = range(arguments.first, arguments.first + arguments.count)
        for number, kind, what, result in fuzz(numbers, seeds.resolve(), Path(scratch) / "run", arguments.kind):
            counts[result.verdict] += 1
            if arguments.verbose or result.verdict in FAULTS:
                print(
                    f"--- {number} {kind}, {what}: {result.verdict} ({result.seconds:.1f} s)\n{result.detail}",
                    flush=True,
                )
    print(dict(counts))
    return int(any(counts[fault] for fault in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
