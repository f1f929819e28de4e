"""Genotypes: text, JSON, validation. Hostile text is refused, never evaluated."""

import json
from dataclasses import replace

import pytest

from metadarts.core.errors import GenotypeError
from metadarts.core.rng import Key
from metadarts.spaces import Genotype, SearchSpace, darts, random_genotype

NORMAL = (
    "[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 1), "
    "('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)]"
)
REDUCE = (
    "[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)]"
)
DARTS_V2 = f"Genotype(normal={NORMAL}, normal_concat=[2, 3, 4, 5], reduce={REDUCE}, reduce_concat=[2, 3, 4, 5])"
NESTED = (
    "Genotype(normal=[[('sep_conv_3x3', 0), ('skip_connect', 1)], [('dil_conv_5x5', 2), ('skip_connect', 0)]], "
    "reduce=[[('max_pool_3x3', 0), ('skip_connect', 1)], [('dil_conv_5x5', 2), ('skip_connect', 0)]])"
)


@pytest.fixture
def published() -> Genotype:
    return Genotype.parse(DARTS_V2)


def test_darts_v2_is_read(published: Genotype) -> None:
    published.validate(darts())
    assert published.normal[-1] == ("dil_conv_3x3", 2)
    assert published.nodes == 4
    assert published.choices("reduce")[2] == (1, 2, "skip_connect")
    assert published.normal_concat == published.reduce_concat == (2, 3, 4, 5)


def test_text_is_that_of_darts(published: Genotype) -> None:
    assert str(published) == DARTS_V2.replace("[2, 3, 4, 5]", "range(2, 6)")
    partial = replace(published, normal_concat=(2, 4))
    assert "normal_concat=[2, 4]" in str(partial)
    assert Genotype.parse(str(partial)) == partial


@pytest.mark.parametrize(
    "text",
    [
        f"Genotype({NORMAL}, [2, 3, 4, 5], {REDUCE}, range(2, 6))",
        f"Genotype({NORMAL}, {REDUCE})",
        f"Genotype(normal={NORMAL}, reduce={REDUCE})",
        f"\n Genotype(reduce={REDUCE},\n normal={NORMAL}, reduce_concat=range(2, 6, 1), normal_concat=(2, 3, 4, 5))\n",
    ],
    ids=["positional", "base positional", "base by name", "other order and spacing"],
)
def test_spellings_agree(text: str, published: Genotype) -> None:
    assert Genotype.parse(text) == published


def test_nested_lists_are_flattened() -> None:
    genotype = Genotype.parse(NESTED)
    genotype.validate(darts(nodes=2))
    assert genotype.normal == (("sep_conv_3x3", 0), ("skip_connect", 1), ("dil_conv_5x5", 2), ("skip_connect", 0))
    assert genotype.reduce_concat == (2, 3)


@pytest.mark.parametrize("seed", range(20))
def test_round_trips(seed: int) -> None:
    genotype = random_genotype(darts(), Key.from_seed(seed))
    assert Genotype.parse(str(genotype)) == Genotype.parse(repr(genotype)) == genotype
    assert Genotype.from_json(genotype.to_json()) == Genotype.from_json(genotype.to_json(), darts()) == genotype
    assert hash(Genotype.parse(str(genotype))) == hash(genotype)


def test_a_genotype_of_one_cell_type_round_trips() -> None:
    space = SearchSpace("one", ("none", "skip_connect"), nodes=2, cell_types=("normal",))
    genotype = random_genotype(space, Key.from_seed(0))
    assert Genotype.parse(str(genotype)) == genotype
    assert Genotype.from_json(genotype.to_json("one"), space) == genotype


def test_lists_are_stored_as_tuples() -> None:
    pairs = [["skip_connect", 0], ["skip_connect", 1]]
    genotype = Genotype(normal=pairs, normal_concat=range(2, 3), reduce=[], reduce_concat=[])  # type: ignore[arg-type]
    assert genotype.normal == (("skip_connect", 0), ("skip_connect", 1))
    assert genotype.normal_concat == (2,)
    hash(genotype)


