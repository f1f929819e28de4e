"""Eight files outside the package pass its conformance suites, and its verbs take seven of them together, without one
edit of it (the outer rule among them refuses a start of the alphas).

The verbs: search and search --resume, evaluate, derive, adapt, export; predict answers from the exported file.
"""

from __future__ import annotations

import html
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from typer.testing import CliRunner

from metadarts.cli.main import app
from metadarts.core.errors import ConfigError, MetadartsError
from metadarts.operations import OPERATIONS
from metadarts.predictor import Archive
from metadarts.testing import (
    check_alpha_start,
    check_cost,
    check_meta_rule,
    check_operation,
    check_relaxation,
    check_selection,
    check_source,
    check_space,
)
from metadarts.training import Config, RunFolder, build, load_config, search
from metadarts.training.catalogue import BUILT_IN, load_plugins
from metadarts.training.search import SearchStopped
from tests.papers.cases import SIGMOID

FOLDER = Path(__file__).parent / "plugins"
FILES = tuple(sorted(FOLDER.glob("*.py")))
WORDS = [word for path in FILES for word in ("--plugin", str(path))]
SETTINGS = {
    "space.name": "pairs", "macro.name": "pairs", "relaxation.name": "cooling", "relaxation.end": 0.2,
    "meta.name": "reptile", "cost.name": "edges", "training.cost_strength": 0.001,
    "model.bn": "support", "model.head": "prototype", "inner.steps": 2, "training.tasks": 2, "tasks.queries": 2,
    "training.validations": 1, "training.validation_tasks": 4, "evaluate.steps": 2, "evaluate.queries": 3,
}  # fmt: skip
MOST_LINES = 80


