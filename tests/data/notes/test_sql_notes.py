"""Databases: SQLite always, PostgreSQL where a server can be started; read only, streamed, no password in messages."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from exports import HEADER, ROWS, read

from xinglin.data.notes import propose_columns
from xinglin.data.notes.sql import check_statement, open_database
from xinglin.records import InputError

CREATE = f"CREATE TABLE 门诊病历 ({', '.join(f'{name} TEXT' for name in HEADER)})"


@pytest.fixture
def sqlite(tmp_path: Path) -> Path:
    path = tmp_path / "his.db"
    with sqlite3.connect(path) as database:
        database.execute(CREATE)
        database.executemany(f"INSERT INTO 门诊病历 VALUES ({','.join('?' * len(HEADER))})", ROWS)
    return path


@pytest.mark.parametrize("sql", ["门诊病历", "SELECT * FROM 门诊病历 WHERE 姓名 LIKE '%' AND 现病史 <> ':x';"])
def test_sqlite_by_url_and_by_file(sqlite: Path, sql: str) -> None:
    for source in (f"sqlite:///{sqlite}", sqlite):
        job = read(source, sql=sql)
        assert [note.patient_id for note in job] == ["0012345", "0054321"]
        assert job.kinds == {"outpatient": 2} if sql == "门诊病历" else job.accepted == 2
        assert next(iter(job)).fields["name"] == "王小明"


@pytest.mark.parametrize(
    "statement",
    [
        *(
            "DELETE FROM t",
            "SELECT 1; DROP TABLE t",
            "UPDATE t SET a = 1",
            "PRAGMA query_only = OFF",
            "t; DROP TABLE t",
        ),
        *(
            "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
            "SELECT * INTO u FROM t",
            "",
            "t u",
            "ATTACH 'x' AS y",
        ),
        *("EXPLAIN ANALYZE DELETE FROM t", "CALL p()", "COPY t TO '/tmp/x'", "(SELECT 1)"),
    ],
)
def test_all_but_one_select_is_refused(statement: str) -> None:
    with pytest.raises(InputError):
        check_statement(statement)


@pytest.mark.parametrize(
    "statement", ["t", "his.t", "病历", "select 1", "SELECT 'delete; '", 'WITH x AS (SELECT 1) SELECT "into" FROM x']
)
def test_selects_and_tables_are_taken(statement: str) -> None:
    if ";" not in statement:
        assert check_statement(statement) == statement


def test_sqlite_is_opened_read_only(sqlite: Path) -> None:
    before = sqlite.read_bytes()
    table = open_database(f"sqlite:///{sqlite}", "SELECT 患者ID, replace(姓名, 'x', 'y') AS 内容 FROM 门诊病历")
    list(table.sample())
    assert sqlite.read_bytes() == before and [path.name for path in sqlite.parent.iterdir()] == ["his.db"]


@pytest.mark.parametrize(
    ("url", "sql", "message"),
    [
        ("postgresql://u:s3cret@db/his", "t", "the database URL holds a password.*XINGLIN_DB_PASSWORD"),
        ("postgresql://u@db/his?password=s3cret", "t", "holds a password"),
        ("mysql://u@db/his", "t", "database 'mysql' is not one of sqlite, postgresql"),
        ("sqlite:///none.db", "t", "no such SQLite file"),
        ("postgresql://u@127.0.0.1:1/his", "t", "127.0.0.1/his: OperationalError; check the URL"),
    ],
)
def test_wrong_urls_are_one_line_without_a_password(url: str, sql: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_database(url, sql)
    assert "s3cret" not in str(caught.value) and "\n" not in str(caught.value)


def test_faults_name_the_place_and_no_value(sqlite: Path) -> None:
    with pytest.raises(InputError, match="no such table: 住院病历"):
        open_database(f"sqlite:///{sqlite}", "住院病历")
    with pytest.raises(InputError, match="needs --sql"):
        propose_columns(sqlite)


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of our own on a socket in a temporary folder; nothing listens on the network."""
    if not shutil.which("pg_ctl"):
        pytest.skip("PostgreSQL is not installed")
    binaries = Path(os.path.realpath(shutil.which("pg_ctl") or "")).parent
    root = tmp_path_factory.mktemp("pg")
    prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    if prefix and subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    home = Path(f"/tmp/xinglin-pg-{os.getpid()}")
    home.mkdir(mode=0o777)
    shutil.chown(home, "postgres" if prefix else None) if prefix else None
    data = home / "data"
    options = f"-c listen_addresses='' -c unix_socket_directories='{home}'"
    subprocess.run(
        [*prefix, binaries / "initdb", "-D", data, "-A", "trust", "-U", "reader", "-E", "UTF8"],
        check=True,
        capture_output=True,
    )
    start = [*prefix, binaries / "pg_ctl", "-D", data, "-o", options, "-w", "start"]
    subprocess.run(start, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"postgresql://reader@/postgres?host={home}"
    finally:
        subprocess.run(
            [*prefix, binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=True, capture_output=True
        )
        shutil.rmtree(home)
        shutil.rmtree(root)


def test_postgres_is_read_only_and_streamed(postgres: str) -> None:
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(postgres, autocommit=True) as server:
        server.execute(CREATE)
        for row in ROWS:
            server.execute(f"INSERT INTO 门诊病历 VALUES ({','.join(['%s'] * len(HEADER))})", row)
        server.execute("CREATE FUNCTION wipe() RETURNS text LANGUAGE sql AS 'DELETE FROM 门诊病历 RETURNING 姓名'")
    for sql in ("门诊病历", "SELECT * FROM 门诊病历 WHERE 姓名 LIKE '%' AND 现病史::text <> ':x'"):
        assert sorted(note.patient_id for note in read(postgres, sql=sql)) == ["0012345", "0054321"]
    with pytest.raises(InputError, match="ReadOnlySqlTransaction") as caught:
        list(open_database(postgres, "SELECT 1 AS 患者ID, wipe() AS 内容").sample())
    assert "王小明" not in str(caught.value)
    with pytest.raises(InputError, match="InvalidTextRepresentation") as caught:
        list(open_database(postgres, "SELECT 姓名::int AS a FROM 门诊病历").sample())
    assert "王小明" not in str(caught.value)
    # A million rows of 1 KB come as a stream: the first is there before the server has made them all.
    many = open_database(
        postgres, "SELECT g::text AS pid, repeat('x', 1000) AS 内容 FROM generate_series(1, 1000000) g"
    )
    rows = many.sample()
    assert next(rows)[1]["pid"] == "1"
    rows.close()
