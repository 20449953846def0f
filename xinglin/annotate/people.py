"""Raters: names, roles, passwords, invitations, sessions. Roles: annotator, expert, manager.

Passwords are kept as scrypt (RFC 7914, N 2^14, r 8, p 1) with a salt of their own; invitations and sessions as the
SHA-256 of a random token. After five wrong passwords a name waits, twice as long each time, at most an hour.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, select

from xinglin.annotate import schema
from xinglin.annotate.projects import release
from xinglin.annotate.store import Refused, Store, append_log, checked_text, next_id, row
from xinglin.records import InputError

ROLES = ("annotator", "expert", "manager")
LOCALES = ("zh", "en")
NAME = re.compile(r"[\w.@+-]{1,64}")
SHORTEST, LONGEST = 8, 256
FREE_FAILURES, FIRST_WAIT_MS, LONGEST_WAIT_MS = 5, 30_000, 3_600_000
SESSION_MS = 12 * 3_600_000


@dataclass(frozen=True, slots=True)
class Rater:
    """`code` is the pseudonym that exports carry instead of the name."""

    id: int
    name: str
    code: str
    role: str
    field: str
    locale: str
    active: bool


def add_rater(
    store: Store,
    name: str,
    role: str = "annotator",
    *,
    password: str | None = None,
    field: str = "",
    locale: str = "zh",
    actor: int = 0,
) -> tuple[Rater, str | None]:
    """Add a rater; with no password, also the invitation token that lets the rater choose one (shown once)."""
    if not NAME.fullmatch(name) or role not in ROLES or locale not in LOCALES:
        raise InputError(
            f"rater {name[:64]!r}: a name is 1 to 64 letters, digits or . _ @ + -, a role one of {', '.join(ROLES)}, "
            f"a locale one of {', '.join(LOCALES)}; found {role!r}, {locale!r}"
        )
    token = None if password is not None else secrets.token_urlsafe(24)
    hashed = None if password is None else hash_password(password)
    with store.write() as connection:
        if connection.scalar(select(schema.raters.c.id).where(schema.raters.c.name == name)):
            raise InputError(f"rater {name!r} is there already; give another name")
        rater_id = next_id(connection, schema.raters)
        code = f"rater-{secrets.token_hex(4)}"
        values = {
            "id": rater_id,
            "name": name,
            "code": code,
            "role": role,
            "field": field,
            "locale": locale,
            "active": 1,
        }
        values |= {"password": hashed, "invitation": token and _hash(token), "failures": 0, "locked_until": 0}
        connection.execute(schema.raters.insert().values(**values, created_at=store.clock()))
        append_log(store, connection, actor, "rater", [(str(rater_id), {"rater": rater_id, "role": role})])
    return Rater(rater_id, name, code, role, field, locale, True), token


def hash_password(password: str) -> str:
    """`scrypt$salt$hash`. Raises `Refused("invalid")` for one too short or too long."""
    if len(checked_text("the password", password, LONGEST)) < SHORTEST:
        raise Refused("invalid", f"a password has {SHORTEST} to {LONGEST} characters")
    salt = secrets.token_bytes(16)
    return f"scrypt${base64.b64encode(salt).decode()}${base64.b64encode(_scrypt(password, salt)).decode()}"


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "replace"), salt=salt, n=2**14, r=8, p=1, dklen=32)


def _matches(password: str, stored: str | None) -> bool:
    """The same work for a name that does not exist, so that time tells nothing."""
    _, salt, wanted = (stored or "scrypt$AAAAAAAAAAAAAAAAAAAAAA==$").split("$")
    found = _scrypt(password[:LONGEST], base64.b64decode(salt))
    return hmac.compare_digest(found, base64.b64decode(wanted))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def accept_invitation(store: Store, token: str, password: str) -> Rater:
    """Set the password an invitation is for; the token is used up. Raises `Refused`."""
    hashed = hash_password(password)
    with store.write() as connection:
        found = _one(connection, schema.raters.c.invitation == _hash(token))
        if found is None or not found["active"]:
            raise Refused("login", "this invitation is not valid or was used; ask the manager for a new one")
        changed = schema.raters.update().where(schema.raters.c.id == found["id"])
        connection.execute(changed.values(password=hashed, invitation=None, failures=0, locked_until=0))
        append_log(store, connection, found["id"], "password", [(str(found["id"]), {"rater": found["id"]})])
        return _rater(found)


def invite(store: Store, rater_id: int, actor: int = 0) -> str:
    """A new invitation for a rater who forgot the password; the token (shown once). Open sessions end."""
    token = secrets.token_urlsafe(24)
    with store.write() as connection:
        _existing(connection, rater_id)
        changed = schema.raters.update().where(schema.raters.c.id == rater_id)
        connection.execute(changed.values(password=None, invitation=_hash(token)))
        connection.execute(schema.sessions.delete().where(schema.sessions.c.rater_id == rater_id))
        append_log(store, connection, actor, "invitation", [(str(rater_id), {"rater": rater_id})])
    return token


def authenticate(store: Store, name: str, password: str) -> Rater:
    """The rater of a name and password. Raises `Refused` with "login" or "throttled"; never says which was wrong."""
    with store.read() as connection:  # a name that cannot be one is looked up all the same, as ""
        found = _one(connection, schema.raters.c.name == (name if NAME.fullmatch(name) else ""))
    if found and found["locked_until"] > store.clock():
        seconds = (found["locked_until"] - store.clock()) // 1000 + 1
        raise Refused("throttled", f"too many wrong passwords; try again in {seconds} s")
    good = _matches(password, found["password"] if found else None) and found is not None and bool(found["active"])
    if found and (not good or found["failures"]):
        _count_failure(store, found["id"], good)
    if not good or found is None:
        raise Refused("login", "name or password is wrong")
    return _rater(found)


def _count_failure(store: Store, rater_id: int, good: bool) -> None:
    with store.write() as connection:
        failures = 0 if good else _existing(connection, rater_id)["failures"] + 1
        over = failures - FREE_FAILURES
        wait = min(FIRST_WAIT_MS * 2 ** min(over, 10), LONGEST_WAIT_MS) if over >= 0 else 0
        changed = schema.raters.update().where(schema.raters.c.id == rater_id)
        connection.execute(changed.values(failures=failures, locked_until=store.clock() + wait if wait else 0))
        if wait:
            body = {"rater": rater_id, "failures": failures}
            append_log(store, connection, rater_id, "throttled", [(str(rater_id), body)])


def open_session(store: Store, rater: Rater) -> str:
    """A session token for the cookie; it lasts 12 hours and outlives a restart of the server."""
    token = secrets.token_urlsafe(32)
    with store.write() as connection:
        connection.execute(schema.sessions.delete().where(schema.sessions.c.expires_at < store.clock()))
        values = {"token": _hash(token), "rater_id": rater.id, "expires_at": store.clock() + SESSION_MS}
        connection.execute(schema.sessions.insert().values(**values))
    return token


def session_rater(store: Store, token: str) -> Rater | None:
    """Who a session token belongs to, or None when it is unknown or has expired, or the rater was removed."""
    joined = schema.raters.join(schema.sessions, schema.sessions.c.rater_id == schema.raters.c.id)
    valid = (schema.sessions.c.token == _hash(token)) & (schema.sessions.c.expires_at > store.clock())
    with store.read() as connection:
        chosen = select(schema.raters).select_from(joined).where(valid & (schema.raters.c.active == 1))
        found = connection.execute(chosen).mappings().first()
    return _rater(found) if found else None


def close_session(store: Store, token: str) -> None:
    with store.write() as connection:
        connection.execute(schema.sessions.delete().where(schema.sessions.c.token == _hash(token)))


def remove_rater(store: Store, rater_id: int, actor: int = 0) -> int:
    """Take a rater out: open leases go back to the queue, sessions end, votes stay. The number of leases released."""
    with store.write() as connection:
        _existing(connection, rater_id)
        connection.execute(schema.raters.update().where(schema.raters.c.id == rater_id).values(active=0))
        connection.execute(schema.sessions.delete().where(schema.sessions.c.rater_id == rater_id))
        released = release(connection, schema.assignments.c.rater_id == rater_id, "released")
        body = {"rater": rater_id, "leases": released}
        append_log(store, connection, actor, "rater removed", [(str(rater_id), body)])
    return released


def list_raters(store: Store) -> list[Rater]:
    with store.read() as connection:
        return [
            _rater(one) for one in connection.execute(select(schema.raters).order_by(schema.raters.c.id)).mappings()
        ]


def set_locale(store: Store, rater_id: int, locale: str) -> None:
    if locale not in LOCALES:
        raise Refused("invalid", f"locale is one of {', '.join(LOCALES)}")
    with store.write() as connection:
        connection.execute(schema.raters.update().where(schema.raters.c.id == rater_id).values(locale=locale))


def _one(connection: Connection, where: object) -> RowMapping | None:
    return connection.execute(select(schema.raters).where(where)).mappings().first()  # type: ignore[arg-type]


def _existing(connection: Connection, rater_id: int) -> RowMapping:
    found = row(connection, schema.raters, rater_id)
    if found is None:
        raise InputError(f"no rater {rater_id}")
    return found


def _rater(found: RowMapping) -> Rater:
    return Rater(
        found["id"], found["name"], found["code"], found["role"], found["field"], found["locale"], bool(found["active"])
    )
