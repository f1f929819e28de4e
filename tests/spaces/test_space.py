"""The search space: its counts, its order of edges, and what it refuses."""

import subprocess
import sys

import pytest

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.spaces import SearchSpace, darts, random_genotype


def test_counts_of_darts() -> None:
    space = darts()
    assert space.num_edges == len(space.edges) == 14
    assert space.alpha_shape == (14, 8)
    assert space.alphas_total == 224
    assert space.concat == (2, 3, 4, 5)
    assert space.cell_count() == 1 * 3 * 6 * 10 * 7**8 == 1_037_664_180
    assert space.genotype_count() == space.cell_count() ** 2


def test_edges_are_in_the_order_of_darts() -> None:
    space = darts(nodes=3)
    assert space.edges == ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (2, 3))
    assert [space.edge_index(node, source) for node, source in space.edges] == list(range(9))


@pytest.mark.parametrize("inputs, nodes", [(2, 1), (2, 4), (3, 3)])
def test_edges_from_agrees_with_edges(inputs: int, nodes: int) -> None:
    space = SearchSpace("toy", ("none", "skip_connect"), nodes=nodes, inputs=inputs)
    for state in range(inputs + nodes):
        expected = tuple(row for row, (_, source) in enumerate(space.edges) if source == state)
        assert space.edges_from(state) == expected
    assert space.num_edges == len(space.edges)


def test_count_agrees_with_enumeration() -> None:
    space = SearchSpace("toy", ("none", "skip_connect", "avg_pool_3x3"), nodes=2)
    drawn = {random_genotype(space, Key.from_seed(seed)).normal for seed in range(1500)}
    assert len(drawn) == space.cell_count() == 3 * 2**4


@pytest.mark.parametrize("node, source", [(0, 2), (4, 0), (-1, 0), (0, -1)])
def test_unknown_edges_are_refused(node: int, source: int) -> None:
    with pytest.raises(ConfigError, match="has no edge"):
        darts().edge_index(node, source)


def test_unknown_states_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"has states 0\.\.5"):
        darts().edges_from(6)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        SearchSpace("", ("none", "none"), nodes=0, inputs=1, cell_types=("normal", "redcue"), edges_per_node=3)
    for part in (
        "name",
        "nodes",
        "inputs must be at least",
        "edges_per_node must",
        "primitives",
        "did you mean 'reduce'",
    ):
        assert part in str(caught.value)


def test_random_genotypes_are_valid_and_repeatable() -> None:
    space = darts()
    for seed in range(50):
        genotype = random_genotype(space, Key.from_seed(seed))
        genotype.validate(space)
        assert genotype == random_genotype(space, Key.from_seed(seed))
        assert genotype == genotype.canonical()


def test_a_space_with_one_cell_type_draws_one() -> None:
    space = SearchSpace("normal only", ("none", "skip_connect"), nodes=2, cell_types=("normal",))
    genotype = random_genotype(space, Key.from_seed(0))
    genotype.validate(space)
    assert (genotype.reduce, genotype.reduce_concat) == ((), ())


def test_the_package_imports_no_torch() -> None:
    heavy = "{'torch', 'numpy', 'matplotlib'}"
    code = f"import sys, metadarts.spaces as spaces; spaces.darts(); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_edge_is_a_space() -> None:
    space = SearchSpace("edge", ("skip_connect", "none", "avg_pool_3x3"), nodes=1, inputs=1, edges_per_node=1)
    assert (space.edges, space.alpha_shape, space.concat) == (((0, 0),), (1, 3), (1,))
    assert space.edges_from(0) == (0,)
    assert space.edges_from(1) == ()
    assert space.cell_count() == 2
    assert space.genotype_count() == 4


@pytest.mark.parametrize("inputs, edges_per_node", [(1, 2), (0, 1), (2, 0), (4, 3)])
def test_a_node_cannot_keep_other_numbers_of_edges(inputs: int, edges_per_node: int) -> None:
    with pytest.raises(ConfigError, match="edges_per_node"):
        SearchSpace("odd", ("skip_connect",), nodes=1, inputs=inputs, edges_per_node=edges_per_node)


@pytest.mark.parametrize("inputs", [1, 2])
def test_count_with_one_edge_per_node_agrees_with_enumeration(inputs: int) -> None:
    space = SearchSpace("chain", ("skip_connect", "avg_pool_3x3"), nodes=2, inputs=inputs, edges_per_node=1)
    drawn = {random_genotype(space, Key.from_seed(seed)).normal for seed in range(400)}
    assert len(drawn) == space.cell_count() == inputs * (inputs + 1) * 2**2
