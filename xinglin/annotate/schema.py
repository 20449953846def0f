"""The tables of the store, as numbered migrations in plain SQL, and their names for queries.

A migration is never edited once released: a change is a new number at the end. Times are UTC milliseconds, JSON is
canonical text (see `store.canonical`), so that the same row has the same hash on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import time

from sqlalchemy import Connection, TableClause, column, inspect, table, text

from xinglin.records import InputError

FIRST = """
CREATE TABLE projects (id {id}, name TEXT NOT NULL UNIQUE, settings TEXT NOT NULL, state TEXT NOT NULL,
    guideline_version INTEGER NOT NULL, created_at BIGINT NOT NULL);
CREATE TABLE guidelines (project_id BIGINT NOT NULL REFERENCES projects(id), version INTEGER NOT NULL,
    text TEXT NOT NULL, author_id BIGINT, created_at BIGINT NOT NULL, PRIMARY KEY (project_id, version));
CREATE TABLE raters (id {id}, name TEXT NOT NULL UNIQUE, code TEXT NOT NULL UNIQUE, role TEXT NOT NULL,
    field TEXT NOT NULL, locale TEXT NOT NULL, password TEXT, invitation TEXT UNIQUE, active INTEGER NOT NULL,
    failures INTEGER NOT NULL, locked_until BIGINT NOT NULL, created_at BIGINT NOT NULL);
CREATE TABLE sessions (token TEXT PRIMARY KEY, rater_id BIGINT NOT NULL REFERENCES raters(id),
    expires_at BIGINT NOT NULL);
CREATE TABLE items (id {id}, project_id BIGINT NOT NULL REFERENCES projects(id), external_id TEXT NOT NULL,
    round INTEGER NOT NULL, version INTEGER NOT NULL, epoch INTEGER NOT NULL, state TEXT NOT NULL, field TEXT NOT NULL,
    domain TEXT NOT NULL, priority DOUBLE PRECISION NOT NULL, taken INTEGER NOT NULL, needed INTEGER NOT NULL,
    gold TEXT, meta TEXT NOT NULL, UNIQUE (project_id, external_id, round), CHECK (taken >= 0 AND taken <= needed));
CREATE INDEX items_open ON items (project_id, state, priority, id);
CREATE TABLE contents (item_id BIGINT NOT NULL REFERENCES items(id), version INTEGER NOT NULL, prompt TEXT NOT NULL,
    reference TEXT NOT NULL, context TEXT NOT NULL, PRIMARY KEY (item_id, version));
CREATE TABLE answers (item_id BIGINT NOT NULL REFERENCES items(id), version INTEGER NOT NULL, place INTEGER NOT NULL,
    text TEXT NOT NULL, source TEXT NOT NULL, decoding TEXT NOT NULL, scores TEXT NOT NULL,
    PRIMARY KEY (item_id, version, place));
CREATE TABLE assignments (id TEXT PRIMARY KEY, project_id BIGINT NOT NULL, item_id BIGINT NOT NULL REFERENCES items(id),
    version INTEGER NOT NULL, epoch INTEGER NOT NULL, rater_id BIGINT NOT NULL REFERENCES raters(id),
    kind TEXT NOT NULL, slot INTEGER, sides TEXT NOT NULL, guideline_version INTEGER NOT NULL, state TEXT NOT NULL,
    leased_at BIGINT NOT NULL, expires_at BIGINT NOT NULL);
CREATE UNIQUE INDEX assignments_slot ON assignments (item_id, epoch, kind, slot)
    WHERE slot IS NOT NULL AND state IN ('leased', 'done');
CREATE UNIQUE INDEX assignments_once ON assignments (item_id, epoch, kind, rater_id)
    WHERE state IN ('leased', 'done', 'skipped');
