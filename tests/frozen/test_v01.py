"""Files of version 0.1 are read, and give the numbers that version 0.1 gave.

``v01/make.py`` asked version 0.1 for ``v01/expected.json``; here it asks today's verbs, in this process, of a copy.
What is read is compared to the bit on any machine; what is computed, to a tolerance where the machine is another one.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from benchmarks.frozen import FIRST_NAMES, other_machine, read_json, with_first_names
from metadarts.cli import main
from metadarts.fewshot.folder import load_task, save_task
from tests.frozen.v01 import make

FILES = Path(make.__file__).parent
EXPECTED = read_json(FILES / "expected.json")
TOLERANCE = 1e-3
"""Of numbers that are computed, on another machine: single precision, and sums in another order."""

COMPUTED = re.compile(r"^interrupted/search --resume/(best|last)/|^(finished|metamodel)/adapt .*/tensors$")
"""Digests of what is computed anew: the bits of a machine."""

SECTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "finished": make.finished_facts,
    "interrupted": make.interrupted_facts,
    "task": lambda folder: make.task_facts(folder / "task") | make.task_answers(folder),
    "exported": make.exported_facts,
    "archive": make.archive_facts,
    "metamodel": make.metamodel_facts,
}


def verbs(folder: Path, *lines: list[str]) -> list[str]:
    """Run command lines in ``folder``; what each printed. In this process: torch is imported once."""
    said = []
    for words in lines:
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["metadarts", *words])
            patch.setattr(sys, "excepthook", sys.excepthook)  # typer sets its own
            with pytest.raises(SystemExit) as ended:
                main()
        assert not ended.value.code, words
        said.append(out.getvalue())
    return said


def differing(then: Any, now: Any, where: str, same_machine: bool) -> Iterator[str]:
    """A line for each value that is not what it was. Finishes have the names of version 0.1."""
    if isinstance(then, dict) and isinstance(now, dict):
        now = {FIRST_NAMES.get(name, name): value for name, value in now.items()}
        yield from (f"{where}/{name}: on one side only" for name in sorted(then.keys() ^ now.keys()))
        for name in then.keys() & now.keys():
            yield from differing(then[name], now[name], f"{where}/{name}", same_machine)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for place, (old, new) in enumerate(zip(then, now, strict=True)):
            yield from differing(old, new, f"{where}/{place}", same_machine)
    elif then != now and (same_machine or not _is_rounded(then, now, where)):
        yield f"{where}: {then!r:.100} when frozen, {now!r:.100} now"


def _is_rounded(then: Any, now: Any, where: str) -> bool:
    if isinstance(then, float) and isinstance(now, float):
        percent = "/predict/" in where  # as printed, with one decimal
        return bool(now == pytest.approx(then, rel=TOLERANCE, abs=0.1001 if percent else TOLERANCE))
    return COMPUTED.match(where) is not None and isinstance(now, str)


def words_and_numbers(section: dict[str, Any]) -> dict[str, Any]:
    """What `archive` printed, without its prose."""
    lines = [*section["ls --limit 20"], section["verify"]]
    return {"said": [re.findall(r"[0-9a-f]{12,}|\d+(?:\.\d+)?%?|Genotype\(.*\)", line) for line in lines]}


@pytest.mark.slow
@pytest.mark.sampled(3)
@pytest.mark.parametrize("section", SECTIONS)
def test_each_is_read_and_gives_its_numbers(section, tmp_path, monkeypatch):
    for name in ("onnx", "onnxruntime") if section == "exported" else ():
        pytest.importorskip(name)
    monkeypatch.setattr("metadarts.export.check.RUNS", 1)  # how fast a file is, is not asked
    monkeypatch.setattr(make, "run", verbs)
    monkeypatch.setattr(make, "joint", lambda tensors, joint=make.joint: joint(with_first_names(tensors)))
    folder = shutil.copytree(FILES, tmp_path / "v01")
    then, now = EXPECTED[section], SECTIONS[section](folder)
    if section == "archive":
        then, now = words_and_numbers(then), words_and_numbers(now)
    assert list(differing(then, now, section, same_machine=not other_machine(EXPECTED))) == []


def test_a_task_folder_saved_anew_keeps_every_bit(tmp_path):
    save_task(load_task(FILES / "task"), tmp_path / "task")
    found = load_file(tmp_path / "task" / "task.safetensors")
    assert {name.partition("/")[0] for name in found} == {"support", "supernet", "inherited", "retrained"}
    assert make.joint(with_first_names(found)) == EXPECTED["task"]["tensors"]
    told = read_json(tmp_path / "task" / "task.json")
    assert (told["version"], list(told["measured"])) == (2, list(told["solutions"]))


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ({"soft": 1.0}, {"supernet": 1.0001}, []),
        ({"soft": 1.0}, {"supernet": 1.1}, ["a/soft: 1.0 when frozen, 1.1 now"]),
        ({"soft": 1.0}, {"inherited": 1.0}, ["a/inherited: on one side only", "a/soft: on one side only"]),
        ([1, 2], [1, 3], ["a/1: 2 when frozen, 3 now"]),
        ([1, 2], [1], ["a: [1, 2] when frozen, [1] now"]),
        ({"tensors": "x"}, {"tensors": "y"}, ["a/tensors: 'x' when frozen, 'y' now"]),
        (None, 0.0, ["a: None when frozen, 0.0 now"]),
    ],
)
def test_what_differs_is_told(then, now, said):
    assert list(differing(then, now, "a", same_machine=False)) == said
