"""TensorBoard finds every record at once, pictures only of what changed, and a full disk is one error."""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metadarts.core.errors import RunError
from metadarts.core.rng import Key
from metadarts.networks import supernet
from metadarts.relaxations import RELAXATIONS
from metadarts.spaces import darts
from metadarts.training.tensorboard_writer import TensorBoardWriter

SPACE = darts(2)
TRAIN = {
    "kind": "train",
    "step": 3,
    "seconds": 1.5,
    "loss": 1.25,
    "accuracy": 0.5,
    "finite_tasks": 8,
    "gradient_weights": 4.0,
    "gradient_rates": 0.25,
    "entropy_normal": 2.0,
    "margin_normal": 0.5,
    "mixing_share_normal": 0.25,
    "skips_reduce": 1,
    "support_losses": [1.5, 0.75],
    "rates": {"rates.weights": [0.5, 0.25], "rates.alphas": 30.0},
}
VALIDATE = {
    "kind": "validate",
    "step": 4,
    "accuracy": 0.75,
    "interval95": 0.125,
    "curve_accuracy": [0.25, 0.5],
    "curve_loss": [1.5, 1.0],
}


def alphas(step: int, seed: int) -> dict:
    noise = torch.randn(2, *SPACE.alpha_shape, generator=Key.from_seed(seed).torch())
    return {"kind": "alphas", "step": step, "normal": noise[0].tolist(), "reduce": noise[1].tolist()}


def read(folder) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


def scalars(events: EventAccumulator) -> dict[str, list[tuple[int, float]]]:
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_every_measurement_is_a_curve_as_soon_as_it_is_added(tmp_path):
    board = TensorBoardWriter(tmp_path, supernet(SPACE))
    board.add(VALIDATE)
    board.add(TRAIN)  # the smaller one last: it alone would wait in a buffer
    events = read(tmp_path)  # the board is still open
    board.close()
    assert scalars(events) == {
        "train/loss": [(3, 1.25)],
        "train/accuracy": [(3, 0.5)],
        "train/finite_tasks": [(3, 8.0)],
        "gradient_norm/weights": [(3, 4.0)],
        "gradient_norm/rates": [(3, 0.25)],
        "alphas/entropy_normal": [(3, 2.0)],
        "alphas/margin_normal": [(3, 0.5)],
        "mixing/share_normal": [(3, 0.25)],
        "alphas/skips_reduce": [(3, 1.0)],
        "inner/support_loss/0": [(3, 1.5)],
        "inner/support_loss/1": [(3, 0.75)],
        "rates/weights/0": [(3, 0.5)],
        "rates/weights/1": [(3, 0.25)],
        "rates/alphas": [(3, 30.0)],
        "validate/accuracy": [(4, 0.75)],
        "validate/interval95": [(4, 0.125)],
        "inner/query_accuracy/0": [(4, 0.25)],
        "inner/query_accuracy/1": [(4, 0.5)],
        "inner/query_loss/0": [(4, 1.5)],
        "inner/query_loss/1": [(4, 1.0)],
    }
    assert events.Tags()["images"] == ["inner/query_accuracy"]


def test_alphas_are_drawn_at_every_validation_and_the_cell_when_it_changed(tmp_path):
    board = TensorBoardWriter(tmp_path, supernet(SPACE))
    for step, seed in ((0, 1), (5, 1), (9, 2)):
        board.add(alphas(step, seed))
    board.close()
    events = read(tmp_path)
    steps = {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}
    assert steps == {"alphas/normal": [0, 5, 9], "alphas/reduce": [0, 5, 9], "genotype": [0, 9]}
    for tag in steps:
        event = events.Images(tag)[0]
        with Image.open(io.BytesIO(event.encoded_image_string)) as picture:
            assert picture.size == (event.width, event.height)
            assert min(picture.size) > 100


def measured(step: int, entropy: float) -> dict:
    return alphas(step, 1) | {"mixing_entropy_normal": entropy, "entropy_normal": 1.0, "stability": 0.5}


def test_the_measures_of_alphas_are_curves_and_a_picture_over_the_run(tmp_path):
    """A resumed run's picture begins with what was recorded before."""
    bytes_of = {}
    for name, earlier in (("fresh", []), ("resumed", [measured(0, 2.0)])):
        (tmp_path / name).mkdir()
        board = TensorBoardWriter(tmp_path / name, supernet(SPACE), earlier=earlier)
        board.add(measured(5, 1.5))
        board.close()
        events = read(tmp_path / name)
        assert scalars(events)["alphas/stability"] == [(5, 0.5)]
        (event,) = events.Images("alphas/over the run")
        bytes_of[name] = event.encoded_image_string
    assert bytes_of["fresh"] != bytes_of["resumed"]


def test_the_cells_are_drawn_by_the_weights_in_use(tmp_path):
    """Where the run's progress is known: with the same alphas, later in an annealed run, they stand out more."""
    board = TensorBoardWriter(tmp_path, replace(supernet(SPACE), relaxation=RELAXATIONS["annealed"]()))
    board.add(alphas(0, 1))
    for step, progress in ((1, 0.0), (2, 0.0), (3, 1.0)):
        board.add(alphas(step, 1) | {"progress": progress})
    board.close()
    drawn = {event.step: event.encoded_image_string for event in read(tmp_path).Images("alphas/cells")}
    assert list(drawn) == [1, 2, 3]
    ink = {step: 255.0 - np.asarray(Image.open(io.BytesIO(content)).convert("L")) for step, content in drawn.items()}
    assert ink[3].sum() > 1.1 * ink[2].sum()


