"""The store of judgements: SQLite in WAL mode by default, PostgreSQL by URL, an append-only log under every change.

    store = open_store("annotate.db")
    with store.read() as connection: ...
    with store.write() as connection: ...     # one writer at a time; when it returns, the change is on the disk

Writers take turns (BEGIN IMMEDIATE; an advisory lock on PostgreSQL), so that what a transaction has read still holds
when it writes, on both. Each change appends an entry to the log: its SHA-256 runs over the entry and the hash before
it, the last one stands in `head` and, after the commit, as a line of the anchor file beside the database. The log holds
ids, digests and reasons, never record text.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, RowMapping, TableClause, create_engine, event, func, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from xinglin.annotate import schema
from xinglin.records import InputError

BUSY_MS = 10_000
WRITER_LOCK = 0x78696E676C696E  # "xinglin": the advisory lock of all writers on PostgreSQL


class Refused(InputError):
    """What a rater asked for cannot be done. `code` is for the page:

    invalid    a field is missing or out of range          foreign   another rater's item, or none: answer 403
    role       not for this role: answer 403               replayed  this client id was used for something else
    done       this item has its vote already              expired   the lease ran out and the place was given away
    nothing    nothing to undo, or no longer possible      login     wrong name or password (or invitation)
    throttled  too many failures, wait
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Unavailable(RuntimeError):
    """The database is locked, full, read-only or damaged: nothing was saved, send it again later."""


@dataclass(frozen=True, slots=True)
class Store:
    """`clock` gives UTC milliseconds. `anchor` is the file the log's heads are kept in, or None.

    `turn` queues up the writers of this process: SQLite's own waiting is by chance and starves some.
    """

    engine: Engine
    anchor: Path | None
    clock: Callable[[], int]
    turn: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view. Raises `Unavailable`."""
        with _translated(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """All or nothing, on the disk when it returns. Raises `Unavailable`."""
        if not self.turn.acquire(timeout=BUSY_MS / 1000):
            raise Unavailable("the database is locked by another writer; nothing was saved, try again")
        try:
            with _translated(), self.engine.connect().execution_options(write=True) as connection:
                connection.info.pop("head", None)  # left by a transaction that was rolled back
                with connection.begin():
                    yield connection
                if (last := connection.info.pop("head", None)) and self.anchor:
                    _append_line(self.anchor, f"{last[0]} {last[1]}\n")
        finally:
            self.turn.release()


def open_store(
    where: str | Path, *, anchor: Path | None = None, clock: Callable[[], int] | None = None, create: bool = True
) -> Store:
    """Open a store by file or by URL, and bring its schema up to date.

    A file gets its anchor beside it (`annotate.db.anchor`); a PostgreSQL store has one where `anchor` names it. Raises
    `InputError` where there is no such store and `create` is off, or where a newer version wrote it.
    """
    target: str | URL = str(where)
    if "://" not in str(where):
        path = Path(where)
        if not create and not path.is_file():
            raise InputError(f"{path}: no such store; give the file that `xinglin annotate create` made")
        path.parent.mkdir(parents=True, exist_ok=True)
        anchor = anchor or path.with_name(path.name + ".anchor")
        target = URL.create("sqlite", database=str(path))  # a path may hold % and ?, which a URL may not
    store = Store(_engine(target), anchor, clock or (lambda: time.time_ns() // 1_000_000))
    with store.write() as connection:
        schema.migrate(connection)
    return store


def _engine(url: str | URL) -> Engine:
    if isinstance(url, str) and url.startswith("postgresql://"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    try:
        engine = create_engine(url, pool_size=20, max_overflow=40, pool_timeout=BUSY_MS / 1000)
    except ModuleNotFoundError:
        raise InputError("PostgreSQL needs psycopg: pip install 'xinglin[annotate]'") from None
    except (ArgumentError, NoSuchModuleError):
        raise InputError("the store's URL is not one of sqlite:///FILE, postgresql://USER@HOST/DATABASE") from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    elif engine.dialect.name != "postgresql":
        raise InputError(f"a store on {engine.dialect.name} is not supported; use SQLite or PostgreSQL")
    event.listen(engine, "begin", _begin)
    return engine


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_MS}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    """Writers queue up before they read, so that nobody decides on what another is changing."""
    write = connection.get_execution_options().get("write")
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
    elif write:
        connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")
    else:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("too many requests at once; nothing was saved, try again") from error
    except DBAPIError as error:
        if isinstance(error.orig, UnicodeDecodeError):
            raise Unavailable("the database holds text that is not UTF-8; run `xinglin annotate verify`") from error
        reason = str(error.orig).splitlines()[0] if str(error.orig) else type(error.orig).__name__
        raise Unavailable(f"the database did not take it ({reason}); nothing was saved, try again") from error


def _append_line(path: Path, line: str) -> None:
    """One write, synced: a kill leaves the whole line or none of it."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, line.encode())
        os.fsync(handle)
    finally:
        os.close(handle)


# --- rows and the log ------------------------------------------------------------------------------------------------


def canonical(value: Any) -> str:
    """JSON with one spelling for each value: sorted keys, no spaces, UTF-8 kept."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def next_id(connection: Connection, table: TableClause) -> int:
    """The next number of a table; safe because writers take turns."""
    return int(connection.scalar(select(func.max(table.c.id))) or 0) + 1


def entry_hash(entry: dict[str, Any]) -> str:
    """The hash of a log entry: over every column but itself, the hash before it included."""
    return digest({name: value for name, value in entry.items() if name != "hash"})


def append_log(store: Store, connection: Connection, actor: int, kind: str, rows: Sequence[tuple[str, Any]]) -> None:
    """Append entries (subject, body) to the log, inside the caller's transaction. `actor` 0 is the command line."""
    seq, previous = connection.execute(select(schema.head.c.seq, schema.head.c.hash)).one()
    entries = []
    for subject, body in rows:
        seq += 1
        entry = {"seq": seq, "at": store.clock(), "actor": actor, "kind": kind, "subject": subject}
        entry |= {"body": canonical(body), "previous": previous}
        previous = entry["hash"] = entry_hash(entry)
        entries.append(entry)
    if entries:
        connection.execute(schema.log.insert(), entries)
        connection.execute(schema.head.update().values(seq=seq, hash=previous))
        connection.info["head"] = (seq, previous)


def head(store: Store) -> tuple[int, str]:
    """Length and hash of the log: printed on reports and backups, it proves later what the log was."""
    with store.read() as connection:
        seq, hash_ = connection.execute(select(schema.head.c.seq, schema.head.c.hash)).one()
    return int(seq), str(hash_)


def row(connection: Connection, table: TableClause, id_: int | str) -> RowMapping | None:
    """The row of an id, or None."""
    return connection.execute(select(table).where(table.c.id == id_)).mappings().first()


def checked_text(what: str, value: Any, limit: int) -> str:
    """Text that both databases can hold. Raises `Refused("invalid")` and never shows it."""
    if not isinstance(value, str) or len(value) > limit:
        size = len(value) if isinstance(value, str) else type(value).__name__
        raise Refused("invalid", f"{what} is {size}; it is text of at most {limit} characters")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise Refused("invalid", f"{what} holds NUL or half of a character; remove it")
    return value


def count_rows(connection: Connection, table: TableClause) -> int:
    return int(connection.scalar(text(f"SELECT count(*) FROM {table.name}")) or 0)
