"""Files of measurements: appended to, refused when they would not fit, never half written."""

from __future__ import annotations

import re

import pytest
import torch

from benchmarks.rows import Row, append, heard, percentiles, read, said
from metadarts.core.errors import DataError, RunError


def row(what="W1", **changed):
    given = {
        "what": what,
        "sizes": said(tasks=4, edges=1),
        "engine": "ours",
        "order": "second",
        "checkpoint": 2,
        "seconds": [5.0, 1.0, 4.0, 2.0, 3.0],
        "peak_mb": 12.345,
        "threads": 1,
    }
    return Row(**(given | changed))


def test_a_line_says_what_it_was_measured_on():
    columns = row(extra={"loss": 1.25}).columns()
    assert (columns["p20"], columns["p50"], columns["p80"]) == ("1.8", "3", "4.2")
    assert (columns["repetitions"], columns["peak_mb"], columns["loss"], columns["threads"]) == (5, 12.3, 1.25, 1)
    assert columns["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert columns["device"]
    assert {"numba", "higher", "learn2learn", "numpy", "commit"} <= set(columns)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", columns["date"])


def test_percentiles_of_one_value_are_that_value():
    assert percentiles([2.0]) == (2.0, 2.0, 2.0)


def test_sizes_are_read_back():
    assert heard(said(tasks=4, bn="transductive", edges=12)) == {"tasks": 4, "edges": 12}


def test_later_rows_stand_below_earlier_ones(tmp_path):
    file = tmp_path / "folder" / "rows.csv"
    append(file, [row("first"), row("second, with a comma", peak_mb=None, checkpoint=None)])
    before = file.read_bytes()
    append(file, [row("third")])
    assert file.read_bytes().startswith(before)
    assert [line["what"] for line in read(file)] == ["first", "second, with a comma", "third"]
    assert (read(file)[1]["peak_mb"], read(file)[1]["checkpoint"]) == ("", "")


def test_other_columns_are_refused_and_nothing_is_written(tmp_path):
    file = tmp_path / "rows.csv"
    append(file, [row()])
    before = file.read_bytes()
    with pytest.raises(DataError, match=r"rows\.csv has other columns: expected .*,loss,.*; write to another file"):
        append(file, [row(extra={"loss": 1.0})])
    with pytest.raises(DataError, match=r"expected all to have columns"):
        append(file, [row(), row(extra={"loss": 1.0})])
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("cut, message", [(1, "ends in the middle of a line"), (-9, "another number of fields")])
def test_a_damaged_file_is_refused(tmp_path, cut, message):
    file = tmp_path / "rows.csv"
    append(file, [row()])
    text = file.read_text()
    damaged = text[:-cut] if cut > 0 else text.replace(",ours,", ",")
    file.write_text(damaged)
    with pytest.raises(DataError, match=message):
        append(file, [row()])
    assert file.read_text() == damaged


def test_a_file_that_cannot_be_written_keeps_its_rows(tmp_path, monkeypatch):
    file = tmp_path / "rows.csv"
    append(file, [row()])
    before = file.read_bytes()

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("metadarts.store.files.os.fsync", no_space)
    with pytest.raises(RunError, match="No space left"):
        append(file, [row()])
    assert file.read_bytes() == before


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no measurements at .*rows\.csv: .* run it first"):
        read(tmp_path / "rows.csv")