def test_a_cell_whose_edges_only_trade_ranks_is_the_same_cell(tmp_path):
    board = TensorBoardWriter(tmp_path, supernet(SPACE))
    for step, (first, second) in enumerate(((2.0, 1.0), (1.0, 2.0))):
        table = torch.zeros(SPACE.alpha_shape)
        table[[0, 1, 2, 3], 3] = torch.tensor([first, second, first, second])
        board.add({"kind": "alphas", "step": step, "normal": table.tolist(), "reduce": table.tolist()})
    board.close()
    assert [event.step for event in read(tmp_path).Images("genotype")] == [0]


def test_a_resumed_run_hides_what_it_does_again(tmp_path):
    first = TensorBoardWriter(tmp_path, supernet(SPACE))
    for step in range(1, 6):
        first.add(TRAIN | {"step": step, "loss": 1.0})
    first.close()
    resumed = TensorBoardWriter(tmp_path, supernet(SPACE), purge_step=4)
    for step in (4, 5, 6):
        resumed.add(TRAIN | {"step": step, "loss": 2.0})
    resumed.close()
    assert scalars(read(tmp_path))["train/loss"] == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)]


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"kind": "train"},
        {"kind": "train", "step": "7", "loss": 1.0},
        {"kind": "train", "step": float("nan"), "loss": 1.0},
        {"kind": "train", "step": 10**20, "loss": 1.0},
        {"kind": "train", "step": 7, "loss": "low", "accuracy": None, "support_losses": None, "rates": [1]},
        {"kind": "validate", "step": 7, "curve_accuracy": [0.5, None]},
        {"kind": "alphas", "step": 7},
        {"kind": "alphas", "step": 7, "normal": [[0.0]], "reduce": [[0.0]]},
        alphas(7, 1) | {"normal": [[float("nan")] * 8] * 5},
        {"kind": "resume", "step": 7},
    ],
)
def test_what_does_not_fit_is_left_out(record, tmp_path):
    board = TensorBoardWriter(tmp_path, supernet(SPACE))
    board.add(record)
    board.close()
    tags = read(tmp_path).Tags()
    assert (tags["scalars"], tags["images"]) == ([], [])


def test_a_loss_that_left_the_numbers_is_shown_as_a_gap(tmp_path):
    board = TensorBoardWriter(tmp_path, supernet(SPACE))
    board.add({"kind": "train", "step": 1, "loss": float("inf")})
    board.close()
    ((step, value),) = scalars(read(tmp_path))["train/loss"]
    assert step == 1
    assert value != value


def test_closing_twice_is_closing(tmp_path):
    board = TensorBoardWriter(tmp_path, supernet(SPACE))
    board.close()
    board.close()
    with pytest.raises(RunError, match="is closed"):
        board.add(TRAIN)


FULL = """
import resource, sys, pathlib
from metadarts.core.errors import RunError
from metadarts.training.tensorboard_writer import TensorBoardWriter
from metadarts.networks import supernet
from metadarts.relaxations import RELAXATIONS
from metadarts.spaces import darts
folder, limit = pathlib.Path(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    board = TensorBoardWriter(folder, supernet(darts(2)))
    for step in range(10_000):
        board.add({"kind": "train", "step": step, "loss": 1.0})
except RunError as error:
    print(error)
if limit:
    board.close()
    print("closed")
"""


def children_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("limit", [0, 4096])
def test_a_full_disk_is_one_error_without_a_trace_or_a_wait(limit, tmp_path):
    started, worked = time.monotonic(), children_seconds()
    command = [sys.executable, "-B", "-c", FULL, str(tmp_path), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"cannot write {tmp_path}/events.out.tfevents.")
    assert "File too large; free some space" in lines[0]
    assert lines[1:] == (["closed"] if limit else [])
    # A wait would be of a minute or more. A machine that has other work gives a process a tenth of its time at least.
    assert time.monotonic() - started < 30 + 10 * (children_seconds() - worked)
    if limit:
        assert len(scalars(read(tmp_path))["train/loss"]) > 20  # what was written before can be read


def test_a_folder_that_is_not_there_is_one_error(tmp_path):
    with pytest.raises(RunError, match=r"cannot write .*: No such file or directory"):
        TensorBoardWriter(tmp_path / "gone", supernet(SPACE))


def test_drawing_costs_little(tmp_path, record_property):
    """Reported, not asserted: a busy machine must not fail it."""
    board = TensorBoardWriter(tmp_path, supernet(darts()))
    noise = torch.randn(4, *darts().alpha_shape, generator=Key.from_seed(0).torch())
    for step in range(2):  # the first pays for imports
        started = time.perf_counter()
        board.add({"kind": "alphas", "step": step, "normal": noise[step].tolist(), "reduce": noise[step + 2].tolist()})
    record_property("seconds to draw an alphas record with a changed cell", round(time.perf_counter() - started, 3))
    board.close()


@pytest.mark.parametrize("shift", [-86_400, 0, 86_400])
def test_a_clock_that_was_set_leaves_the_steps_in_order(tmp_path, monkeypatch, shift):
    now = time.time
    for first, ahead in ((0, 0), (5, shift), (10, 0)):
        monkeypatch.setattr(time, "time", lambda ahead=ahead: now() + ahead)
        board = TensorBoardWriter(tmp_path, supernet(darts(2)))
        for step in range(first, first + 5):
            board.add({"kind": "train", "step": step, "loss": 1.0})
        board.close()
    found = read(tmp_path).Scalars("train/loss")
    assert [event.step for event in found] == list(range(15))
    assert [event.wall_time for event in found] == sorted(event.wall_time for event in found)
