"""Scaling: one size at a time, steps recomputed where memory asks for it, a picture from the rows."""

from __future__ import annotations

import pytest

from benchmarks import scaling
from benchmarks.rows import Row, append, read, said
from benchmarks.scaling import Plan, Point
from metadarts.core.errors import DataError

PROBES = {False: {"start_mb": 500.0, "peak_mb": 1300.0}, True: {"start_mb": 500.0, "peak_mb": 900.0}}


def test_axes_move_one_size_at_a_time_around_w1():
    points = scaling.points(largest=64)
    assert [point.tasks for axis, point in points if axis == "tasks"] == [1, 2, 4, 8, 16, 32, 64]
    assert [point.steps for axis, point in points if axis == "steps"] == [1, 2, 5, 10, 20]
    assert [point.channels for axis, point in points if axis == "channels"] == [8, 16, 32, 64]
    for axis, point in points:
        assert {name for name, value in vars(point).items() if value != getattr(Point(), name)} <= {axis}


def test_a_limit_ends_the_axis_of_tasks_only():
    points = scaling.points(largest=2)
    assert [point.tasks for axis, point in points if axis == "tasks"] == [1, 2]
    assert sum(axis == "steps" for axis, _ in points) == 5


def test_memory_is_predicted_in_proportion():
    assert scaling.predicted_mb(Point(tasks=1), False, PROBES[False]) == 1300.0
    assert scaling.predicted_mb(Point(), False, PROBES[False]) == 500 + 4 * 800
    assert scaling.predicted_mb(Point(tasks=1, channels=32), True, PROBES[True]) == 500 + 2 * 400
    assert scaling.predicted_mb(Point(tasks=1, steps=20), True, PROBES[True]) == 900.0


@pytest.mark.parametrize(
    "tasks, budget, free, expected",
    [
        (4, 8000, 20000, Plan(False, 4, 3700.0)),
        (4, 3000, 20000, Plan(True, 4, 2100.0)),
        (4, 8000, 3000, Plan(True, 4, 2100.0)),
        (4, 8000, 1500, Plan(True, 2, 1300.0)),
        (5, 100, 100, Plan(True, 1, 900.0)),
    ],
    ids=["stored", "past the budget", "past what is free", "in parts", "one task at a time"],
)
def test_steps_are_recomputed_where_storing_takes_too_much(tasks, budget, free, expected):
    assert scaling.plan(Point(tasks=tasks), PROBES, budget, free) == expected


@pytest.mark.parametrize("micro_batch, checkpoint", [(2, 0), (2, 1), (1, 1)])
def test_however_it_is_run_the_loss_is_the_same(micro_batch, checkpoint):
    sizes = {"tasks": 2, "steps": 1, "channels": 2, "size": 8}
    plain = scaling.meta_step(**sizes, checkpoint=0, micro_batch=2)()
    assert scaling.meta_step(**sizes, checkpoint=checkpoint, micro_batch=micro_batch)() == pytest.approx(
        plain, rel=1e-5
    )


def measurements(*axes):
    """Rows of every point of ``axes``; those of 16 tasks and more recomputed, 64 in parts."""
    for axis, point in scaling.points(largest=64):
        if axis in axes:
            how = Plan(point.tasks >= 16, 32 if point.tasks == 64 else point.tasks, 1000.0)
            seconds = [0.1 * point.tasks * point.steps * point.channels / 16 * (1 + wobble) for wobble in (0, 0.1, 0.2)]
            answer = {"seconds": seconds, "peak_mb": 500 + 100 * point.graph(how.recomputed) / 16, "threads": 1}
            yield scaling._row(axis, point, how, answer)


def test_rows_become_a_picture_of_three_panels(tmp_path, capsys):
    file, picture = tmp_path / "scaling.csv", tmp_path / "scaling.png"
    append(file, list(measurements(*scaling.AXES)))
    assert scaling.main(["--plot-only", "--out", str(file), "--picture", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(picture.read_bytes()) > 20_000, "an empty picture is smaller"
    assert [scaling.how_run(row) for row in read(file)][3:7] == [
        "all steps stored",
        "all steps recomputed",
        "all steps recomputed",
        "recomputed, tasks in parts",
    ]


def test_the_newest_row_of_a_point_is_drawn(tmp_path):
    file = tmp_path / "scaling.csv"
    append(file, list(measurements(*scaling.AXES)))
    last = list(measurements("tasks"))[2]
    append(file, [Row(**{**vars(last), "seconds": [7.5]})])
    found = scaling.newest(read(file))
    assert found["tasks"][4]["p50"] == "7.5"
    assert sorted(found["tasks"]) == [1, 2, 4, 8, 16, 32, 64]
    append(file, [Row(**{**vars(last), "threads": 2})])
    with pytest.raises(DataError, match=r"no rows of the axes \['steps', 'channels'\]"):
        scaling.newest(read(file))


@pytest.mark.thorough
def test_measuring_writes_each_row_as_soon_as_it_is_there(tmp_path, monkeypatch):
    file, picture = tmp_path / "scaling.csv", tmp_path / "scaling.png"
    monkeypatch.setattr(scaling, "AXES", {"tasks": (1, 2), "steps": (1, 2), "channels": (8, 16)})
    asked = []

    def run(function, kwargs, **_):
        assert function == "benchmarks.scaling:meta_step"
        asked.append((kwargs["tasks"], kwargs["steps"], kwargs["channels"], kwargs["checkpoint"]))
        if len(asked) == 5:
            raise RuntimeError("killed for memory")
        return {"seconds": [1.0], "peak_mb": 1000.0, "start_mb": 500.0, "threads": 1}

    monkeypatch.setattr(scaling, "run_isolated", run)
    with pytest.raises(RuntimeError, match="killed"):
        scaling.main(["--out", str(file), "--picture", str(picture), "--memory-gb", "1.2"])
    assert asked == [(1, 5, 16, 0), (1, 5, 16, 5), (1, 5, 16, 0), (2, 5, 16, 5), (4, 1, 16, 1)]
    assert [(row["sizes"], row["checkpoint"]) for row in read(file)] == [
        (said(tasks=1, steps=5, channels=16), "0"),
        (said(tasks=2, steps=5, channels=16), "5"),
    ]
    assert not picture.exists()
