"""Tables are told apart by their arrays, checked, and brought into one form; architectures become numbers."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from metadarts.core.errors import DataError
from metadarts.predictor.tabular.encoding import EDGES, encode_cells, encode_macro, encode_micro
from metadarts.predictor.tabular.tables import ALL_GPUS, FAMILIES, METRICS, normal_scores, ranks, read_table, spearman
from tests.predictor.tabular.made_tables import latency_arrays, transnas_arrays, write


def test_transnas_is_two_spaces(tmp_path):
    arrays = transnas_arrays(size=20)
    macro, micro = read_table(write(tmp_path / "any-name.npz", arrays))
    assert (macro.name, micro.name) == ("macro", "micro")
    assert macro.tasks == micro.tasks == tuple(METRICS)
    np.testing.assert_array_equal(macro.valid[2], arrays["jigsaw"][:20, 1])
    np.testing.assert_array_equal(micro.test[3], arrays["room_layout"][20:, 2])
    assert macro.by_rank
    assert macro.groups == {task: (number,) for number, task in enumerate(METRICS)}


def test_latency_leaves_out_what_is_near_zero_and_says_so(tmp_path):
    arrays = latency_arrays()
    (bench,) = read_table(write(tmp_path / "table.npz", arrays))
    assert bench.size == 38
    assert "2 architectures of 40" in bench.remarks[0]
    assert "pixel3 2, raspi4 1" in bench.remarks[0]
    np.testing.assert_allclose(bench.valid, np.log(arrays["latency"][2:].T), rtol=1e-6)
    np.testing.assert_array_equal(bench.facts["FLOPs"], arrays["flops_M"][2:, 0])


def test_families_are_the_devices_once_each(tmp_path):
    (bench,) = read_table(write(tmp_path / "table.npz", latency_arrays()))
    members = [bench.tasks[task] for name in FAMILIES for task in bench.groups[name]]
    assert sorted(members) == sorted(bench.tasks)
    assert len(members) == 27
    assert len(bench.groups[ALL_GPUS]) == 15
    assert "essential_ph_1" not in {bench.tasks[task] for task in bench.groups[ALL_GPUS]}


def test_scores_are_of_one_size_whatever_the_unit(tmp_path):
    macro, _ = read_table(write(tmp_path / "a.npz", transnas_arrays()))
    other_unit = replace(macro, valid=np.exp(macro.valid / 10))
    np.testing.assert_array_equal(macro.scores(), other_unit.scores())
    np.testing.assert_allclose(macro.scores()[3].mean(), 0, atol=1e-12)
    assert spearman(macro.scores()[3], macro.valid[3]) == pytest.approx(1)
    (latency,) = read_table(write(tmp_path / "b.npz", latency_arrays()))
    np.testing.assert_allclose(latency.scores().std(1), 1, atol=1e-9)


def test_equal_values_share_their_places():
    np.testing.assert_array_equal(ranks(np.array([3.0, 1.0, 3.0, 2.0])), [2.5, 0, 2.5, 1])
    assert normal_scores(np.array([7.0, 7.0, 7.0])).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("second", "expected"), [([1, 2, 3, 4], 1.0), ([4, 3, 2, 1], -1.0), ([1, 1, 1, 1], 0.0), ([1, 3, 2, 4], 0.8)]
)
def test_spearman(second, expected):
    assert spearman(np.array([10.0, 20, 30, 40]), np.array(second, dtype=float)) == pytest.approx(expected)


def test_only_edges_on_a_way_to_the_output_are_live():
    codes = np.array(list(itertools.product(range(2), repeat=6)))
    live = encode_cells(codes, kinds=2, none=0)[:, 12:24].reshape(-1, 6, 2)[:, :, 1].astype(bool)
    for cell, alive in zip(codes, live, strict=True):
        there = {edge for edge, code in zip(EDGES, cell, strict=True) if code}
        used = [set(itertools.pairwise(way)) for way in ([0, 3], [0, 1, 3], [0, 2, 3], [0, 1, 2, 3])]
        expected = set().union(*(way for way in used if way <= there))
        assert {edge for edge, one in zip(EDGES, alive, strict=True) if one} == expected


def test_architectures_that_differ_have_other_features():
    macro = ["64-1234-basic", "64-12341-basic", "64-123411-basic", "64-4321-basic"]
    assert len(np.unique(encode_macro(macro), axis=0)) == 4
    micro = ["64-41414-1_02_333", "64-41414-1_02_332", "64-41414-0_12_333"]
    assert len(np.unique(encode_micro(micro), axis=0)) == 3
    assert encode_macro(macro)[0, 20:25].tolist() == [1, 0, 0, 0, 0]  # the fifth module is not there


@pytest.mark.parametrize("name", ["64-125-basic", "64-1235-basic", "64", "", "64-1234111-basic"])
def test_a_name_that_is_no_architecture(name):
    with pytest.raises(DataError, match="expected 4 or 5 or 6 digits of 1234"):
        encode_macro([name])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda arrays: arrays.pop("jigsaw"), "expected the arrays of TransNAS-Bench-101"),
        (lambda arrays: arrays.update(jigsaw=arrays["jigsaw"] * np.nan), "expected finite values"),
        (lambda arrays: arrays.update(jigsaw_cols=np.array(["a", "b", "c"])), "expected a column valid_top1"),
        (lambda arrays: arrays.update(jigsaw=arrays["jigsaw"][:3]), "do not fit together"),
        (lambda arrays: arrays.update(arch=np.array(["x"] * 60)), "architecture 'x'"),
    ],
    ids=["no task", "nan", "no column", "short", "no architecture"],
)
def test_broken_table_is_refused(tmp_path, change, said):
    arrays = transnas_arrays()
    change(arrays)
    with pytest.raises(DataError, match=said):
        read_table(write(tmp_path / "table.npz", arrays))


def test_unknown_device_is_refused(tmp_path):
    arrays = latency_arrays()
    arrays["latency_devices"][0] = "abacus"
    with pytest.raises(DataError, match="the 27 devices"):
        read_table(write(tmp_path / "table.npz", arrays))


NPY = (
    b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<i8', 'fortran_order': False, 'shape': (), }".ljust(117) + b"\n" + bytes(8)
)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 broken", b"no archive", NPY])
def test_unreadable_file_is_refused(tmp_path, content):
    path = tmp_path / "table.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"give transnasbench101\.npz or nasbench201_table\.npz"):
        read_table(path)


def test_published_tables(data_dir):
    macro, micro = read_table(data_dir / "transnasbench101.npz")
    assert (macro.size, micro.size) == (3256, 4096)
    (latency,) = read_table(data_dir / "nasbench201_table.npz")
    assert latency.size == 15625 - 236
    assert len(np.unique(latency.encoding, axis=0)) == latency.size
