"""Files that are damaged or made to do harm: refused, or as good as before; nothing in them is ever run."""

from __future__ import annotations

import copy
import io
import json
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metadarts.core.errors import ModelError
from metadarts.export import SUFFIXES, check, difference, open_model, verify
from metadarts.export.formats import companions, onnx_file, torch_export, torch_graph
from metadarts.export.model import LIMIT, MOST_TEXT, read_facts, read_model, shapes_of

FORMATS = tuple(SUFFIXES)


def steps(count: int) -> settings:
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@pytest.fixture(autouse=True)
def few_runs(monkeypatch):
    monkeypatch.setattr(check, "RUNS", 1)


@pytest.fixture(scope="module")
def answers(cases, case, model):
    pixels = cases.noise(case, 3)
    return pixels, model.logits(pixels)


def damaged(shipped, format, folder, change):
    """A copy of a shipped file, its bytes changed; what lies beside it is whole."""
    for part in companions(shipped[format]):
        shutil.copy(part, folder)
    path = folder / shipped[format].name
    path.write_bytes(change(path.read_bytes()))
    return path


def refused_or_the_same(path, answers):
    """Whether the file is refused, on opening or by `verify`; otherwise its answers must be the model's."""
    try:
        opened = open_model(path)
        verify(path)
    except ModelError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert "\n" not in refusal
        assert len(refusal) < 1000
        return True
    pixels, wanted = answers
    assert difference(opened.logits(pixels), wanted) <= LIMIT
    return False


@pytest.mark.parametrize("format", FORMATS)
@steps(40)
@given(content=st.binary(max_size=400))
def test_random_bytes_are_refused(shipped, tmp_path, format, content):
    path = damaged(shipped, format, tmp_path, lambda whole: content)
    with pytest.raises(ModelError):
        open_model(path)


@pytest.mark.parametrize("format", FORMATS)
@steps(8)
@given(share=st.floats(0, 0.9999))
def test_a_truncated_file_is_refused(shipped, tmp_path, format, share):
    path = damaged(shipped, format, tmp_path, lambda whole: whole[: int(share * len(whole))])
    with pytest.raises(ModelError):
        verify(path)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("format", "count"), [("safetensors", 60), ("python", 20), ("onnx", 40), ("torch-export", 8)])
def test_a_changed_byte_is_refused_or_changes_nothing(shipped, tmp_path, answers, format, count):
    @steps(count)
    @given(place=st.floats(0, 0.999999), head=st.booleans(), mask=st.integers(1, 255))
    def run(place, head, mask):
        def change(whole):
            index = int(place * min(len(whole), 4000)) if head else int(place * len(whole))
            return whole[:index] + bytes([whole[index] ^ mask]) + whole[index + 1 :]

        refused_or_the_same(damaged(shipped, format, tmp_path, change), answers)

    run()


