"""A report says what a run holds, whatever is missing from it, and lets nothing from a run into its markup."""

from __future__ import annotations

import json
import math
import re
import shutil
from html.parser import HTMLParser

import pytest
import torch

from metadarts.core.errors import RunError
from metadarts.core.rng import Key
from metadarts.derive import derive_genotype
from metadarts.relaxations import DEFAULT_RELAXATION, Softmax
from metadarts.report import write_report
from metadarts.report.notes import architecture_notes, duration, percent
from metadarts.report.records import AlphaRecord, Records, read_records
from metadarts.spaces import darts
from metadarts.training import RunFolder, open_run

SPACE = darts(2)
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
PICTURES = {
    "Learning curves",
    "Adapting to validation tasks",
    "Support loss within training tasks",
    "Learned inner rates",
    "Beside simple methods (results.json)",
    "Adapting to held-out tasks",
    "The derived cell",
    "Alphas of that step",
    "The normal cell fades in",
    "The reduction cell fades in",
    "How the architecture commits",
    "Mixing weights over the run, normal cell",
    "Mixing weights over the run, reduction cell",
    "What derivation would have kept",
    "Cells derived at meta-step 0",
    "Cells derived at meta-step 10",
    "Cells derived at meta-step 20",
    "Gradient norms",
    "How decided the architecture is",
}
RESULTS = {
    "rows": [
        {"method": "adapted", "accuracy": 0.8125, "interval95": 0.01, "adapted_gains": 0.0},
        {
            "method": "pixels",
            "accuracy": 0.5,
            "interval95": 0.01,
            "adapted_gains": 0.3125,
            "adapted_gains_interval95": 0.02,
        },
    ],
    "accuracy": 0.8125,
    "interval95": 0.01,
    "tasks": 300,
    "split": "test",
    "curve": [0.2, 0.7, 0.8125],
}


class Reader(HTMLParser):
    """The text, the tags and the names of the pictures of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.pictures, self.handlers = "", [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.pictures += [value for name, value in attrs if name == "alt"]

    def handle_data(self, data):
        self.text += data


def noise(seed: int) -> torch.Tensor:
    return torch.randn(2, *SPACE.alpha_shape, generator=Key.from_seed(seed).torch())


def train(step: int) -> dict:
    return {
        "kind": "train",
        "step": step,
        "seconds": 2.0 * step,
        "loss": 1.5 - step / 40,
        "accuracy": 0.3 + step / 50,
        "finite_tasks": 2 if step != 7 else 1,
        "gradient_weights": 2.0,
        "gradient_alphas": 0.1,
        "gradient_rates": 0.01,
        "entropy_normal": 2.0,
        "entropy_reduce": 1.9,
        "mixing_entropy_normal": 2.05 - step / 20,
        "mixing_share_normal": 0.15,
        "mixing_margin_normal": step / 40,
        "skips_normal": 1,
        "skips_reduce": 2,
        "support_losses": [1.6, 1.2],
        "rates": {"rates.weights": [0.4, 0.3], "rates.alphas": 30.0 + step},
    }


def validate(step: int) -> dict:
    curve = [0.2, 0.3 + step / 50, 0.3 + step / 40]
    return {
        "kind": "validate",
        "step": step,
        "accuracy": curve[-1],
        "interval95": 0.02,
        "curve_accuracy": curve,
        "curve_loss": [1.6, 1.2, 1.0],
    }


def alphas(step: int) -> dict:
    tables = dict(zip(SPACE.cell_types, noise(step).tolist(), strict=True))
    return {"kind": "alphas", "step": step, "progress": step / 20, "stability": 0.75, **tables}


def write_metrics(run: RunFolder, records: list[dict], tail: str = "") -> None:
    text = "".join(json.dumps(record) + "\n" for record in records)
    (run.path / "metrics.jsonl").write_text(text + tail, encoding="utf-8")


@pytest.fixture(scope="session")
def whole(make, tmp_path_factory) -> RunFolder:
    """A finished run with every kind of record, the demo's results, and a checkpoint whose alphas hardly chose."""
    experiment = make({"training.tasks": 2})
    run = RunFolder.create(tmp_path_factory.mktemp("runs") / "whole", experiment.config, {"torch": "2", "cores": 4})
    state = experiment.fresh_state()
    state.step = 20
    run.save("best", state, validation_accuracy=0.8)
    records = [record for step in (0, 10, 20) for record in (alphas(step), validate(step))]
    write_metrics(run, [train(step) for step in range(1, 21)] + records)
    run.write_json("finished.json", {"steps": 20, "seconds": 600.0})
    run.write_json("results.json", RESULTS)
    return run


@pytest.fixture(scope="session")
def html(whole) -> str:
    """The page of the whole run."""
    return write_report(open_run(whole.path)).read_text(encoding="utf-8")


