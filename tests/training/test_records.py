"""Run folders: written whole or not at all, and read without trust."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from metadarts.core.errors import ConfigError, RunError
from metadarts.meta import MetaState
from metadarts.store.files import require_place, write_atomically
from metadarts.training import Config, RunFolder, load_config, with_settings
from metadarts.training.catalogue import load_plugins
from metadarts.training.checkpoints import FORMAT, VERSION

FORM = {"format": FORMAT, "version": VERSION}
COOLING = str(Path(__file__).parents[1] / "extension" / "plugins" / "cooling.py")


@pytest.fixture
def run(tmp_path, tiny):
    return RunFolder.create(tmp_path / "run", tiny(), {"metadarts": "test"})


def saved(run, make, changes=None, **facts):
    experiment = make(changes)
    state = experiment.fresh_state()
    run.save("best", state, **facts)
    return state


def test_a_new_folder_holds_its_configuration_and_environment(run, tiny):
    assert run.config() == tiny()
    assert RunFolder.open(run.path).config() == tiny()
    assert json.loads((run.path / "env.json").read_text()) == {"metadarts": "test"}


def test_a_new_folder_reads_the_plugins_that_it_was_given(tmp_path):
    config = with_settings(Config(catalogue=load_plugins([COOLING])), {"relaxation.name": "cooling"})
    run = RunFolder.create(tmp_path / "run", config, {}, [COOLING])
    assert run.config() == config
    with pytest.raises(ConfigError, match="uses the plug-in 'cooling'"):
        load_config(run.path / "config.yaml")


@pytest.mark.parametrize("facts", [{}, {"format": "metadarts.start", "version": 1}, {"format": FORMAT, "version": 2}])
def test_facts_of_something_else_are_refused(run, make, facts):
    saved(run, make)
    path = run.path / "checkpoints" / "best.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({name: of for name, of in told.items() if name not in FORM} | facts))
    with pytest.raises(RunError, match=r"no readable checkpoint 'best': (format|version): expected"):
        run.load("best")


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_nothing_that_exists_is_overwritten(tmp_path, tiny, kind):
    path = tmp_path / "taken"
    path.mkdir() if kind == "folder" else path.write_text("mine")
    with pytest.raises(RunError, match="taken exists: give --out another name"):
        RunFolder.create(path, tiny(), {})
    assert (list(path.iterdir()) == []) if kind == "folder" else path.read_text() == "mine"


def test_a_folder_inside_a_file_cannot_be(tmp_path, tiny):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        RunFolder.create(tmp_path / "file" / "run", tiny(), {})


@pytest.mark.parametrize("name", ["", "gone"])
def test_a_folder_without_configuration_is_no_run(tmp_path, name):
    with pytest.raises(RunError, match="is not a run folder"):
        RunFolder.open(tmp_path / name)


def test_records_are_kept_by_kind_and_in_order(run):
    assert run.records("train") == []
    for step in range(3):
        run.record(kind="train", step=step)
        run.record(kind="validate", step=step, accuracy=0.5)
    assert [line["step"] for line in run.records("train")] == [0, 1, 2]
    assert run.records("validate")[1] == {"kind": "validate", "step": 1, "accuracy": 0.5}


@pytest.mark.parametrize("rates", [False, True], ids=["constant rates", "learned rates"])
def test_a_checkpoint_comes_back_bit_for_bit(run, make, rates):
    state = saved(run, make, {"inner.learn_rates": rates}, validation_accuracy=0.5)
    found = run.load("best")
    assert {name: tensor.dtype for name, tensor in found.params.items()} == {
        name: tensor.dtype for name, tensor in state.params.items()
    }
    assert all(torch.equal(found.params[name], tensor) for name, tensor in state.params.items())
    assert found.log_rates.keys() == state.log_rates.keys()
    assert bool(found.log_rates) == rates
    for name, tensor in state.log_rates.items():
        assert torch.equal(found.log_rates[name], tensor)
        assert torch.equal(found.rates[name], state.rates[name])
    assert rates or found.rates is None
    assert found.facts["step"] == 0
    assert found.facts["validation_accuracy"] == 0.5


def tensors_of(run: RunFolder) -> Path:
    """The one tensor file of checkpoint "best"."""
    (path,) = (run.path / "checkpoints").glob("best-*.safetensors")
    return path


def test_saving_leaves_two_files_and_no_scraps(run, make):
    saved(run, make)
    saved(run, make)
    assert sorted((run.path / "checkpoints").iterdir()) == sorted(
        [run.path / "checkpoints" / "best.json", tensors_of(run)]
    )


class Killed(BaseException):
    """What a kill is to Python code: no handler for errors sees it."""


@pytest.mark.parametrize("calls", range(10))
def test_a_save_killed_at_any_point_leaves_a_whole_checkpoint(run, make, monkeypatch, calls):
    """Each call that changes the folder, in turn, is the last: what is there then is the old or the new state."""
    saved(run, make)
    before = run.load("best").params
    state = make().fresh_state()
    state.params = {name: tensor + 1 for name, tensor in state.params.items()}
    left = [calls]

    def counted(do):
        def call(*args, **options):
            if not left[0]:
                raise Killed
            left[0] -= 1
            return do(*args, **options)

        return call

    for name in ("open", "replace", "unlink"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    with suppress(Killed):
        run.save("best", state)
    monkeypatch.undo()
    after = run.load("best").params
    old, new = (all(torch.equal(after[name], those[name]) for name in those) for those in (before, state.params))
    assert (old, new) == (calls < 7, calls >= 7), "the seventh call moves the JSON into place"
    run.save("best", state)
    assert all(torch.equal(run.load("best").params[name], tensor) for name, tensor in state.params.items())
    assert sorted((run.path / "checkpoints").iterdir()) == sorted(
        [run.path / "checkpoints" / "best.json", tensors_of(run)]
    )


def test_views_of_one_tensor_are_saved_apart(run, tiny):
    whole = torch.arange(6.0)
    run.save("best", MetaState({"a": whole[::2], "b": whole[1::2], "c": whole[:2]}, {}, tiny().outer))
    assert {name: tensor.tolist() for name, tensor in run.load("best").params.items()} == {
        "a": [0.0, 2.0, 4.0],
        "b": [1.0, 3.0, 5.0],
        "c": [0.0, 1.0],
    }


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        del content[-10:]
    elif how == "empty":
        content.clear()
    elif how == "longer":
        content += b"\0"
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "empty", "longer", "one bit"])
def test_damaged_tensors_are_refused(run, make, how):
    saved(run, make)
    damage(tensors_of(run), how)
    with pytest.raises(RunError, match=r"best-\w+\.safetensors is damaged"):
        run.load("best")


def test_unreadable_facts_are_refused(run, make):
    saved(run, make)
    (run.path / "checkpoints" / "best.json").write_text("{")
    with pytest.raises(RunError, match="no readable checkpoint 'best'"):
        run.load("best")


def test_facts_without_a_hash_vouch_for_nothing(run, make):
    saved(run, make)
    (run.path / "checkpoints" / "best.json").write_text(json.dumps(FORM | {"step": 1, "tensors": tensors_of(run).name}))
    with pytest.raises(RunError, match="no readable checkpoint 'best': sha256: expected a value, got none"):
        run.load("best")


@pytest.mark.parametrize("missing", ["facts", "tensors"])
def test_half_a_checkpoint_is_none(run, make, missing):
    saved(run, make)
    (run.path / "checkpoints" / "best.json" if missing == "facts" else tensors_of(run)).unlink()
    with pytest.raises(RunError, match="no readable checkpoint 'best'"):
        run.load("best")


class Payload:
    """What a hostile file would hold."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("packed", ["pickle", "torch"])