# --- the description; what its schema refuses is in tests/store ---

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([10**30, -1, 2, 1e9]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def facts(model):
    return json.loads(json.dumps(model.facts))


def places(value, path=()):
    """Every place in a piece of JSON; of a long list the first three."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def put(value, path, new):
    if not path:
        return new
    value = copy.copy(value)
    value[path[0]] = put(value[path[0]], path[1:], new)
    return value


def read(text):
    """Shapes of the tensors that a description asks for, or None where it is refused; with little work either way."""
    start, refusal, shapes = time.process_time(), "", None
    try:
        shapes = shapes_of(read_facts(text, Path("file")))
    except ModelError as error:
        refusal = str(error)
    assert len(refusal) < 1000
    assert time.process_time() - start < 20
    return shapes


@steps(200)
@given(data=st.data())
def test_any_json_in_any_place_of_a_description(facts, data):
    path = data.draw(st.sampled_from(list(places(facts))))
    read(json.dumps(put(facts, path, data.draw(JSON))))


@steps(100)
@given(text=st.text(max_size=50))
def test_any_text_for_a_description(text):
    assert read(text) is None


NAME, READS, KIND, OPTION = range(4)
"""Where each stands in a layer."""


def with_layer(facts, kind, part, value, which=0):
    """The description with one part of its layer number ``which`` of ``kind`` changed."""
    number = [number for number, layer in enumerate(facts["layers"]) if layer[KIND] == kind][which]
    return put(facts, ("layers", number, part), value)


def with_last(facts, *layers):
    """The description with ``layers`` in front of the last."""
    return facts | {"layers": [*facts["layers"][:-1], *layers, facts["layers"][-1]]}


def large(facts):
    return facts | {"image": facts["image"] | {"height": 1024, "width": 1024}}


def twice(facts, count):
    """A map beside itself ``count`` times."""
    start = len(facts["layers"]) - 1
    return with_last(facts, *(["", [start + turn] * 2, "cat"] for turn in range(count)))


HOSTILE = {
    "a bool for a number": lambda f: with_layer(f, "conv", OPTION, True),
    "a float for a number": lambda f: with_layer(f, "conv", OPTION, 1.0),
    "version true": lambda f: f | {"version": True},
    "version 0": lambda f: f | {"version": 0},
    "version 1 of layers": lambda f: f | {"version": 1},
    "height in text": lambda f: f | {"image": f["image"] | {"height": "16"}},
    "classes in text": lambda f: f | {"classes": "ab"},
    "half a letter": lambda f: f | {"classes": ["\ud800", *f["classes"][1:]]},
    "probes in text": lambda f: f | {"probes": ["abcd"] * 16},
    "probes in a dictionary": lambda f: f | {"probes": [dict.fromkeys("abcd", 1.0)] * 16},
    "an image in text": lambda f: f | {"image": "1x16x16"},
    "no layers": lambda f: f | {"layers": []},
    "layers in text": lambda f: f | {"layers": "relu"},
    "a million layers": lambda f: with_last(f, *[["", [1], "relu"]] * 50_000),
    "channels beyond the last": lambda f: with_layer(f, "conv", OPTION + 1, 4097),
    "maps beyond memory": lambda f: with_layer(large(f), "conv", OPTION + 1, 4096),
    "a map that doubles": lambda f: twice(f, 40),
    "many large maps": lambda f: with_last(large(f), *[["", [1], "relu"]] * 70),
    "more work than a machine can do": lambda f: with_last(
        large(f), *[["", [1], "max_pool", [63, 63], [1, 1], [31, 31]]] * 10
    ),
    "an option too many": lambda f: with_last(f, ["", [1], "relu", 1]),
    "an option too few": lambda f: with_last(f, ["", [1], "max_pool", [2, 2], [2, 2]]),
    "a kernel without end": lambda f: with_layer(f, "conv", OPTION + 2, [10**9, 3]),
    "a kernel of one number": lambda f: with_layer(f, "conv", OPTION + 2, 3),
    "a kernel of three numbers": lambda f: with_layer(f, "conv", OPTION + 2, [3, 3, 3]),
    "a stride of 0": lambda f: with_layer(f, "max_pool", OPTION + 1, [0, 2]),
    "a negative padding": lambda f: with_layer(f, "conv", OPTION + 4, [-1, 1]),
    "padding of more than half a window": lambda f: with_layer(f, "max_pool", OPTION + 2, [2, 2]),
    "a window larger than the map": lambda f: with_layer(f, "max_pool", OPTION, [17, 17]),
    "groups that do not fit": lambda f: with_layer(f, "conv", OPTION + 6, 3),
    "no groups": lambda f: with_layer(f, "conv", OPTION + 6, 0),
    "a bias of another kind": lambda f: with_layer(f, "conv", OPTION + 7, 1),
    "a layer that reads itself": lambda f: with_layer(f, "relu", READS, [3]),
    "a layer that reads backwards": lambda f: with_layer(f, "relu", READS, [-1]),
    "a layer that reads nothing": lambda f: with_layer(f, "relu", READS, []),
    "two maps for a layer of one": lambda f: with_layer(f, "relu", READS, [0, 1]),
    "a sum of two sizes": lambda f: with_last(f, ["", [1, 2], "add"]),
    "maps of two sizes side by side": lambda f: with_last(f, ["", [1, 2], "cat"]),
    "other channels": lambda f: with_layer(f, "conv", OPTION, 5, 1),
    "other channels of a scale": lambda f: with_layer(f, "scale", OPTION, 6),
    "odd channels": lambda f: with_last(
        f,
        ["odd", [1], "conv", 4, 3, [1, 1], [1, 1], [0, 0], [1, 1], 1, True],
        ["half", [len(f["layers"])], "halve", 3],
    ),
    "a vector in the middle": lambda f: with_last(f, ["", [1], "mean"], ["", [len(f["layers"])], "every_second"]),
    "a map at the end": lambda f: f | {"layers": f["layers"][:-1]},
    "other features": lambda f: f | {"features": f["features"] + 1},
    "a layer of Python's": lambda f: with_layer(f, "relu", KIND, "__class__"),
    "a layer of no name": lambda f: with_layer(f, "relu", KIND, ["relu"]),
    "a name for what has no weights": lambda f: with_layer(f, "relu", NAME, "relu"),
    "no name for weights": lambda f: with_layer(f, "conv", NAME, ""),
    "a name twice": lambda f: with_layer(f, "conv", NAME, "stem.0", 1),
    "a name that is the classifier's": lambda f: with_layer(f, "conv", NAME, "head"),
    "a name that is torch's": lambda f: with_layer(f, "conv", NAME, "cells.forward"),
    "a name that is code": lambda f: with_layer(f, "conv", NAME, "stem.0;import os"),
    "a name of dunders": lambda f: with_layer(f, "conv", NAME, "__class__"),
    "a long name": lambda f: with_layer(f, "conv", NAME, "a" * 10_000),
    "a name within a layer": lambda f: with_layer(f, "conv", NAME, "stem.0.weight", 1),
    "a layer in text": lambda f: with_last(f, "relu"),
    "a layer of nothing": lambda f: with_last(f, []),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_description(facts, name):
    assert read(json.dumps(facts)) is not None
    assert read(json.dumps(HOSTILE[name](facts))) is None


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "1" * 5000, "NaN", "1e999", " " * (MOST_TEXT + 1)],
    ids=["deep list", "deep dictionary", "long number", "NaN", "infinity", "long text"],
)
def test_hostile_json(facts, text):
    assert read(text) is None
    assert read(json.dumps(facts)[:-1] + f', "more": {text}}}') is None


# --- .pt2 ---


class Payload:
    """Unpickling this touches the marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "marker"


def rewritten(shipped, folder, parts=None, graph=None, packed=zipfile.ZIP_STORED):
    """The .pt2 file with parts replaced or added, and its graph changed in place by ``graph``."""
    path = folder / "model.pt2"
    with zipfile.ZipFile(shipped["torch-export"]) as archive:
        content = {entry.filename.partition("/")[2]: archive.read(entry) for entry in archive.infolist()}
    if graph is not None:
        program = json.loads(content[torch_export.GRAPH])
        graph(program)
        content[torch_export.GRAPH] = json.dumps(program).encode()
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, data in (content | (parts or {})).items():
            archive.writestr(f"archive/{name}", data)
    return path


def pickled(marker):
    content = io.BytesIO()
    torch.save(Payload(marker), content)
    return content.getvalue()


def code(marker):
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


def nodes(program):
    return program["graph_module"]["graph"]["nodes"]


def rename(program, old, new):
    """Rename a node everywhere."""
    program.update(json.loads(json.dumps(program).replace(json.dumps(old), json.dumps(new))))


def add_node(program, target, argument):
    node = {"target": target, "inputs": [{"name": "self", "arg": argument, "kind": 1}], "outputs": [], "name": "more"}
    nodes(program).insert(0, node | {"metadata": {}, "is_hop_single_tensor_return": None})


def last_size(program):
    return program["graph_module"]["graph"]["tensor_values"]["linear"]["sizes"][0]["as_expr"]


def signature(program):
    return program["graph_module"]["module_call_graph"][0]["signature"]


EVIL_CONTEXT = json.dumps({"default_factory_module": "antigravity", "default_factory_name": "x"})
EVIL_SPEC = json.dumps([1, {"type": "collections.defaultdict", "context": EVIL_CONTEXT, "children_spec": []}])
GRAPHS = {
    "guards that are code": lambda p, m: p.update(guards_code=[code(m)]),
    "a node's name that is code": lambda p, m: rename(p, "linear", f"x = {code(m)}; y"),
    "a node's name that is a word of Python's": lambda p, m: rename(p, "linear", "import"),
    "a node's name of dunders": lambda p, m: rename(p, "linear", "__import__"),
    "a weight's name that is code": lambda p, m: rename(p, "p_head_bias", f"x={code(m)}"),
    "a target that downloads": lambda p, m: add_node(p, "torch.hub.load", {"as_int": 1}),
    "a target that unpickles": lambda p, m: add_node(p, "torch.load", {"as_int": 1}),
    "a target of another library's": lambda p, m: add_node(p, "torch.ops.evil.run.default", {"as_int": 1}),
    "a target that writes": lambda p, m: add_node(p, "torch.ops.aten.add_.Tensor", {"as_int": 1}),
    "an operator as an argument": lambda p, m: nodes(p)[0]["inputs"][0].update(arg={"as_operator": "torch.hub.load"}),
    "a graph as an argument": lambda p, m: nodes(p)[0]["inputs"][0].update(
        arg={"as_graph": {"name": "x", "graph": {}}}
    ),
    "a custom object as an argument": lambda p, m: nodes(p)[0]["inputs"][0].update(
        arg={"as_custom_obj": {"name": "x", "class_fqn": "os.system"}}
    ),
    "an expression that is code": lambda p, m: last_size(p).update(expr_str=code(m)),
    "an expression that hides code": lambda p, m: last_size(p).update(
        expr_str=f"Symbol('s1', positive=True, integer=True)+{code(m)}"
    ),
    "a range of code": lambda p, m: p["range_constraints"].update({code(m): {"min_val": 1, "max_val": None}}),
    "an unbacked range without end": lambda p, m: p["range_constraints"].update(
        u999999999999={"min_val": 1, "max_val": None}
    ),
    "a tree that imports": lambda p, m: signature(p).update(in_spec=EVIL_SPEC),
    "metadata": lambda p, m: nodes(p)[0].update(metadata={"custom": "{}"}),
    "metadata of the graph": lambda p, m: p["graph_module"].update(metadata={"custom": "{}"}),
    "an object's value": lambda p, m: p["graph_module"]["graph"].update(custom_obj_values={"x": {}}),
    "another device": lambda p, m: p["graph_module"]["graph"]["tensor_values"]["linear"].update(
        device={"type": "cuda", "index": 0}
    ),
    "a verifier": lambda p, m: p.update(verifiers=["EDGE"]),
    "a key from nowhere": lambda p, m: p.update(more={"x": 1}),
    "a size without end": lambda p, m: p["graph_module"]["graph"]["tensor_values"]["linear"]["sizes"].append(
        {"as_int": 10**40}
    ),
    "no graph": lambda p, m: p.pop("graph_module"),
    "a graph in text": lambda p, m: p.update(graph_module="graph"),
    "nodes in a dictionary": lambda p, m: p["graph_module"]["graph"].update(nodes={}),
    "a weight that is not the model's": lambda p, m: rename(p, "head.bias", "head.more"),
    "a constant": lambda p, m: p["graph_module"]["signature"]["input_specs"].append(
        {"tensor_constant": {"arg": {"name": "x"}, "tensor_constant_name": "x"}}
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_made_to_do_harm(shipped, tmp_path, marker, name, monkeypatch):
    """torch is not asked to load it, so that whatever torch does with such a graph does not matter."""
    path = rewritten(shipped, tmp_path, graph=lambda program: GRAPHS[name](program, marker))
    monkeypatch.setattr(torch.export, "load", lambda *_: pytest.fail("torch was given the graph"))
    with pytest.raises(ModelError, match="not opened"):
        open_model(path)
    assert not marker.exists()


PARTS = {
    "a pickle for example inputs": {"data/sample_inputs/model.pt": pickled},
    "a pickle for constants": {"data/constants/model.pt": pickled},
    "a pickle for weights": {"data/weights/model.pt": pickled},
    "an object": {"data/constants/opaque_obj_0": pickled},
    "a second model": {"models/other.json": lambda marker: b"{}"},
    "compiled code": {"data/aotinductor/model/model.so": lambda marker: b"\x7fELF"},
    "a path out of the archive": {"../../out": lambda marker: b""},
    "a larger weight": {"data/weights/weight_0": lambda marker: bytes(8)},
    "a smaller weight": {"data/weights/weight_0": lambda marker: b""},
    "half a number": {"data/weights/weight_0": lambda marker: bytes(3)},
    "no number": {"data/weights/weight_0": lambda marker: b"\x00\x00\xc0\x7f"},
    "no description": {torch_export.FACTS: lambda marker: b"{}"},
}


@pytest.mark.parametrize("name", PARTS)
def test_an_archive_made_to_do_harm(shipped, tmp_path, marker, name):
    path = rewritten(shipped, tmp_path, {part: make(marker) for part, make in PARTS[name].items()})
    with pytest.raises(ModelError):
        open_model(path)
    assert not marker.exists()


def test_what_the_archive_says_of_weights_and_constants_is_not_given_to_torch(shipped, tmp_path, marker, answers):
    """A pickle among the weights is read as numbers, and the constants that are listed are not looked for."""
    with zipfile.ZipFile(shipped["torch-export"]) as archive:
        config = json.loads(archive.read(f"model/{torch_export.WEIGHTS}"))
    config["config"]["mean"]["use_pickle"] = True
    constants = {"config": {"x": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}}}
    parts = {torch_export.WEIGHTS: json.dumps(config).encode(), torch_export.CONSTANTS: json.dumps(constants).encode()}
    assert not refused_or_the_same(rewritten(shipped, tmp_path, parts), answers)
    parts["data/weights/weight_0"] = pickled(marker)
    assert refused_or_the_same(rewritten(shipped, tmp_path, parts), answers)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["torch", "self", "pixels", "relu"])
def test_a_name_that_hides_another(shipped, tmp_path, answers, name):
    """An identifier does no harm; where it makes nonsense of the graph, the graph is refused."""
    graph = rewritten(shipped, tmp_path, graph=lambda program: rename(program, "linear", name))
    refused_or_the_same(graph, answers)


def test_the_payloads_would_work(tmp_path, marker):
    """That the files above are not refused for being harmless."""
    (tmp_path / "pickle").write_bytes(pickled(marker))
    with pytest.raises(Exception, match=r"weights_only|Unsupported"):
        torch.load(tmp_path / "pickle", weights_only=True)
    assert not marker.exists()
    Payload(marker).__reduce__()[0](marker)
    assert marker.exists()


def test_a_part_that_is_there_twice_or_packed(shipped, tmp_path):
    with pytest.raises(ModelError, match="packed"):
        open_model(rewritten(shipped, tmp_path, {"extra/bomb": bytes(10**7)}, packed=zipfile.ZIP_DEFLATED))
    path = rewritten(shipped, tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"other/{torch_export.GRAPH}", "{}")
    with pytest.raises(ModelError, match="twice"):
        open_model(path)


def test_a_graph_that_asks_for_more_and_more_memory(shipped, tmp_path):
    """Twenty times a map beside itself, all of it with operators that a classifier has."""

    def double(program):
        graph = program["graph_module"]["graph"]
        place = next(index for index, node in enumerate(nodes(program)) if node["name"] == "div") + 1
        for turn in range(40):
            source = f"twice_{turn - 1}" if turn else "div"
            tensors = {"name": "tensors", "arg": {"as_tensors": [{"name": source}] * 2}, "kind": 1}
            node = {"target": "torch.ops.aten.cat.default", "inputs": [tensors], "name": f"twice_{turn}"}
            node |= {"outputs": [{"as_tensor": {"name": f"twice_{turn}"}}], "metadata": {}}
            nodes(program).insert(place + turn, node | {"is_hop_single_tensor_return": None})
            graph["tensor_values"][f"twice_{turn}"] = graph["tensor_values"]["div"]

    with pytest.raises(ModelError, match="more than"):
        open_model(rewritten(shipped, tmp_path, graph=double))


@pytest.fixture(scope="module")
def program(shipped):
    with zipfile.ZipFile(shipped["torch-export"]) as archive:
        return json.loads(archive.read(f"model/{torch_export.GRAPH}"))


@pytest.mark.parametrize("new", ["__import__('os')", 10**30, ["x"], {"x": 1}, 1.5e300], ids=str)
def test_the_pattern_of_graphs_is_exact(program, new):
    """Whatever in a real graph turns into another kind of value is seen; ``torch_version`` alone is any short text."""
    shapes = {name: list(tensor.shape) for name, tensor in torch_tensors(program).items()}
    assert torch_graph.fault_of_graph(program, shapes) == ""
    everywhere = [path for path in places(program) if path and path[-1] != "torch_version"]
    for path in everywhere[:: len(everywhere) // 60]:
        assert torch_graph.fault_of_graph(put(program, path, new), shapes), path


def torch_tensors(program):
    specs = program["graph_module"]["signature"]["input_specs"]
    values = program["graph_module"]["graph"]["tensor_values"]
    named = [spec["parameter"] for spec in specs if "parameter" in spec]
    sizes = {spec["parameter_name"]: values[spec["arg"]["name"]]["sizes"] for spec in named}
    return {name: torch.empty([size["as_int"] for size in entry]) for name, entry in sizes.items()}


# --- the others ---


def test_a_python_file_is_never_run(shipped, tmp_path, marker):
    def evil(whole):
        return code(marker).encode() + b"\n" + whole

    path = damaged(shipped, "python", tmp_path, evil)
    for call in (open_model, verify):
        with pytest.raises(ModelError, match="not what this version"):
            call(path)
    assert not marker.exists()
    subprocess.run([sys.executable, "-c", path.read_text(encoding="utf-8").splitlines()[0]], check=True)
    assert marker.exists(), "the line would have worked"


def data_outside(onnx, proto, folder):
    tensor = proto.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "/etc/passwd")
    tensor.ClearField("raw_data")


def data_outside_in_a_constant(onnx, proto, folder):
    node = onnx.helper.make_node("Constant", [], ["more"], value=onnx.numpy_helper.from_array(torch.ones(1).numpy()))
    onnx.external_data_helper.set_external_data(node.attribute[0].t, "../secret")
    proto.graph.node.append(node)


def a_domain_of_its_own(onnx, proto, folder):
    proto.opset_import.append(onnx.helper.make_opsetid("evil", 1))


def an_operator_of_its_own(onnx, proto, folder):
    proto.graph.node[0].domain = "evil"


def an_operator_of_another_kind(onnx, proto, folder):
    proto.graph.node.append(onnx.helper.make_node("Tile", ["div", "more"], ["tiled"]))


def a_graph_inside(onnx, proto, folder):
    proto.graph.node[0].attribute.append(onnx.helper.make_attribute("body", proto.graph))


def a_function(onnx, proto, folder):
    proto.functions.append(onnx.helper.make_function("", "f", [], [], [], []))


def a_second_input(onnx, proto, folder):
    proto.graph.input.append(onnx.helper.make_tensor_value_info("more", 1, [1]))


def no_description(onnx, proto, folder):
    proto.ClearField("metadata_props")


def more_and_more_memory(onnx, proto, folder):
    first = proto.graph.node[0].output[0]
    for turn in range(40):
        source = f"twice_{turn - 1}" if turn else first
        proto.graph.node.insert(1 + turn, onnx.helper.make_node("Concat", [source] * 2, [f"twice_{turn}"], axis=1))


def a_larger_batch(onnx, proto, folder, told=False):
    """A size that cannot be followed gets a name, as the batch has; ``told``: the file says that it is the batch."""
    first = proto.graph.node[0].output[0]
    for turn in range(40):
        source, out = f"twice_{turn - 1}" if turn else first, f"twice_{turn}"
        proto.graph.node.insert(1 + turn, onnx.helper.make_node("Concat", [source] * 2, [out], axis=0))
        if told:
            proto.graph.value_info.append(onnx.helper.make_tensor_value_info(out, 1, ["batch", 1, 16, 16]))


def a_larger_batch_that_is_told_to_be_none(onnx, proto, folder):
    a_larger_batch(onnx, proto, folder, told=True)


def the_batch_twice(onnx, proto, folder):
    logits = proto.graph.output[0].name
    proto.graph.node.extend(
        [
            onnx.helper.make_node("Transpose", [logits], ["across"], perm=[1, 0]),
            onnx.helper.make_node("MatMul", [logits, "across"], ["square"]),
        ]
    )


def an_output_that_is_told_to_be_small(onnx, proto, folder):
    """How much is padded is not known before it runs."""
    tensor = onnx.numpy_helper.from_array(torch.tensor([0.0, 0.0, 0.0, 1.0]).numpy(), "much")
    proto.graph.initializer.append(tensor)
    node = next(node for node in proto.graph.node if "logits" in node.output)
    node.output[0] = "small"
    proto.graph.node.extend(
        [
            onnx.helper.make_node("Cast", ["much"], ["whole"], to=7),
            onnx.helper.make_node("Pad", ["small", "whole"], ["padded"]),
            onnx.helper.make_node("Slice", ["padded", "starts", "ends"], ["logits"]),
        ]
    )
    for name, value in (("starts", [0, 0]), ("ends", [2**31, 4])):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(torch.tensor(value).numpy(), name))


