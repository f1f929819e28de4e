"""Make a bundled start anew: search, pack, measure.

    python -m benchmarks.build_start glyphs
    python -m benchmarks.build_start cifar-fs --data-root CIFAR100
    python -m benchmarks.build_start cifar-fs-cell --data-root CIFAR100

searches with the preset of that start into runs/start-NAME (or goes on with a search that was cut off there),
measures the best checkpoint on 600 test tasks, and writes metadarts/fewshot/starts/NAME.safetensors. With the same
seed, threads and versions the search takes the same steps, so its tensors come out the same; the metadata beside them
names settings as the current version does. `--run RUN` packs a run that is there; `--check` compares the tensors with
those of the start in the package, by name and bits, and leaves that file alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from metadarts.core.errors import ConfigError
from metadarts.fewshot import BUNDLED, open_start
from metadarts.fewshot.start import start_of_run
from metadarts.training import RunFolder

STARTS = Path(__file__).resolve().parents[1] / "metadarts" / "fewshot" / "starts"
MOST_BYTES = 10**6
SETTINGS = ("--set", "outer.alpha_decay=0.001")
"""The supernets were searched with version 0.1, where this was the default."""
CELL = "-cell"
"""Ends the names of those that committed to a cell."""


def search(name: str, run: Path, data_root: Path | None, threads: int) -> None:
    """Search into ``run``, or go on with the search that is there."""
    if run.exists():
        words = [] if RunFolder.open(run).is_finished else ["search", "--resume", str(run), "--threads", str(threads)]
    else:
        place = ["--data-root", str(data_root)] if data_root else []
        words = ["search", "--data", name.removesuffix(CELL), *place, "--preset", f"start-{name}"]
        words += [] if name.endswith(CELL) else SETTINGS
        words += ["--threads", str(threads), "--out", str(run)]
    for line in [words, ["evaluate", str(run), "--tasks", "600", "--threads", str(threads)]]:
        if line:
            call = "from metadarts.cli import main; main()"
            subprocess.run([sys.executable, "-c", call, *line], check=True)


def pack(run: Path, out: Path) -> Path:
    """The start's file of a run. Raises ConfigError where it would be too large."""
    draft = out.with_suffix(".draft")
    start_of_run(run).save(draft)
    if (size := draft.stat().st_size) > MOST_BYTES:
        draft.unlink()
        raise ConfigError(f"{out.name} would have {size} bytes; a bundled start has at most {MOST_BYTES}")
    return draft.replace(out)


def same_tensors(left: Path, right: Path) -> bool:
    """Whether two files of starts hold the same tensors, by name, type, shape and bits."""
    return _bits(left) == _bits(right)


def _bits(path: Path) -> dict[str, tuple[object, ...]]:
    start = open_start(path)
    named = {f"param/{name}": tensor for name, tensor in start.params.items()}
    named |= {f"rate/{name}": tensor for name, tensor in (start.rates or {}).items()}
    return {
        name: (tensor.dtype, tuple(tensor.shape), tensor.numpy(force=True).tobytes()) for name, tensor in named.items()
    }


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, search, pack."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.build_start", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=BUNDLED)
    parser.add_argument("--data-root", type=Path, help="where CIFAR-100 lies; without it it is downloaded")
    parser.add_argument("--run", type=Path, help="run folder; default runs/start-NAME")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--check", action="store_true", help="compare with the start in the package, and leave that alone"
    )
    options = parser.parse_args(arguments)
    run = options.run or Path("runs") / f"start-{options.name}"
    search(options.name, run, options.data_root, options.threads)
    bundled = STARTS / f"{options.name}.safetensors"
    if options.check:
        made = pack(run, run / "start.safetensors")
        verb = "has" if same_tensors(made, bundled) else "has not"
        print(f"{made}: {verb} the tensors of the bundled start")
        return
    print(f"written to {pack(run, bundled)}")


if __name__ == "__main__":
    main()
