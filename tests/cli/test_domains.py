"""Several domains on the command line: a gate, a search whose alphas are each task's own, and what follows it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from metadarts.core.rng import Key
from tests.cli.conftest import SETTINGS

SMALL = {
    **SETTINGS, "tasks.ways": 3, "tasks.shots": 2, "training.meta_steps": 3, "model.head": "prototype",
    "model.bn": "support", "alphas.width": 4, "alphas.scales": 2, "relaxation.name": "annealed",
}  # fmt: skip
ENCODERS = ("amortised", "choice")


@pytest.fixture(scope="module")
def place(data, tmp_path_factory):
    """A folder with two data files: one source of 28x28, one of 12x12."""
    folder = tmp_path_factory.mktemp("domains")
    (folder / "patterns.npz").write_bytes(data.read_bytes())
    draw = Key(("tests", "cli", "domains")).numpy()
    images = draw.integers(0, 160, (12, 1, 12, 12)) + draw.integers(0, 96, (12, 20, 12, 12))
    arrays = {"label": np.repeat(np.arange(12), 20), "split": np.repeat([0, 1, 2], 4)}
    np.savez(folder / "noise.npz", images=images.reshape(-1, 12, 12).astype(np.uint8), **arrays)
    return folder


def words(place, out, **settings):
    """A search of the mixture; "group__field" settings override."""
    chosen = SMALL | {name.replace("__", "."): value for name, value in settings.items()}
    if chosen.get("alphas.name") not in ENCODERS:
        chosen = {name: value for name, value in chosen.items() if name not in ("alphas.width", "alphas.scales")}
    sets = [word for name, value in chosen.items() for word in ("--set", f"{name}={value}")]
    mixture = "mixture:omniglot=patterns.npz,npz=noise.npz"
    return ["search", "--data", mixture, "--data-root", place, "--out", out, "--preset", "quick-supernet", *sets]


@pytest.fixture(scope="module", params=ENCODERS)
def run(place, installed, tmp_path_factory, request):
    out = tmp_path_factory.mktemp("runs") / request.param
    answer = installed(*words(place, out, alphas__name=request.param, training__minutes=0))
    assert answer.code == 0, answer.err
    return out


def test_evaluate_says_each_domain(run, metadarts):
    answer = metadarts("evaluate", run, "--tasks", 12)
    assert answer.code == 0, answer.err
    facts = json.loads(next(run.glob("evaluation-*.json")).read_text())
    assert list(facts["domains"]) == ["npz", "omniglot"] or list(facts["domains"]) == ["omniglot", "npz"]
    assert sum(own["tasks"] for own in facts["domains"].values()) == 12
    mean = sum(own["accuracy"] * own["tasks"] for own in facts["domains"].values()) / 12
    assert mean == pytest.approx(facts["accuracy"])
    for name, own in facts["domains"].items():
        assert f"  {name}: {own['accuracy']:.2%}" in answer.out


@pytest.fixture
def photos(tmp_path):
    draw = Key(("tests", "cli", "domains", "photos")).numpy()
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(4):
            pixels = draw.integers(0, 256, (28, 28), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    return tmp_path / "photos"


def test_adapt_begins_at_what_the_encoder_says(run, photos, metadarts, tmp_path):
    for name, more in (("meta", ()), ("predicted", ("--start", "predicted"))):
        answer = metadarts("adapt", run, "--images", photos, "--out", tmp_path / name, "--steps", 0, *more)
        assert answer.code == 0, answer.err
    told = [(tmp_path / name / "task.safetensors").read_bytes() for name in ("meta", "predicted")]
    assert told[0] == told[1]
    assert metadarts("predict", tmp_path / "meta", photos / "a" / "0.png").code == 0


def test_the_cell_of_a_task_is_cut_out_and_shipped(run, photos, metadarts, tmp_path):
    task = tmp_path / "task"
    answer = metadarts("adapt", run, "--images", photos, "--out", task, "--steps", 1, "--finish", "inherited")
    assert answer.code == 0, answer.err
    answer = metadarts("export", task, "--out", tmp_path / "model.onnx")
    assert answer.code == 0, answer.err


def test_a_run_of_tasks_own_architectures_has_no_one_cell(run, refused):
    assert "an architecture for each task, and so no one cell" in refused("derive", run)
    assert f"this run's are {run.name}" in refused("diagnose", run, "--tasks", 4)


def test_its_report_shows_no_cell(run, metadarts):
    assert metadarts("report", run).code == 0
    assert f"{run.name} alphas are an architecture for each task" in (run / "report.html").read_text()


def test_a_run_that_is_told_domains_cannot_adapt_without(place, photos, metadarts, refused, tmp_path):
    answer = metadarts(*words(place, tmp_path / "run", alphas__name="per-domain", training__minutes=0))
    assert answer.code == 0, answer.err
    assert "  - omniglot\n  - npz\n" in (tmp_path / "run" / "config.yaml").read_text()
    moved = "mixture:npz=noise.npz,omniglot=patterns.npz"
    said = refused("evaluate", tmp_path / "run", "--data", moved, "--data-root", place)
    assert "the run's domains are omniglot, npz, those of the data npz, omniglot" in said
    said = refused("adapt", tmp_path / "run", "--images", photos, "--out", tmp_path / "task")
    assert "expected tasks that say their domain" in said


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"commit__cell": 0.5}, "there is no one cell to commit to"),
        ({"commit__drop_below": 0.1}, "those of another may"),
        ({"alphas__name": "amortized"}, "did you mean 'amortised'"),
        ({"outer__alpha_rule": "exponentiated"}, "moves points of the simplex"),
        ({"alphas__name": "choice", "outer__alpha_decay": 1e-3}, "a choice of cells that is made"),
    ],
)
def test_settings_that_contradict(place, refused, tmp_path, settings, message):
    assert message in refused(*words(place, tmp_path / "run", **{"alphas__name": "amortised"} | settings))


def test_domains_of_a_source_that_has_one(data, refused, tmp_path):
    more = ("--preset", "quick-supernet", "--set", "alphas.name=per-domain")
    said = refused("search", "--data", data, "--out", tmp_path / "run", *more)
    assert "expected a source of several domains" in said


def test_the_gate(place, metadarts, tmp_path):
    small = ("--set", "macro.channels=4", "--set", "space.nodes=1", "--set", "macro.stem=[4]")
    answer = metadarts(
        "diagnose", "--gate", "omniglot=patterns.npz", "noise.npz", "--data-root", place, "--out",
        tmp_path / "gate", "--ways", 3, "--shots", 1, "--steps", 2, "--tasks", 4, *small,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    for said in ("operation x domain", "each domain's best operation", "sep_conv_3x3", "omniglot", "noise"):
        assert said in answer.out
    assert {path.name for path in (tmp_path / "gate").iterdir()} == {"gate.md", "gate.json", "gate.png"}
    facts = json.loads((tmp_path / "gate" / "gate.json").read_text())
    assert set(facts["accuracy"]) == {"omniglot", "noise"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--gate", "glyphs", "--checkpoint", "best"), "--checkpoint: a gate has no run"),
        (("run", "--steps", 3), "--steps: only --gate trains networks"),
        (("one", "two"), "expected one run folder, got 2"),
        (("nowhere",), "is not a run folder"),
        (("--gate", "nowhere"), "not the name of a source"),
        (("--gate", "glyphs", "--tasks", 3), "expected tasks of at least 4, got 3"),
        (("--gate", "glyphs", "omniglott"), "unknown source 'omniglott'"),
    ],
)
def test_what_diagnose_refuses(refused, given, message):
    assert message in refused("diagnose", *given)