def test_a_pickle_is_refused_and_not_run(run, make, tmp_path, packed):
    saved(run, make)
    path, marker = tensors_of(run), tmp_path / "marker"
    if packed == "torch":
        torch.save({"param/a": Payload(marker)}, path)
    else:
        path.write_bytes(f"cos\nsystem\n(S'touch {marker}'\ntR.".encode())  # protocol 0, by hand
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (run.path / "checkpoints" / "best.json").write_text(
        json.dumps(FORM | {"step": 1, "tensors": path.name, "sha256": digest})
    )
    with pytest.raises(RunError, match="is not a safetensors file"):
        run.load("best")
    assert not marker.exists()


def test_a_checkpoint_is_tensors_behind_a_header_of_json(run, make):
    saved(run, make)
    content = tensors_of(run).read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert "param/alphas.normal" in header


def test_writing_replaces_the_whole_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"a longer first content")
    write_atomically(path, b"short")
    assert path.read_bytes() == b"short"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full) if call == "fsync" else monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunError, match="No space left on device; free some space"):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_stops_half_way_leaves_the_old_file_whole(tmp_path):
    """Not simulated: the system itself stops the write, as a full disk would."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(RunError, match=r"cannot write .*File too large"):
            write_atomically(path, bytes(1 << 18))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("above", ["missing", "file"])
def test_a_place_that_cannot_be_written_to_is_named(tmp_path, above):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write .*result\.json"):
        write_atomically(tmp_path / above / "result.json", b"{}")


def test_a_file_whose_writing_is_ended_by_a_signal_leaves_no_piece(tmp_path, monkeypatch):
    def ended(descriptor):
        raise SystemExit(143)

    monkeypatch.setattr("os.fsync", ended)
    with pytest.raises(SystemExit):
        write_atomically(tmp_path / "result.json", b"new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["new", "new/deeper/still", "x" * 200])
def test_a_place_for_a_result(tmp_path, name):
    require_place(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file/below", "file/far/below", "x" * 300])
def test_a_place_that_takes_no_result(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        require_place(tmp_path / name)