@pytest.fixture
def run(whole, tmp_path) -> RunFolder:
    """A copy of the whole run, to take things from."""
    shutil.copytree(whole.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture
def brief(run) -> RunFolder:
    """A run with two pictures, which are quickly drawn."""
    shutil.rmtree(run.path / "checkpoints")
    (run.path / "results.json").unlink()
    write_metrics(run, [{"kind": "train", "step": 1, "loss": 1.0, "gradient_weights": 2.0}])
    return run


def read(run: RunFolder) -> Reader:
    return Reader(write_report(open_run(run.path)).read_text(encoding="utf-8"))


def test_a_whole_run_is_shown_whole(html):
    page = Reader(html)
    assert set(page.pictures) == PICTURES
    assert len(page.pictures) == len(PICTURES)
    assert "The search ended after 20 meta-steps and 10.0 minutes." in page.text
    assert "Best validation accuracy: 80.0% ± 2.0% at meta-step 20, the best of 3 validations." in page.text
    assert "Measured on 300 test tasks: 81.2% ± 1.0% (results.json)." in page.text
    assert "Validation accuracy chose the checkpoint, so it flatters" in page.text
    assert "Batch norm is transductive" in page.text
    assert "1 recorded meta-steps had tasks that left the finite numbers" in page.text
    assert "+31.2% ± 2.0%" in page.text
    assert "No measurement on test tasks" not in page.text
    assert len(html) < 3_000_000


def test_it_says_that_the_alphas_hardly_chose(html):
    text = Reader(html).text
    assert re.search(r"Normal cell: entropy 2\.079 nats, 100\.00% of ln 8 .* The alphas hardly chose", text)
    assert re.search(r"an even one 0\.125", text)


def test_it_names_the_last_measures_of_the_weights_in_use(html):
    text = Reader(html).text
    assert (
        "in use at meta-step 20, normal cell (entropy in nats, largest weight, by how much it exceeds the second): "
        in text
    )
    assert "operations 1.050, 0.150, 0.500" in text
    assert "75.0% of the last recorded cell's choices were in the record before it too." in text


def test_settings_that_differ_from_the_defaults_are_marked(html):
    assert '<tr class="marked"><td>macro.channels</td><td>4</td><td>16</td></tr>' in html
    assert "<tr><td>tasks.shots</td><td>1</td><td></td></tr>" in html


def test_the_same_run_gives_the_same_bytes(brief):
    first = write_report(open_run(brief.path)).read_bytes()
    assert first.count(b"<img") == 2
    assert write_report(open_run(brief.path)).read_bytes() == first


def test_a_run_that_has_only_begun_is_shown_too(run):
    for name in ("metrics.jsonl", "finished.json", "results.json", "env.json"):
        (run.path / name).unlink()
    shutil.rmtree(run.path / "checkpoints")
    page = read(run)
    assert page.pictures == []
    assert "The search has not ended; its last record is of meta-step 0." in page.text
    assert "No validation is recorded yet." in page.text
    assert "No cell can be derived from the best checkpoint" in page.text
    assert "env.json is missing" in page.text


def test_one_step_is_enough_for_pictures(run):
    write_metrics(run, [alphas(1), train(1), validate(1)])
    assert set(read(run).pictures) > {"Learning curves", "Cells derived at meta-step 1", "Gradient norms"}


def test_an_older_run_without_alphas_says_so(run):
    write_metrics(run, [{"kind": "train", "step": 1, "loss": 1.0}, {"kind": "validate", "step": 1, "accuracy": 0.5}])
    page = read(run)
    assert page.pictures[:2] == ["Learning curves", "Beside simple methods (results.json)"]
    assert "There are no records of the alphas over time" in page.text


def test_without_a_checkpoint_the_last_alphas_are_shown(run):
    shutil.rmtree(run.path / "checkpoints")
    write_metrics(run, [alphas(3)])
    page = read(run)
    assert "Shown is the cell of the last recorded alphas instead." in page.text
    assert {"The derived cell", "Alphas of that step", "Cells derived at meta-step 3"} < set(page.pictures)


def test_a_last_line_cut_short_is_left_out(brief):
    before = read(brief)
    with (brief.path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 21, "lo')
    assert read(brief).text == before.text


def test_values_that_make_no_sense_are_left_out(run):
    odd = [
        {"kind": "train", "step": 1, "loss": math.nan, "accuracy": "high", "gradient_weights": -1.0, "seconds": [1]},
        {"kind": "train", "step": 2, "loss": 1e300, "support_losses": ["a"], "rates": {"rates.$x": [None]}},
        {"kind": "train", "step": 10**400, "loss": 1.0},
        {"kind": "train", "step": None},
        {"kind": "validate", "step": 2, "accuracy": True, "curve_accuracy": {"a": 1}},
        {"kind": "alphas", "step": 2, "normal": [[1.0]], "reduce": None},
    ]
    write_metrics(run, odd)
    (run.path / "results.json").write_text('{"accuracy": "<b>"}')
    (run.path / "evaluation.json").write_bytes(b"\xff\xfe[")
    (run.path / "finished.json").write_text("[" * 100_000)
    page = read(run)
    assert "1 records of alphas do not fit" in page.text
    assert "results.json holds no measurement that can be read" in page.text
    assert "evaluation.json holds no measurement that can be read" in page.text
    assert "The search ended after ? meta-steps and an unknown time." in page.text


def test_a_damaged_record_in_the_middle_is_one_error(run):
    write_metrics(run, [train(1)], tail="{not json}\n" + json.dumps(train(2)) + "\n")
    with pytest.raises(RunError, match="is damaged"):
        write_report(open_run(run.path))


def test_nothing_from_a_run_becomes_markup_or_script(whole, tmp_path):
    path = tmp_path / EVIL.replace("/", "")
    shutil.copytree(whole.path, path)
    run = RunFolder(path)
    config = (path / "config.yaml").read_text().replace("source: glyphs", f"source: '{EVIL}'")
    (path / "config.yaml").write_text(config)
    assert run.config().tasks.source == EVIL
    run.write_json("env.json", {EVIL: {EVIL: [EVIL]}})
    hostile = RESULTS | {"split": EVIL, "tasks": EVIL, "bn": EVIL, "rows": [RESULTS["rows"][0] | {"method": EVIL}]}
    run.write_json("results.json", hostile)
    run.write_json(f"evaluation-{EVIL.replace('/', '')}.json", hostile)
    record = train(1) | {"rates": {EVIL: 1.0, r"rates.$\frac{$": [1.0]}, EVIL: 1.0}
    write_metrics(run, [record, alphas(1) | {"genotype": EVIL}, validate(1)])
    page = read(run)
    assert "script" not in page.tags
    assert page.handlers == []
    assert page.tags.count("img") == len(page.pictures)
    assert page.text.count(EVIL) > 8


def test_many_rates_are_summarised(brief):
    many = {f"rates.cell.{index}": 0.1 * (index + 1) for index in range(30)}
    write_metrics(brief, [{"kind": "train", "step": step, "rates": many} for step in (1, 2)])
    assert read(brief).pictures == ["Learned inner rates"]


def test_records_are_in_order_and_the_last_of_a_step_counts(run):
    write_metrics(run, [train(2), train(1) | {"loss": 9.0}, train(1) | {"loss": 1.0}, validate(3)])
    records = read_records(run, SPACE, DEFAULT_RELAXATION)
    assert [(record["step"], record["loss"]) for record in records.train] == [(1, 1.0), (2, train(2)["loss"])]
    assert records.last_step == 3


def test_only_the_run_s_own_report_is_overwritten(brief, tmp_path):
    run, opened = brief, open_run(brief.path)
    assert write_report(opened) == run.path / "report.html"
    assert write_report(opened, run.path / "report.html").exists()
    other = tmp_path / "other.html"
    assert write_report(opened, other).read_bytes() == (run.path / "report.html").read_bytes()
    with pytest.raises(RunError, match=r"other.html exists: give --out another name"):
        write_report(opened, other)
    assert write_report(opened, tmp_path / "new folder" / "a.html").is_file()
    with pytest.raises(RunError, match="cannot write"):
        write_report(opened, other / "a.html")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 seconds"), (119, "119 seconds"), (120, "2.0 minutes"), (7200, "2.0 hours"), (None, "an unknown time")],
)
def test_times_are_in_the_units_of_people(seconds, said):
    assert duration(seconds) == said


def test_a_share_that_is_no_number_is_a_question_mark():
    assert [percent(value) for value in (0.125, math.nan, None, "1")] == ["12.5%", "?", "?", "?"]


def test_the_best_of_a_run_that_committed_is_one_of_its_cell():
    validated = [{"step": step, "accuracy": value} for step, value in ((3, 0.95), (5, 0.6), (8, 0.7), (10, 0.65))]
    records = Records([], validated, [], 0, committed=5)
    assert records.best == {"step": 8, "accuracy": 0.7}
    assert records.compared == 3
    assert Records([], validated, [], 0).best["step"] == 3


@pytest.mark.parametrize(
    ("step", "judged"), [(2, "; too few meta-steps to judge."), (100, ": they are settled.")], ids=["short", "long"]
)
def test_a_cell_that_stood_still_is_settled_only_after_enough_steps(step, judged):
    space = darts(nodes=2)
    alphas = {cell: torch.eye(len(space.edges), len(space.primitives)) for cell in space.cell_types}
    cell = derive_genotype(alphas, space)
    records = Records([], [], [AlphaRecord(step * number, alphas, cell) for number in range(13)], 0)
    text = " ".join(architecture_notes(alphas, cell, records, space, Softmax()))
    assert f"choices of the derived cells changed{judged}" in text
