"""A8: what is changed behind the store's back is found; backups are whole and restore on either database."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from ward_of_doctors import by_content, item, judge_all, project, rater

from xinglin.annotate import schema
from xinglin.annotate.audit import backup, dump, restore, verify
from xinglin.annotate.exchange import export_preferences
from xinglin.annotate.projects import add_items, edit_item, list_projects, revise_guideline
from xinglin.annotate.queue import next_item
from xinglin.annotate.store import Store, append_log, head, open_store
from xinglin.annotate.votes import undo
from xinglin.records import InputError


def filled(store: Store, count: int = 12) -> int:
    """A project with votes, an undo, an edit, a new guideline without requeueing, open leases and a second round."""
    made = project(store, count, repeat_share=0.1)
    one, two = rater(store, "one"), rater(store, "two")
    judge_all(store, one, made)
    judge_all(store, two, made, limit=count // 2)
    undo(store, two, made, "undo-00001")
    edit_item(store, 1, context="补充")
    revise_guideline(store, made, "安全最重要", requeue=False)
    add_items(store, made, [item(0), item(1)], round=2)
    next_item(store, two, made)
    return made


def execute(store: Store, statement: str) -> None:
    with store.engine.begin() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE votes SET body = replace(body, '[1,2]', '[2,1]') WHERE id = 3", "vote 3 is not what"),
        ("UPDATE votes SET active_ms = active_ms + 1 WHERE id = 2", "vote 2 is not what"),
        ("UPDATE votes SET rater_id = 2 WHERE id = 2", "vote 2 is not what"),
        ("DELETE FROM votes WHERE id = 5", "vote 5 is missing"),
        ("UPDATE log SET at = at + 1 WHERE seq = 7", "log: entry 7 was changed"),
        ("UPDATE log SET body = '{}' WHERE seq = 7", "log: entry 7 was changed"),
        ("DELETE FROM log WHERE seq = 7", "log: entry 7 is missing"),
        ("DELETE FROM log WHERE seq = (SELECT max(seq) FROM log)", "log: it ends at entry"),
        ("UPDATE head SET hash = 'x'", "log: it ends at entry"),
        ("UPDATE answers SET text = '改' WHERE item_id = 2 AND place = 1", "item 2/1 is not what"),
        ("UPDATE answers SET source = 'other' WHERE item_id = 1 AND version = 1", "item 1/1 is not what"),
        ("DELETE FROM answers WHERE item_id = 2 AND place = 0", "item 2/1 is not what"),
        ("UPDATE contents SET prompt = '[]' WHERE item_id = 3", "item 3/1 is not what"),
        ("UPDATE guidelines SET text = 'other' WHERE version = 2", "guideline 1/2 is not what"),
        ("UPDATE projects SET settings = '{}'", "project 1 is not what"),
        ("UPDATE items SET taken = 0 WHERE id = 4", "item 4: its places"),
    ],
)
def test_verify_names_what_was_edited_by_hand(sqlite_store: Store, statement: str, named: str) -> None:
    filled(sqlite_store)
    assert verify(sqlite_store).problems == ()
    execute(sqlite_store, statement)
    assert any(named in problem for problem in verify(sqlite_store).problems)


def test_a_log_rewritten_as_a_whole_does_not_fit_its_anchor(sqlite_store: Store, tmp_path: Path) -> None:
    """Someone who can compute hashes shortens the log and mends the head: the anchor still knows."""
    filled(sqlite_store)
    with sqlite_store.engine.begin() as connection:
        connection.execute(text("DELETE FROM votes WHERE id = (SELECT max(id) FROM votes)"))
        seq, last = connection.execute(text("SELECT seq, previous FROM log ORDER BY seq DESC LIMIT 1")).one()
        connection.execute(text(f"DELETE FROM log WHERE seq = {seq}"))
        connection.execute(text(f"UPDATE head SET seq = {seq - 1}, hash = '{last}'"))
    problems = verify(sqlite_store).problems
    assert any(problem.startswith("anchor: line") for problem in problems)
    assert sqlite_store.anchor is not None
    sqlite_store.anchor.unlink()
    assert any("is missing" in problem for problem in verify(sqlite_store).problems)


def test_a_changed_anchor_is_found_and_a_torn_last_line_is_none(sqlite_store: Store) -> None:
    filled(sqlite_store)
    anchor = sqlite_store.anchor
    assert anchor is not None
    whole = anchor.read_bytes()
    anchor.write_bytes(whole[:-20])
    assert verify(sqlite_store).ok
    for place in (0, 40, len(whole) // 2):
        anchor.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert not verify(sqlite_store).ok


def test_a_change_that_was_rolled_back_leaves_no_trace_in_the_anchor(store: Store) -> None:
    made = filled(store)
    with pytest.raises(ZeroDivisionError), store.write() as connection:
        append_log(store, connection, 0, "test", [("x", {})])
        raise ZeroDivisionError
    with store.write() as connection:
        connection.execute(text("UPDATE raters SET locale = 'en'"))  # a change without an entry
    assert verify(store).problems == ()
    assert judge_all(store, rater(store, "new"), made) > 0 and verify(store).ok


# --- bit flips in the file -------------------------------------------------------------------------------------------


def varint(page: bytes, at: int) -> tuple[int, int]:
    value = 0
    for count in range(8):
        byte = page[at + count]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + count + 1
    return value << 8 | page[at + 8], at + 9


def cells(body: bytes, page: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) in the file of each row of a table's b-tree, its length and number included (SQLite file format,
    section 1.6)."""
    base = (page - 1) * size
    header = base + (100 if page == 1 else 0)
    kind, count = body[header], int.from_bytes(body[header + 3 : header + 5])
    pointers = header + (12 if kind == 5 else 8)
    for n in range(count):
        at = base + int.from_bytes(body[pointers + 2 * n : pointers + 2 * n + 2])
        if kind == 5:
            yield from cells(body, int.from_bytes(body[at : at + 4]), size)
        else:
            assert kind == 13
            length, after = varint(body, at)
            assert length < size - 35, "no row of this test spills over"
            _, after = varint(body, after)
            yield at, after + length
    if kind == 5:
        yield from cells(body, int.from_bytes(body[header + 8 : header + 12]), size)


