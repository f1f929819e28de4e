"""Each format gives the model's answers and description; a python file does so without metadarts."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from metadarts.core.errors import ModelError
from metadarts.core.rng import Key
from metadarts.export import SUFFIXES, difference, make_model, open_model
from metadarts.export.formats import check_name, companions, format_of, write
from metadarts.export.plain import prepare
from metadarts.networks import discrete_network
from metadarts.spaces import darts, random_genotype
from metadarts.tasks.images.pixels import decode, fit, strict_pillow

FORMATS = tuple(SUFFIXES)
KEY = Key.from_seed(0)


@pytest.fixture(scope="module")
def opened(shipped):
    return {format: open_model(path) for format, path in shipped.items()}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("count", [1, 2, 64, 65])
def test_logits_are_the_models_and_the_networks(cases, case, model, opened, format, count):
    pixels = cases.noise(case, count)
    found = opened[format].logits(pixels)
    assert found.shape == (count, 4)
    assert not found.requires_grad
    assert difference(found, model.logits(pixels)) < 1e-5
    assert difference(found, case.source(pixels)) < 1e-5


@pytest.mark.parametrize("format", FORMATS)
def test_an_image_alone_and_in_a_batch(cases, case, opened, format):
    pixels = cases.noise(case, 65)
    together = opened[format].logits(pixels)
    alone = torch.cat([opened[format].logits(pixels[place : place + 1]) for place in (0, 31, 64)])
    assert difference(alone, together[[0, 31, 64]]) < 1e-5


@pytest.mark.parametrize("format", FORMATS)
def test_the_description_comes_back(cases, model, opened, format):
    assert opened[format].format == format
    assert opened[format].facts == model.facts
    assert opened[format].facts["classes"] == cases.CLASSES


@pytest.mark.parametrize("format", FORMATS)
def test_an_opened_file_can_be_deleted(cases, case, model, shipped, tmp_path, format):
    copies = [(tmp_path / part.name, part.read_bytes()) for part in companions(shipped[format])]
    for path, content in copies:
        path.write_bytes(content)
    opened = open_model(copies[0][0])
    for path, _ in copies:
        path.unlink()
    assert difference(opened.logits(cases.noise(case, 3)), model.logits(cases.noise(case, 3))) < 1e-5


@pytest.mark.parametrize("format", FORMATS)
def test_no_path_of_the_exporters_machine_is_in_a_file(shipped, format):
    content = b"".join(part.read_bytes() for part in companions(shipped[format]))
    for word in (b"stack_trace", b"site-packages", __file__.rpartition("/tests/")[0].encode(), b"plain.Classifier"):
        assert word not in content


@pytest.mark.parametrize(("format", "most"), [("safetensors", 3), ("python", 4), ("onnx", 5), ("torch-export", 20)])
def test_a_file_is_not_much_larger_than_its_weights(model, shipped, format, most):
    """The graphs of torch are long beside so few weights."""
    weights = sum(tensor.numel() * 4 for tensor in model.tensors.values())
    assert sum(part.stat().st_size for part in companions(shipped[format])) < most * weights


def test_colour_and_a_genotype(cases, tmp_path):
    """Operators that the supernet of grey images does not show: no inversion, an odd size, three channels."""
    space = darts(nodes=2)
    network = discrete_network(random_genotype(space, KEY), space, cases.spec(in_channels=3, pool_norm=False))
    case = cases.make_case(network, 21)
    model, pixels = cases.ship(case), cases.noise(case, 5)
    for suffix in (".pt2", ".onnx"):
        pytest.importorskip("onnxscript")
        write(model, tmp_path / f"model{suffix}")
        assert difference(open_model(tmp_path / f"model{suffix}").logits(pixels), case.source(pixels)) < 1e-5


def test_torch_export_loads_with_torch_alone(cases, case, model, shipped):
    pixels = cases.noise(case, 3)
    extra = {"metadarts.json": ""}
    program = torch.export.load(shipped["torch-export"], extra_files=extra)
    assert torch.equal(program.module()(pixels), model.logits(pixels))
    assert json.loads(extra["metadarts.json"]) == model.facts


def test_a_torch_export_holds_no_pickle(shipped):
    with zipfile.ZipFile(shipped["torch-export"]) as archive:
        sizes = {entry.filename.partition("/")[2]: entry.file_size for entry in archive.infolist()}
        assert sizes["data/sample_inputs/model.pt"] == 0
        assert all(b"\x80\x02" not in archive.read(name)[:2] for name in archive.namelist() if "weight_" not in name)


def test_weights_that_share_memory_are_each_written(cases, model, tmp_path):
    shared = torch.full((2, 1, 1, 1), 0.5)
    tensors = model.tensors | {"mean": shared[0], "std": shared[1]}
    twin = make_model({name: model.facts[name] for name in ("layers", "features")}, tensors, model.facts)
    write(twin, tmp_path / "model.pt2")
    pixels = torch.arange(512, dtype=torch.int64).remainder(256).to(torch.uint8).view(2, 1, 16, 16)
    assert torch.equal(open_model(tmp_path / "model.pt2").logits(pixels), twin.logits(pixels))


def test_onnx_holds_one_graph_of_the_standard_domain(shipped):
    onnx = pytest.importorskip("onnx")
    proto = onnx.load_model(shipped["onnx"], load_external_data=False)
    assert [entry.domain for entry in proto.opset_import] == [""]
    assert not proto.functions
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    assert [entry.key for entry in proto.metadata_props] == ["metadarts", "sha256"]
    assert not any(len(node.metadata_props) or node.doc_string for node in proto.graph.node)


def test_names_and_formats():
    from pathlib import Path

    assert {format_of(Path(f"a{suffix}")): suffix for suffix in SUFFIXES.values()} == SUFFIXES
    assert companions(Path("a.py")) == [Path("a.py"), Path("a.safetensors")]
    with pytest.raises(ModelError, match="expected a name ending in"):
        format_of(Path("a.pth"))
    with pytest.raises(ModelError, match="did you mean 'onnx'"):
        check_name(Path("a.onnx"), "onxx")
    with pytest.raises(ModelError, match=r"ends in \.pt2"):
        check_name(Path("a.onnx"), "torch-export")


# --- the python file, where there is no metadarts ---

ALONE = """
import importlib.abc, sys, warnings
warnings.simplefilter("error")

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in sys.stdlib_module_names | {"torch", "safetensors", "PIL", "numpy"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

import torch  # with whatever it needs itself
sys.meta_path.insert(0, Absent())
"""

ANSWER = """
import importlib.util, json
from safetensors.torch import load_file, save_file
spec = importlib.util.spec_from_file_location("shipped", sys.argv[1])
shipped = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shipped)
model, facts = shipped.load(sys.argv[2])
pixels = load_file(sys.argv[3])["pixels"]
save_file({"logits": model(pixels)}, sys.argv[4])
assert not any(name.partition(".")[0] == "metadarts" for name in sys.modules)
print(json.dumps(facts))
"""


def run_alone(code, *words):
    """Run ``code`` where only the standard library, torch, safetensors and Pillow can be imported."""
    command = [sys.executable, "-I", "-c", ALONE + code, *map(str, words)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_a_python_file_needs_no_metadarts(cases, case, model, shipped, tmp_path):
    from safetensors.torch import save_file

    script = shipped["python"]
    pixels, out = cases.noise(case, 65), tmp_path / "logits.safetensors"
    save_file({"pixels": pixels}, tmp_path / "pixels.safetensors")
    told = run_alone(ANSWER, script, script.with_suffix(".safetensors"), tmp_path / "pixels.safetensors", out)
    assert difference(load_file(out)["logits"], model.logits(pixels)) < 1e-5
    facts = json.loads(told)
    assert {name: facts[name] for name in model.facts} == model.facts
    assert facts.keys() - model.facts.keys() == {"sealed", "sha256"}


def test_a_python_file_is_a_program(cases, case, model, shipped, tmp_path):
    pixels = cases.noise(case, 1)
    Image.fromarray(pixels[0, 0].numpy()).save(tmp_path / "photo.png")
    share, place = model.logits(pixels).softmax(-1)[0].max(0)
    run = (
        "import runpy; script, photo = sys.argv[1:]; sys.argv = [script, photo]; runpy.run_path(script, {}, '__main__')"
    )
    told = run_alone(run, shipped["python"], tmp_path / "photo.png")
    assert told == f"{tmp_path / 'photo.png'}: {cases.CLASSES[int(place)]} ({float(share):.1%})\n"


def test_class_names_stay_within_their_comment(shipped):
    text = shipped["python"].read_text(encoding="utf-8")
    head = text.partition('"""')[0]
    assert all(re.fullmatch(r"# [ -~]*", line) for line in head.splitlines()), head
    assert len(head.splitlines()) == 4


