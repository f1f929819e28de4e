"""Of everything that is read through a schema an example as version 0.1 wrote it, and changes that must be refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from metadarts.export.model import MODEL
from metadarts.fewshot.folder import TASK
from metadarts.fewshot.start import FORM as FORM_OF_A_RUN
from metadarts.fewshot.start import START
from metadarts.papers.reproduction.place import PLAN_FILE
from metadarts.papers.reproduction.results_cache import MEASURED, SHARE, SHARES_OF
from metadarts.papers.reproduction.tabulate import FINISHED
from metadarts.papers.rows import DIGEST, TABLE
from metadarts.predictor.archive_rows import ORIGIN, SETTINGS, SPACE
from metadarts.predictor.rebuild import FACTS as EPISODE_FACTS
from metadarts.predictor.saved import PREDICTOR
from metadarts.predictor.synthetic.family import FACTS as TEACHER_FACTS
from metadarts.spaces._json import GENOTYPE
from metadarts.store.schema import Schema
from metadarts.tasks.frozen import EPISODE, HEADER
from metadarts.training.checkpoints import CHECKPOINT
from metadarts.training.records import RECORD
from metadarts.training.trainer_state import TRAINER
from tests.papers.made_tables import FIVE, ONE, table

Change = tuple[str, Any]
"""(place, value): the place as in messages, "rows[0].estimate.low"; "" for a change of several fields."""


@dataclass(frozen=True)
class Example:
    """What is read, and changes of it that must be refused: what is out of range, and parts that do not agree."""

    schema: Schema[Any]
    told: Any
    wrong: tuple[Change, ...] = ()

    @property
    def text(self) -> str:
        return json.dumps(self.told)


SHA = "0a" * 32
FORM = {"channels": 1, "height": 16, "width": 16, "mean": [0.4], "std": [0.3], "background": "dark"}
WRONG_FORM = (
    *(("form.channels", value) for value in (0, 2, 4, True)),
    *(("form.height", value) for value in (3, 15, 1025, 16.0)),
    *(("form.mean", value) for value in (None, [], [0.1, 0.2], 0.4)),
    *(("form.std", value) for value in (None, [0.0], [-1], ["1"])),
    ("form.background", "purple"),
)
LAYERS = [
    ["stem.0", [0], "conv", 1, 4, [3, 3], [1, 1], [1, 1], [1, 1], 1, True],
    ["", [1], "max_pool", [2, 2], [2, 2], [0, 0]],
    ["", [2], "mean"],
]
MODEL_FACTS = {
    "format": "metadarts.model", "version": 2, "classes": ["a", 'Größe "7"\n'],
    "image": {"channels": 1, "height": 16, "width": 16, "invert": True}, "genotype": None, "measured": {"images": 3},
    "layers": LAYERS, "features": 4, "tensors_sha256": SHA, "probes": [[-0.5, 1.25]] * 16,
}  # fmt: skip
WRONG_MODEL = (
    *(("classes", value) for value in ("ab", ["a"], ["a"] * 1001, ["a", 3])),
    *(("image.channels", value) for value in (2, 4, True)),
    *(("image.height", value) for value in ("16", 3, 1025)),
    ("image.invert", 1), ("image", "1x16x16"),
    *(("probes", value) for value in ([[0.0, 0.0]], ["ab"] * 16, [dict.fromkeys("ab", 1.0)] * 16, [[0.0]] * 16)),
    *(("layers", value) for value in ([], "relu", LAYERS[:2], [LAYERS[0], ["", [1], "__class__"], LAYERS[2]])),
    *(("layers[0]", value) for value in ("relu", [], LAYERS[0][:5], [*LAYERS[0], 1])),
    *(("layers[0][3]", value) for value in (True, 1.0, 2)), *(("layers[0][4]", value) for value in (0, 4097, "4")),
    *(("layers[1][1]", value) for value in ([], [-1], [2], [0, 1])), *(("features", value) for value in (5, 4.0, None)),
    ("", {"image": {"channels": 1, "height": 1024, "width": 1024, "invert": True}, "layers": [["", [0], "mean"]] * 2}),
    ("tensors_sha256", "abc"),
)  # fmt: skip
STEP = {"step": 0, "loss": None, "seconds": 0.5, "accuracy": 0.25}
TASK_FACTS = {
    "format": "metadarts.task", "version": 2, "sha256": SHA, "classes": ["a", "b"], "form": FORM | {"invert": True},
    "seed": 0,
    "network": {
        "space": {"name": "darts", "nodes": 2}, "macro": {"name": "tnas", "channels": 4, "stem": [4, 6]},
        "relaxation": {"name": "softmax"}, "model": {"head": "prototype", "bn": "support"},
    },
    "solutions": {"supernet": {"genotype": None, "kept": 1, "history": [STEP, STEP | {"step": 1, "loss": 0.5}]}},
    "start": {"name": "tiny"}, "notes": ["a note"], "measured": {"supernet": {"images": 3}}, "unit floats": True,
}  # fmt: skip
WRONG_TASK = (
    *WRONG_FORM, ("form.invert", 1),
    *(("classes", value) for value in ("ab", ["a"], ["a", "a"], ["a"] * 1001)),
    ("seed", 1.5), *(("network", value) for value in (None, [], {"space": 3}, {"space": [["name", "darts"]]})),
    ("solutions", {}), ("solutions", {"hard": TASK_FACTS["solutions"]["supernet"]}), ("solutions.supernet.kept", 99),
    ("solutions.supernet.history", []), ("solutions.supernet.history[0].step", -1),
    ("solutions.supernet.history[0].loss", "1"),
    ("measured", []), ("notes", "text"), ("start", 3), ("sha256", SHA[1:]),
)  # fmt: skip
TABLE_FACTS = {name: item for name, item in json.loads(table().to_json()).items() if name != DIGEST}
WRONG_TABLE = (
    ("budget", "day"), ("name", "x" * 10_001), ("environment", []), ("notes", "Made up."), ("rows", {}),
    ("episodes", {FIVE: "xyz"}), ("episodes", {ONE: "0" * 64}),
    *(("rows[0].estimate", value) for value in (None, {"mean": 60.0, "low": 59.0, "high": 61.0})),
    ("rows[0].estimate.mean", 60.0), ("rows[0].estimate.low", 0.9), ("rows[0].estimate.high", 0.1),
    ("rows[0].paper.accuracy", -0.1), ("rows[0].paper.interval", "±1"), ("rows[2].protocol", "D"),
    *(("rows[0].seeds", value) for value in ([], [1, 1], [10**13])),
    *(("rows[0].tasks", value) for value in (0, 0.5, 200)), ("rows[0].weights", -1), ("rows[1].name", "maml"),
    *(("rows[0].search_seconds", value) for value in (-1.0, 10**400)), ("rows[0].measure_seconds", -1.0),
    ("rows[1].unlike", None), ("rows[1].covers", ["596 of 600"]), ("rows[0].method", 7), ("rows[3]", []),
    ("comparisons[0].difference.low", -1.5), ("comparisons[0].overlaps", 1), ("comparisons[0].same", 0),
    ("comparisons[0].recipes_differ", None), ("comparisons[0].seconds", [1, 2, 3]),
    ("comparisons[0].meta_steps", [1, -2]), ("comparisons[0].paper", 1.5), ("comparisons[0].second", "mamI"),
)  # fmt: skip
SPACE_FACTS = {
    "name": "toy", "primitives": ["none", "skip_connect"], "nodes": 1, "inputs": 2, "cell_types": ["normal"],
    "edges_per_node": 2, "none": "none",
}  # fmt: skip
PREDICTOR_FACTS = {
    "format": "metadarts.metamodel", "version": 1, "space": SPACE_FACTS, "fitted": 20, "facts": {"archive": SHA},
    "spec": {
        "width": 16, "embedding": 8, "rate": 0.01, "decay": 0.01, "epochs": 1, "stop": 0, "batch": 32,
        "architecture": 1.0, "alphas": 1.0, "ranking": 1.0, "seed": 0,
    },
    "sight": {"kind": "footprints", "in_channels": 1, "reach": 1},
}  # fmt: skip
WRONG_PREDICTOR = (
    ("spec.width", 4097), ("spec.embedding", 0), ("spec.embedding", 4097), ("spec.rate", "0.01"), ("spec.rate", 0.0),
    ("fitted", 0), ("fitted", True), ("sight.kind", "eye"), ("sight.reach", 33), ("sight.reach", 0),
    ("sight.in_channels", 0), ("sight", {"kind": "stem", "in_channels": 1, "channels": []}), ("space.nodes", 65),
    ("sight", {"kind": "stem", "in_channels": 1, "channels": [4, 4097]}), ("space.nodes", 0), ("space.inputs", 10**9),
)  # fmt: skip
MEASURED_FACTS = {
    "of": {"episodes": SHA, "mode": "cells"}, "accuracies": [0.25, 1.0], "steps": 10, "bn": "transductive",
    "seconds": 3.25, "genotypes": ["a", "b"], "sha256": SHA,
}  # fmt: skip
TRAINER_FACTS = {
    "looks": 1, "best": 0.25, "micro_batch": 1, "evaluation_batch": 10, "seconds": 0.75, "reserve": 0.25,
    "smooth_loss": 1.5, "smooth_accuracy": None, "metrics_size": 433, "step": 2, "tensors": "last.safetensors",
}  # fmt: skip
EPISODE_OF_ARCHIVE = {
    "source": "made", "content_sha256": SHA, "split": "train", "classes": [0, 7], "support": [[32, -1], [18, 2]],
    "query": [[10, 56], [55, 42]],
}  # fmt: skip
FAMILY = {
    "channels": 2, "side": 10, "support": 512, "query": 1024, "kept": 0.5, "taps": 3, "reach": 4, "noise": 0.05,
    "operations": ["skip_connect", "sep_conv_3x3"],
}  # fmt: skip
GENOTYPE_FACTS = {
    "format": "metadarts.genotype", "version": 1, "space": "darts", "nodes": 1,
    "normal": [["skip_connect", 0], ["a", 1]], "normal_concat": [2], "reduce": [], "reduce_concat": [],
}  # fmt: skip
EPISODES_OF = {
    "format": "metadarts.episodes", "version": 1, "source": "toy", "content_sha256": SHA, "split": "test", "ways": 2,
    "shots": 1, "queries": 2, "tasks": 3, "sha256": SHA,
}  # fmt: skip

EXAMPLES = {
    "header of episodes": Example(HEADER, EPISODES_OF, (("sha256", None), ("ways", True), ("source", "x" * 10_001))),
    "episode": Example(
        EPISODE, {"classes": [13, 15], "support": [[110], [124]], "query": [[107, 105], [127, 125]]},
        (("classes[0]", -2), ("classes[0]", True), ("support", [1, 2]), ("query[0][0]", 2**63), ("classes", {"a": 7})),
    ),
    "model": Example(MODEL, MODEL_FACTS, WRONG_MODEL),
    "form of a run's images": Example(
        FORM_OF_A_RUN, FORM, tuple((name.removeprefix("form."), value) for name, value in WRONG_FORM if "." in name)
    ),
    "start": Example(
        START,
        {
            "format": "metadarts.start", "version": 1, "config": {"tasks": {"ways": 5}, "model": {"nodes": 2}},
            "form": FORM, "facts": {"source": "noise", "meta_steps": 0, "validation_accuracy": None},
        },
        (*WRONG_FORM, ("config", {"tasks": 5}), ("facts", [])),
    ),
    "task": Example(TASK, TASK_FACTS, WRONG_TASK),
    "table": Example(TABLE, TABLE_FACTS, WRONG_TABLE),
    "plan": Example(
        PLAN_FILE, {"table": "tiny", "budget": "smoke", "split": "built-in", "episodes": {"1": SHA}},
        (("episodes", 3), ("episodes", {"1": "x"}), ("table", None)),
    ),
    "end of a search": Example(FINISHED, {"steps": 2, "seconds": 0.8}, (("seconds", -1), ("seconds", "1"))),
    "share": Example(
        SHARE, {"first": 2, "last": 4, "accuracies": [0.1, 1 / 3], "genotypes": ["a", "c"], "seconds": 0.5},
        (
            ("accuracies", [0.5]), ("accuracies", [0.5, 1.5]), ("accuracies", [0.5, True]), ("first", False),
            ("first", 4), ("last", 10**13), ("genotypes", None), ("genotypes", [1, 2]), ("seconds", "1"),
        ),
    ),
    "what shares are of": Example(SHARES_OF, {"of": {"episodes": SHA, "mode": "cells"}}, (("of", []),)),
    "measured": Example(
        MEASURED, MEASURED_FACTS,
        (("accuracies", [1.5]), ("steps", -1), ("steps", 10_001), ("bn", 3), ("genotypes", "ab"), ("sha256", "0")),
    ),
    "space": Example(SPACE, SPACE_FACTS, (("nodes", 0), ("nodes", 10**9), ("primitives", "ab"), ("inputs", True))),
    "origin": Example(ORIGIN, {"kind": "episode", "facts": EPISODE_OF_ARCHIVE}, (("kind", 3), ("facts", []))),
    "settings": Example(SETTINGS, {"rule": "sgd", "steps": 5}),
    "facts of an episode": Example(
        EPISODE_FACTS, EPISODE_OF_ARCHIVE,
        (
            ("source", ""), ("split", 3), ("classes", []), ("classes", [0, 0]), ("classes", [0, 1, 2]),
            ("classes", [0, -1]), ("support", [[True, 2], [3, 4]]), ("support", [[1], [2, 3]]), ("support", [[], []]),
            ("support", [[1, 2]]), ("support[0][0]", -2), ("query[0][0]", -1), ("query[0][0]", 2**63),
        ),
    ),
    "facts of a teacher": Example(
        TEACHER_FACTS, {"seed": 0, "number": 3, "family": FAMILY},
        (("number", "1"), ("number", True), ("family.kept", 2.0), ("family.operations", ["none"]), ("family", None)),
    ),
    "predictor": Example(PREDICTOR, PREDICTOR_FACTS, WRONG_PREDICTOR),
    "genotype": Example(GENOTYPE, GENOTYPE_FACTS, (("space", 3), ("nodes", "4"), ("nodes", True), ("normal", "x"))),
    "state of a trainer": Example(
        TRAINER, TRAINER_FACTS,
        (
            ("looks", None), ("looks", -1), ("micro_batch", 0), ("micro_batch", 1.0), ("evaluation_batch", True),
            ("seconds", "1"), ("best", "0.5"), ("smooth_loss", [1]), ("metrics_size", -1), ("reserve", None),
        ),
    ),
    "checkpoint": Example(
        CHECKPOINT,
        {
            "format": "metadarts.checkpoint", "version": 1, "step": 2, "tensors": "best.safetensors", "sha256": SHA,
            "validation_accuracy": 0.5,
        },
        (
            ("step", -1), ("step", True), ("step", 1.0), ("tensors", 3), ("sha256", ""), ("sha256", None),
            *(("progress", value) for value in ("x", None, -0.1, 1.5, True)),
        ),
    ),
    "record": Example(RECORD, {"kind": "train", "step": 1, "loss": 1.5, "rates": {"w": [0.1]}}, (("kind", 3),)),
}  # fmt: skip
