"""The formats a model is shipped in: how each is written, and how each is opened without executing what is in it."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metadarts.core.errors import ModelError, nearest

from .model import KEY, MOST_BYTES, Model, check_tensors, read_facts, read_model
from .plain import Classifier

SUFFIXES = {"safetensors": ".safetensors", "python": ".py", "torch-export": ".pt2", "onnx": ".onnx"}
"""Format -> what its files are called."""

Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Opened:
    """A shipped model that answers.

    Args:
        format: a key of `SUFFIXES`.
        facts: its description.
        logits: uint8 pixels [N, C, H, W] -> [N, classes].
    """

    format: str
    facts: dict[str, Any]
    logits: Logits


def format_of(path: Path) -> str:
    """The format that a file's name stands for. Raises ModelError."""
    for name, suffix in SUFFIXES.items():
        if path.suffix == suffix:
            return name
    raise ModelError(f"{path}: expected a name ending in one of {', '.join(SUFFIXES.values())}")


def check_name(path: Path, format: str) -> None:
    """Require that ``path`` is named as ``format`` is. Raises ModelError."""
    if format not in SUFFIXES:
        raise ModelError(f"unknown format {format!r}: {nearest(format, SUFFIXES)}")
    if path.suffix != SUFFIXES[format]:
        raise ModelError(f"{path}: a {format} file's name ends in {SUFFIXES[format]}")


def companions(path: Path) -> list[Path]:
    """The files that make up the model at ``path``: a python file has its weights beside it."""
    return [path, path.with_suffix(".safetensors")] if format_of(path) == "python" else [path]


def write(model: Model, path: Path) -> None:
    """Write ``model`` in the format of ``path``'s name; the caller moves it into place. Raises ModelError."""
    WRITERS[format_of(path)](model, path)


def open_model(path: Path) -> Opened:
    """Open a shipped model. No code in it is executed. Raises ModelError."""
    try:
        there = path.is_file()
    except OSError as error:
        raise ModelError(f"cannot open {path}: {error.strerror or error}") from error
    if not there:
        raise ModelError(f"there is no file {path}; give a file that `export` wrote")
    if path.stat().st_size > MOST_BYTES:
        raise ModelError(f"{path}: larger than {MOST_BYTES} bytes, which is no model of ours")
    return OPENERS[format_of(path)](path)


def _write_safetensors(model: Model, path: Path) -> None:
    path.write_bytes(model.to_bytes())


def _open_safetensors(path: Path, name: str = "safetensors") -> Opened:
    model = read_model(path)
    return Opened(name, model.facts, _quiet(model.module()))


