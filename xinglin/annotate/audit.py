"""Proof and safe-keeping: `verify` finds what was changed behind the store's back, `backup` and `restore` move it.

`verify` recomputes the log's chain, holds it against the anchor file, and holds every vote, item text, guideline and
project against the digest its log entry carries. A backup is a SQLite file (online backup, verified before it gets its
name) or, from PostgreSQL, a JSONL dump with a hash over every byte; either can be restored into either database.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RowMapping, TableClause, select, text

from xinglin.annotate import schema
from xinglin.annotate.projects import content_digest
from xinglin.annotate.store import Store, Unavailable, count_rows, digest, entry_hash, open_store
from xinglin.records import InputError

SQLITE = b"SQLite format 3\0"
DUMPED = [table for table in schema.TABLES if table is not schema.sessions]
ORDER = {
    **{table.name: ("id",) for table in schema.TABLES},
    **{"guidelines": ("project_id", "version"), "contents": ("item_id", "version"), "log": ("seq",)},
    **{"answers": ("item_id", "version", "place"), "side_counts": ("project_id", "source", "place")},
}
BATCH = 500


@dataclass(frozen=True, slots=True)
class Verified:
    """`problems` name the record each; empty means nothing was changed. `head` is the log's last hash."""

    entries: int
    votes: int
    head: str
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(store: Store) -> Verified:
    """Recompute everything; every problem found, none hidden by another. Never raises for a damaged store."""
    problems: list[str] = []
    entries: list[RowMapping] = []
    num_votes, last = 0, ""
    try:
        with store.read() as connection:
            problems += _damaged_pages(connection)
            entries = list(connection.execute(select(schema.log).order_by(schema.log.c.seq)).mappings())
            last, broken = _check_chain(connection, entries)
            problems += broken + _check_anchor(store.anchor, entries)
            stated = _stated(entries)
            num_votes = count_rows(connection, schema.votes)
            problems += _check_rows(connection, stated) + _check_places(connection)
    except (Unavailable, UnicodeDecodeError, sqlite3.Error) as error:
        problems.append(f"the store cannot be read: {error}")
    return Verified(len(entries), num_votes, last, tuple(problems))


def _damaged_pages(connection: Connection) -> list[str]:
    if connection.dialect.name != "sqlite":
        return []
    found = connection.execute(text("PRAGMA integrity_check(20)")).scalars().all()
    return [f"database file: {line}" for line in found if line != "ok"]


def _check_chain(connection: Connection, entries: Sequence[RowMapping]) -> tuple[str, list[str]]:
    problems = []
    previous: Any = ""
    for number, entry in enumerate(entries, 1):
        if entry["seq"] != number:
            problems.append(f"log: entry {number} is missing, found {entry['seq']!r} in its place")
            break
        if entry["previous"] != previous or entry["hash"] != _safe(entry_hash, dict(entry)):
            problems.append(f"log: entry {number} was changed")
        previous = entry["hash"]
    heads = connection.execute(select(schema.head)).mappings().all()
    if len(heads) != 1 or (heads[0]["seq"], heads[0]["hash"]) != (len(entries), previous):
        problems.append(f"log: it ends at entry {len(entries)}, which is not the head that was written")
    return str(previous), problems


def _safe(function: Any, *values: Any) -> str | None:
    """A damaged row may hold what JSON has no word for (bytes): then it has no digest."""
    try:
        return str(function(*values))
    except (TypeError, ValueError):
        return None


def _check_anchor(anchor: Path | None, entries: Sequence[RowMapping]) -> list[str]:
    """Every line of the anchor must be an entry of the log. A last line cut short by a power cut is no problem."""
    if anchor is None or (not anchor.exists() and not entries):
        return []
    if not anchor.exists():
        return [f"anchor: {anchor.name} is missing"]
    hashes = {str(entry["seq"]): entry["hash"] for entry in entries}
    lines = anchor.read_bytes().decode("utf-8", "replace").split("\n")
    problems = []
    for number, line in enumerate(lines, 1):
        seq, _, found = line.partition(" ")
        torn = number == len(lines) and (not found or str(hashes.get(seq, "")).startswith(found))
        if hashes.get(seq) != found and not torn:
            problems.append(f"anchor: line {number} names an entry that the log does not have so")
    return problems


