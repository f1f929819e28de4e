"""``metadarts report`` writes one page, says where, and refuses in one line."""

from __future__ import annotations

import shutil

import pytest
import typer

from metadarts.training import Config, RunFolder


@pytest.fixture
def begun(tmp_path):
    """A run that has only begun: its page has no pictures, so it is quickly written."""
    return RunFolder.create(tmp_path / "run", Config(), {"torch": "2"}).path


def test_it_has_the_options_that_it_uses(metadarts):
    from metadarts.cli.main import app

    command = typer.main.get_command(app).commands["report"]
    options = {option for parameter in command.params for option in parameter.opts}
    assert options == {"--out", "--plugin", "run"}
    assert all(parameter.help for parameter in command.params)
    answer = metadarts("report", "--help")
    assert (answer.code, answer.err) == (0, "")


def test_a_searched_run_gets_its_page(metadarts, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    answer = metadarts("report", tmp_path / "run")
    page = tmp_path / "run" / "report.html"
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"written to {page}\n"
    html = page.read_text(encoding="utf-8")
    assert "omniglot, 3-way 1-shot" in html
    assert html.count('<img alt="') > 5
    assert "<script" not in html


def test_it_writes_where_it_is_told_once(metadarts, begun, tmp_path):
    out = tmp_path / "page.html"
    assert metadarts("report", begun, "--out", out).code == 0
    assert out.exists()
    assert not (begun / "report.html").exists()
    answer = metadarts("report", begun, "--out", out)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"metadarts: {out} exists: give --out another name, or remove it first\n"


def test_the_run_s_own_page_is_written_anew(metadarts, begun):
    for _ in range(2):
        assert metadarts("report", begun).code == 0


def test_a_folder_that_is_no_run_is_refused(metadarts, tmp_path):
    answer = metadarts("report", tmp_path)
    assert answer.code == 2
    assert (
        answer.err
        == f"metadarts: {tmp_path} is not a run folder (it has no config.yaml): give what search --out named\n"
    )


def test_a_damaged_run_is_refused_in_one_line(metadarts, begun):
    (begun / "metrics.jsonl").write_text("[]\n{}\n")
    answer = metadarts("report", begun)
    assert answer.code == 2
    assert answer.err.startswith(f"metadarts: {begun / 'metrics.jsonl'} is damaged: ")
    assert answer.err.count("\n") == 1
