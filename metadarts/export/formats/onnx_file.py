"""The model for ONNX Runtime and its kin: one file, operators of the standard domain, all weights inside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metadarts.core.errors import ModelError
from metadarts.export.layers import MOST_VALUES
from metadarts.export.model import KEY, ShippedModel, first_line, read_facts
from metadarts.store.tensors import sealed, unsealed

from .opened import Opened, example, silent

OPERATORS = frozenset(
    ("Add", "AveragePool", "Cast", "Concat", "Constant", "Conv", "Div", "Flatten", "Gemm", "Identity", "MatMul")
    + ("MaxPool", "Mul", "Pad", "ReduceMean", "Relu", "Reshape", "Slice", "Sub", "Transpose")
)
"""All that the graph of a classifier calls: none holds a graph of its own, reads a file or repeats."""


DIGEST = "sha256"
"""Under which name a file keeps the hash of its graph."""


def digest(proto: Any) -> str:
    """The hash of a model's graph, weights included: a damaged file must not reach parsers that abort on it."""
    return hashlib.sha256(proto.graph.SerializeToString(deterministic=True)).hexdigest()


def _packages(*more: str) -> Any:
    """onnx and onnxruntime, after importing ``more``. Raises ModelError."""
    try:
        for name in more:
            import_module(name)
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            f"ONNX needs three more packages: pip install onnx onnxruntime onnxscript ({error})"
        ) from error
    return onnx, onnxruntime


def write(model: ShippedModel, path: Path) -> None:
    """Write the file. Raises ModelError."""
    onnx, _ = _packages("onnxscript")  # torch's exporter needs it; its import takes a second
    with silent():
        program = torch.onnx.export(
            model.module(), (example(model.facts["image"], 2),), dynamo=True, verbose=False, input_names=["pixels"],
            output_names=["logits"], dynamic_shapes={"pixels": {0: torch.export.Dim("batch", min=1)}},
        )  # fmt: skip
    if program is None:
        raise ModelError("torch's exporter made no ONNX program")
    proto = program.model_proto
    _strip(proto)
    _flatten(onnx, proto.graph)
    content = digest(proto)
    told = {KEY: sealed(json.dumps(model.facts, allow_nan=False), content), DIGEST: content}
    onnx.helper.set_model_props(proto, told)
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())


def _strip(proto: Any) -> None:
    """Take out what the exporter keeps of each node's origin: most of the file, and paths on this machine."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")  # shapes of maps, which follow from the rest


def _flatten(onnx: Any, graph: Any) -> None:
    """Flatten where the exporter reshapes to given sizes, behind which nothing knows any more that one is the batch."""
    for node in graph.node:
        if node.op_type == "Reshape":
            del node.input[1:]
            node.op_type = "Flatten"
            node.ClearField("attribute")
            node.attribute.append(onnx.helper.make_attribute("axis", 1))
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def open_file(path: Path) -> Opened:
    """Open it. Raises ModelError."""
    onnx, onnxruntime = _packages()
    try:
        proto = onnx.ModelProto.FromString(path.read_bytes())
        found = {entry.key: entry.value for entry in proto.metadata_props}
        fault = next(_faults(proto), "")
    except Exception as error:  # protobuf's own errors
        raise ModelError(f"cannot read {path} as an ONNX file ({type(error).__name__}); export it anew") from error
    if KEY in found and found.get(DIGEST) != digest(proto):
        raise ModelError(f"{path} is damaged: the hash of its graph is not the one that it carries; export it anew")
    if KEY not in found:
        raise ModelError(f"{path} holds no description of a model; give a file that `export` wrote")
    if fault:
        raise ModelError(f"{path}: {fault}, which is in no model that `export` wrote; it is not opened")
    facts = read_facts(_description(found[KEY], proto, path), path)
    try:
        _check_sizes(onnx, proto)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        proto.ClearField("metadata_props")
        # As it was checked: the file itself could be read in another way, in ONNX Runtime's own format.
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"{path} is damaged ({first_line(error)}); export it anew") from error

    def logits(pixels: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"pixels": pixels.numpy()})[0])

    return Opened("onnx", facts, logits)


def _description(text: Any, proto: Any, path: Path) -> str:
    try:
        if not isinstance(text, str):  # protobuf gives bytes where it is not UTF-8
            raise ValueError("its description is not UTF-8")
        return unsealed(text, digest(proto))
    except ValueError as error:
        raise ModelError(f"{path}: {error}; export it anew") from error


def _faults(proto: Any) -> Iterator[str]:
    """What in the file is not a classifier's."""
    graph = proto.graph
    if any(entry.domain for entry in proto.opset_import) or len(proto.functions) or len(proto.training_info):
        yield "operators of its own"
    for node in graph.node:
        if node.domain or node.op_type not in OPERATORS:
            yield f"the operator {node.domain[:40]}:{node.op_type[:40]}"
        if any(entry.HasField("g") or len(entry.graphs) for entry in node.attribute):
            yield "a graph inside an operator"
    if len(graph.sparse_initializer) or len(graph.quantization_annotation):
        yield "sparse or quantised weights"
    if any(tensor.external_data or tensor.data_location for tensor in _tensors(graph)):
        yield "weights outside the file"
    if [value.name for value in graph.input] != ["pixels"] or [value.name for value in graph.output] != ["logits"]:
        yield "other inputs and outputs than pixels and logits"


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for entry in node.attribute:
            yield entry.t
            yield from entry.tensors
            yield entry.sparse_tensor.values
            yield entry.sparse_tensor.indices


def _check_sizes(onnx: Any, proto: Any) -> None:
    """Require that the size of every map is known and a classifier's: a short graph can ask for any memory.

    One dimension alone may be a symbol: the first, and the symbol must be the batch's. Every other symbol is a size
    that could not be followed. What the file itself says of sizes, but for its images', is taken out first: it would
    be believed wherever the size cannot be followed.
    """
    proto.graph.ClearField("value_info")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    first, *rest = proto.graph.input[0].type.tensor_type.shape.dim
    batch = first.dim_param
    if not batch or any(dim.dim_value < 1 for dim in rest):
        raise ValueError("its input is not images of one size in a batch of any")
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True).graph
    known = {value.name: value for value in (*inferred.value_info, *inferred.output)}
    for node in proto.graph.node:
        for name in node.output:
            kind = known[name].type.tensor_type
            dims = list(kind.shape.dim)
            if dims and dims[0].dim_param == batch:
                del dims[0]
            sizes = [dim.dim_value for dim in dims]  # 0 of a symbol
            if not kind.HasField("shape") or min(sizes, default=1) < 1 or prod(sizes) > MOST_VALUES:
                raise ValueError(f"a map {name[:40]!r} of sizes {sizes[:8]}")
