"""Runs without alphas on the command line: what asks for cells refuses them in one line, and leaves nothing behind."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import yaml

from metadarts.core.rng import Key
from metadarts.spaces import darts, random_genotype

CELL = str(random_genotype(darts(2), Key(("tests", "cli", "networks"))))


@pytest.fixture(scope="module")
def searched_conv4(installed, search_words, tmp_path_factory):
    """A run of 4CONV, and what its search said."""
    out = tmp_path_factory.mktemp("others") / "conv4"
    answer = installed(*search_words(out, "--set", "macro.name=conv4"))
    assert answer.code == 0, answer.err
    return out, answer.out


@pytest.fixture(params=["conv4", "cell"])
def other(request, searched_conv4, tmp_path):
    """(kind, run folder): that of a cell is the other one under another name, which is all that these verbs look at."""
    run, _ = searched_conv4
    if request.param == "cell":
        run = shutil.copytree(run, tmp_path / "runs" / "cell")
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["model"] |= {"network": "cell", "genotype": CELL}
        (run / "config.yaml").write_text(yaml.safe_dump(config))
    return request.param, run


def test_the_next_verbs_are_those_that_it_has(searched_conv4, searched):
    run, said = searched_conv4
    head, *told = said.splitlines()[-3:]
    assert head == "next:"
    assert [line.rpartition("metadarts ")[2] for line in told] == [f"{verb} {run}" for verb in ("evaluate", "report")]
    assert "derive" not in said
    out, answer = searched
    assert f"metadarts derive {out}" in answer.out, "a supernet has one"


def test_diagnose_refuses_it_and_leaves_no_folder(searched_conv4, refused, tmp_path):
    run, _ = searched_conv4
    before = sorted(run.rglob("*"))
    for more in ([], ["--out", tmp_path / "page"]):
        said = refused("diagnose", run, "--tasks", 2, "--device", "cpu", *more)
        assert "expected the run of a supernet, whose alphas choose a cell for each task" in said
        assert "the network of this one has no cells" in said
    assert sorted(run.rglob("*")) == before
    assert not list(tmp_path.iterdir())


def test_diagnose_refuses_what_is_no_run_and_leaves_no_folder(refused, tmp_path):
    assert "is not a run folder" in refused("diagnose", tmp_path / "nowhere", "--out", tmp_path / "page")
    assert not list(tmp_path.iterdir())


def test_derive_refuses_it(other, refused):
    kind, run = other
    before = sorted(run.rglob("*"))
    expected = f"{run} trained the network {kind!r}, which has no alphas to derive a cell from"
    assert refused("derive", run) == expected
    assert sorted(run.rglob("*")) == before


def test_adapt_refuses_a_network_without_cells(searched_conv4, refused, tmp_path):
    run, _ = searched_conv4
    images = np.arange(6 * 28 * 28).reshape(6, 28, 28).astype(np.uint8)
    np.savez(tmp_path / "images.npz", images=images, label=np.repeat([0, 1], 3))
    said = refused("adapt", run, "--images", tmp_path / "images.npz", "--out", tmp_path / "a", "--steps", 1)
    assert "expected the run of a supernet, whose weights and alphas are adapted" in said
    assert "its network is 'conv4'" in said
    assert not (tmp_path / "a").exists()