# --- pictures ---


def a_picture(mode: str, size: tuple[int, int] = (40, 27)) -> Image.Image:
    values = KEY.child(mode).numpy().integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    smooth = Image.fromarray(values).resize(size, Image.Resampling.BILINEAR)
    if mode == "I;16":
        return Image.fromarray(np.asarray(smooth.convert("L")).astype(np.uint16) * 256 + values[..., 0])
    if mode == "P of colours":
        return smooth.convert("RGB").quantize(64)
    if mode == "P of greys":
        return smooth.convert("L").quantize(64)
    if mode == "P with a hole":
        picture = smooth.convert("RGB").quantize(64)
        picture.info["transparency"] = 3
        return picture
    return smooth.convert(mode)


MODES = ("1", "L", "LA", "P of colours", "P of greys", "P with a hole", "RGB", "RGBA", "I;16")
FILES = (
    *((mode, "PNG", {}) for mode in MODES),
    *((mode, "JPEG", {}) for mode in ("L", "RGB", "CMYK")),
    ("RGB", "JPEG", {"quality": 30, "subsampling": 2}),
    ("RGB", "WEBP", {"lossless": True}),
    ("RGBA", "WEBP", {"lossless": True}),
    ("P of colours", "GIF", {}),
    ("RGB", "BMP", {}),
)


