"""A store on each database: SQLite always, PostgreSQL where Debian's package is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from xinglin.annotate.store import Store, open_store


class Clock:
    """UTC milliseconds that move when the test says so, and one with every reading."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        self.now += 1
        return self.now


def postgres_bin() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    beside = shutil.which("initdb")
    return found[-1].parent if found else Path(beside).parent if beside else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a real server on a socket of its own; it never runs as root."""
    programs = postgres_bin()
    if programs is None:
        pytest.skip("no PostgreSQL here (initdb and pg_ctl); apt-get install postgresql")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    folder = Path(tempfile.mkdtemp(prefix="xinglin-pg-", dir="/tmp"))
    as_user: list[str] = []
    if os.geteuid() == 0:
        user = next((name for name in ("postgres", "nobody") if name in {u.pw_name for u in pwd.getpwall()}), None)
        if user is None:
            pytest.skip("PostgreSQL does not run as root and there is no user postgres")
        shutil.chown(folder, user)
        as_user = ["runuser", "-u", user, "--"]
    data = folder / "data"
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c max_connections=100"
    run = {"check": True, "capture_output": True, "cwd": folder}
    subprocess.run([*as_user, programs / "initdb", "-D", data, "-U", "xinglin", "-E", "UTF8", "--no-sync"], **run)
    start = [*as_user, programs / "pg_ctl", "-D", data, "-w", "-o", options, "-l", folder / "log", "start"]
    subprocess.run(start, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    try:
        yield f"postgresql+psycopg://xinglin@/{{}}?host={folder}"
    finally:
        stop = [*as_user, programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"]
        subprocess.run(stop, check=False, stdout=subprocess.DEVNULL, cwd=folder)
        shutil.rmtree(folder, ignore_errors=True)


def new_database(postgres: str) -> str:
    """The URL of a fresh, empty database."""
    name = f"x{uuid.uuid4().hex[:12]}"
    engine = create_engine(postgres.format("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return postgres.format(name)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Store]:
    if request.param == "sqlite":
        where, anchor = str(tmp_path / "store.db"), None
    else:
        where, anchor = new_database(request.getfixturevalue("postgres")), tmp_path / "anchor"
    opened = open_store(where, anchor=anchor, clock=clock)
    yield opened
    opened.engine.dispose()


@pytest.fixture
def sqlite_store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    opened = open_store(tmp_path / "store.db", clock=clock)
    yield opened
    opened.engine.dispose()


@pytest.fixture
def postgres_url(postgres: str) -> str:
    return new_database(postgres)