def _stated(entries: Sequence[RowMapping]) -> dict[tuple[str, str], str]:
    """What the log says each row's digest is, by (kind, subject)."""
    stated = {}
    for entry in entries:
        if entry["kind"] in ("vote", "item", "guideline", "project"):
            try:
                stated[entry["kind"], entry["subject"]] = str(json.loads(entry["body"])["sha256"])
            except (ValueError, KeyError, TypeError):
                continue  # the chain has reported this entry
    return stated


def _check_rows(connection: Connection, stated: Mapping[tuple[str, str], str]) -> list[str]:
    found: dict[tuple[str, str], str | None] = {}
    for row in connection.execute(select(schema.votes)).mappings():
        found["vote", str(row["id"])] = _safe(digest, dict(row))
    answers: dict[tuple[Any, Any], list[RowMapping]] = {}
    for row in connection.execute(select(schema.answers).order_by(schema.answers.c.place)).mappings():
        answers.setdefault((row["item_id"], row["version"]), []).append(row)
    for row in connection.execute(select(schema.contents)).mappings():
        key = (row["item_id"], row["version"])
        found["item", f"{key[0]}/{key[1]}"] = _safe(content_digest, row, answers.pop(key, []))
    for row in connection.execute(select(schema.guidelines)).mappings():
        found["guideline", f"{row['project_id']}/{row['version']}"] = _safe(digest, dict(row))
    for row in connection.execute(select(schema.projects)).mappings():
        found["project", str(row["id"])] = _safe(digest, [row["id"], row["name"], row["settings"]])
    problems = [f"{kind} {name} is missing" for kind, name in stated if (kind, name) not in found]
    problems += [f"{kind} {name} is not in the log" for kind, name in found if (kind, name) not in stated]
    problems += [f"item {item}/{version}: answers without a text" for item, version in answers]
    for key, value in found.items():
        if key in stated and stated[key] != value:
            problems.append(f"{key[0]} {key[1]} is not what the log says was written")
    return problems


def _check_places(connection: Connection) -> list[str]:
    """The number of places taken must be the number of leases and votes that hold one."""
    held = text(
        "SELECT items.id FROM items LEFT JOIN assignments ON assignments.item_id = items.id "
        "AND assignments.epoch = items.epoch AND assignments.kind = 'vote' AND assignments.state IN ('leased', 'done') "
        "GROUP BY items.id, items.taken HAVING count(assignments.id) <> items.taken"
    )
    return [f"item {item_id}: its places taken are not those of its leases" for item_id in connection.scalars(held)]


# --- backup and restore ----------------------------------------------------------------------------------------------


def backup(store: Store, path: Path) -> Verified:
    """Copy the whole store while it is in use; a SQLite file from SQLite, a JSONL dump from PostgreSQL.

    Raises `InputError` where the target is there already, or the copy does not verify.
    """
    if path.exists() and path.stat().st_size:
        raise InputError(f"{path}: already there and not empty; give another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    if store.engine.dialect.name == "sqlite":
        _copy_sqlite(store, partial)
        copy = open_store(partial)
        found = verify(Store(copy.engine, None, store.clock))
        copy.engine.dispose()
        if not found.ok:
            raise InputError(f"{path}: the copy does not verify ({found.problems[0]}); run `xinglin annotate verify`")
        _write_synced(path.with_name(path.name + ".anchor"), f"{found.entries} {found.head}\n".encode())
        _one_file(partial)
    else:
        found = verify(store)
        dump(store, partial)
    partial.replace(path)
    return found


def _copy_sqlite(store: Store, path: Path) -> None:
    path.unlink(missing_ok=True)
    with store.read() as connection:
        source = connection.connection.driver_connection
        assert isinstance(source, sqlite3.Connection)
        target = sqlite3.connect(path)
        try:
            source.backup(target)
        finally:
            target.close()


def _one_file(path: Path) -> None:
    """Fold the write-ahead log into the file, so that the file alone is the store."""
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA journal_mode=DELETE")
    finally:
        connection.close()
    path.with_name(path.name + ".anchor").unlink(missing_ok=True)
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_synced(path: Path, body: bytes) -> None:
    with path.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())