def assert_same_pixels(content, tmp_path, form):
    path = tmp_path / "picture"
    path.write_bytes(content)
    with strict_pillow():
        wanted = fit(decode(content), form["height"], form["channels"])
    found = prepare(path, form)
    assert found.dtype == torch.uint8
    assert found.is_contiguous()
    assert np.array_equal(found[0].numpy(), wanted)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [12, 27, 64])
@pytest.mark.parametrize(("mode", "kind", "options"), FILES, ids=str)
def test_prepare_gives_the_pixels_that_data_sets_are_read_with(tmp_path, mode, kind, options, size, channels):
    content = io.BytesIO()
    a_picture(mode).save(content, kind, **options)
    assert_same_pixels(content.getvalue(), tmp_path, {"channels": channels, "height": size, "width": size})


@pytest.mark.parametrize("turn", range(1, 9))
def test_prepare_turns_photographs_upright(tmp_path, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    content = io.BytesIO()
    a_picture("RGB").save(content, "JPEG", exif=exif)
    assert_same_pixels(content.getvalue(), tmp_path, {"channels": 3, "height": 27, "width": 27})


def test_prepare_leaves_a_picture_of_the_right_size_alone(tmp_path):
    content = io.BytesIO()
    picture = a_picture("RGB", (16, 16))
    picture.save(content, "PNG")
    (tmp_path / "picture").write_bytes(content.getvalue())
    found = prepare(tmp_path / "picture", {"channels": 3, "height": 16, "width": 16})
    assert np.array_equal(found[0].permute(1, 2, 0).numpy(), np.asarray(picture))


def test_the_python_file_says_how_to_use_it_and_takes_its_weights_by_name_too(shipped, tmp_path):
    from PIL import Image

    Image.new("L", (20, 20), 90).save(tmp_path / "photo.png")
    file, weights = shipped["python"], shipped["python"].with_suffix(".safetensors")
    for words, code in (((), 1), ((tmp_path / "photo.png",), 0), ((weights, tmp_path / "photo.png"), 0)):
        done = subprocess.run([sys.executable, file, *words], capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert ("usage: " in done.stderr) if code else ("photo.png: " in done.stdout)
        assert "Traceback" not in done.stderr
