"""The graph that torch.export records, in PyTorch's .pt2 archive; it runs where PyTorch is, without our code.

``torch.export.load`` trusts what it opens: it unpickles, evaluates expressions and generates code out of names. So it
is never given a foreign archive. Opening takes the description, the graph and the weights out of the file, checks them
against one another and against all that a classifier of ours can hold (`torch_graph`), and has torch load an archive
rewritten from these.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metadarts.core.errors import ModelError
from metadarts.export.layers import MOST_VALUES
from metadarts.export.model import (
    MOST_BYTES,
    MOST_TEXT,
    ShippedModel,
    check_tensors,
    first_line,
    read_facts,
    shapes_of,
)
from metadarts.export.plain import build
from metadarts.store.files import is_utf8
from metadarts.store.schema import loads

from .opened import Opened, example, silent, without_grad
from .torch_graph import MOST_GRAPH, fault_of_graph

FACTS, GRAPH, WEIGHTS = "extra/metadarts.json", "models/model.json", "data/weights/model_weights_config.json"
CONSTANTS, INPUTS = "data/constants/model_constants_config.json", "data/sample_inputs/model.pt"
PREAMBLE = (
    *("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id"),
    *(".format_version", ".storage_alignment"),
)
"""Parts that torch puts into an archive of any content."""

TRACES = ("stack_trace", "nn_module_stack", "torch_fn", "source_fn_stack", "from_node", "custom")
"""What torch keeps of a node's origin: paths on the exporter's machine, and names of modules."""


def write(model: ShippedModel, path: Path) -> None:
    """Write the file. Raises ModelError."""
    # Tensors that share memory would share one part of the archive.
    module = build(model.facts, {name: tensor.clone() for name, tensor in model.tensors.items()})
    batch = torch.export.Dim("batch", min=1)
    with silent():
        pixels = example(model.facts["image"], 2)
        program = torch.export.export(module, (pixels,), dynamic_shapes={"pixels": {0: batch}})
        program.example_inputs = None
        del program.module_call_graph[1:]
        for node in program.graph.nodes:
            for trace in TRACES:
                node.meta.pop(trace, None)
        more = {Path(FACTS).name: json.dumps(model.facts, allow_nan=False)}
        if is_utf8(path):
            torch.export.save(program, path, extra_files=more)
        else:  # torch's writer would end the process
            content = io.BytesIO()
            torch.export.save(program, content, extra_files=more)
            path.write_bytes(content.getvalue())


def open_file(path: Path) -> Opened:
    """Open it. Raises ModelError."""
    try:
        facts, graph, tensors = _read(path)
    except ModelError:
        raise
    except Exception as error:  # whatever a damaged archive makes its readers stumble over
        raise ModelError(f"cannot read {path} as a .pt2 file ({first_line(error)}); export it anew") from error
    check_tensors(ShippedModel(facts, tensors), path)
    if fault := fault_of_graph(graph, {name: list(tensor.shape) for name, tensor in tensors.items()}):
        raise ModelError(f"{path}: {fault}, which is in no model that `export` wrote; it is not opened")
    try:
        with silent():
            module = torch.export.load(_archive(graph, tensors)).module()
            _Measured(module).run(example(facts["image"], 1))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{path} is damaged ({first_line(error)}); export it anew") from error
    return Opened("torch-export", facts, without_grad(module))


def _read(path: Path) -> tuple[dict[str, Any], Any, dict[str, Tensor]]:
    """Description, graph and weights. What is else in the archive is not used."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        parts = {entry.filename.partition("/")[2]: entry for entry in entries}
        if len(parts) != len(entries) or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ModelError(
                f"{path}: a part of it is there twice, or packed; only files that `export` wrote are opened"
            )
        if sum(entry.file_size for entry in entries) > MOST_BYTES:
            raise ModelError(f"{path}: unpacks to more than {MOST_BYTES} bytes")
        for name, most in ((FACTS, MOST_TEXT), (GRAPH, MOST_GRAPH), (WEIGHTS, MOST_GRAPH)):
            if name not in parts:
                raise ModelError(f"{path} has no part {name}; give a file that `export` wrote")
            if parts[name].file_size > most:
                raise ModelError(f"{path}: its part {name} is larger than {most} bytes")
        facts = read_facts(archive.read(parts[FACTS]).decode(), path)
        config = loads(archive.read(parts[WEIGHTS]), MOST_GRAPH)["config"]
        tensors = {}
        used = {FACTS, GRAPH, WEIGHTS, CONSTANTS, INPUTS, *PREAMBLE}
        for name, shape in shapes_of(facts).items():
            part = f"data/weights/{config[name]['path_name']}"
            tensors[name] = torch.frombuffer(bytearray(archive.read(parts[part])), dtype=torch.float32).view(shape)
            used.add(part)
        if strangers := sorted(parts.keys() - used):
            raise ModelError(
                f"{path}: unexpected part {strangers[0][:80]!r}; only files that `export` wrote are opened"
            )
        if INPUTS in parts and parts[INPUTS].file_size:
            raise ModelError(f"{path}: it holds example inputs, a pickle, which could run code; it is not opened")
        return facts, loads(archive.read(parts[GRAPH]), MOST_GRAPH), tensors


def _archive(graph: Any, tensors: dict[str, Tensor]) -> io.BytesIO:
    """An archive for torch to load."""
    from torch.export.pt2_archive.constants import ARCHIVE_FORMAT_VALUE, ARCHIVE_VERSION_VALUE  # takes a second

    config = {}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for place, (name, tensor) in enumerate(tensors.items()):
            config[name] = {
                "path_name": f"weight_{place}",
                "is_param": True,
                "use_pickle": False,
                "tensor_meta": {
                    "dtype": 7,  # float32 in torch's numbering of the format
                    "sizes": [{"as_int": size} for size in tensor.shape],
                    "strides": [{"as_int": stride} for stride in tensor.stride()],
                    "storage_offset": {"as_int": 0},
                    "requires_grad": False,
                    "device": {"type": "cpu", "index": None},
                    "layout": 7,  # strided
                },
            }
            archive.writestr(f"model/data/weights/weight_{place}", tensor.numpy().tobytes())
        texts = {
            GRAPH: json.dumps(graph),
            WEIGHTS: json.dumps({"config": config}),
            CONSTANTS: '{"config": {}}',
            INPUTS: "",
            "archive_format": ARCHIVE_FORMAT_VALUE,
            "archive_version": ARCHIVE_VERSION_VALUE,
            "byteorder": "little",
            ".data/version": "6\n",
        }
        for name, text in texts.items():
            archive.writestr(f"model/{name}", text)
    content.seek(0)
    return content


class _Measured(torch.fx.Interpreter):
    """Runs one image, and stops where a map is larger than a classifier's: a short graph can ask for any memory."""

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor) and result.numel() > MOST_VALUES:
            raise ModelError(f"its graph has a map of more than {MOST_VALUES} numbers; it is not opened")
        return result
