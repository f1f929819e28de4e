"""Files made to run code: pickles, an .npz of objects, YAML with tags, each in place of a checkpoint, data or config.

Every payload would create a marker file. It must not exist afterwards, and the program must refuse in one line.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch


class Payload:
    """Unpickling this touches the marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def a_pickle(path, marker):
    path.write_bytes(f"cos\nsystem\n(S'touch {marker}'\ntR.".encode())  # protocol 0, by hand


def a_torch_file(path, marker):
    torch.save({"param/a": Payload(marker)}, path)


def an_npz_of_objects(path, marker):
    arrays = {name: np.array([Payload(marker)], dtype=object) for name in ("images", "label", "character")}
    with path.open("wb") as stream:
        np.savez(stream, **arrays)


def yaml_with_tags(path, marker):
    path.write_text(f"training: !!python/object/apply:os.system ['touch {marker}']\n")


PAYLOADS = (a_pickle, a_torch_file, an_npz_of_objects, yaml_with_tags)
PLACES = ("checkpoint tensors", "checkpoint json", "data file", "data in a folder", "config", "config of a run")


def words_for(place, payload, marker, run, search_words, tmp_path):
    """Put the payload in its place; the words of a command that meets it."""
    out = tmp_path / "out"
    if place == "data file":
        payload(tmp_path / "data.npz", marker)
        return search_words(out, "--data", str(tmp_path / "data.npz"))
    if place == "data in a folder":
        for number in range(9):
            (tmp_path / "photos" / f"class {number}").mkdir(parents=True)
            payload(tmp_path / "photos" / f"class {number}" / "image.png", marker)
        return search_words(out, "--data", str(tmp_path / "photos"))
    if place == "config":
        payload(tmp_path / "config.yaml", marker)
        return [*search_words(out), "--config", str(tmp_path / "config.yaml")]
    copy = shutil.copytree(run, tmp_path / "run")
    if place == "config of a run":
        payload(copy / "config.yaml", marker)
    elif place == "checkpoint json":
        payload(copy / "checkpoints" / "best.json", marker)
    else:
        (tensors,) = (copy / "checkpoints").glob("best-*.safetensors")
        payload(tensors, marker)
        facts = json.loads((copy / "checkpoints" / "best.json").read_text())
        facts["sha256"] = hashlib.sha256(tensors.read_bytes()).hexdigest()  # the attacker's JSON vouches for it
        (copy / "checkpoints" / "best.json").write_text(json.dumps(facts))
    return ["evaluate", str(copy), "--tasks", "2"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.__name__)
def test_it_is_refused_and_nothing_runs(refused, run, search_words, tmp_path, payload, place):
    marker = tmp_path / "marker"
    refused(*words_for(place, payload, marker, run, search_words, tmp_path))
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["data.pkl", "data.pickle", "data.pt", "data.pth"])
def test_data_by_the_name_of_a_pickle_is_refused_with_the_reason(refused, search_words, tmp_path, name):
    a_pickle(tmp_path / name, tmp_path / "marker")
    assert "could run code" in refused(*search_words(tmp_path / "out", "--data", str(tmp_path / name)))


def test_the_payloads_would_work(tmp_path):
    """That the files above are not refused for being harmless: the unsafe readers do run them."""
    import yaml

    marker = tmp_path / "marker"
    an_npz_of_objects(tmp_path / "a.npz", marker)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert b"touch" in archive.read("images.npy")
    yaml_with_tags(tmp_path / "a.yaml", marker)
    yaml.load((tmp_path / "a.yaml").read_text(), Loader=yaml.UnsafeLoader)
    assert marker.exists()


def test_a_genotype_is_never_evaluated(refused, run, tmp_path):
    marker = tmp_path / "marker"
    (tmp_path / "genotype.txt").write_text(f"__import__('os').system('touch {marker}')")
    refused("evaluate", run, "--tasks", 2, "--genotype", tmp_path / "genotype.txt")
    assert not marker.exists()
