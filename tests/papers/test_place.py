"""Whose folder it is, and what in it is not taken for what it was: refused in one sentence, before anything is done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from metadarts.core.errors import DataError, RunError
from metadarts.papers.reproduction import Job, Stopped, carry_out, tabulate, trainings
from metadarts.papers.reproduction.job import Findings
from metadarts.papers.reproduction.place import locked
from metadarts.training import Config, RunFolder, with_settings
from metadarts.training.config import to_settings
from tests.papers.tiny_tables import job, shrink, source, spec

FEW = ("headline", "maml")
HEADLINE, MAML = "headline-1shot-seed0-adapted", "maml-1shot-seed0-adapted"


class Done(NamedTuple):
    """A table that was carried out."""

    job: Job
    findings: Findings
    digest: str


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        yield


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Done:
    """The headline and MAML, in one setting."""
    work = job(tmp_path_factory.mktemp("few"), spec(FEW))
    findings = carry_out(work)
    return Done(work, findings, tabulate(work, findings).digest)


@pytest.fixture
def copy(few, tmp_path) -> Job:
    """The work of ``few`` in a folder of the test's own."""
    out = tmp_path / "copy"
    shutil.copytree(few.job.out, out)
    return replace(few.job, out=out)


def everything(folder: Path) -> dict[str, bytes]:
    """Every file by its name, a lock's too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def measured_file(work: Job, name: str) -> Path:
    return work.out / "measured" / "1shot" / f"{name}.json"


@pytest.mark.parametrize("name", ["maml-1shot-seed0-adapted", "headline-1shot-seed0-cells", "pixels-pixels"])
def test_an_edited_measurement_is_refused(copy, name):
    path = measured_file(copy, name)
    told = json.loads(path.read_text())
    told["accuracies"][0] = 1.0 - told["accuracies"][0] if told["accuracies"][0] != 0.5 else 0.4
    path.write_text(json.dumps(told))
    with pytest.raises(RunError, match="was changed since it was written; remove it") as refused:
        carry_out(copy)
    assert str(path) in str(refused.value)


def test_a_measurement_that_is_none_is_refused(copy):
    measured_file(copy, MAML).write_text("{}")
    with pytest.raises(RunError, match="expected a value, got none; remove it, and the row is measured again"):
        carry_out(copy)


def test_the_measurement_of_another_row_is_refused(copy):
    shutil.copy(measured_file(copy, HEADLINE), measured_file(copy, "headline-1shot-seed0-unadapted"))
    with pytest.raises(RunError, match="was measured on something else: its mode is 'adapted', expected 'unadapted'"):
        carry_out(copy)


def test_a_folder_kept_as_text_is_trained_again_and_its_measurements_hold(copy, few, counted):
    """What git keeps of a table: no checkpoints, and no word that a training has ended."""
    for run in (copy.out / "runs").iterdir():
        shutil.rmtree(run / "checkpoints")
        (run / "finished.json").unlink()
    assert tabulate(copy, carry_out(copy)).digest == few.digest
    assert len(counted["search"]) == len(list((copy.out / "runs").iterdir()))
    assert counted["measure"] == []


def test_the_measurement_of_another_checkpoint_is_refused(copy):
    """The training is gone and another one is there in its place, as long but of other weights."""
    shutil.rmtree(copy.out / "runs" / "maml-1shot-seed0")
    other = spec(FEW)
    other = replace(other, recipe=replace(other.recipe, maml=other.recipe.maml | {"outer.weight_rate": 0.02}))
    with pytest.raises(RunError, match="was measured on something else: its checkpoint is"):
        carry_out(replace(copy, spec=other))


def test_a_removed_measurement_is_measured_again(copy, few, counted):
    measured_file(copy, MAML).unlink()
    assert tabulate(copy, carry_out(copy)).digest == few.digest
    assert counted == {"search": [], "measure": ["maml"]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget": "hour"}, "holds another table: its budget is 'smoke', asked for is 'hour'"),
        ({"split": "other"}, "holds another table: its split is 'built-in', asked for is 'other'"),
        ({"spec": replace(spec(FEW), name="tiny-too")}, "holds another table: its table is 'tiny', asked for is 'tiny"),
    ],
)
def test_the_folder_of_another_table_is_refused(copy, counted, changes, words):
    before = everything(copy.out)
    with pytest.raises(RunError, match=words):
        carry_out(replace(copy, **changes))
    assert everything(copy.out) == before
    assert counted == {"search": [], "measure": []}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outer.weight_rate": 0.5}, r"was trained with other settings: outer.weight_rate is .*, this table wants 0.5"),
        ({"evaluate.steps": 4}, r"was trained with other settings: evaluate.steps is 1, this table wants 4"),
        ({"training.validation_tasks": 3}, None),
    ],
)
def test_trainings_of_other_settings_are_refused(copy, counted, change, words):
    work = replace(copy, spec=spec(FEW, change))
    if words is None:  # what the budget fixes, the recipe does not change
        assert tabulate(work, carry_out(work)).rows
        return
    with pytest.raises(RunError, match=words):
        carry_out(work)
    assert counted["search"] == []


def test_a_training_with_another_variant_is_refused_whose_options_have_other_names(tmp_path):
    configs = {name: with_settings(Config(), {"macro.name": name}) for name in ("conv4", "tnas")}
    assert len({frozenset(to_settings(config)["macro"]) for config in configs.values()}) == 2
    for found, wanted in (("conv4", "tnas"), ("tnas", "conv4")):
        folder = RunFolder.create(tmp_path / found, configs[found], {})
        with pytest.raises(RunError, match=f"other settings: macro.name is '{found}', this table wants '{wanted}'"):
            trainings._require_same(folder, configs[wanted], None)


def test_trainings_of_another_length_are_refused(copy):
    with pytest.raises(RunError, match=r"training.meta_steps is 2, this table wants 3"):
        carry_out(replace(copy, spec=spec(FEW, updates=3)))


def test_another_place_of_the_same_data_is_no_other_training(copy, few, counted):
    work = replace(copy, place="elsewhere")
    assert tabulate(work, carry_out(work)).digest == few.digest
    assert counted["search"] == []


def test_other_data_are_refused_wherever_they_could_come_in(copy, counted):
    work = replace(copy, source=source(changed=1))
    with pytest.raises(DataError, match="holds other episodes: content_sha256"):
        carry_out(work)
    (copy.out / "episodes-1shot.jsonl").unlink()
    with pytest.raises(RunError, match="the 1-shot test episodes are not those this table was begun with"):
        carry_out(work)
    (copy.out / "plan.json").unlink()
    (copy.out / "episodes-1shot.jsonl").unlink()
    shutil.rmtree(copy.out / "measured")
    with pytest.raises(RunError, match="was trained on other data than those given"):
        carry_out(work)
    assert counted == {"search": [], "measure": []}


def test_an_edited_test_episode_is_refused(copy, counted):
    path = copy.out / "episodes-1shot.jsonl"
    lines = path.read_text().splitlines()
    task = json.loads(lines[1])
    rows = copy.source.classes[task["classes"][0]].rows.tolist()
    task["query"][0][0] = next(row for row in rows if row not in task["query"][0] + task["support"][0])
    path.write_text("\n".join([lines[0], json.dumps(task), *lines[2:]]) + "\n")
    with pytest.raises(DataError, match="was changed: its episodes hash to"):
        carry_out(copy)
    assert counted == {"search": [], "measure": []}


def test_removed_test_episodes_are_drawn_anew_and_are_the_same(copy, few, counted):
    (copy.out / "episodes-1shot.jsonl").unlink()
    assert tabulate(copy, carry_out(copy)).digest == few.digest
    assert counted == {"search": [], "measure": []}


def test_a_broken_plan_is_refused(copy):
    (copy.out / "plan.json").write_text("{}")
    with pytest.raises(RunError, match=r"plan\.json: table: expected a value, got none; give another --out"):
        carry_out(copy)


def test_two_processes_never_share_a_folder(copy):
    with locked(copy.out), pytest.raises(RunError, match="another process is at work in it"):
        carry_out(copy)
    assert carry_out(copy).found, "and the folder is free again"


@pytest.mark.parametrize("below", ["", "below"])
def test_a_place_that_is_a_file_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file"):
        carry_out(job(tmp_path / "file" / below))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


FOREIGN = {
    "a text": {"thesis.txt": "precious"},
    "another plan": {"plan.json": '{"name": "my own plan"}', "thesis.txt": "precious"},
    "no JSON": {"plan.json": "buy milk"},
    "another table": {"plan.json": '{"table": "huge", "budget": "smoke", "split": "built-in", "episodes": {}}'},
}


@pytest.mark.parametrize("so_far", [False, True])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_not_ours_is_refused_before_anything_is_written(tmp_path, kind, so_far):
    for name, text in FOREIGN[kind].items():
        (tmp_path / name).write_text(text)
    before = everything(tmp_path)
    with pytest.raises(RunError) as refused:
        carry_out(job(tmp_path, so_far=so_far))
    assert everything(tmp_path) == before
    assert str(tmp_path) in str(refused.value)


def test_a_foreign_folder_is_told_of_by_what_it_holds(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(RunError, match=r"holds something else \(thesis.txt\); give a new or an empty folder"):
        carry_out(job(tmp_path))


@pytest.mark.parametrize("there", [[], [".lock"], ["runs"]])
def test_a_new_folder_is_made_and_an_empty_one_taken(tmp_path, there):
    """Also one that holds a run alone, as `benchmarks.gpu_search` leaves it."""
    out = tmp_path / "deep" / "out"
    for name in there:
        out.mkdir(parents=True, exist_ok=True)
        (out / name).mkdir() if name == "runs" else (out / name).write_text("")
    with pytest.raises(Stopped):
        carry_out(job(out, stop=lambda: True))
    assert json.loads((out / "plan.json").read_text())["table"] == "tiny"


@pytest.mark.parametrize("moment", [0, 1])
def test_a_process_that_dies_before_its_plan_is_there_has_spoilt_nothing(monkeypatch, tmp_path, moment):
    """Killed within the first writes, of the episodes and of the plan, the same command goes on."""
    work, moved, move = job(tmp_path / "out", stop=lambda: True), [], Path.replace

    def dying(path: Path, target: Path) -> Path:
        if len(moved) == moment:
            raise KeyboardInterrupt  # as good as a SIGKILL: nothing is tidied up
        moved.append(target)
        return move(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            carry_out(work)
    assert not (work.out / "plan.json").exists()
    with pytest.raises(Stopped):
        carry_out(work)


def test_a_further_setting_is_added_to_the_plan(few, copy):
    before = json.loads((copy.out / "plan.json").read_text())
    with pytest.raises(Stopped):
        carry_out(replace(copy, shots=(1, 5), stop=lambda: True))
    after = json.loads((copy.out / "plan.json").read_text())
    assert after["episodes"].keys() == {"1", "5"}
    assert after["episodes"]["1"] == before["episodes"]["1"] == few.findings.episodes[1].sha256


def test_a_damaged_checkpoint_is_refused(copy):
    tensors = next((copy.out / "runs" / "maml-1shot-seed0" / "checkpoints").glob("best-*.safetensors"))
    content = tensors.read_bytes()
    tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RunError, match=r"is damaged: its hash is not the one in best\.json"):
        carry_out(copy)
