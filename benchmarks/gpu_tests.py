"""Run tests/gpu without pytest: ``python3 -m benchmarks.gpu_tests``. With pytest, use ``pytest -m gpu tests/gpu``.

``--rehearse`` runs none of them: it imports every file and lists the cases that would run.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from benchmarks._runner import list_folder, run_folder

CHECKOUT = Path(__file__).resolve().parents[1]
TESTS = CHECKOUT / "tests" / "gpu"


def main(arguments: list[str] | None = None) -> int:
    """Print one line per test and return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.gpu_tests", description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="import and list, run nothing")
    parser.add_argument("--only", default="test_*.py", help="a file's name, or a pattern of such")
    options = parser.parse_args(arguments)
    outcomes = (list_folder if options.rehearse else run_folder)(TESTS, CHECKOUT / "tests", options.only)
    for outcome in outcomes:
        print(f"{outcome.status} {outcome.test} {outcome.reason}".rstrip(), flush=True)
    counts = Counter(outcome.status for outcome in outcomes)
    print(", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "no tests")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