def flip_and_verify(whole: bytes, place: int, bit: int, path: Path, anchor: Path) -> bool:
    """Whether a flipped bit is found (or the file refused)."""
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
    engine = create_engine(f"sqlite:///{path}")
    found = not verify(Store(engine, anchor, lambda: 0)).ok
    engine.dispose()
    return found


@pytest.mark.parametrize("flips", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_flipped_bit_of_votes_and_log_is_found(sqlite_store: Store, tmp_path: Path, flips: int) -> None:
    filled(sqlite_store)
    backup(sqlite_store, tmp_path / "copy.db")
    whole = (tmp_path / "copy.db").read_bytes()
    with sqlite3.connect(tmp_path / "copy.db") as connection:
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        roots = connection.execute("SELECT rootpage FROM sqlite_master WHERE name IN ('votes', 'log')").fetchall()
    ranges = [cell for (root,) in roots for cell in cells(whole, root, size)]
    places = [place for start, end in ranges for place in range(start, end)]
    assert len(ranges) > 40 and len(places) > 10_000
    rng = random.Random(5)
    anchor = tmp_path / "copy.db.anchor"
    missed = []
    for _ in range(flips):
        place, bit = rng.choice(places), rng.randrange(8)
        if not flip_and_verify(whole, place, bit, tmp_path / "flipped.db", anchor):
            missed.append((place, bit))
    print(f"{flips} flips in {len(places)} bytes, missed: {len(missed)}")
    assert not missed


# --- backup and restore ----------------------------------------------------------------------------------------------


def test_a_backup_restores_to_the_same_store(store: Store, tmp_path: Path) -> None:
    made = filled(store)
    before = list(export_preferences(store, made))
    found = backup(store, tmp_path / "backup")
    assert (found.entries, found.head) == head(store)
    judge_all(store, rater(store, "later"), made)  # the store goes on, the backup does not
    restored = restore(tmp_path / "backup", tmp_path / "again.db")
    assert restored.head == found.head and restored.ok
    again = open_store(tmp_path / "again.db")
    assert list(export_preferences(again, made)) == before
    assert [one.settings for one in list_projects(again)] == [one.settings for one in list_projects(store)]
    assert judge_all(again, rater(again, "new"), made) > 0 and verify(again).ok
    with pytest.raises(InputError, match="already there"):
        restore(tmp_path / "backup", tmp_path / "again.db")
    with pytest.raises(InputError, match="already there"):
        backup(store, tmp_path / "backup")


def test_a_sqlite_backup_restores_on_postgresql_and_back(
    sqlite_store: Store, postgres_url: str, tmp_path: Path
) -> None:
    made = filled(sqlite_store)
    backup(sqlite_store, tmp_path / "backup.db")
    assert restore(tmp_path / "backup.db", postgres_url).ok
    middle = open_store(postgres_url)
    assert list(export_preferences(middle, made)) == list(export_preferences(sqlite_store, made))
    assert judge_all(middle, rater(middle, "new"), made) > 0
    backup(middle, tmp_path / "dump.jsonl")
    assert restore(tmp_path / "dump.jsonl", tmp_path / "back.db").ok
    assert list(export_preferences(open_store(tmp_path / "back.db"), made)) == list(export_preferences(middle, made))
    with pytest.raises(InputError, match="not empty"):
        restore(tmp_path / "dump.jsonl", postgres_url)
    middle.engine.dispose()


def test_a_damaged_dump_is_refused_before_a_row_is_read(sqlite_store: Store, tmp_path: Path) -> None:
    filled(sqlite_store)
    path = tmp_path / "dump.jsonl"
    dump(sqlite_store, path)
    whole = path.read_bytes()
    for broken in (whole[:-30], whole[: len(whole) // 2], whole.replace("安全第一".encode(), "安全第二".encode(), 1)):
        path.write_bytes(broken)
        with pytest.raises(InputError, match="dump"):
            restore(path, tmp_path / "new.db")
        assert not (tmp_path / "new.db").exists()


def test_the_log_holds_no_text_of_records_or_doctors(store: Store) -> None:
    made = project(store, 1)
    who = rater(store, "one")
    judge_all(store, who, made, lambda shown: by_content(shown).__class__(by_content(shown).ranks, comment="病人张三"))
    with store.read() as connection:
        rows = [dict(row) for row in connection.execute(text("SELECT * FROM log")).mappings()]
    assert not any(word in json.dumps(rows, ensure_ascii=False) for word in ("发热", "回答", "张三", "安全第一"))


# --- schema ----------------------------------------------------------------------------------------------------------


def test_the_names_for_queries_are_those_of_the_migrations(store: Store) -> None:
    with store.read() as connection:
        for table in schema.TABLES:
            found = connection.execute(text(f"SELECT * FROM {table.name}")).keys()
            assert list(found) == list(table.columns.keys())


def test_a_newer_schema_is_refused_and_an_older_one_is_brought_up(sqlite_store: Store, tmp_path, monkeypatch) -> None:
    made = filled(sqlite_store)
    path = tmp_path / "store.db"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, "ALTER TABLE items ADD COLUMN colour TEXT"])
        newer = open_store(path)
        with newer.read() as connection:
            assert connection.execute(text("SELECT count(colour) FROM items")).scalar() == 0
            assert schema.schema_version(connection) == 2
        assert list_projects(newer)[0].id == made
    with pytest.raises(InputError, match="schema 2.*up to 1.*newer"):
        open_store(path)


def test_a_failed_migration_leaves_the_old_schema(sqlite_store: Store, tmp_path: Path, monkeypatch) -> None:
    broken = "ALTER TABLE items ADD COLUMN colour TEXT; ALTER TABLE nothing ADD COLUMN x TEXT"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, broken])
        with pytest.raises(RuntimeError, match="nothing"):
            open_store(tmp_path / "store.db")
    with open_store(tmp_path / "store.db").read() as connection:
        assert "colour" not in connection.execute(text("SELECT * FROM items")).keys()
