"""One edge whose right operation is known: is it found by training, is it named from the support set, does that help?

    python -m benchmarks.one_edge train-each FOLDER --tasks 200
    python -m benchmarks.one_edge name FOLDER --train 4000 --test 480
    python -m benchmarks.one_edge warm FOLDER --tasks 160
    python -m benchmarks.one_edge report FOLDER

`train-each` trains every operation alone on every task and asks which does best on held-out queries; it goes on where
it stopped. `name` fits the meta-model on other tasks, whose teachers' operations it is told, and has it name those of
the tasks that are judged. `warm` adapts one-edge supernets from its prediction and from the prior, paired, and goes on
where it stopped. `report` joins what is there into benchmarks/results/metamodel/one_edge.json and .md. With
--operations all, sep_conv_5x5 is one of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metadarts.core.machine import commit, device_name, version
from metadarts.core.rng import Key
from metadarts.core.types import TaskBatch
from metadarts.predictor.footprints import Footprints
from metadarts.predictor.meta_dataset import MetaDataset, meta_datasets, seen_of
from metadarts.predictor.model import MetaModel, PredictorSpec
from metadarts.predictor.synthetic import (
    Family,
    Schedule,
    SyntheticTasks,
    synthetic_tasks,
    taught,
    train_each,
    warm_start,
)
from metadarts.predictor.synthetic.warm import INNER
from metadarts.predictor.task_record import Origin
from metadarts.spaces import darts
from metadarts.stats import Estimate, Table, paired, wilson
from metadarts.store.files import write_atomically

RESULTS = Path(__file__).parent / "results" / "metamodel"
JUDGED, TAUGHT = 1, 2
"""Seeds of the tasks that are judged and of those that the meta-model learns from."""
SCHEDULE = Schedule(starts=6)
SPEC = PredictorSpec(width=256, embedding=64, epochs=60, rate=2e-3, decay=5e-2, alphas=0.0, ranking=0.0)
STEPS = (0, 1, 3, 5, 10, 20)
PART = 16
LOOKED_AT = 32
"""The schedule was fixed on tasks of other seeds. That accuracy picks, not loss, was settled after these."""


def share(right: Tensor) -> dict[str, Any]:
    """How many of these were right, and between what."""
    hits, count = int(right.sum()), len(right)
    found = wilson(hits, count)
    return {"right": hits, "tasks": count, "share": found.mean, "wilson95": (found.low, found.high)}


def confusion(truth: Tensor, said: Tensor, operations: tuple[str, ...]) -> dict[str, list[int]]:
    """The operation of the teacher -> how often each was said."""
    return {
        name: torch.bincount(said[truth == number], minlength=len(operations)).tolist()
        for number, name in enumerate(operations)
    }


def train_all(folder: Path, tasks: int, family: Family) -> None:
    """Train each operation alone on the tasks that ``folder`` has not; a line of JSON for each part."""
    path = folder / "train_each.jsonl"
    done = len(path.read_text().splitlines()) * PART if path.exists() else 0
    for first in range(done, tasks, PART):
        started = time.perf_counter()
        part = synthetic_tasks(JUDGED, first, PART, family)
        trained = train_each(part, Key.from_seed(JUDGED).child("students", first), SCHEDULE)
        record = {
            "first": first,
            "truth": part.truth.tolist(),
            **{name: getattr(trained, name).tolist() for name in ("before", "accuracies", "losses", "support_losses")},
            "seconds": time.perf_counter() - started,
        }
        with path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{first + PART} tasks, right by loss: {int((trained.best == part.truth).sum())} of {PART}", flush=True)


def datasets(count: int, family: Family, extractor: Footprints) -> Iterator[MetaDataset]:
    """Tasks to learn from, part by part. They have no queries to speak of: nothing is measured on them."""
    short = replace(family, query=2)
    for first in range(0, count, 64):
        part = synthetic_tasks(TAUGHT, first, min(64, count - first), short)
        yield from meta_datasets(taught(part), partial(_support, part), extractor, family.space)
        print(f"{first + 64} tasks seen", file=sys.stderr, flush=True)


def _support(part: SyntheticTasks, origins: Sequence[Origin]) -> TaskBatch:
    """The tasks asked for, where they are all of ``part`` in its order."""
    if tuple(origins) != part.origins:
        raise ValueError("expected the tasks of one part, in their order")
    return part.batch


def name_all(folder: Path, train: int, test: int, family: Family) -> None:
    """Fit the meta-model, have it name the operations of ``test`` new tasks, and start from what it says."""
    started = time.perf_counter()
    extractor = Footprints(family.channels)
    learnt = list(datasets(train, family, extractor))
    seen_in = time.perf_counter() - started
    model = MetaModel(family.space, extractor, SPEC).learn(
        learnt, lambda now: print(now.done, now.value, file=sys.stderr)
    )
    frequency = torch.bincount(
        torch.cat([part.best.operations["normal"][:, 0] for part in learnt]), minlength=len(family.operations)
    )
    rows: dict[str, list[Tensor]] = {"truth": [], "log": []}
    for first in range(0, test, PART):
        part = synthetic_tasks(JUDGED, first, PART, family)
        said = model.predict_seen(seen_of(part.batch, extractor)).log_operations("normal")[:, 0]
        rows["truth"].append(part.truth)
        rows["log"].append(said)
        print(f"{first + PART} tasks named, right: {int((said.argmax(1) == part.truth).sum())} of {PART}", flush=True)
    record = {name: torch.cat(found).tolist() for name, found in rows.items()}
    about = {"learnt_from": train, "seconds_to_see": seen_in, "spec": asdict(SPEC)}
    about |= {"frequency": frequency.tolist(), "scores": asdict(model.scores(learnt))}
    write_atomically(folder / "named.json", json.dumps(record | {"about": about}).encode())


def warm_all(folder: Path, tasks: int, family: Family) -> None:
    """Adapt supernets from the prediction and from the prior on the tasks that ``folder`` has not yet.

    Between the two only the alphas differ at first.
    """
    record, path = json.loads((folder / "named.json").read_text()), folder / "warm.jsonl"
    frequency = torch.tensor(record["about"]["frequency"], dtype=torch.float32)
    prior, inner = (frequency / frequency.sum()).log(), replace(INNER, steps=STEPS[-1])
    done = len(path.read_text().splitlines()) * PART if path.exists() else 0
    for first in range(done, tasks, PART):
        part = synthetic_tasks(JUDGED, first, PART, family)
        key = Key.from_seed(JUDGED).child("supernet", first)
        starts = {"prior": prior, "predicted": torch.tensor(record["log"][first : first + PART])}
        curves = {
            name: warm_start(part, alphas, key, inner, measured=STEPS).T.tolist() for name, alphas in starts.items()
        }
        with path.open("a") as file:
            file.write(json.dumps(curves) + "\n")
        print(f"{first + PART} tasks started from both", flush=True)


def judged(folder: Path, family: Family) -> dict[str, Any]:
    """What `train_all` found."""
    parts = [json.loads(line) for line in (folder / "train_each.jsonl").read_text().splitlines()]
    table = {name: torch.tensor([row for part in parts for row in part[name]]) for name in parts[0] if name not in SKIP}
    truth = table["truth"]
    right = table["accuracies"].argmax(1) == truth
    own = table["accuracies"].gather(1, truth.unsqueeze(1)).squeeze(1)
    return {
        "by_loss": share(table["losses"].argmin(1) == truth),
        "by_accuracy": share(right),
        "by_accuracy_later": share(right[LOOKED_AT:]) if len(right) > LOOKED_AT else None,
        "confusion_by_accuracy": confusion(truth, table["accuracies"].argmax(1), family.operations),
        "confusion_by_loss": confusion(truth, table["losses"].argmin(1), family.operations),
        "mean_accuracy": {
            name: [round(v, 4) for v in table["accuracies"][truth == number].mean(0).tolist()]
            for number, name in enumerate(family.operations)
        },
        "own_accuracy": float(own.mean()),
        "schedule": asdict(SCHEDULE),
        "seconds": sum(part["seconds"] for part in parts),
    }


SKIP = ("first", "seconds")


def named(folder: Path, family: Family) -> dict[str, Any]:
    """What `name_all` found."""
    record = json.loads((folder / "named.json").read_text())
    truth, log = torch.tensor(record["truth"]), torch.tensor(record["log"])
    frequency = torch.tensor(record["about"]["frequency"], dtype=torch.float64)
    own = -log.gather(1, truth.unsqueeze(1)).mean()
    base = -(frequency / frequency.sum()).log()[truth].mean()
    return {
        "named": share(log.argmax(1) == truth),
        "confusion": confusion(truth, log.argmax(1), family.operations),
        "nats": {"prediction": float(own), "prior": float(base)},
        "about": record["about"],
    }


def warmed(folder: Path) -> dict[str, Any]:
    """What `warm_all` found."""
    parts = [json.loads(line) for line in (folder / "warm.jsonl").read_text().splitlines()]
    prior, predicted = (
        torch.tensor([row for part in parts for row in part[name]], dtype=torch.float64)
        for name in ("prior", "predicted")
    )
    curve = {}
    for at, step in enumerate(STEPS):
        ours, theirs = predicted[:, at], prior[:, at]
        gain = paired(ours.numpy()[None], theirs.numpy()[None], Key.from_seed(0).child(step))
        curve[step] = {
            "prior": float(theirs.mean()),
            "predicted": float(ours.mean()),
            "gain": [gain.mean, gain.low, gain.high],
            "tasks_better": float((ours > theirs).double().mean()),
        }
    return {"tasks": len(prior), "inner": asdict(replace(INNER, steps=STEPS[-1])), "steps": curve}


def report(folder: Path, family: Family) -> None:
    """Join what is there into one JSON file and one page."""
    told: dict[str, Any] = {
        "device": device_name("cpu"),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "numpy", "numba")},
        "commit": commit(),
        "seeds": {"judged": JUDGED, "taught": TAUGHT},
        "family": asdict(family),
    }
    if (folder / "train_each.jsonl").exists():
        told["train_each"] = judged(folder, family)
    if (folder / "named.json").exists():
        told["meta_model"] = named(folder, family)
    if (folder / "warm.jsonl").exists():
        told["warm_start"] = warmed(folder)
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_atomically(RESULTS / "one_edge.json", (json.dumps(told, indent=1) + "\n").encode())
    write_atomically(RESULTS / "one_edge.md", page(told).encode())
    print(page(told))


def page(told: dict[str, Any]) -> str:
    """The measured answers as Markdown."""
    family = told["family"]
    lines = [
        "# One edge whose right operation is known",
        "",
        f"{len(family['operations'])} operations; {family['support']} support images of {family['side']}x"
        f"{family['side']}x{family['channels']} in two classes, {100 * family['noise']:g} % of their labels "
        f"turned round. {told['device']}, {told['threads']} thread, "
        f"torch {told['versions']['torch']}, commit {told['commit']}.",
        "",
        *limits(told),
        "",
    ]
    if each := told.get("train_each"):
        lines += ["## Each operation trained alone", ""]
        lines += [f"- picked by query accuracy: {_share(each['by_accuracy'])}"]
        if later := each["by_accuracy_later"]:
            lines.append(
                f"- of these after the first {LOOKED_AT}, when the choice of accuracy was settled: {_share(later)}"
            )
        lines += [f"- picked by query loss: {_share(each['by_loss'])}", ""]
        lines += [_table("picked by accuracy", each["confusion_by_accuracy"]), ""]
        lines += [_table("mean query accuracy", each["mean_accuracy"]), ""]
    if model := told.get("meta_model"):
        nats = model["nats"]
        lines += [f"## The meta-model, of {model['about']['learnt_from']} other tasks", ""]
        lines += [f"- names the operation: {_share(model['named'])}"]
        lines += [f"- nats per task: {nats['prediction']:.3f}, prior {nats['prior']:.3f}"]
        lines += ["", _table("named", model["confusion"]), ""]
    if warm := told.get("warm_start"):
        lines += [f"## Warm start, {warm['tasks']} tasks, the same first weights from both starts", ""]
        rows = [
            (
                step,
                f"{100 * at['prior']:.2f} %",
                f"{100 * at['predicted']:.2f} %",
                Estimate(*at["gain"]).scaled(100).text(2, "+"),
                f"{100 * at['tasks_better']:.0f} %",
            )
            for step, at in warm["steps"].items()
        ]
        headings = ("steps", "from prior", "from prediction", "gain, 95 % interval", "tasks better")
        lines += [Table(headings, rows).markdown(), ""]
    return "\n".join(lines)


def limits(told: dict[str, Any]) -> list[str]:
    """What the figures do not say."""
    missing = [name for name in darts().operations if name not in told["family"]["operations"]]
    lines = [
        "The numbers of the family (channels, images, noise, two-tap filters) and the features through which images "
        "are seen were found on some dozen other settings and tasks of another generator; the judged tasks were not "
        f"used, but for the choice of accuracy over loss on the first {LOOKED_AT} of those trained. The meta-model is "
        "told the operation of each teacher that it learns from, not what training each operation found; its warm "
        "start is its log-probabilities, the prior the logarithm of how often each operation was seen."
    ]
    if missing:
        left_out = ", ".join(missing)
        lines += ["", f"Of DARTS' operations, {left_out} is left out: on these tasks its students do not win."]
    return lines


def _share(found: dict[str, Any]) -> str:
    low, high = found["wilson95"]
    return (
        f"{found['right']} of {found['tasks']}, {100 * found['share']:.1f} % [{100 * low:.1f}, {100 * high:.1f}] "
        "(Wilson, 95 %)"
    )


def _table(title: str, rows: dict[str, list[Any]]) -> str:
    return Table([f"teacher \\ {title}", *rows], [[name, *map(str, row)] for name, row in rows.items()]).markdown()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train-each", "name", "warm", "report"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--test", type=int, default=480)
    parser.add_argument("--operations", choices=("six", "all"), default="six")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    family = Family(operations=darts().operations) if asked.operations == "all" else Family()
    if asked.what == "train-each":
        train_all(asked.folder, asked.tasks, family)
    elif asked.what == "warm":
        warm_all(asked.folder, asked.tasks, family)
    elif asked.what == "name":
        name_all(asked.folder, asked.train, asked.test, family)
    else:
        report(asked.folder, family)


if __name__ == "__main__":
    main()