def module(name: str):
    spec = importlib.util.spec_from_file_location(f"extension_{name}", FOLDER / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


WITH_OWN = OPERATIONS.plus("conv_1x5_5x1", module("conv_1x5_5x1").OPERATION)


def test_the_operation_conforms():
    check_operation("conv_1x5_5x1", module("conv_1x5_5x1").OPERATION)


def test_the_relaxation_conforms():
    check_relaxation(module("cooling").RELAXATION())


def test_the_space_and_its_macro_network_conform():
    check_space(module("pairs").SPACE(), WITH_OWN)


def test_the_start_of_the_alphas_conforms():
    check_alpha_start(module("brightness").ALPHAS())
    check_alpha_start(module("brightness").ALPHAS(), channels=3, domains=0)


def test_the_outer_rule_conforms():
    check_meta_rule(module("reptile").RULE())


def test_the_cost_conforms():
    check_cost(module("edges").COST)


def test_the_source_conforms():
    check_source(module("stripes").SOURCE)


def test_the_selection_rule_conforms():
    check_selection(module("greedy").SELECTION(rounds=2))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < MOST_LINES


def elsewhere(*words: object) -> str:
    """What a process of its own says."""
    command = [sys.executable, "-c", "from metadarts.cli import main; main()", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def here(*words: object, code: int = 0) -> str:
    """What the verbs say in this process, which has imported torch already: for what needs no process of its own."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    if code:
        assert isinstance(done.exception, MetadartsError), done.output
        return f"{done.output}{done.exception}"
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "own"
    sets = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    fixed = ["--data", "stripes", "--ways", 3, "--shots", 2, "--meta-steps", 3, "--device", "cpu", "--threads", 1]
    elsewhere("search", "--preset", "quick-supernet", "--out", out, *WORDS, *fixed, *sets)
    return out


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two classes of eight grey images."""
    photos = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for label, shade in (("dark", 60), ("light", 190)):
        (photos / label).mkdir()
        for number in range(8):
            pixels = np.clip(shade + draw.normal(0, 20, (16, 16)), 0, 255).astype(np.uint8)
            Picture.fromarray(pixels).save(photos / label / f"{number}.png")
    return photos


@pytest.fixture(scope="module")
def task(run, photos, tmp_path_factory) -> Path:
    """A task of the user's own, adapted from the run and finished as a derived cell."""
    out = tmp_path_factory.mktemp("tasks") / "mine"
    here("adapt", run, "--images", photos, "--steps", 2, "--finish", "inherited", "--out", out, *WORDS)
    return out


def test_the_run_names_its_plugins_and_their_options(run):
    config = load_config(run / "config.yaml", [str(path) for path in FILES])
    assert config.relaxation.options["end"] == 0.2
    assert sorted(config.catalogue.plugins) == [path.stem for path in FILES]
    assert config.build_network().relaxation.end == 0.2
    assert config.search_space().inputs_by == "pairs"


def test_evaluate_and_derive_take_the_run(run):
    words = here("evaluate", run, "--tasks", 4, "--split", "val", *WORDS)
    assert "stripes val" in words
    assert "Genotype(" in here("derive", run, *WORDS)
    words = here("derive", run, "--rule", "greedy", "--set", "rounds=1", "--tasks", 2, *WORDS)
    assert "derive by greedy on 2 validation tasks" in words


def test_without_the_plugins_the_code_is_not_run(run):
    words = here("derive", run, code=2)
    assert "uses the plug-in" in words
    assert "--plugin" in words


@pytest.mark.parametrize("form", ["onnx", "python"])
def test_a_shipped_file_needs_no_plugin(task, photos, tmp_path, form):
    """The exported file gives the task's answers, in a process that knows no plug-in."""
    out = tmp_path / {"onnx": "model.onnx", "python": "model.py"}[form]
    here("export", task, "--format", form, "--out", out, *WORDS)
    assert "dark" in elsewhere("predict", out, photos / "dark" / "0.png")


def test_options_that_an_entry_has_not_are_refused():
    config = Config(catalogue=load_plugins([str(FOLDER / "cooling.py")]))
    from metadarts.training import with_settings

    with pytest.raises(ConfigError, match=r"unknown setting 'relaxation.ends'.*did you mean 'end'"):
        with_settings(config, {"relaxation.name": "cooling", "relaxation.ends": 0.1})
    with pytest.raises(ConfigError, match="unknown relaxation 'coolin': did you mean 'cooling'"):
        with_settings(config, {"relaxation.name": "coolin"})


def test_built_in_names_cannot_be_taken(tmp_path):
    path = tmp_path / "softmax.py"
    path.write_text("RELAXATION = dict\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="relaxation 'softmax' exists"):
        load_plugins([str(path)])
    assert BUILT_IN.plugins == {}


def test_a_file_without_an_entry_is_refused(tmp_path):
    path = tmp_path / "empty.py"
    path.write_text("X = 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="defines none of OPERATION"):
        load_plugins([str(path)])
    with pytest.raises(ConfigError, match="there is no such file"):
        load_plugins([str(tmp_path / "missing.py")])
    path.write_text("raise RuntimeError('no')\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="importing it failed: RuntimeError: no"):
        load_plugins([str(path)])


def test_the_block_of_the_documentation_runs(tmp_path):
    page = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    (tmp_path / "block.py").write_text(block, encoding="utf-8")
    path = os.pathsep.join([str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
    command, environment = [sys.executable, str(tmp_path / "block.py")], os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("loss ")


def test_the_objects_can_be_passed_in_python():
    """No plug-in, no table changed: the step of a network made of one's own parts is a number."""
    from metadarts.core.rng import Key
    from metadarts.costs import Penalty
    from metadarts.inner import InnerLoop
    from metadarts.meta import meta_gradient
    from metadarts.networks import Image, Learner, Network, Style
    from metadarts.testing import random_tasks

    parts = module("pairs")
    structure = parts.MACRO(Image(1), Style(head="prototype"))
    network = Network(structure, parts.SPACE(), operations=WITH_OWN, relaxation=module("cooling").RELAXATION())
    learner = Learner(network, penalty=Penalty(module("edges").COST(16, 16), 0.001))
    batch = random_tasks(Key.from_seed(0), size=16, dtype=torch.float32)
    params, inner = network.init(Key.from_seed(1)), InnerLoop(steps=1)
    exact = meta_gradient(learner, params, batch, inner)
    reptile = meta_gradient(learner, params, batch, inner, rule=module("reptile").RULE())
    for found in (exact, reptile):
        assert bool(found.finite.all())
        assert any(bool(gradient.any()) for gradient in found.gradients.values())
    assert "conv_1x5_5x1" not in OPERATIONS


def test_a_search_goes_on_with_the_same_text_alone_and_to_the_same_bits(run, tmp_path):
    plugins = [str(path) for path in FILES]
    whole, told = RunFolder.open(run, plugins), []
    stopped = RunFolder.create(tmp_path / "stopped", whole.config(), whole.environment(), plugins)
    with pytest.raises(SearchStopped, match="after meta-step 2"):
        search(build(stopped.config()), stopped, told.append, stop=lambda: len(told) == 2)
    other = [tmp_path / path.name for path in FILES]
    for path, copy in zip(FILES, other, strict=True):
        copy.write_text(path.read_text(encoding="utf-8") + ("\n# changed\n" if path.stem == "reptile" else ""))
    fixed = ["--device", "cpu", "--threads", 1]
    changed = [word for path in other for word in ("--plugin", path)]
    words = here("search", "--resume", stopped.path, *changed, *fixed, code=2)
    assert "plug-in 'reptile' is not what it was" in words
    here("search", "--resume", stopped.path, *WORDS, *fixed)
    best, expected = (folder.load("best") for folder in (stopped, whole))
    assert best.facts == expected.facts
    last, expected = (folder.load("last") for folder in (stopped, whole))
    assert (last.facts["step"], last.facts["progress"]) == (expected.facts["step"], expected.facts["progress"])
    assert last.facts["sha256"] == expected.facts["sha256"], "parameters and the optimiser's memory"


def test_report_draws_the_run(run, tmp_path):
    """The page has the cell that derive names, and one picture of mixing weights for each cell type."""
    out = tmp_path / "report.html"
    here("report", run, "--out", out, *WORDS)
    page = out.read_text(encoding="utf-8")
    cell = next(line for line in here("derive", run, *WORDS).splitlines() if line.startswith("Genotype("))
    assert cell in html.unescape(page)
    assert "Mixing weights over the run, normal cell" in page
    assert "No cell can be derived" not in page
    assert "pair of edges that weighs most by alphas of its own" in page


def test_diagnose_says_why_it_cannot(run):
    words = here("diagnose", run, "--tasks", 2, "--split", "val", *WORDS, code=2)
    assert "a diagnosis swaps operations of edges; space 'pairs' has alphas for inputs too: diagnose the run" in words
    assert not (run / "diagnosis").exists()


def test_an_archive_refuses_alphas_for_inputs_before_any_step(run, photos, tmp_path):
    archive, out = tmp_path / "a.sqlite", tmp_path / "task"
    words = here("archive", "add", archive, "--run", run, "--tasks", 2, *WORDS, code=2)
    assert "has alphas for the inputs of its nodes, and an archive holds those of operations alone" in words
    assert not archive.exists()
    words = here("adapt", run, "--images", photos, "--out", out, "--archive", archive, *WORDS, code=2)
    assert "an archive holds those of operations alone" in words
    assert "step" not in words.split("an archive holds", maxsplit=1)[0]
    assert not out.exists()


def test_predict_takes_a_task_folder(task, photos):
    answers = here("predict", task, photos, *WORDS)
    assert "accuracy" in answers
    assert "uses the plug-in" in here("predict", task, photos, code=2)


EDGES = """
from metadarts.spaces import SearchSpace


def edges() -> SearchSpace:
    return SearchSpace("edges", ("none", "skip_connect", "max_pool_3x3"), 2, inputs_by="edges")


SPACE = edges
"""
FIXED = ["--data", "stripes", "--ways", 3, "--shots", 2, "--meta-steps", 2, "--device", "cpu", "--threads", 1]
TINY = {
    "macro.channels": 4, "macro.stem": "[4, 6]", "model.bn": "support", "model.head": "prototype",
    "inner.steps": 1, "inner.order": "first", "training.tasks": 2, "tasks.queries": 2, "training.validations": 1,
    "training.validation_tasks": 4, "evaluate.steps": 2, "evaluate.queries": 3,
}  # fmt: skip


def searched(out: Path, plugin: Path, text: str, settings: dict[str, object]) -> tuple[Path, list[str]]:
    """A run on stripes with the plug-in ``text``, and the words that name both plug-ins."""
    plugin.write_text(text, encoding="utf-8")
    words = ["--plugin", str(plugin), "--plugin", str(FOLDER / "stripes.py")]
    sets = [word for name, value in (TINY | settings).items() for word in ("--set", f"{name}={value}")]
    here("search", "--preset", "quick-supernet", "--out", out, *words, *FIXED, *sets)
    return out, words


def test_a_space_with_alphas_over_edges_is_derived_and_drawn(tmp_path):
    run, words = searched(tmp_path / "run", tmp_path / "edges.py", EDGES, {"space.name": "edges"})
    assert "Genotype(" in here("derive", run, *words)
    here("report", run, *words)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "No cell can be derived" not in page
    assert "Mixing weights over the run, reduction cell" in page


@pytest.fixture(scope="module")
def relaxed(tmp_path_factory) -> tuple[Path, list[str]]:
    """A run under a relaxation that ranks otherwise than the softmax, and the words that name its plug-ins."""
    folder = tmp_path_factory.mktemp("relaxed")
    sets = {"relaxation.name": "logistic", "space.nodes": 2, "inner.alpha_rate": 30.0}
    return searched(folder / "run", folder / "logistic.py", SIGMOID, sets)


@pytest.fixture(scope="module")
def archive(relaxed, tmp_path_factory) -> Path:
    run, words = relaxed
    path = tmp_path_factory.mktemp("archives") / "a.sqlite"
    answer = here("archive", "add", path, "--run", run, "--tasks", 6, "--device", "cpu", *words)
    assert "tasks recorded: 6" in answer
    return path


def test_diagnose_takes_a_relaxation_of_ones_own(relaxed):
    run, words = relaxed
    assert "meta-learned" in here("diagnose", run, "--tasks", 2, "--split", "val", "--device", "cpu", *words)


def test_recorded_tasks_of_a_source_of_ones_own_can_be_built_again(relaxed, archive, tmp_path):
    words = relaxed[1]
    answer = here("archive", "verify", archive, "--data-root", tmp_path, *words)
    assert "6 records are whole" in answer
    assert "6 episodes can be built again" in answer
    assert "unknown source 'stripes'" in here("archive", "verify", archive, "--data-root", tmp_path, code=2)


def test_the_predictor_learns_from_them_and_is_measured_and_asked(relaxed, archive, photos, tmp_path):
    """The start is chosen by the images' own channels: stripes are grey, whatever their source is called."""
    (run, words), model = relaxed, tmp_path / "m.safetensors"
    short = ["--epochs", 1, "--threads", 1]
    here("metamodel", "train", archive, "--out", model, *short, *words)
    here("metamodel", "train", archive, "--out", tmp_path / "run.safetensors", "--start", run, *short, *words)
    page = here("metamodel", "evaluate", model, "--run", run, "--tasks", 2, "--device", "cpu", *words)
    assert "# Is a task's architecture predictable?" in page
    assert "Genotype(" in here("metamodel", "predict", model, "--images", photos, "--start", run, *words)
    assert "uses the plug-in" in here("metamodel", "evaluate", model, "--run", run, code=2)


def test_adapt_records_a_task_whose_relaxation_ranks_otherwise(relaxed, photos, tmp_path):
    (run, words), path = relaxed, tmp_path / "a.sqlite"
    answer = here("adapt", run, "--images", photos, "--steps", 2, "--out", tmp_path / "task", "--archive", path, *words)
    assert f"recorded in {path}" in answer
    with Archive.open(path) as opened:
        (record,) = opened
    assert record.settings["relaxation"] == {"name": "logistic"}
    assert "1 records are whole" in here("archive", "verify", path)
