"""A file that is not its source is refused before it takes its place, and a damaged one when it is verified."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from metadarts.core.errors import ModelError, RunError
from metadarts.export import SUFFIXES, ShippedModel, check, difference, export_model, formats, read_model, verify
from metadarts.export.formats import companions, onnx_file, write
from metadarts.export.model import DIGEST
from metadarts.store.tensors import digest, sealed

FORMATS = tuple(SUFFIXES)


@pytest.fixture(autouse=True)
def few_runs(monkeypatch):
    """Speed is measured, and not what is tested here."""
    monkeypatch.setattr(check, "RUNS", 1)


@pytest.fixture
def export(cases, case, model, tmp_path):
    """(format, model) -> export it to tmp_path as what came from ``case``."""

    def run(format, shipped=model, folder=tmp_path / "out"):
        return export_model(shipped, folder / f"model{SUFFIXES[format]}", format, case.source, cases.noise(case, 3))

    return run


def changed(model, by=1e-2):
    """The model with one weight changed that counts, and what it told of itself before."""
    bias = model.tensors["head.bias"].clone()
    bias[1] += by * bias.abs().max()
    tensors = model.tensors | {"head.bias": bias}
    return ShippedModel(model.facts | {DIGEST: digest(tensors)}, tensors)


def copy_of(shipped, format, folder):
    for part in companions(shipped[format]):
        (folder / part.name).write_bytes(part.read_bytes())
    return folder / shipped[format].name


@pytest.mark.parametrize("format", ["safetensors", "python"])
def test_an_export_says_what_was_checked(export, format, tmp_path):
    found = export(format)
    assert found.path == tmp_path / "out" / f"model{SUFFIXES[format]}"
    assert found.format == format
    assert found.images == check.RANDOM + 3
    assert found.difference < 1e-5
    assert found.alone < 1e-5
    assert found.size == sum(part.stat().st_size for part in (tmp_path / "out").iterdir())
    assert set(found.milliseconds) == {1, check.BATCH}
    assert {part.name for part in (tmp_path / "out").iterdir()} == {part.name for part in companions(found.path)}


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_verifies(shipped, model, format):
    found, facts = verify(shipped[format])
    assert (found.format, found.images) == (format, 16)
    assert found.difference < 1e-5
    assert facts == model.facts


@pytest.mark.parametrize("format", ["safetensors", "python", "torch-export"])
def test_a_model_that_is_not_its_source_is_refused_and_nothing_is_left(export, model, tmp_path, format):
    with pytest.raises(ModelError, match=r"of an image's largest logit.* give more varied images"):
        export(format, changed(model))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("format", ["safetensors", "python"])
def test_a_writer_that_errs_is_found_out_and_the_older_file_still_stands(export, model, tmp_path, monkeypatch, format):
    path = export(format).path
    before = {part: part.read_bytes() for part in companions(path)}
    right = formats.WRITERS[format]
    monkeypatch.setitem(formats.WRITERS, format, lambda model, path: right(changed(model), path))
    with pytest.raises(ModelError, match="of an image's largest logit"):
        export(format)
    assert {part: part.read_bytes() for part in path.parent.iterdir()} == before


def test_a_python_file_that_errs_is_found_out_by_running_it(export, monkeypatch, tmp_path):
    """Its weights are right, and what we read of it is what we wrote."""
    text = formats.python_file.python_text

    def wrong(*given):
        return text(*given).replace("pixels = 255 - pixels", "pixels = 254 - pixels")

    monkeypatch.setattr(formats.python_file, "python_text", wrong)
    with pytest.raises(ModelError, match="the python file, run, differs"):
        export("python")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_writer_that_fails_leaves_nothing(export, monkeypatch, tmp_path):
    def full(model, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(formats.WRITERS, "safetensors", full)
    with pytest.raises(RunError, match="No space left on device; free some space"):
        export("safetensors")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_place_that_cannot_be_written(export, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="choose another place"):
        export("safetensors", folder=tmp_path / "file")


def test_answers_that_depend_on_the_batch_are_refused(export, monkeypatch, cases, case, model):
    def by_batch(path):
        def logits(pixels):
            found = model.logits(pixels)
            return found if len(pixels) > 1 else found + 1e-3 * found.abs().max()

        return formats.Opened("safetensors", model.facts, logits)

    monkeypatch.setattr(check, "open_model", by_batch)
    with pytest.raises(ModelError, match="an image alone, against the same in a batch"):
        export("safetensors")


@pytest.mark.parametrize("real", [0, 1, 3, 5, 64])
def test_real_images_and_noise_are_given_alone(cases, case, model, real, tmp_path, monkeypatch):
    """Real ones are all black here; they are taken from the whole of them, one of each class where these follow."""
    alone = []

    def by_batch(path):
        def logits(pixels):
            alone.extend([pixels] * (len(pixels) == 1))
            return model.logits(pixels)

        return formats.Opened("safetensors", model.facts, logits)

    monkeypatch.setattr(check, "open_model", by_batch)
    monkeypatch.setattr(check, "RANDOM", 64)
    monkeypatch.setattr(check, "_milliseconds", lambda logits, pixels: 0.0)
    black = torch.zeros((real, *case.images.shape[1:]), dtype=torch.uint8)
    black[:, 0, 0, 0] = torch.arange(real)
    export_model(model, tmp_path / "model.safetensors", "safetensors", case.source, black)
    alone = alone[-8:]  # the comparison may end in a batch of one
    found = [int(pixels[0, 0, 0, 0]) for pixels in alone if not pixels[0, 0, 1:].any()]
    assert found == {0: [], 1: [0], 3: [0, 1, 2], 5: [0, 1, 2, 3], 64: [0, 16, 32, 48]}[real]


def test_answers_that_depend_on_the_batch_for_real_images_only_are_refused(export, monkeypatch, cases, case, model):
    real = cases.noise(case, 3)

    def by_batch(path):
        def logits(pixels):
            found = model.logits(pixels)
            wrong = len(pixels) == 1 and any(torch.equal(pixels[0], image) for image in real)
            return found + 1e-3 * found.abs().max() * wrong

        return formats.Opened("safetensors", model.facts, logits)

    monkeypatch.setattr(check, "open_model", by_batch)
    with pytest.raises(ModelError, match="an image alone, against the same in a batch"):
        export("safetensors")


# --- the two files of a python export ---


def files_of(folder):
    return {part.name: part.read_bytes() if part.is_file() else None for part in folder.iterdir()}


def test_a_python_file_that_cannot_be_moved_leaves_no_weights(export, tmp_path):
    (tmp_path / "out" / "model.py").mkdir(parents=True)
    with pytest.raises(RunError, match="exists, and is no export"):
        export("python")
    assert files_of(tmp_path / "out") == {"model.py": None}


def test_weights_that_cannot_be_moved_leave_the_older_python_file(export, tmp_path):
    path = export("python").path
    path.with_suffix(".safetensors").unlink()
    path.with_suffix(".safetensors").mkdir()
    path.write_text(path.read_text(encoding="utf-8") + "# older\n", encoding="utf-8")
    before = files_of(tmp_path / "out")
    with pytest.raises(RunError, match="cannot write"):
        export("python")
    assert files_of(tmp_path / "out") == before


def test_a_later_part_that_cannot_be_moved_leaves_the_older_pair(tmp_path):
    (tmp_path / "new").mkdir()
    for folder, content in ((tmp_path, "old"), (tmp_path / "new", "new")):
        (folder / "a").write_text(content)
    (tmp_path / "real").write_text("a link's")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "last").mkdir()
    for name in ("link", "more", "last"):
        (tmp_path / "new" / name).write_text("new")
    with pytest.raises(OSError, match="irectory"):
        check._move([tmp_path / "new" / name for name in ("a", "link", "more", "last")], tmp_path)
    assert (tmp_path / "a").read_text() == "old"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "a link's"
    assert {part.name for part in tmp_path.iterdir()} == {"a", "link", "real", "last", "new"}


@pytest.mark.parametrize("format", list(SUFFIXES))
@pytest.mark.parametrize("content", [b"mine", b""])
def test_a_file_of_others_is_not_replaced(export, tmp_path, format, content):
    (tmp_path / "out").mkdir()
    path = (tmp_path / "out" / "model").with_suffix(SUFFIXES[format])
    path.write_bytes(content)
    with pytest.raises(RunError, match="exists, and is no export: give --out another name"):
        export(format)
    assert files_of(tmp_path / "out") == {path.name: content}


@pytest.mark.parametrize("beside", ["nothing", "a stranger", "no text", "a folder", "another's"])
def test_weights_of_another_export_are_not_replaced(export, tmp_path, beside):
    weights = export("safetensors").path
    script = weights.with_suffix(".py")
    if beside == "a stranger":
        script.write_text("print('model.safetensors')\n")
    elif beside == "no text":
        script.write_bytes(b"\xff\xfe")
    elif beside == "a folder":
        script.mkdir()
    elif beside == "another's":
        script.write_text('WEIGHTS = "other.safetensors"  # the file of weights\n')
    before = files_of(tmp_path / "out")
    with pytest.raises(ModelError, match="give the python file another name"):
        export("python")
    assert files_of(tmp_path / "out") == before


@pytest.mark.parametrize("name", ["Größe 😀.py", 'it\'s "7".py', "\u2028.py"])
def test_a_python_file_of_any_name_finds_its_weights_and_is_replaced(cases, case, model, tmp_path, name):
    path = tmp_path / name
    write(model, path)
    earlier = path.read_text(encoding="utf-8").replace(
        ascii(path.with_suffix(".safetensors").name), json.dumps(path.with_suffix(".safetensors").name)
    )
    path.write_text(earlier, encoding="utf-8")  # as earlier versions wrote it
    export_model(model, path, "python", case.source, cases.noise(case, 3))
    assert verify(path)[0].format == "python"


def test_a_python_file_whose_weights_have_no_seal_is_opened(model, tmp_path):
    """As versions wrote it whose descriptions carried no hash of their own."""
    path, weights = tmp_path / "a.py", tmp_path / "a.safetensors"
    save_file(model.tensors, weights, metadata={"metadarts": json.dumps(model.facts)})
    path.write_text(formats.python_file.python_text(model.facts, weights.name, weights.read_bytes()), encoding="utf-8")
    assert verify(path)[0].format == "python"


def test_a_python_file_that_names_other_weights_is_found_out(export, monkeypatch, tmp_path):
    text = formats.python_file.python_text
    monkeypatch.setattr(
        formats.python_file, "python_text", lambda facts, _, content: text(facts, "other.safetensors", content)
    )
    with pytest.raises(ModelError, match="the python file does not run"):
        export("python")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_verify_refuses_another_weight(model, shipped, tmp_path, format):
    """The file is whole, and its description is that of the model before a weight was changed."""
    path = tmp_path / shipped[format].name
    if format == "onnx":
        onnx = pytest.importorskip("onnx")
        proto = onnx.load_model(shipped[format])
        (bias,) = (tensor for tensor in proto.graph.initializer if tensor.name == "head.bias")
        bias.CopyFrom(onnx.numpy_helper.from_array(changed(model).tensors["head.bias"].numpy(), "head.bias"))
        content = onnx_file.digest(proto)
        told = sealed(json.dumps(model.facts), content)
        onnx.helper.set_model_props(proto, {"metadarts": told, "sha256": content})
        path.write_bytes(proto.SerializeToString())
    else:
        write(changed(model), path)
    with pytest.raises(ModelError, match=r"of an image's largest logit.* export it anew"):
        verify(path)


def props_of(proto):
    return {entry.key: entry.value for entry in proto.metadata_props}


@pytest.mark.parametrize("format", FORMATS)
def test_a_last_bit_of_a_weight_is_seen(model, shipped, tmp_path, format):
    """Too little for the probes; the hash sees it."""
    path = copy_of(shipped, format, tmp_path)
    part = companions(path)[-1]
    whole = bytearray(part.read_bytes())
    place = bytes(whole).index(model.tensors["head.bias"].numpy().tobytes())
    whole[place] ^= 1
    part.write_bytes(bytes(whole))
    with pytest.raises(ModelError, match=r"damaged|CRC"):
        verify(path)


def test_an_onnx_description_that_is_no_utf8_is_refused(shipped, tmp_path):
    path = copy_of(shipped, "onnx", tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"classes"', b'"cl\xffsses"', 1))
    with pytest.raises(ModelError, match="export it anew"):
        verify(path)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_verify_refuses_half_a_file(shipped, tmp_path, format, share):
    path = copy_of(shipped, format, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError):
        verify(path)


def test_a_python_file_that_was_edited_is_not_taken_for_ours(shipped, tmp_path):
    path = copy_of(shipped, "python", tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace("/ 255.0", "/ 256.0"), encoding="utf-8")
    with pytest.raises(ModelError, match="not what this version of metadarts writes"):
        verify(path)
    path.with_suffix(".safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        verify(path)


def test_tensors_of_another_type_or_number_are_refused(model, tmp_path):
    path = tmp_path / "model.safetensors"
    for change, words in (
        ({"mean": model.tensors["mean"].double()}, "finite float32"),
        ({"mean": model.tensors["mean"] * torch.nan}, "finite float32"),
        ({"mean": model.tensors["mean"].repeat(3, 1, 1)}, "expected the shape"),
        ({"more": model.tensors["mean"]}, "expected no such tensor"),
    ):
        path.write_bytes(ShippedModel(model.facts, model.tensors | change).to_bytes())
        with pytest.raises(ModelError, match=words):
            read_model(path)
    save_file(model.tensors, path)
    with pytest.raises(ModelError, match="no description"):
        read_model(path)


def test_a_loud_image_does_not_excuse_another():
    wanted = torch.tensor([[1.0, -4.0], [1000.0, 0.0]])
    assert difference(wanted + torch.tensor([[0.0, 1.0], [0.0, 0.0]]), wanted) == pytest.approx(1 / 50)
    assert difference(wanted + torch.tensor([[0.0, 0.0], [0.0, 1.0]]), wanted) == pytest.approx(1e-3)


def test_an_image_of_tiny_logits_counts_with_a_twentieth_of_the_largest():
    wanted = torch.tensor([[0.0, 0.0], [1000.0, 0.0]])
    assert difference(torch.tensor([[0.0, 0.5], [1000.0, 0.0]]), wanted) == pytest.approx(0.5 / 50)


def test_difference_is_relative_to_the_largest_and_never_a_nan():
    wanted = torch.tensor([[1.0, -4.0]])
    assert difference(torch.tensor([[1.0, -3.0]]), wanted) == 0.25
    assert difference(torch.full((1, 2), torch.nan), wanted) == float("inf")
    assert difference(torch.full((1, 2), torch.inf), wanted) == float("inf")
    assert difference(torch.zeros(1, 2), torch.zeros(1, 2)) == 0.0


def test_a_safetensors_export_does_not_take_the_weights_from_under_a_python_file(export, tmp_path):
    export("python")
    weights = tmp_path / "out" / "model.safetensors"
    before = weights.read_bytes()
    with pytest.raises(ModelError, match=r"holds the weights of model\.py"):
        export("safetensors")
    assert weights.read_bytes() == before
