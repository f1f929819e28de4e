"""Thousands of generated cases over all verbs: ``python -m tests.campaign --cases 2000 --kills 20 --jobs 2``.

A case is drawn from (seed, its kind, its number), so that one that fails can be run again: ``--only folders:17``. What
must hold is in stage.py (of every command) and beside each kind. The last line counts cases and faults.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from . import KINDS, run_case
from .kills import TRIALS, trials
from .stage import Fault, Stage, build


def main() -> None:
    """Run the cases of this process; with several jobs, start them and add up."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=0, help="of each verb")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--job", type=int, help="which of them this process is")
    parser.add_argument("--only", default="", help="KIND or KIND:NUMBER")
    options = parser.parse_args()
    if options.job is None and options.jobs > 1:
        sys.exit(_jobs(options))
    told = _run(options)
    print(json.dumps(told))
    sys.exit(bool(told["faults"]))


def _jobs(options: argparse.Namespace) -> int:
    words = [sys.executable, "-m", "tests.campaign", *sys.argv[1:], "--job"]
    running = [subprocess.Popen([*words, f"{job}"], stdout=subprocess.PIPE, text=True) for job in range(options.jobs)]
    total: Counter[str] = Counter()
    faults = 0
    for process in running:
        said, _ = process.communicate()
        told = json.loads(said.splitlines()[-1])
        total.update(told["cases"])
        faults += len(told["faults"])
    print(json.dumps({"cases": dict(total), "sum": sum(total.values()), "faults": faults}))
    return bool(faults)


def _run(options: argparse.Namespace) -> dict[str, object]:
    kind, _, only = options.only.partition(":")
    if kind and kind not in KINDS and kind not in TRIALS:
        sys.exit(f"--only {kind}: expected one of {', '.join((*KINDS, *TRIALS))}")
    weights = {name: weight for name, (_, weight) in KINDS.items() if kind in ("", name)}
    cases = []
    for name, weight in weights.items():
        count = round(options.cases * weight / sum(weights.values()))
        cases += [(name, number) for number in ([int(only)] if only else range(count))]
    verbs = [name for name in TRIALS if options.kills and kind in ("", name)]
    job, jobs = options.job or 0, options.jobs if options.job is not None else 1
    done: Counter[str] = Counter()
    faults: list[str] = []
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        build(shared := Path(folder) / "shared")
        own = cases[job::jobs]
        for place, (name, number) in enumerate(own):
            done[name] += 1
            try:
                run_case(name, number, options.seed, shared, Path(folder) / "case")
            except Fault as fault:
                faults.append(f"{name}:{number}: {fault}")
                print(faults[-1], file=sys.stderr, flush=True)
            if place % 50 == 49:
                spent = time.monotonic() - begun
                print(f"{place + 1} of {len(own)} cases, {spent:.0f} s, {len(faults)} faults", file=sys.stderr)
        for name in verbs[job::jobs]:
            stage = Stage(shared, Path(folder) / "kills" / name)
            stage.place.mkdir(parents=True)
            try:
                rows = trials(name, options.seed, stage, options.kills)
                done[f"kill {name}"] += len(rows)
                print(f"{name}: {Counter(str(row['code']) for row in rows)}", file=sys.stderr, flush=True)
            except Exception as fault:  # half of a result may be anything
                faults.append(f"kill {name}: {type(fault).__name__}: {fault}")
                print(faults[-1], file=sys.stderr, flush=True)
    return {"cases": done, "faults": faults}


if __name__ == "__main__":
    main()
