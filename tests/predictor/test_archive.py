"""The archive: what is read is what was added, to the bit; what is no record or no archive is refused."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from metadarts.core.errors import DataError
from metadarts.predictor import archive as archive_file
from metadarts.predictor.archive import APPLICATION, VERSION, Archive, Selection
from metadarts.predictor.archive_check import check_records
from metadarts.predictor.archive_rows import Row, encode, identity, read_space, space_text
from metadarts.predictor.task_record import FOLDER, TEACHER, TRAINED, Origin, TaskRecord
from metadarts.spaces import SearchSpace, darts
from tests.predictor.appender import SPACE, made

COUNT = 6
ONE_CELL = SearchSpace("one cell", ("none", "skip_connect", "sep_conv_3x3"), nodes=1, cell_types=("normal",))


@pytest.fixture
def place(tmp_path):
    return tmp_path / "a.sqlite"


@pytest.fixture(scope="module")
def some():
    return [made(0, number) for number in range(COUNT)]


@pytest.fixture(scope="module")
def full(some, tmp_path_factory):
    path = tmp_path_factory.mktemp("archives") / "full.sqlite"
    with Archive.open(path, write=True) as opened:
        opened.add(some)
    return path


@pytest.fixture
def copy(full, place):
    shutil.copy(full, place)
    return place


def names_of(records):
    return [encode(record).id for record in records]


def change(path, statement, *values):
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement, values)
    connection.close()


def refused(call, match):
    with pytest.raises(DataError, match=match):
        call()


# What is read is what was added


def test_a_record_comes_back_to_the_bit(some, full):
    by_name = dict(zip(names_of(some), some, strict=True))
    with Archive.open(full) as opened:
        found = list(opened)
    assert sorted(names_of(found)) == sorted(by_name)
    for record in found:
        before = by_name[encode(record).id]
        assert list(record.alphas) == ["normal", "reduce"]
        for cell, table in record.alphas.items():
            assert table.dtype == np.float32
            assert table.tobytes() == before.alphas[cell].tobytes()
            table[0, 0] = 0  # one's own to change
        for name in ("space", "genotype", "before", "after", "role", "seed", "run"):
            assert getattr(record, name) == getattr(before, name)
        assert dict(record.settings) == dict(before.settings)
        assert record.origin.to_json() == before.origin.to_json()


def test_numbers_at_the_edge_of_float32_come_back(place):
    edge = np.array([-0.0, np.nextafter(np.float32(0), np.float32(1)), np.finfo(np.float32).max, 1 / 3], np.float32)
    table = np.zeros(SPACE.alpha_shape, np.float32)
    table[0, : len(edge)] = edge
    given = made(0, 0, role=TRAINED, alphas={"normal": table, "reduce": table.astype(">f4")}, before=0.1 + 0.2)
    with Archive.open(place, write=True) as opened:
        opened.add([given])
        (found,) = opened
    for cell in ("normal", "reduce"):
        assert found.alphas[cell].tobytes() == table.tobytes()
    assert found.before == 0.1 + 0.2


def test_a_space_of_one_cell_and_other_kinds_come_back(place):
    given = [
        made(0, 0, ONE_CELL, role=TRAINED, origin=Origin(TEACHER, {"seed": 0, "number": 3}), seed=-(2**63)),
        made(0, 1, ONE_CELL, origin=Origin(FOLDER, {"source": "zoo", "images": [{"path": "ä/1.png"}]})),
    ]
    with Archive.open(place, write=True) as opened:
        opened.add(given)
        assert {record.origin.kind for record in opened} == {TEACHER, FOLDER}
        assert {record.space for record in opened} == {ONE_CELL}
        assert opened.count(Selection(source="zoo")) == 1
        assert check_records(opened).faults == ()


def test_the_order_of_a_genotypes_pairs_is_no_difference(place):
    given = made(0, 0)
    normal = tuple(pair for node in (0, 2) for pair in reversed(given.genotype.normal[node : node + 2]))
    turned = replace(given, genotype=replace(given.genotype, normal=normal))
    assert turned.genotype != given.genotype
    assert names_of([turned]) == names_of([given])


@pytest.mark.parametrize("turn", [1, -1])
def test_order_and_digest_do_not_depend_on_the_order_of_adding(some, full, place, turn):
    with Archive.open(place, write=True) as opened, Archive.open(full) as other:
        for record in some[::turn]:
            opened.add([record])
        assert names_of(opened) == names_of(other)
        assert opened.sha256 == other.sha256
        opened.add([made(1, 0)])
        assert opened.sha256 != other.sha256
        assert opened.digest(Selection(role="trained")) != opened.sha256


def test_adding_twice_is_adding_once(some, copy):
    with Archive.open(copy, write=True) as opened:
        digest = opened.sha256
        assert opened.add([*some, some[0]]) == names_of([*some, some[0]])
        assert (len(opened), opened.sha256) == (COUNT, digest)
        assert opened.add([]) == []


def test_any_difference_is_another_record(some):
    first = some[0]
    alphas = {cell: table.copy() for cell, table in first.alphas.items()}
    alphas["normal"][0, 0] = np.nextafter(alphas["normal"][0, 0], np.float32(9))
    others = [
        replace(first, alphas=alphas), replace(first, seed=1), replace(first, run="b"), replace(first, role=TRAINED),
        replace(first, before=first.before + 1e-16), replace(first, after=1.0), replace(first, settings={"steps": 6}),
        replace(first, space=replace(SPACE, name="other")), replace(first, origin=some[1].origin),
        replace(first, genotype=some[1].genotype, role=TRAINED),
    ]  # fmt: skip
    assert len(set(names_of([first, *others]))) == len(others) + 1


def test_selections_and_tasks(place):
    first = made(0, 0)
    again = replace(first, seed=5, run="b", role=TRAINED)
    other = replace(made(0, 1), space=replace(SPACE, name="other"))
    with Archive.open(place, write=True) as opened:
        opened.add([first, again, other])
        counts = {
            Selection(): 3, Selection(role=TRAINED): 1, Selection(run="b"): 1, Selection(run="' OR 1 = 1"): 0,
            Selection(space=SPACE): 2, Selection(source="made", split="train"): 3, Selection(split="test"): 0,
            Selection(kind=TEACHER): 0, Selection(role=TRAINED, space=other.space): 0,
        }  # fmt: skip
        for chosen, count in counts.items():
            assert opened.count(chosen) == len(list(opened.records(chosen))) == count
        tasks = list(opened.tasks())
        assert sorted((origin.sha256, len(found)) for origin, found in tasks) == sorted(
            [(first.origin.sha256, 2), (other.origin.sha256, 1)]
        )
        assert [len(found) for _, found in opened.tasks(Selection(role=TRAINED))] == [1]
        groups = {(group.space.name, group.role): group for group in opened.groups()}
        assert len(groups) == 3
        group = groups["darts", "trained"]
        assert (group.records, group.tasks, group.genotypes, group.before) == (1, 1, 1, first.before)


def test_reading_goes_on_while_another_adds(some, copy):
    with Archive.open(copy) as reader, Archive.open(copy, write=True) as writer:
        found = iter(reader)
        first = next(found)
        writer.add([made(9, 0)])
        assert len(writer) == COUNT + 1
        assert len([first, *found]) == COUNT
        assert len(reader) == COUNT + 1


def test_a_closed_archive_is_one_file(copy):
    with Archive.open(copy, write=True) as opened:
        opened.add([made(1, 0)])
    with Archive.open(copy) as opened:
        list(opened)
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_what_was_opened_to_be_read_is_not_written(copy, some):
    with Archive.open(copy) as opened:
        refused(lambda: opened.add(some), "opened to be read: open it with write=True")


def test_merging_is_idempotent_and_adds_what_is_new(full, copy, tmp_path):
    with Archive.open(tmp_path / "b.sqlite", write=True) as into, Archive.open(full) as other:
        into.add([made(0, 0), made(7, 0)])
        assert into.merge(other) == COUNT - 1
        assert into.merge(other) == 0
        assert len(into) == COUNT + 1
        assert check_records(into).faults == ()


def test_a_damaged_record_is_not_merged_and_nothing_beside_it(copy, tmp_path):
    change(copy, "UPDATE experience SET accuracy_after = 0.9 WHERE rowid = 3")
    with Archive.open(tmp_path / "b.sqlite", write=True) as into, Archive.open(copy) as other:
        refused(lambda: into.merge(other), "is damaged: it hashes to")
        assert len(into) == 0


# What is no record


def wrong_alphas(change):
    table = np.zeros(SPACE.alpha_shape, np.float32)
    return {"normal": change(table), "reduce": table}


def with_nan(table):
    table = table.copy()
    table[1, 1] = np.nan
    return table


EPISODE_FACTS = made(0, 0).origin.facts
WRONG = {
    "another's genotype": ({"genotype": made(0, 0).genotype}, "alphas are not those of the genotype"),
    "no point of the space": ({"genotype": made(0, 0, darts(1)).genotype}, "not a genotype of space 'darts'"),
    "other operations": ({"space": replace(ONE_CELL, nodes=2, cell_types=SPACE.cell_types)}, "expected the shape"),
    "a cell too few": ({"alphas": {"normal": np.zeros(SPACE.alpha_shape, np.float32)}}, "cells normal, reduce, got"),
    "a task axis": ({"alphas": wrong_alphas(lambda table: table[None])}, r"expected the shape \(5, 8\)"),
    "double": ({"alphas": wrong_alphas(lambda table: table.astype(np.float64))}, "float32, got float64"),
    "lists": ({"alphas": wrong_alphas(lambda table: table.tolist())}, "float32, got list"),
    "not finite": ({"alphas": wrong_alphas(with_nan)}, "normal alphas: expected finite numbers"),
    "per cent": ({"after": 55.0}, "accuracy after: expected a number from 0 to 1, got 55.0"),
    "no accuracy": ({"before": float("nan")}, "accuracy before: expected a number"),
    "accuracy as text": ({"before": "0.5"}, "accuracy before: expected a number"),
    "role": ({"role": "adapt"}, "unknown role 'adapt': did you mean 'adapted'"),
    "kind": ({"origin": Origin("epsiode", {})}, "unknown kind of origin 'epsiode': did you mean 'episode'"),
    "seed": ({"seed": 2**63}, "seed: expected a whole number"),
    "run": ({"run": ""}, "run: expected the hash"),
    "settings": ({"settings": {"rate": float("inf")}}, "settings: expected values that JSON can hold"),
    "numpy settings": ({"settings": {"rate": np.float32(1)}}, "settings: expected values that JSON can hold"),
    "facts": ({"origin": Origin(TEACHER, {"seed": {1, 2}})}, "the origin's facts: expected values that JSON"),
    "a fact too few": ({"origin": Origin("episode", {"source": "made"})}, "an episode's facts: .*expected a value"),
    "rows": (
        {"origin": Origin("episode", dict(EPISODE_FACTS) | {"support": [[1], [2, 3]]})},
        "support, query: expected equally many rows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_record_is_refused_and_nothing_beside_it_is_kept(place, some, name):
    changes, message = WRONG[name]
    with Archive.open(place, write=True) as opened:
        refused(lambda: opened.add([some[0], made(0, 1, **changes)]), message)
        assert len(opened) == 0
        opened.add(some)
        assert len(opened) == COUNT


def test_an_error_in_the_middle_of_a_transaction_leaves_nothing(place, some, monkeypatch):
    rows = [encode(record) for record in some]
    with Archive.open(place, write=True) as opened:
        monkeypatch.setattr(archive_file, "encode", lambda record: rows.pop(0) if len(rows) > 1 else None)
        with pytest.raises((DataError, TypeError)):
            opened.add([*some])
        assert len(opened) == 0


# What is no archive


def test_files_that_are_no_archive(tmp_path, some):
    text, other, empty = tmp_path / "text", tmp_path / "other", tmp_path / "empty"
    text.write_text("no database\n" * 200)
    change(other, "CREATE TABLE experience (id TEXT)")
    empty.touch()
    for path in (text, other):
        before = path.read_bytes()
        for write in (False, True):
            refused(lambda path=path, write=write: Archive.open(path, write), "not an archive of task records")
        assert path.read_bytes() == before
    refused(lambda: Archive.open(empty), "not an archive of task records")
    refused(lambda: Archive.open(tmp_path / "none"), "there is no archive")
    refused(lambda: Archive.open(tmp_path), "there is no archive")
    refused(lambda: Archive.open(tmp_path, write=True), "unable to open")
    refused(lambda: Archive.open(tmp_path / "no folder" / "a", write=True), "its folder must be there")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "other", "text"]


def test_a_name_with_signs_of_a_web_address(tmp_path, some):
    path = tmp_path / "50% of ä?mode=memory#1.sqlite"
    with Archive.open(path, write=True) as opened:
        opened.add(some)
    assert path.is_file()
    with Archive.open(path) as opened:
        assert len(opened) == COUNT


def test_another_version_is_refused_and_kept(copy, some):
    change(copy, f"PRAGMA user_version = {VERSION + 1}")
    before = copy.read_bytes()
    for write in (False, True):
        refused(
            lambda write=write: Archive.open(copy, write), "of version 2, this metadarts reads version 1: use a later"
        )
    assert copy.read_bytes() == before
    change(copy, "PRAGMA user_version = 0")
    refused(lambda: Archive.open(copy), "it was damaged")
    change(copy, f"PRAGMA application_id = {APPLICATION + 1}")
    refused(lambda: Archive.open(copy), "not an archive of task records")


def test_other_columns_are_refused(copy):
    change(copy, "ALTER TABLE experience DROP COLUMN settings")
    refused(lambda: Archive.open(copy), "its table has the columns id, ")


def test_a_locked_archive_is_waited_for_and_said(copy, some, monkeypatch):
    monkeypatch.setattr(archive_file, "WAIT", 0.05)
    holder = sqlite3.connect(copy, isolation_level=None)
    with Archive.open(copy, write=True) as opened:
        holder.execute("BEGIN IMMEDIATE")
        refused(lambda: opened.add([made(3, 0)]), "another process is writing")
        holder.execute("ROLLBACK")
        assert len(opened) == COUNT
        opened.add([made(3, 0)])
        assert len(opened) == COUNT + 1
    holder.close()


def test_a_torn_file_is_not_opened(copy):
    content = copy.read_bytes()
    copy.write_bytes(content[: len(content) // 2])
    for write in (False, True):
        refused(lambda write=write: Archive.open(copy, write), "it is damaged: restore it")
    assert copy.read_bytes() == content[: len(content) // 2]


def test_a_page_of_another_file_is_found(copy):
    content = copy.read_bytes()
    copy.write_bytes(content[:-4096] + b"\xff" * 4096)
    with Archive.open(copy) as opened:
        refused(lambda: list(opened), "damaged")
        faults = check_records(opened).faults
    assert faults[0].startswith("SQLite: ")


@pytest.mark.parametrize("column", ["source", "split", "kind", "space", "role", "run"])
def test_a_count_of_what_is_no_text_is_refused(copy, column):
    """SQLite keeps anything in any column."""
    change(copy, f"UPDATE experience SET {column} = x'00' WHERE rowid = 3")
    with Archive.open(copy) as opened:
        refused(opened.groups, "a record with a bytes in place of text")


# What was changed afterwards


CHANGES = {
    "alphas": ("alphas = zeroblob(length(alphas))", "it hashes to"),
    "genotype": ("genotype = replace(genotype, 'sep', 'dil') || ' '", "it hashes to"),
    "source": ("source = 'b'", "its columns and its origin differ"),
    "task": (f"origin_sha256 = '{'f' * 64}'", "its columns and its origin differ"),
    "type": ("seed = 'x'", "seed is of type str"),
    "name": (f"id = '{'e' * 64}'", "it hashes to"),
    "settings": ("settings = '{\"steps\":6}'", "it hashes to"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_record_is_found_and_not_given_out(copy, name):
    statement, message = CHANGES[name]
    change(copy, f"UPDATE experience SET {statement} WHERE rowid = 2")
    with Archive.open(copy) as opened:
        refused(lambda: list(opened), message)
        found = check_records(opened)
    assert found.checked == COUNT
    assert len(found.faults) == 1
    assert message.split(" ")[-1] in found.faults[0]


def forged(row, **changes):
    """A record that someone named anew after changing it."""
    row = row._replace(**changes)
    return row._replace(id=identity(row))


def test_a_forged_record_is_found(copy, some):
    first, second = (encode(record) for record in some[:2])
    nan = np.full(SPACE.alphas_total, np.nan, "<f4").tobytes()
    rows = {
        "its alphas have 4 bytes": forged(first, alphas=b"1234"),
        "expected finite numbers": forged(first, alphas=nan),
        "alphas are not those of the genotype": forged(first, genotype=second.genotype),
        "genotype text": forged(first, genotype="__import__('os')"),
        "unknown role 'wise'": forged(first, role="wise"),
        "accuracy after": forged(first, accuracy_after=2.0),
        "nodes: expected int <= 64": forged(first, space=first.space.replace('"nodes":2', '"nodes":1000000000')),
        "space: name: expected a value": forged(first, space="{}"),
        "origin: expected object, got []": forged(first, origin="[]"),
        "not in canonical form": forged(first, origin=first.origin + " "),
        "NaN": forged(first, settings='{"a": NaN}'),
    }
    connection = sqlite3.connect(copy)
    with connection:
        connection.executemany(f"INSERT INTO experience VALUES ({', '.join('?' * len(Row._fields))})", rows.values())
    connection.close()
    with Archive.open(copy) as opened:
        faults = check_records(opened).faults
    assert len(faults) == len(rows)
    for said, row in rows.items():
        (fault,) = [fault for fault in faults if row.id[:12] in fault]
        assert said in fault


def test_a_space_is_read_as_it_was_written():
    for space in (SPACE, ONE_CELL, darts()):
        assert read_space(space_text(space)) == space


def test_the_name_of_an_record_stays():
    """Archives of today must be read tomorrow: a name is for ever."""
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    space = SearchSpace("one", ("none", "skip_connect", "sep_conv_3x3"), nodes=1, cell_types=("normal",))
    genotype = made(0, 0, ONE_CELL).genotype
    genotype = replace(genotype, normal=(("skip_connect", 0), ("sep_conv_3x3", 1)))
    given = TaskRecord(
        Origin(TEACHER, {"number": 1, "seed": 0}), space, {"normal": table}, genotype, 0.25, 0.5, TRAINED, 0, "r",
        {"steps": 1},
    )  # fmt: skip
    assert encode(given).id == "f9ff43fc2e93b590d4bbc3ce4915f1fce5a1e6a30c790f2a652143271bce5b10"


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER own AFTER INSERT ON experience BEGIN DELETE FROM experience; END",
        "CREATE VIEW own AS SELECT * FROM experience",
        "CREATE TABLE own (id TEXT)",
        "CREATE INDEX own ON experience (run)",
        "DROP INDEX by_task",
    ],
)
def test_a_schema_with_more_or_less_is_refused(copy, statement):
    change(copy, statement)
    for write in (False, True):
        refused(lambda write=write: Archive.open(copy, write), "does not have an archive's schema")


def test_an_archive_on_a_read_only_disk_is_read_and_leaves_nothing(copy, monkeypatch):
    before = {path.name: path.read_bytes() for path in copy.parent.iterdir()}
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with Archive.open(copy) as opened:
        assert len(list(opened)) == COUNT
        assert opened.integrity_faults() == []
        assert {path.name for path in copy.parent.iterdir()} == set(before)
    assert {path.name: path.read_bytes() for path in copy.parent.iterdir()} == before


def test_a_log_that_was_not_merged_is_not_passed_over(copy, monkeypatch):
    copy.with_name(f"{copy.name}-wal").write_bytes(b"records")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    refused(lambda: Archive.open(copy), "records not merged yet: copy both to a writable folder")


def test_the_log_of_a_linked_archive_is_beside_the_archive(copy, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.sqlite"
    link.symlink_to(copy)
    copy.with_name(f"{copy.name}-wal").write_bytes(b"records")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    refused(lambda: Archive.open(link), "records not merged yet")
