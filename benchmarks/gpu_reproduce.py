"""T-NAS's FC100 table at the paper's length, in pieces: ``python -m benchmarks.gpu_reproduce``.

What ``metadarts reproduce tnas-fc100 --budget full --shots 5 --stop-after 8`` does, for a machine that has torch and
little else; that command then writes the page from the same folder. A piece stops itself before a time limit, with a
checkpoint; call it again until it says that the table is there. The search that `benchmarks.gpu_search` carries out
piece by piece is this table's headline: they share its run folder. Each piece adds a line to ``--out``: what was done,
and how far it is.

Data as for `benchmarks.gpu_search`. Without them it says so and ends with exit code 5.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from benchmarks import rehearsal
from benchmarks.gpu_search import FOLDER, NOTHING_TO_RUN, SEEDS, SHOTS, TABLE, data_root, why_skipped
from benchmarks.rows import RESULTS
from metadarts.core.machine import commit, device_name, version
from metadarts.core.progress import Progress

GAP = 20.0


def main(arguments: list[str] | None = None) -> int:
    """One piece, printed and written."""
    options = _options(arguments)
    rehearsal.check_options(options)
    if why := why_skipped(options):
        print(f"reproduce: {why}")
        return NOTHING_TO_RUN
    root = None if options.rehearse else data_root(options.data_root)
    if options.rehearse and options.folder == FOLDER:
        raise SystemExit("reproduce: a rehearsal needs another folder than the table's: name it with --folder")
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    done = piece(options, root)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(done) + "\n")
    print(f"{done['doing']}: {done['fraction']:.0%} {done['figures']}", flush=True)
    print(f"the table is there: {options.folder}" if done["finished"] else "not ended: call it again", flush=True)
    return 0


def piece(options: argparse.Namespace, root: Path | None) -> dict[str, object]:
    """Go on with the table for at most ``options.seconds``, starting up included; what the line says."""
    from metadarts.papers.reproduction import Job, Stopped, carry_out, table_named, tabulate
    from metadarts.store.files import write_atomically
    from metadarts.tasks import open_source

    begun = said_at = time.monotonic()
    told: dict[str, object] = {"doing": "start", "fraction": 0.0, "figures": ""}

    def tell(title: str, now: Progress) -> None:
        nonlocal said_at
        told.update(doing=title, fraction=round(now.share, 4), figures=now.text)
        if time.monotonic() - said_at > GAP:
            said_at = time.monotonic()
            print(f"{title}  {now.share:.1%}  {now.text}", flush=True)

    spec = table_named("glyphs" if options.rehearse else TABLE)
    budget, shots = ("smoke", (1,)) if options.rehearse else ("full", (SHOTS,))
    split, name = spec.source(None)
    place = "" if root is None else str(root)
    source = open_source(name, root)

    def late() -> bool:
        return bool(time.monotonic() - begun > options.seconds)

    job = Job(
        spec, budget, split, source, place, options.folder, tuple(range(SEEDS)), shots, options.device, tell, late
    )
    try:
        table = tabulate(job, carry_out(job))
    except Stopped:
        finished = False
    else:
        finished = True
        write_atomically(options.folder / "table.json", table.to_json().encode())
    seconds = round(time.monotonic() - begun, 1)
    machine = {"device": device_name(options.device), "commit": commit(), "torch": version("torch")}
    return told | {"table": spec.name, "budget": budget, "seconds": seconds, "finished": finished} | machine


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu" / "reproduce.jsonl", help="a line is added there")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the table is made, or gone on with")
    parser.add_argument("--data-root", type=Path, default=None, help="CIFAR-100, as `metadarts search` takes it")
    parser.add_argument("--seconds", type=float, default=480.0, help="a piece stops itself after these")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves its choice")
    rehearsal.add_options(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
