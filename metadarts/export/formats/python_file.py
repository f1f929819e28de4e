"""A python file that runs without metadarts: what this model is, then `plain` as it stands. Weights lie beside it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from metadarts.core.errors import ModelError
from metadarts.export.model import MOST_TEXT, ShippedModel, read_model

from .opened import Opened, without_grad

NO_WEIGHTS = 'WEIGHTS = ""'
EARLIER = frozenset({"d069d591ed5824b3578246c1c92eb5b01569186b0e22eac21dd9b971a324ebc6"})
"""SHA-256 of `plain` as earlier versions wrote it."""

RUN = """
import importlib.util, sys
from pathlib import Path
from safetensors.torch import load_file, save_file
spec = importlib.util.spec_from_file_location("shipped", sys.argv[1])
shipped = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shipped)
model, facts = shipped.load(Path(sys.argv[1]).with_name(shipped.WEIGHTS))
pixels = load_file(sys.argv[2])["pixels"]
save_file({"logits": model(pixels).contiguous()}, sys.argv[3])
"""


def write(model: ShippedModel, path: Path) -> None:
    """Write the file, and its weights beside it."""
    weights = path.with_suffix(".safetensors")
    weights.write_bytes(content := model.to_bytes())
    path.write_text(python_text(model.facts, weights.name, content), encoding="utf-8", newline="\n")


def python_text(facts: Mapping[str, Any], weights: str, content: bytes) -> str:
    """The file's content, for weights that are the ``content`` of the file called ``weights``."""
    body = files("metadarts.export").joinpath("plain.py").read_text(encoding="utf-8")
    return head(facts, weights, content) + body.replace(NO_WEIGHTS, f"WEIGHTS = {weights!a}")


def is_earlier(text: str, facts: Mapping[str, Any], weights: Path) -> bool:
    """Whether ``text`` is what an earlier version wrote for the model in the file ``weights``."""
    start, named = head(facts, weights.name, weights.read_bytes()), f"WEIGHTS = {weights.name!a}"
    body = text.removeprefix(start).replace(named, NO_WEIGHTS)
    known = hashlib.sha256(body.encode()).hexdigest() in EARLIER
    return known and text == start + body.replace(NO_WEIGHTS, named)


def head(facts: Mapping[str, Any], weights: str, content: bytes) -> str:
    """The comment that says what the model is, whose weights are the ``content`` of the file called ``weights``."""
    told = [
        f"{len(facts['classes'])} classes: {', '.join(map(ascii, facts['classes']))}",
        f"images: {facts['image']['channels']} channel(s), {facts['image']['height']}x{facts['image']['width']} pixels",
        f"cell: {facts.get('genotype') or 'a mixture of all operations'}",
        f"weights: {weights}, SHA-256 {hashlib.sha256(content).hexdigest()}",
    ]
    return "".join(f"# {_comment(line)}\n" for line in told)


def check_weights_place(path: Path) -> None:
    """Require that weights beside ``path``, if there are any, are those of the python file there. Raises ModelError."""
    weights = path.with_suffix(".safetensors")
    if (weights.exists() or weights.is_symlink()) and not names_weights(path, weights.name):
        raise ModelError(
            f"{weights} is there already and {path.name} does not name it as its weights: it would be replaced by "
            "theirs; give the python file another name, or move that file away"
        )


def check_no_python_file(path: Path) -> None:
    """Require that no python file lives on the weights at ``path``. Raises ModelError."""
    file = path.with_suffix(".py")
    if names_weights(file, path.name):
        raise ModelError(f"{path} holds the weights of {file.name}, which would run with others: give another name")


def names_weights(path: Path, weights: str) -> bool:
    """Whether the python file at ``path``, if there is one, has ``weights`` as its weights."""
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() and path.stat().st_size <= MOST_TEXT else ""
    except (OSError, UnicodeDecodeError):
        return False
    # earlier versions wrote the name as JSON
    starts = tuple(f"WEIGHTS = {name}  #" for name in (ascii(weights), json.dumps(weights)))
    return any(line.startswith(starts) for line in text.splitlines())


def _comment(text: str) -> str:
    """``text`` as one line of a comment, whatever the names of classes hold."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def open_file(path: Path) -> Opened:
    """The weights beside a python file; the file is compared with what we would write, and never run.

    Raises ModelError.
    """
    weights = path.with_suffix(".safetensors")
    model = read_model(weights)
    try:
        found = path.read_text(encoding="utf-8") if path.stat().st_size <= MOST_TEXT else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot read {path} ({error})") from error
    expected = python_text(model.facts, weights.name, weights.read_bytes())
    if found != expected and not is_earlier(found, model.facts, weights):
        raise ModelError(
            f"{path} is not what this version of metadarts writes for {weights.name}: one of the two was edited, "
            "renamed or written by another version. It is not run here; export it anew, or check it by running it "
            "yourself"
        )
    return Opened("python", model.facts, without_grad(model.module()))


def run_python_file(path: Path, pixels: Tensor) -> Tensor:
    """The logits that a python file we have just written computes, in a separate process. Raises ModelError."""
    with tempfile.TemporaryDirectory() as folder:
        asked, told = Path(folder) / "pixels.safetensors", Path(folder) / "logits.safetensors"
        save_file({"pixels": pixels.contiguous()}, asked)
        words = [sys.executable, "-c", RUN, path, asked, told]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            raise ModelError(f"the python file does not run: {last[0]}")
        return load_file(told)["logits"]