def _quiet(module: Callable[[Tensor], Tensor]) -> Logits:
    def logits(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            return module(pixels)

    return logits


# --- python ---


def python_text(model: Model, weights: str) -> str:
    """The file that is shipped: what this model is, then `plain` as it stands."""
    facts = model.facts
    body = files("metadarts.export").joinpath("plain.py").read_text(encoding="utf-8")
    told = [
        f"{len(facts['classes'])} classes: {', '.join(map(ascii, facts['classes']))}",
        f"images: {facts['image']['channels']} channel(s), {facts['image']['height']}x{facts['image']['width']} pixels",
        f"cell: {facts.get('genotype') or 'a mixture of all operations'}",
        f"weights: {weights}, SHA-256 {hashlib.sha256(model.to_bytes()).hexdigest()}",
    ]
    lines = "\n".join(f"# {_comment(line)}" for line in told)
    return f"{lines}\n{body.replace(NO_WEIGHTS, f'WEIGHTS = {json.dumps(weights)}')}"


NO_WEIGHTS = 'WEIGHTS = ""'


def _comment(text: str) -> str:
    """``text`` as one line of a comment, whatever the names of classes hold."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _write_python(model: Model, path: Path) -> None:
    weights = path.with_suffix(".safetensors")
    _write_safetensors(model, weights)
    path.write_text(python_text(model, weights.name), encoding="utf-8")


def _open_python(path: Path) -> Opened:
    """The weights beside a python file; the file is compared with what we would write, and never run."""
    weights = path.with_suffix(".safetensors")
    model = read_model(weights)
    try:
        found = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot read {path} ({error})") from error
    if found != python_text(model, weights.name):
        raise ModelError(
            f"{path} is not what this version of metadarts writes for {weights.name}: it was edited, renamed or written by "
            "another version. It is not run here; export it anew, or check it by running it yourself"
        )
    return Opened("python", model.facts, _quiet(model.module()))


_RUN = """
import importlib.util, sys
from safetensors.torch import load_file, save_file
spec = importlib.util.spec_from_file_location("shipped", sys.argv[1])
shipped = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shipped)
model, facts = shipped.load(sys.argv[2])
pixels = load_file(sys.argv[3])["pixels"]
save_file({"logits": model(pixels).contiguous()}, sys.argv[4])
"""


def run_python_file(path: Path, pixels: Tensor) -> Tensor:
    """The logits that a python file we have just written computes, in a process of its own."""
    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory() as folder:
        asked, told = Path(folder) / "pixels.safetensors", Path(folder) / "logits.safetensors"
        save_file({"pixels": pixels.contiguous()}, asked)
        words = [sys.executable, "-c", _RUN, path, path.with_suffix(".safetensors"), asked, told]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
        if done.returncode:
            raise ModelError(f"the python file does not run: {done.stderr.strip().splitlines()[-1:]}")
        return load_file(told)["logits"]


# --- torch.export ---

FACTS_FILE = "metadarts.json"
TARGETS = frozenset(
    f"torch.ops.aten.{name}"
    for name in (
        "_to_copy.default", "_assert_tensor_metadata.default", "to.dtype", "div.Tensor", "sub.Tensor", "rsub.Scalar",
        "mul.Tensor", "add.Tensor", "conv2d.default", "max_pool2d.default", "avg_pool2d.default", "relu.default",
        "cat.default", "mean.dim", "linear.default", "pad.default", "slice.Tensor", "alias.default", "sym_size.int",
    )
)  # fmt: skip
"""All that the graph of a classifier calls. A graph from elsewhere could name any function of torch's."""

SYMBOL = re.compile(r"Symbol\('s\d+', positive=True, integer=True\)|s\d+|\d+")
"""The free size of the batch. torch hands such texts to sympy, which evaluates them."""


def _write_torch_export(model: Model, path: Path) -> None:
    image = model.facts["image"]
    example = torch.zeros((2, image["channels"], image["height"], image["width"]), dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1)
    with _silent():
        program = torch.export.export(model.module(), (example,), dynamic_shapes={"pixels": {0: batch}})
        torch.export.save(program, path, extra_files={FACTS_FILE: json.dumps(model.facts)})


def _open_torch_export(path: Path) -> Opened:
    try:
        text = _require_harmless(path)
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ModelError(f"cannot read {path} as a .pt2 file ({error}); export it anew") from error
    facts = read_facts(text, path)
    try:
        with _silent():
            module = torch.export.load(path).module()
    except Exception as error:  # whatever torch stumbles over in a damaged archive
        raise ModelError(f"{path} is damaged: {str(error).splitlines()[0] if str(error) else error!r}") from error
    return Opened("torch-export", facts, _quiet(module))


