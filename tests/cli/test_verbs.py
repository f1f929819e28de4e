"""The verbs from end to end: what they print, what they write, and that each has the common options."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shutil
import sys
import textwrap

import pytest
import typer

from metadarts import __version__
from metadarts.cli import main as entry
from metadarts.cli.common import plugin_words, program, read_settings
from metadarts.core.errors import ConfigError
from metadarts.core.progress import Progress
from metadarts.spaces import Genotype, darts
from metadarts.training import RunFolder
from metadarts.training.presets import PRESETS

VERBS = ("demo", "derive", "evaluate", "info", "report", "search")
PNG = b"\x89PNG\r\n\x1a\n"


def options_of(verb):
    from metadarts.cli.main import app

    command = typer.main.get_command(app).commands[verb]
    return {option for parameter in command.params for option in parameter.opts}, command


def all_commands():
    """(words, command) of every verb, those of groups too."""
    from metadarts.cli.main import app

    waiting = list(typer.main.get_command(app).commands.items())
    while waiting:
        name, command = waiting.pop()
        own = getattr(command, "commands", {})
        waiting += [(f"{name} {verb}", one) for verb, one in own.items()]
        if not own:
            yield name, command


def test_the_program_lists_its_verbs(metadarts):
    answer = metadarts("--help")
    assert answer.code == 0
    assert all(verb in answer.out for verb in VERBS)
    assert callable(entry)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_has_the_common_options(metadarts, verb):
    answer = metadarts(verb, "--help")
    assert answer.code == 0
    assert answer.err == ""
    options, command = options_of(verb)
    assert {"--device", "--threads"} <= options or verb == "report"  # which computes nothing
    assert all(parameter.help for parameter in command.params)


def test_no_verb_offers_an_option_that_it_ignores():
    unread = []
    for name, command in all_commands():
        function = command.callback
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
        read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        unread += [f"{name}: {option}" for option in inspect.signature(function).parameters if option not in read]
    assert not unread


def test_the_version(metadarts):
    assert metadarts("--version").out == f"metadarts {__version__}\n"


def test_search_lists_its_settings(metadarts):
    answer = metadarts("search", "--preset", "cifar", "--set", "tasks.shots=3", "--list-settings")
    assert (answer.code, answer.err) == (0, "")
    assert {"tasks.shots=3", "space.inputs_by=pairs", "outer.clip=10.0"} <= set(answer.out.splitlines())
    assert all(name in answer.out for name in PRESETS)


def test_the_help_of_search_names_the_presets_there_are():
    _, command = options_of("search")
    (preset,) = [parameter for parameter in command.params if parameter.name == "preset"]
    assert set(preset.help.removeprefix("Named settings: ").rstrip(".").split(", ")) == set(PRESETS)


def test_search_says_what_it_does_and_leaves_a_run(searched):
    out, answer = searched
    assert (answer.code, answer.err) == (0, "")
    assert "3-way 1-shot" in answer.out
    assert "first-order, 1 inner steps, 2 tasks per meta-step; batch norm: transductive" in " ".join(answer.out.split())
    assert "100%" in answer.out
    assert "best on validation classes:" in answer.out
    commands = [f"metadarts {verb} {out}" for verb in ("evaluate", "derive", "report")]
    head, *told = answer.out.splitlines()[-4:]
    assert head == "next:"
    assert [line[line.index("metadarts ") :] for line in told] == commands
    assert len({line[: line.index("metadarts ")] for line in told}) == 1, "as the program was called"
    for name in ("config.yaml", "env.json", "metrics.jsonl", "checkpoints/best.json"):
        assert (out / name).is_file()
    assert len(list(out.glob("checkpoints/best-*.safetensors"))) == 1
    assert len(list(out.glob("events.out.tfevents.*"))) == 1


def test_search_keeps_the_settings_it_was_given(run, data):
    config = RunFolder.open(run).config()
    assert (config.tasks.source, config.tasks.file) == ("omniglot", str(data.resolve()))
    assert (config.tasks.ways, config.tasks.shots) == (3, 1)
    assert config.macro.options["stem"] == (4, 6)
    assert (config.training.meta_steps, config.training.minutes) == (2, 0.0), "--meta-steps replaces quick's minutes"
    assert config.training.tasks == 2


def test_search_records_what_it_ran_on(run):
    facts = json.loads((run / "env.json").read_text())
    assert facts["threads"] == 1
    assert {"metadarts", "commit", "python", "packages", "device"} <= set(facts)


def test_set_wins_over_the_preset_and_the_options(metadarts, search_words, tmp_path):
    pairs = ("training.meta_steps=1", "inner.weight_rate=2e-1", "inner.order=first")
    more = (*(word for pair in pairs for word in ("--set", pair)), "--seed", "5", "--order", "second")
    answer = metadarts(*search_words(tmp_path / "run", *more))
    assert answer.code == 0, answer.err
    config = RunFolder.open(tmp_path / "run").config()
    assert (config.training.meta_steps, config.training.seed) == (1, 5)
    assert config.inner.weight_rate == 0.2
    assert config.inner.order == "first", "--set stands above --order"


def test_a_folder_name_is_printed_as_it_is(metadarts, run, tmp_path):
    odd = tmp_path / "run [b]old[red] :boom:"
    shutil.copytree(run, odd)
    answer = metadarts("derive", odd)
    assert answer.code == 0, answer.err
    assert f"written to {odd}/genotype.json\n" in answer.out


def test_evaluate_prints_and_writes_the_same_figures(metadarts, run, tmp_path):
    answer = metadarts("evaluate", run, "--tasks", 4, "--json", tmp_path / "a.json", "--device", "cpu")
    assert (answer.code, answer.err) == (0, "")
    facts = json.loads((tmp_path / "a.json").read_text())
    assert f"omniglot test: {facts['accuracy']:.2%} ± {facts['interval95']:.2%}" in answer.out
    assert (facts["tasks"], facts["split"], facts["ways"], facts["queries"]) == (4, "test", 3, 3)
    assert len(facts["curve"]) == facts["steps"] + 1 == 3


def test_evaluate_leaves_each_measurement_in_the_run_folder(metadarts, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    assert metadarts("evaluate", copy, "--tasks", 2, "--steps", 1).code == 0
    assert metadarts("evaluate", copy, "--tasks", 2, "--steps", 0, "--ways", 2, "--shots", 3, "--seed", 4).code == 0
    assert metadarts("evaluate", copy, "--tasks", 3, "--steps", 1).code == 0, "another measurement, another file"
    assert metadarts("evaluate", copy, "--tasks", 3, "--steps", 1).code == 0, "the same one, the same file"
    names = sorted(path.name for path in copy.glob("evaluation*.json"))
    assert [name.rpartition("-")[0] for name in names] == [
        "evaluation-test-2way-3shot-0steps-transductive-seed4",
        "evaluation-test-3way-1shot-1steps-transductive",
        "evaluation-test-3way-1shot-1steps-transductive",
    ]
    facts = json.loads((copy / names[0]).read_text())
    assert (facts["ways"], facts["shots"], facts["steps"], facts["tasks"]) == (2, 3, 0, 2)


def test_evaluate_measures_a_derived_cell(metadarts, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    assert metadarts("derive", copy).code == 0
    soft, text, table = tmp_path / "soft.json", tmp_path / "text.json", tmp_path / "json.json"
    words = ("evaluate", copy, "--tasks", 4, "--json")
    assert metadarts(*words, soft).code == 0
    answer = metadarts(*words, text, "--genotype", copy / "genotype.txt")
    assert "the discrete cell of" in answer.out
    assert metadarts(*words, table, "--genotype", copy / "genotype.json").code == 0
    found = {path.stem: json.loads(path.read_text()) for path in (soft, text, table)}
    assert found["text"] == found["json"]
    assert found["text"]["genotype"] == (copy / "genotype.txt").read_text().strip()
    assert found["soft"]["genotype"] is None
    assert found["soft"]["episodes_sha256"] == found["text"]["episodes_sha256"]
    assert found["soft"]["curve"] != found["text"]["curve"]


def test_evaluate_in_two_processes_gives_the_same_json(metadarts, installed, run, tmp_path):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    words = ("evaluate", run, "--tasks", 4, "--device", "cpu", "--threads", 1, "--json")
    assert installed(*words, one).code == metadarts(*words, two).code == 0
    assert one.read_bytes() == two.read_bytes()


def test_evaluate_may_change_what_does_not_belong_to_the_training(metadarts, run, data, tmp_path):
    moved, file = tmp_path / "moved.npz", tmp_path / "b.json"
    shutil.copy(data, moved)
    more = ("--steps", 0, "--bn", "support", "--split", "val", "--data", moved, "--seed", 3, "--precision", "bf16")
    answer = metadarts("evaluate", run, "--tasks", 2, "--json", file, *more)
    assert answer.code == 0, answer.err
    facts = json.loads(file.read_text())
    assert (facts["steps"], facts["bn"], facts["split"]) == (0, "support", "val")
    assert facts["accuracy"] == pytest.approx(1 / 3, abs=1e-6), "no step, one class vector: chance"


def test_derive_writes_the_cell(metadarts, run):
    answer = metadarts("derive", run)
    assert (answer.code, answer.err) == (0, "")
    space = darts(2)
    genotype = Genotype.from_json((run / "genotype.json").read_text(), space)
    assert Genotype.parse((run / "genotype.txt").read_text()) == genotype
    assert str(genotype) in answer.out
    assert "skip connections: normal " in answer.out
    assert "<svg" in (run / "cell.svg").read_text()
    for name in ("cell.png", "alphas.png"):
        assert (run / name).read_bytes().startswith(PNG)


def test_derive_twice_gives_the_same_cell(metadarts, run):
    metadarts("derive", run)
    first = (run / "genotype.json").read_bytes()
    assert metadarts("derive", run).code == 0
    assert (run / "genotype.json").read_bytes() == first


@pytest.mark.parametrize("rule", ["sampled", "perturbation"])
def test_derive_by_accuracy_says_what_it_compared(metadarts, run, tmp_path, rule):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    sets = ("--set", "cells=3", "--set", "by=scores") if rule == "sampled" else ("--set", "renormalise=false")
    words = ("derive", copy, "--rule", rule, *sets, "--tasks", 2, "--checkpoint", "last", "--seed", 1)
    answer = metadarts(*words)
    assert (answer.code, answer.err) == (0, "")
    assert "on these 2 validation tasks: supernet " in answer.out
    assert "The choice was made on these very tasks, which flatters the chosen cell" in answer.out
    assert "100%" in answer.out
    genotype = Genotype.from_json((copy / "genotype.json").read_text(), darts(2))
    assert str(genotype) in answer.out
    assert metadarts(*words).out == answer.out
    assert metadarts("evaluate", copy, "--split", "val", "--tasks", 2, "--genotype", copy / "genotype.json").code == 0


def test_derive_by_a_threshold_names_what_is_below(metadarts, run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    answer = metadarts("derive", copy, "--rule", "threshold", "--set", "least=0.9")
    assert answer.code == 0
    assert "note: 8 of 8 edges are below 0.9 and only fill up: normal " in answer.out


def test_derive_needs_no_data_to_read_alphas(metadarts, run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(re.sub(r"file: .*", f"file: {tmp_path / 'gone.npz'}", config))
    assert metadarts("derive", copy).code == 0
    assert metadarts("derive", copy, "--rule", "sampled").code == 2


def test_info_in_words_and_as_json(metadarts, installed):
    words, table = metadarts("info", "--device", "cpu"), installed("info", "--json", "--device", "cpu")
    assert (words.code, table.code, table.err) == (0, 0, "")
    facts = json.loads(table.out)
    assert {"metadarts", "python", "packages", "device", "cores"} <= set(facts)
    for name in facts:
        assert f"\n{name}: " in "\n" + words.out
    assert f"torch {facts['packages']['torch']}" in words.out


def test_info_knows_threads_and_kernels_when_asked(installed):
    facts = json.loads(installed("info", "--json", "--kernels", "--device", "cpu", "--threads", 1).out)
    assert facts["threads"] == 1
    assert all(kinds for kinds in facts["kernels"].values())


@pytest.mark.parametrize(
    ("pairs", "settings"),
    [
        ([], {}),
        (["a.b=1"], {"a.b": "1"}),
        ([" a.b = x = y "], {"a.b": "x = y"}),
        (["a.b=1", "a.b=2"], {"a.b": "2"}),
        (["a.b="], {"a.b": ""}),
    ],
)
def test_pairs_of_set(pairs, settings):
    assert read_settings(pairs) == settings


def test_a_pair_without_equals_is_refused():
    with pytest.raises(ConfigError, match=r"--set 'inner\.steps': expected group\.field=value"):
        read_settings(["inner.steps"])


def test_the_demo_from_end_to_end(metadarts, data, tmp_path, monkeypatch):
    """The real path on a network and a source of a size for tests."""
    from metadarts.tasks import SOURCES, omniglot

    monkeypatch.setattr("metadarts.tasks.glyphs", lambda progress: progress(Progress(1, 1)))
    monkeypatch.setattr(SOURCES, "_entries", {**SOURCES, "glyphs": lambda *_, **__: omniglot(data)})
    small = {"macro.channels": 4, "space.nodes": 2, "macro.stem": [4, 6], "training.validation_tasks": 2}
    monkeypatch.setitem(PRESETS, "quick", PRESETS["quick"] | small | {"training.tasks": 2, "evaluate.steps": 1})
    out = tmp_path / "demo"
    answer = metadarts("demo", "--out", out, "--minutes", 0.05, "--tasks", 10, "--device", "cpu")
    assert (answer.code, answer.err) == (0, "")
    table = json.loads((out / "results.json").read_text())
    adapted = table["rows"][0]
    assert f"test accuracy on unseen alphabets: {adapted['accuracy']:.1%} ± {adapted['interval95']:.1%}" in answer.out
    assert table["split"] == "test"
    assert "verdict: " in answer.out
    assert re.search(r"time was up after \d+ of 1000 meta-steps; for more: --minutes", answer.out)
    listed = answer.out.split("files written:")[1].replace("\n", " ")
    for name in ("config.yaml", "results.json", "curve.png", "genotype.json", "cell.svg", "checkpoints/best.json"):
        assert str(out / name) in listed
        assert (out / name).is_file()
    assert RunFolder.open(out).config().training.minutes == 0.05
    assert answer.out.rstrip().splitlines()[-3:] == [
        f"  metadarts adapt {out} --images PHOTOS --out tasks/mine",
        "  metadarts predict tasks/mine PHOTO.jpg",
        "  metadarts export tasks/mine --format onnx --out mine.onnx",
    ]


@pytest.mark.parametrize(
    ("ahead", "taken", "words"),
    [
        (0.10, 9, ["verdict: better than pixels by 10.0 ± 2.0 points", "time was up after 9 of 10 meta-steps"]),
        (0.10, 10, ["verdict: better than pixels by 10.0 ± 2.0 points"]),
        (
            0.01,
            10,
            ["verdict: no better than pixels (+1.0 ± 2.0 points): too few steps to judge", "for more: "],
        ),
        (-0.1, 10, ["verdict: worse than pixels by 10.0 ± 2.0 points: too few steps to judge", "for more: "]),
    ],
)
def test_the_verdict_is_what_the_paired_difference_says(capsys, ahead, taken, words):
    from metadarts.training.baselines import PIXELS_ROW, UNADAPTED_ROW

    row = {"accuracy": 0.5, "interval95": 0.01, "adapted_gains": ahead, "adapted_gains_interval95": 0.02}
    rows = [row | {"method": name} for name in ("adapted", UNADAPTED_ROW, PIXELS_ROW)]
    sys.modules["metadarts.cli.demo"]._say_verdict(rows, taken, 10)
    said = capsys.readouterr().out
    assert all(word in said for word in words)
    assert ("more: " in said) == (len(words) == 2)


def commands(group=None, name=""):
    """Every verb with its words, "archive add" among them."""
    from metadarts.cli.main import app

    for own, command in (group or typer.main.get_command(app)).commands.items():
        words = f"{name} {own}".strip()
        if hasattr(command, "commands"):
            yield from commands(command, words)
        else:
            yield words, command


def test_every_verb_that_opens_what_a_plugin_may_have_made_takes_it():
    """Runs, starts, task folders and recorded data may name a plug-in; these verbs open none of a user's own."""
    closed = {
        "demo",  # the built-in source and its own run
        "info",
        "reproduce", "results",  # tables of papers, from named data
        "archive ls", "archive merge",  # records alone
    }  # fmt: skip
    taking = {words for words, command in commands() if any("--plugin" in each.opts for each in command.params)}
    assert {words for words, _ in commands()} - taking == closed


@pytest.mark.parametrize(
    ("called", "on_path", "printed"),
    [
        ("metadarts", None, "metadarts"),
        ("{}/bin/metadarts", None, "{}/bin/metadarts"),
        ("{}/bin/metadarts", "{}/bin/metadarts", "metadarts"),
        ("{}/bin/metadarts", "{}/other/metadarts", "{}/bin/metadarts"),
        ("{}/site-packages/metadarts/__main__.py", "{}/bin/metadarts", "python -m metadarts"),
    ],
)
def test_commands_are_printed_as_the_program_was_called(tmp_path, monkeypatch, called, on_path, printed):
    for folder in ("bin", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "metadarts").touch()
    monkeypatch.setattr(sys, "argv", [called.format(tmp_path)])
    monkeypatch.setattr("shutil.which", lambda _: None if on_path is None else on_path.format(tmp_path))
    assert program() == printed.format(tmp_path)


def test_what_comes_next_names_the_plugins_again():
    assert plugin_words(["mine.py", "my parts/op.py"]) == " --plugin mine.py --plugin 'my parts/op.py'"
    assert plugin_words([]) == ""
