"""Raters: passwords, invitations, throttling, sessions, roles."""

from __future__ import annotations

import pytest
from sqlalchemy import select, text
from ward_of_doctors import PASSWORD, rater

from xinglin.annotate import schema
from xinglin.annotate.people import (
    accept_invitation,
    add_rater,
    authenticate,
    close_session,
    invite,
    list_raters,
    open_session,
    remove_rater,
    session_rater,
)
from xinglin.annotate.store import Refused, Store
from xinglin.records import InputError


def code_of(call, *values) -> str:
    with pytest.raises(Refused) as refused:
        call(*values)
    return refused.value.code


def test_an_invitation_sets_the_password_once(store: Store) -> None:
    made, token = add_rater(store, "doctor.wang", field="皮肤科")
    assert token is not None
    assert code_of(authenticate, store, "doctor.wang", "") == "login"
    assert code_of(accept_invitation, store, token, "short") == "invalid"
    assert accept_invitation(store, token, PASSWORD) == made
    assert code_of(accept_invitation, store, token, PASSWORD) == "login"
    assert authenticate(store, "doctor.wang", PASSWORD) == made
    session = open_session(store, made)
    again = invite(store, made.id)
    assert session_rater(store, session) is None and code_of(authenticate, store, "doctor.wang", PASSWORD) == "login"
    accept_invitation(store, again, PASSWORD + "!")
    assert authenticate(store, "doctor.wang", PASSWORD + "!") == made


def test_the_store_keeps_no_password_and_no_token(store: Store) -> None:
    made, token = add_rater(store, "one")
    other = rater(store, "two")
    session = open_session(store, other)
    with store.read() as connection:
        tables = [table.name for table in schema.TABLES]
        kept = "".join(str(connection.execute(text(f"SELECT * FROM {name}")).all()) for name in tables)
        assert (
            connection.scalar(select(schema.raters.c.password).where(schema.raters.c.id == other.id))[:7] == "scrypt$"
        )
    assert not any(secret in kept for secret in (PASSWORD, token, session))  # type: ignore[operator]


def test_wrong_passwords_wait_longer_and_longer(store: Store, clock) -> None:
    rater(store, "one")
    assert [code_of(authenticate, store, "one", "wrong") for _ in range(5)] == ["login"] * 5
    assert code_of(authenticate, store, "one", PASSWORD) == "throttled"
    clock.now += 31_000
    assert code_of(authenticate, store, "one", "wrong") == "login"
    clock.now += 31_000
    assert code_of(authenticate, store, "one", PASSWORD) == "throttled"  # a minute now
    clock.now += 31_000
    assert authenticate(store, "one", PASSWORD).name == "one"
    assert [code_of(authenticate, store, "one", "wrong") for _ in range(5)] == ["login"] * 5
    for name in ("nobody", "x" * 100_000, "'; DROP TABLE raters;--", "a\0b"):
        assert code_of(authenticate, store, name, "x" * 100_000) == "login"


def test_sessions_end_by_time_by_hand_and_by_removal(store: Store, clock) -> None:
    who = rater(store, "one")
    tokens = [open_session(store, who) for _ in range(3)]
    assert [session_rater(store, token) for token in tokens] == [who] * 3
    close_session(store, tokens[0])
    assert session_rater(store, tokens[0]) is None and session_rater(store, "forged") is None
    clock.now += 12 * 3_600_000
    assert session_rater(store, tokens[1]) is None
    late = open_session(store, who)
    remove_rater(store, who.id)
    assert session_rater(store, late) is None
    assert code_of(authenticate, store, "one", PASSWORD) == "login"
    assert [one.active for one in list_raters(store)] == [False]


@pytest.mark.parametrize(
    ("name", "role"), [("", "annotator"), ("a b", "annotator"), ("x" * 65, "annotator"), ("a", "god")]
)
def test_names_and_roles_are_checked(sqlite_store: Store, name: str, role: str) -> None:
    with pytest.raises(InputError, match="a name is 1 to 64"):
        add_rater(sqlite_store, name, role)


def test_a_name_is_taken_once(store: Store) -> None:
    rater(store, "one")
    with pytest.raises(InputError, match="there already"):
        rater(store, "one")
