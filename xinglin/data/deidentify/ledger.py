"""The secret and what was issued under it: both on the private side, never beside the output.

    secret = load_key(path, out)         32 random bytes, mode 0600; made on first use; refused under the output
    with Ledger(ledger_path(path)) as ledger:
        ledger.claim("name", owner, "苏芷宁")    True, or False where another owner has that surrogate

The ledger holds (kind, HMAC of the original, surrogate), no original. Surrogates are drawn from the HMAC alone; the
ledger is there for the rare two originals that draw the same one: the second draws again, and both stay what they are
in every later run. A lost ledger changes nothing but those; a lost key changes everything.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import sqlite3
from pathlib import Path
from types import TracebackType

from xinglin.records import InputError

KEY_BYTES = 32
DEFAULT_KEY = Path("~/.config/xinglin/deidentify.key")
SCHEMA = """
CREATE TABLE IF NOT EXISTS issued (kind TEXT, owner BLOB, surrogate TEXT, PRIMARY KEY (kind, owner)) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS issued_once ON issued (kind, surrogate);
CREATE TABLE IF NOT EXISTS withdrawn (patient TEXT PRIMARY KEY) WITHOUT ROWID;
"""


def keyed(secret: bytes, *parts: str) -> bytes:
    """HMAC-SHA256 (RFC 2104) over the parts; each is led by its length, so that ("ab", "c") is not ("a", "bc")."""
    message = b"".join(len(raw).to_bytes(4) + raw for raw in (part.encode() for part in parts))
    return hmac.digest(secret, message, hashlib.sha256)


def load_key(path: Path, out: Path | None = None) -> bytes:
    """The secret of `path`, made on first use. Raises `InputError` where it would lie under `out`, where others may
    read it, or where it is no key of ours."""
    path = path.expanduser()
    if out is not None and path.resolve().is_relative_to(out.resolve()):
        raise InputError(f"--key {path}: lies under the output {out}; who gets the output would get the key: move it")
    if not path.exists():
        _make_key(path)
    if path.is_symlink() or not path.is_file():
        raise InputError(f"--key {path}: is no plain file; give a file (it is made on first use)")
    if path.stat().st_mode & 0o077:
        raise InputError(f"--key {path}: mode is {path.stat().st_mode & 0o777:o}, others may read it; chmod 600 {path}")
    secret = path.read_bytes()
    if len(secret) != KEY_BYTES:
        raise InputError(f"--key {path}: {len(secret)} bytes; a key of ours has {KEY_BYTES}; give another path")
    return secret


def ledger_path(key_path: Path) -> Path:
    return key_path.expanduser().with_name(key_path.name + ".issued.sqlite")


def key_name(secret: bytes) -> str:
    """A short name that tells two keys apart and says nothing of either."""
    return keyed(secret, "key name").hex()[:12]


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):  # two first runs at once: the other's key is the key
        os.link(draft, path)
    draft.unlink()


class Ledger:
    """What was issued. `path=None` keeps it in memory. One writer at a time; others wait up to a minute."""

    def __init__(self, path: Path | None = None) -> None:
        if path is not None and not path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        self._db = sqlite3.connect(path or ":memory:", timeout=60, isolation_level=None)
        try:
            self._db.executescript(SCHEMA)
        except sqlite3.DatabaseError:
            raise InputError(f"{path}: no ledger of ours; move it away, or give another --key") from None

    def __enter__(self) -> Ledger:
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            raise InputError("another run under this key is at work; wait until it is done, then run again") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        """A run that fails publishes nothing, but what it issued stays issued: the next run finds it again."""
        self._db.execute("COMMIT")
        self._db.close()

    def issued(self, kind: str, owner: bytes) -> str | None:
        row = self._db.execute("SELECT surrogate FROM issued WHERE kind=? AND owner=?", (kind, owner)).fetchone()
        return row[0] if row else None

    def claim(self, kind: str, owner: bytes, surrogate: str) -> bool:
        """Issue it, unless another owner of this kind has it."""
        done = self._db.execute("INSERT OR IGNORE INTO issued VALUES (?, ?, ?)", (kind, owner, surrogate))
        return done.rowcount == 1

    def withdraw(self, patient: str) -> None:
        self._db.execute("INSERT OR IGNORE INTO withdrawn VALUES (?)", (patient,))

    def withdrawn(self) -> set[str]:
        return {row[0] for row in self._db.execute("SELECT patient FROM withdrawn")}

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM issued").fetchone()[0])