def a_batch_of_a_size(onnx, proto, folder):
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def images_of_any_size(onnx, proto, folder):
    proto.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "batch"


ONNX = (
    a_larger_batch, a_larger_batch_that_is_told_to_be_none, the_batch_twice, an_output_that_is_told_to_be_small,
    a_batch_of_a_size, images_of_any_size,
    data_outside, data_outside_in_a_constant, a_domain_of_its_own, an_operator_of_its_own, an_operator_of_another_kind,
    a_graph_inside, a_function, a_second_input, no_description, more_and_more_memory,
)  # fmt: skip


@pytest.mark.parametrize("change", ONNX, ids=lambda change: change.__name__)
def test_an_onnx_file_made_to_do_harm(shipped, tmp_path, change):
    onnx = pytest.importorskip("onnx")
    proto = onnx.load_model(shipped["onnx"], load_external_data=False)
    change(onnx, proto, tmp_path)
    if proto.metadata_props:  # whoever means harm can compute a hash
        props = {entry.key: entry.value for entry in proto.metadata_props}
        onnx.helper.set_model_props(proto, props | {"sha256": onnx_file.digest(proto)})
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError):
        open_model(tmp_path / "model.onnx")


def test_places_that_are_no_files(tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    for path in (tmp_path / "folder.onnx", tmp_path / "none.pt2", tmp_path / ("x" * 300 + ".py"), Path("a\0.onnx")):
        with pytest.raises(ModelError):
            open_model(path)
    with pytest.raises(ModelError):
        read_model(tmp_path)
    with pytest.raises(ModelError):
        read_model(Path("a\0"))