CREATE INDEX assignments_rater ON assignments (rater_id, project_id, state, kind);
CREATE INDEX assignments_expiry ON assignments (state, expires_at);
CREATE TABLE votes (id {id}, client_id TEXT NOT NULL UNIQUE, lease_id TEXT NOT NULL REFERENCES assignments(id),
    project_id BIGINT NOT NULL, item_id BIGINT NOT NULL REFERENCES items(id), version INTEGER NOT NULL,
    epoch INTEGER NOT NULL, rater_id BIGINT NOT NULL REFERENCES raters(id), kind TEXT NOT NULL, status TEXT NOT NULL,
    supersedes BIGINT UNIQUE REFERENCES votes(id), body TEXT NOT NULL, sides TEXT NOT NULL,
    guideline_version INTEGER NOT NULL, shown_at BIGINT NOT NULL, submitted_at BIGINT NOT NULL,
    active_ms BIGINT NOT NULL);
CREATE UNIQUE INDEX votes_first ON votes (lease_id) WHERE supersedes IS NULL;
CREATE INDEX votes_item ON votes (item_id, epoch);
CREATE INDEX votes_rater ON votes (rater_id, project_id);
CREATE TABLE side_counts (project_id BIGINT NOT NULL, source TEXT NOT NULL, place INTEGER NOT NULL,
    shown BIGINT NOT NULL, PRIMARY KEY (project_id, source, place));
CREATE TABLE log (seq BIGINT PRIMARY KEY, at BIGINT NOT NULL, actor BIGINT NOT NULL, kind TEXT NOT NULL,
    subject TEXT NOT NULL, body TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL);
CREATE TABLE head (id INTEGER PRIMARY KEY, seq BIGINT NOT NULL, hash TEXT NOT NULL);
INSERT INTO head (id, seq, hash) VALUES (1, 0, '')
"""
MIGRATIONS: list[str] = [FIRST]
IDS = {
    "sqlite": "INTEGER PRIMARY KEY",
    "postgresql": "BIGINT PRIMARY KEY",
}


def _table(name: str, columns: str) -> TableClause:
    return table(name, *(column(one) for one in columns.split()))


projects = _table("projects", "id name settings state guideline_version created_at")
guidelines = _table("guidelines", "project_id version text author_id created_at")
raters = _table("raters", "id name code role field locale password invitation active failures locked_until created_at")
sessions = _table("sessions", "token rater_id expires_at")
items = _table(
    "items", "id project_id external_id round version epoch state field domain priority taken needed gold meta"
)
contents = _table("contents", "item_id version prompt reference context")
answers = _table("answers", "item_id version place text source decoding scores")
assignments = _table(
    "assignments",
    "id project_id item_id version epoch rater_id kind slot sides guideline_version state leased_at expires_at",
)
votes = _table(
    "votes",
    "id client_id lease_id project_id item_id version epoch rater_id kind status supersedes body sides "
    "guideline_version shown_at submitted_at active_ms",
)
side_counts = _table("side_counts", "project_id source place shown")
log = _table("log", "seq at actor kind subject body previous hash")
head = _table("head", "id seq hash")
# In the order in which rows can be written back: a row stands after those it refers to.
TABLES = [
    *(projects, guidelines, raters, sessions, items, contents, answers),
    *(assignments, votes, side_counts, log, head),
]


def migrate(connection: Connection) -> int:
    """Bring the schema to the newest number, inside the caller's transaction; that number.

    Raises `InputError` where the store was written by a newer version.
    """
    connection.execute(
        text("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, applied_at BIGINT NOT NULL)")
    )
    found = schema_version(connection)
    if found > len(MIGRATIONS):
        raise InputError(
            f"the store has schema {found}, this version knows up to {len(MIGRATIONS)}; install a newer Xinglin"
        )
    for number in range(found + 1, len(MIGRATIONS) + 1):
        for statement in MIGRATIONS[number - 1].format(id=IDS[connection.dialect.name]).split(";"):
            connection.exec_driver_sql(statement)
        connection.execute(
            text("INSERT INTO schema_version VALUES (:number, :at)"),
            {"number": number, "at": time.time_ns() // 1_000_000},
        )
    return len(MIGRATIONS)


def schema_version(connection: Connection) -> int:
    """The newest migration a store has; 0 for an empty database."""
    if not inspect(connection).has_table("schema_version"):
        return 0
    return int(connection.scalar(text("SELECT max(version) FROM schema_version")) or 0)
