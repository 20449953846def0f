"""A table or a SELECT of a database as a table of notes, through SQLAlchemy core (extra: `xinglin[data]`).

SQLite and PostgreSQL. The connection is read only by the database's own rule, rows are streamed from the server, and
the password comes from the environment alone.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xinglin.data.notes.tables import Numbered, Table
from xinglin.records import InputError

PASSWORD = "XINGLIN_DB_PASSWORD"
BATCH = 1000  # rows in memory
NAME = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)?")
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


def open_database(url: str, statement: str) -> Table:
    """The rows of `statement`: the name of a table, or one SELECT. Raises `InputError`; no message holds a password."""
    checked = check_statement(statement)
    engine, place = _engine(url)
    with _rows(engine, place, checked) as result:
        names = tuple(str(name) for name in result.keys())
    if len(set(names)) != len(names):
        raise InputError(f"{place}: two columns of one name; name them apart in the SELECT with AS")

    def stream(flags: Counter[str]) -> Numbered:
        with _rows(engine, place, checked) as result:
            for number, row in enumerate(result, 1):
                yield number, dict(zip(names, row, strict=True))

    return Table(place, f"{engine.dialect.name} {'query' if ' ' in checked else 'table'}", names, stream)


def check_statement(statement: str) -> str:
    """The statement without its closing semicolon. Refuses all but a table's name or a single SELECT."""
    text = statement.strip().rstrip(";").strip()
    if not text:
        raise InputError("a database needs --sql (or sql: in the columns file): the name of a table, or a SELECT")
    if NAME.fullmatch(text):
        return text
    if not re.match(r"(?:select|with)\b", text, re.I) or ";" in text:
        raise InputError("sql is neither a table's name nor a single SELECT; only these are run, read only")
    if re.search(
        r"\b(?:insert|update|delete|drop|alter|create|truncate|grant|copy|into|attach|pragma)\b", _unquoted(text), re.I
    ):
        raise InputError("sql holds a word that writes (INSERT, INTO, DROP ...); only a SELECT is run, read only")
    return text


def _unquoted(text: str) -> str:
    return re.sub(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"", "''", text)


def _engine(url: str) -> tuple[Any, str]:
    """An engine, and what messages call it."""
    try:
        import sqlalchemy
    except ImportError:
        raise InputError("reading a database needs SQLAlchemy; pip install 'xinglin[data]'") from None
    try:
        parsed = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise InputError("the database URL is no URL; give postgresql://user@host/name or sqlite:///file.db") from None
    backend = parsed.get_backend_name()
    if backend not in DRIVERS:
        raise InputError(f"database {backend!r} is not one of sqlite, postgresql")
    if parsed.password or "password" in parsed.query:
        raise InputError(f"the database URL holds a password; leave it out and set {PASSWORD} in the environment")
    if backend == "sqlite":
        return _sqlite(sqlalchemy, parsed.database or "")
    parsed = parsed.set(drivername=DRIVERS[backend], password=os.environ.get(PASSWORD))
    try:
        engine = sqlalchemy.create_engine(parsed, hide_parameters=True, connect_args={"connect_timeout": 20})
    except ImportError:
        raise InputError("PostgreSQL needs psycopg; pip install 'xinglin[data]'") from None
    return engine, f"postgresql://{parsed.host or 'local'}/{parsed.database or ''}"


def _sqlite(sqlalchemy: Any, name: str) -> tuple[Any, str]:
    path = Path(name)
    if not path.is_file():
        raise InputError(f"{path}: no such SQLite file; give sqlite:///file.db")
    uri = f"sqlite:///{path.resolve().as_uri()}?mode=ro&uri=true"
    return sqlalchemy.create_engine(uri, hide_parameters=True), str(path)


@contextmanager
def _rows(engine: Any, place: str, statement: str) -> Iterator[Any]:
    """The streamed result of a statement in a read-only transaction that is rolled back."""
    import sqlalchemy

    try:
        with engine.connect() as connection:
            connection = connection.execution_options(yield_per=BATCH, **_read_only(engine))
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA query_only = ON")
            with connection.execute(_selected(sqlalchemy, statement)) as result:
                yield result
            connection.rollback()
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise InputError(f"{place}: {_fault(error)}; check the URL, {PASSWORD}, and the table or SELECT") from None
    finally:
        engine.dispose()


def _read_only(engine: Any) -> dict[str, Any]:
    return {"postgresql_readonly": True} if engine.dialect.name == "postgresql" else {}


def _selected(sqlalchemy: Any, statement: str) -> Any:
    if not NAME.fullmatch(statement):
        return sqlalchemy.text(statement.replace(":", r"\:"))  # a colon is no parameter of ours
    schema, _, name = statement.rpartition(".")
    return sqlalchemy.select(sqlalchemy.text("*")).select_from(sqlalchemy.table(name, schema=schema or None))


def _fault(error: Exception) -> str:
    """The kind of the fault. The driver's words may quote values, but SQLite's on tables and columns do not."""
    cause = getattr(error, "orig", None) or error
    words = str(cause).splitlines()[0] if str(cause).startswith(("no such", "attempt to write", "file is not")) else ""
    return f"{type(cause).__name__}{': ' if words else ''}{words}"