HOSTILE = {
    "call": "__import__('os').system('x')",
    "call inside": "Genotype(normal=__import__('os').system('x'), reduce=[])",
    "lambda": "lambda: 0",
    "lambda inside": "Genotype(normal=(lambda: [])(), reduce=[])",
    "attribute": "Genotype(normal=().__class__, reduce=[])",
    "attribute of genotype": "genotypes.Genotype(normal=[], reduce=[])",
    "name": "Genotype(normal=x, reduce=[])",
    "subscript": "Genotype(normal=[1][0], reduce=[])",
    "comprehension": "Genotype(normal=[('skip_connect', i) for i in range(2)], reduce=[])",
    "formatted string": "Genotype(normal=[(f'{x}', 0), ('a', 1)], reduce=[])",
    "arithmetic": "Genotype(normal=[], normal_concat=[2 ** 99999], reduce=[], reduce_concat=[])",
    "repetition": "Genotype(normal=[('a', 0)] * 10, reduce=[])",
    "starred": "Genotype(*[[], []])",
    "double starred": "Genotype(**{'normal': [], 'reduce': []})",
    "walrus": "Genotype((x := []), [])",
    "dictionary": "Genotype({}, [])",
    "bytes": "Genotype([(b'a', 0), (b'a', 1)], [])",
    "float": "Genotype([('a', 0.0), ('a', 1)], [])",
    "bool": "Genotype([('a', False), ('a', True)], [])",
    "none": "Genotype(None, [])",
    "negative": "Genotype([('a', -1), ('a', 1)], [])",
    "huge range": "Genotype([], range(1000), [], range(0))",
    "huge range bound": "Genotype([], range(10 ** 12), [], range(0))",
    "huge number": f"Genotype([], [{'9' * 6000}], [], [])",
    "zero step": "Genotype([], range(0, 4, 0), [], [])",
    "range of text": "Genotype([], range('a'), [], [])",
    "range by name": "Genotype([], range(stop=3), [], [])",
    "range of nothing": "Genotype([], range(), [], [])",
    "deep brackets": "Genotype(" + "[" * 3000 + "]" * 3000 + ", [])",
    "deep operators": "Genotype(" + "-" * 15000 + "1, [])",
    "deep attributes": "Genotype(a" + ".a" * 9000 + ", [])",
    "too long": "Genotype([], [])" + " " * 30000,
    "long name": f"Genotype([('{'a' * 100}', 0), ('a', 1)], [])",
    "two statements": "Genotype([], []); x",
    "assignment": "g = Genotype([], [])",
    "null byte": "Genotype([], [])\0",
    "bad escape": "Genotype([('\\d', 0), ('a', 1)], [])",
    "odd number": "Genotype([('a', 1or 2), ('a', 1)], [])",
    "empty": "",
    "repeated field": "Genotype(normal=[], normal=[], reduce=[])",
    "unknown field": "Genotype(normal=[], reduce=[], rest=[])",
    "missing field": "Genotype(normal=[])",
    "one concat": "Genotype(normal=[], reduce=[], normal_concat=[])",
    "mixed": "Genotype([], reduce=[])",
    "three fields": "Genotype([], [], [])",
    "odd pairs": "Genotype([('a', 0)], [])",
    "no edges": "Genotype(normal=[], normal_concat=[], reduce=[], reduce_concat=[], edges_per_node=0)",
    "text for edges": "Genotype(normal=[], normal_concat=[], reduce=[], reduce_concat=[], edges_per_node='1')",
    "edges by position": "Genotype([('a', 0)], [1], [], [], 1)",
    "edges without concat": "Genotype(normal=[('a', 0)], reduce=[], edges_per_node=1)",
    "uneven nesting": "Genotype([[('a', 0)], [('a', 0), ('a', 1), ('a', 2)]], [])",
    "swapped pair": "Genotype([(0, 'a'), (1, 'a')], [])",
    "text for list": "Genotype('ab', [])",
    "text in concat": "Genotype([], ['2'], [], [])",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(GenotypeError) as caught:
        Genotype.parse(text)
    assert len(str(caught.value)) < 600


def test_all_faults_are_named_at_once(published: Genotype) -> None:
    pairs = (("sep_conv3x3", 0), ("none", 1), ("skip_connect", 0), ("skip_connect", 0), *published.normal[4:])
    broken = replace(
        published, normal=pairs, reduce=(*published.reduce[:-1], ("skip_connect", 5)), reduce_concat=(2, 6)
    )
    with pytest.raises(GenotypeError) as caught:
        broken.validate(darts())
    for part in (
        "normal node 0: operation 'sep_conv3x3' is unknown, did you mean 'sep_conv_3x3'?",
        "normal node 0: operation 'none' means no edge",
        "normal node 1 reads input 0 twice",
        "reduce node 3 reads input 5, expected 0..4",
        "reduce_concat must be distinct states in 0..5",
    ):
        assert part in str(caught.value)


def test_sizes_are_validated(published: Genotype) -> None:
    with pytest.raises(GenotypeError, match=r"normal needs 6 \(operation, input\) pairs, got 8"):
        published.validate(darts(nodes=3))


@pytest.mark.parametrize(
    "change", [{"nodes": 3}, {"normal": [["a", 0.0], ["b", 1]]}, {"normal": [1]}, {"normal_concat": ["a"]}], ids=str
)
def test_other_json_is_refused(change: dict[str, object], published: Genotype) -> None:
    """What its schema cannot say; the rest is in tests/store."""
    record = json.loads(published.to_json()) | change
    with pytest.raises(GenotypeError):
        Genotype.from_json(json.dumps(record))


def test_json_of_another_space_is_refused(published: Genotype) -> None:
    with pytest.raises(GenotypeError, match="expected a genotype of space 'darts', got one of 'other'"):
        Genotype.from_json(published.to_json("other"), darts())


def test_unknown_cells_are_refused(published: Genotype) -> None:
    with pytest.raises(GenotypeError, match="did you mean 'normal'"):
        published.pairs("norml")


def test_canonical_ignores_order_within_a_node(published: Genotype) -> None:
    first, second, *rest = published.reduce
    swapped = replace(published, reduce=(second, first, *rest))
    assert swapped != published
    assert swapped.canonical() == published.canonical()


@pytest.mark.parametrize("nodes, inputs", [(1, 1), (3, 2)])
def test_genotypes_of_one_edge_per_node_round_trip(nodes: int, inputs: int) -> None:
    space = SearchSpace("chain", ("skip_connect", "avg_pool_3x3"), nodes, inputs, edges_per_node=1)
    genotype = random_genotype(space, Key.from_seed(3))
    genotype.validate(space)
    assert genotype.edges_per_node == 1
    assert genotype.nodes == nodes
    assert [node for node, _, _ in genotype.choices("normal")] == list(range(nodes))
    assert "edges_per_node=1" in str(genotype)
    assert Genotype.parse(str(genotype)) == Genotype.parse(repr(genotype)) == genotype.canonical() == genotype
    assert Genotype.from_json(genotype.to_json("chain"), space) == genotype


def test_two_edges_per_node_are_not_mentioned(published: Genotype) -> None:
    for text in (str(published), repr(published), published.to_json()):
        assert "edges_per_node" not in text
    assert published.edges_per_node == Genotype.from_json(published.to_json()).edges_per_node == 2
    assert replace(published, edges_per_node=1) != published


def test_the_number_of_edges_per_node_has_to_fit(published: Genotype) -> None:
    with pytest.raises(GenotypeError, match=r"needs 2 .* pairs per node, got 1 per node"):
        replace(published, edges_per_node=1).validate(darts(nodes=8))
    space = SearchSpace("chain", ("skip_connect",), nodes=2, edges_per_node=1)
    with pytest.raises(GenotypeError, match=r"normal needs 1 .* pairs per node, got 2 per node"):
        random_genotype(SearchSpace("chain", ("skip_connect",), nodes=1), Key.from_seed(0)).validate(space)
