"""Run tests/gpu without pytest: ``python3 -m benchmarks.gpu_tests``. With pytest, use ``pytest -m gpu tests/gpu``."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from benchmarks._runner import run_folder

CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Print one line per test and return the exit code."""
    outcomes = run_folder(CHECKOUT / "tests" / "gpu", CHECKOUT / "tests")
    for outcome in outcomes:
        print(f"{outcome.status} {outcome.test} {outcome.reason}".rstrip())
    counts = Counter(outcome.status for outcome in outcomes)
    print(", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "no tests")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
