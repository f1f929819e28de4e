"""A few cases of each kind of the campaign, and two kills of each verb; `python -m tests.campaign` runs thousands."""

from __future__ import annotations

import pytest

from tests.campaign import KINDS, run_case
from tests.campaign.kills import TRIALS, trials
from tests.campaign.stage import Fault, Stage, build

CASES = 2


@pytest.fixture(scope="module")
def shared(one_thread, tmp_path_factory):
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("campaign") / "shared"
    build(folder)
    return folder


@pytest.mark.sampled(2)
@pytest.mark.parametrize("number", range(CASES))
@pytest.mark.parametrize("name", KINDS)
def test_a_case(shared, tmp_path, name, number):
    run_case(name, number, 1, shared, tmp_path / "case")


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("name", TRIALS)
def test_a_kill(shared, tmp_path, name):
    rows = trials(name, 1, Stage(shared, tmp_path), 2)
    assert [row["signal"] for row in rows] == ["SIGKILL", "SIGTERM"]


def test_a_changed_file_and_a_traceback_would_be_seen(shared, tmp_path, monkeypatch):
    def spoils(*_):
        (tmp_path / "mine.txt").write_text("theirs")
        raise SystemExit(0)

    def breaks(*_):
        raise ValueError("a bug")

    (tmp_path / "mine.txt").write_text("mine")
    stage = Stage(shared, tmp_path)
    monkeypatch.setattr("tests.campaign.stage.main", spoils)
    with pytest.raises(Fault, match="changed"):
        stage.call("info")
    monkeypatch.setattr("tests.campaign.stage.main", breaks)
    with pytest.raises(Fault, match="ValueError: a bug"):
        stage.call("info")