def dump(store: Store, path: Path) -> int:
    """Write every row as JSONL, one consistent view, with a hash over all bytes in the last line; the row count."""
    sha, count = hashlib.sha256(), 0
    with store.read() as connection, path.open("wb") as file:
        _write_line(file, {"xinglin": "annotate", "schema": schema.schema_version(connection)}, sha)
        for table, rows in _all_rows(connection):
            for row in rows:
                _write_line(file, {"table": table.name, "row": dict(row)}, sha)
                count += 1
        _write_line(file, {"rows": count, "sha256": sha.hexdigest()}, sha)
        file.flush()
        os.fsync(file.fileno())
    return count


def _write_line(file: Any, body: Any, sha: Any) -> None:
    line = (json.dumps(body, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
    sha.update(line)
    file.write(line)


def _all_rows(connection: Connection) -> Iterator[tuple[TableClause, Iterator[RowMapping]]]:
    for table in DUMPED:
        yield table, iter(connection.execute(select(table).order_by(*map(text, ORDER[table.name]))).mappings())


def restore(path: Path, where: str | Path) -> Verified:
    """Fill a new, empty store at `where` (file or URL) from a backup or a dump, and verify it.

    Raises `InputError` where the target holds something, or the backup is damaged.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such backup")
    if "://" not in str(where) and Path(where).exists():
        raise InputError(f"{where}: already there; restore into a new file, then put it in place")
    with path.open("rb") as file:
        binary = file.read(len(SQLITE)) == SQLITE
    with tempfile.TemporaryDirectory() as folder:
        if binary:
            lines = Path(folder) / "dump.jsonl"
            copy = _opened_copy(path, Path(folder))
            dump(copy, lines)
            copy.engine.dispose()
        else:
            lines = path
        _check_dump(lines)
        store = open_store(where)
        _load(store, lines)
    found = verify(store)
    if not found.ok:
        raise InputError(f"{path}: restored, but it does not verify: {found.problems[0]}")
    return found


def _opened_copy(path: Path, folder: Path) -> Store:
    """A backup is opened as a copy: opening may migrate it, and a backup is never written to."""
    copy = folder / "copy.db"
    copy.write_bytes(path.read_bytes())
    return open_store(copy)


def _check_dump(path: Path) -> None:
    """The hash first, before a single row is believed."""
    sha, last = hashlib.sha256(), b""
    with path.open("rb") as file:
        for line in file:
            sha.update(last)
            last = line
    try:
        stated = json.loads(last)["sha256"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: neither a backup nor a whole dump; it has no last line with a hash") from None
    if stated != sha.hexdigest():
        raise InputError(f"{path}: the dump was changed or damaged; its hash does not fit")


def _load(store: Store, path: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    tables = {table.name: table for table in DUMPED}
    with store.write() as connection, path.open("rb") as file:
        if any(count_rows(connection, table) for table in (schema.projects, schema.raters, schema.log)):
            raise InputError("the store to restore into is not empty; give a new one")
        found = json.loads(next(file)).get("schema")
        if found != len(schema.MIGRATIONS):
            raise InputError(f"{path}: the dump has schema {found}, this version writes {len(schema.MIGRATIONS)}")
        connection.execute(schema.head.delete())
        name = ""
        rows: list[dict[str, Any]] = []
        for line in file:
            body = json.loads(line)
            if body.get("table") != name or len(rows) == BATCH:
                if rows:
                    connection.execute(tables[name].insert(), rows)
                name, rows = body.get("table", ""), []
            if name:
                rows.append(body["row"])
                counts[name] += 1
        seq, last = connection.execute(select(schema.head.c.seq, schema.head.c.hash)).one()
        connection.info["head"] = (seq, last)
    return counts