def _require_harmless(path: Path) -> str:
    """Refuse an archive with more in it than a classifier of ours: torch unpickles and evaluates what such files name.

    Returns the model's description.
    """
    text = None
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
            raise ModelError(f"{path}: unpacks to more than {MOST_BYTES} bytes")
        for entry in archive.infolist():
            content = archive.read(entry)
            if entry.filename.endswith(f"extra/{FACTS_FILE}"):
                text = content.decode()
            elif entry.filename.endswith(".json"):
                _require_known(json.loads(content), path)
            elif "sample_inputs" in entry.filename or entry.filename.endswith(".pt"):
                _require_tensors(content, path)
            elif not re.search(r"/(version|byteorder|archive_format|archive_version|\.format_version)$|/weight_\d+$"
                               r"|/\.data/serialization_id$|/models/[^/]+$", entry.filename):  # fmt: skip
                raise ModelError(f"{path}: unexpected part {entry.filename!r}; only files that `export` wrote are opened")
    if text is None:
        raise ModelError(f"{path} holds no description of a model; give a file that `export` wrote")
    return text


def _require_tensors(content: bytes, path: Path) -> None:
    import io
    import pickle

    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: a part of it is a pickle of more than tensors, and is not opened") from error


def _require_known(value: Any, path: Path) -> None:
    """Every function called, and every expression that torch would evaluate, must be one of ours."""
    for key, item in _pairs(value):
        if key == "target" and isinstance(item, str) and item not in TARGETS:
            raise ModelError(f"{path}: its graph calls {item!r}, which no model of ours does; it is not opened")
        if key == "expr_str" and not (isinstance(item, str) and SYMBOL.fullmatch(item)):
            raise ModelError(f"{path}: its graph holds the expression {item!r}; it is not opened")
        if key == "use_pickle" and item is not False:
            raise ModelError(f"{path}: a part of it is a pickle, which could run code; it is not opened")


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key, item
            yield from _pairs(item)
    elif isinstance(value, list):
        for item in value:
            yield from _pairs(item)


@contextmanager
def _silent() -> Iterator[None]:
    """Remarks of the exporters are theirs; what they made is checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# --- ONNX ---


def _onnx() -> Any:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise ModelError(f"ONNX needs the packages onnx, onnxruntime and onnxscript: pip install 'metadarts[onnx]' ({error})") from error
    return onnx, onnxruntime


def _write_onnx(model: Model, path: Path) -> None:
    onnx, _ = _onnx()
    image = model.facts["image"]
    example = torch.zeros((2, image["channels"], image["height"], image["width"]), dtype=torch.uint8)
    with _silent():
        program = torch.onnx.export(
            model.module(), (example,), dynamo=True, verbose=False, input_names=["pixels"], output_names=["logits"],
            dynamic_shapes={"pixels": {0: torch.export.Dim("batch", min=1)}},
        )  # fmt: skip
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {KEY: json.dumps(model.facts)})
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())


def _open_onnx(path: Path) -> Opened:
    onnx, onnxruntime = _onnx()
    try:
        proto = onnx.load_model(str(path), load_external_data=False)
        found = {entry.key: entry.value for entry in proto.metadata_props}
        outside = any(tensor.external_data for tensor in proto.graph.initializer)
    except Exception as error:  # protobuf's own errors
        raise ModelError(f"cannot read {path} as an ONNX file ({type(error).__name__}); export it anew") from error
    if KEY not in found or outside:
        raise ModelError(f"{path} is no model that `export` wrote: expected a description and all weights inside")
    facts = read_facts(found[KEY], path)
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
    except Exception as error:
        raise ModelError(f"{path} is damaged: onnxruntime refuses it ({type(error).__name__})") from error
    if names != ["pixels"]:
        raise ModelError(f"{path}: expected one input called pixels, got {names}")

    def logits(pixels: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"pixels": pixels.numpy()})[0])

    return Opened("onnx", facts, logits)


WRITERS: dict[str, Callable[[Model, Path], None]] = {
    "safetensors": _write_safetensors,
    "python": _write_python,
    "torch-export": _write_torch_export,
    "onnx": _write_onnx,
}
OPENERS: dict[str, Callable[[Path], Opened]] = {
    "safetensors": _open_safetensors,
    "python": _open_python,
    "torch-export": _open_torch_export,
    "onnx": _open_onnx,
}

