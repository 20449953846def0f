"""Votes: submit, skip, undo. Append-only: what a rater takes back is superseded, never overwritten.

The client id a page makes for each vote is its idempotency key: sent again after a lost answer, it gives the same
acknowledgement. An acknowledgement means the vote and its log entry are on the disk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, RowMapping, exists, select

from xinglin.annotate import schema
from xinglin.annotate.labels import dispute_view, stored_verdict, update_state
from xinglin.annotate.people import Rater
from xinglin.annotate.projects import Project, free_place, load_item, load_project, take_place
from xinglin.annotate.queue import View, build_view, check_role, extend, foreign, free_slot, own_lease
from xinglin.annotate.rubric import COMMENT, Verdict, complete, from_shown, to_shown
from xinglin.annotate.store import Refused, Store, append_log, canonical, checked_text, digest, next_id, row

IDLE_MS = 60_000
MOST_EVENTS = 20_000
CLIENT_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")


@dataclass(frozen=True, slots=True)
class Ack:
    """`duplicate`: this very vote was there already. `note` is "outdated" where the item or the guideline changed
    after it was shown: the vote is kept with the old version and the item is judged anew."""

    vote_id: int
    duplicate: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """One line of a rater's own history. `status` is cast, skipped or withdrawn."""

    lease: str
    status: str
    submitted_at: int
    active_ms: int


def submit(store: Store, rater: Rater, lease: str, client_id: str, verdict: Verdict, events: Sequence[int] = ()) -> Ack:
    """Cast a vote, in positions as shown. An expert's vote on a dispute needs its reason in the comment.

    `events` are the moments of activity on the page, in ms since the item was shown. Raises `Refused`.
    """
    active = active_ms(events)
    return _record(store, rater, lease, client_id, "cast", verdict, active)


def skip(store: Store, rater: Rater, lease: str, client_id: str, comment: str = "") -> Ack:
    """Not my field: the item goes back to the queue and does not come to this rater again."""
    verdict = Verdict(comment=checked_text("the comment", comment, COMMENT))
    return _record(store, rater, lease, client_id, "skipped", verdict, 0)


def _record(store: Store, rater: Rater, lease: str, client_id: str, status: str, verdict: Verdict, active: int) -> Ack:
    check_client_id(client_id)
    with store.write() as connection:
        if (found := own_lease(connection, rater, lease)) is not None:
            check_role(connection, rater, ("expert",) if found["kind"] == "arbitration" else ("annotator", "expert"))
            project = load_project(connection, found["project_id"])
            body = canonical(_body(connection, found, project, status, verdict))
            if (earlier := _earlier(connection, client_id)) is not None:
                return _replayed(earlier, found, status, body)
            _reopen(connection, found)
            vote_id = _append(store, connection, found, client_id, status, body, active)
            _close(connection, found, status, project)
            return Ack(vote_id, note="outdated" if found["state"] == "stale" else "")
    raise foreign(store, rater, lease)


def _body(connection: Connection, lease: RowMapping, project: Project, status: str, verdict: Verdict) -> dict[str, Any]:
    """The verdict checked, completed, and turned into the answers' own order."""
    if status == "skipped":
        return verdict.as_json()
    if lease["kind"] == "arbitration" and not verdict.comment.strip():
        raise Refused("invalid", "the comment is empty; an arbitration needs its reason")
    _, item = load_item(connection, lease["item_id"], lease["version"])
    sides = json.loads(lease["sides"])
    texts = [item.answers[answer].text for answer in sides]
    full = complete(verdict, project.rubric, project.settings.form, project.settings.margin, texts)
    return from_shown(full, sides).as_json()


def check_client_id(client_id: Any) -> None:
    if not isinstance(client_id, str) or not CLIENT_ID.fullmatch(client_id):
        raise Refused("invalid", "the client id is 8 to 64 letters, digits, - or _")


def _earlier(connection: Connection, client_id: str) -> RowMapping | None:
    return connection.execute(select(schema.votes).where(schema.votes.c.client_id == client_id)).mappings().first()


def _replayed(earlier: RowMapping, lease: RowMapping, status: str, body: str) -> Ack:
    same = (earlier["lease_id"], earlier["status"], earlier["body"]) == (lease["id"], status, body)
    if not same:
        raise Refused("replayed", "this client id was used for another vote; send the vote with a new one")
    return Ack(earlier["id"], duplicate=True)


def _reopen(connection: Connection, lease: RowMapping) -> None:
    """Refuse what has its vote; take the place again of a lease that ran out, where it is still free."""
    state = lease["state"]
    if state in ("done", "skipped"):
        raise Refused("done", "this item has your vote already; undo it to change it")
    if state in ("leased", "stale"):
        return
    head = row(connection, schema.items, lease["item_id"])
    same_epoch = head is not None and head["epoch"] == lease["epoch"]
    if not same_epoch or _held_otherwise(connection, lease):
        raise Refused("expired", "the time for this item ran out and it was given to others")
    if lease["kind"] == "vote":
        _retake(connection, lease)


def _retake(connection: Connection, lease: RowMapping) -> None:
    if not take_place(connection, lease["item_id"], lease["epoch"]):
        raise Refused("expired", "the time for this item ran out and it was given to others")
    slot = free_slot(connection, lease["item_id"], lease["epoch"])
    connection.execute(schema.assignments.update().where(schema.assignments.c.id == lease["id"]).values(slot=slot))


def _held_otherwise(connection: Connection, lease: RowMapping) -> bool:
    """Another lease of this rater on the same item, or of another expert on the same dispute."""
    leases = schema.assignments.c
    same = (leases.item_id == lease["item_id"]) & (leases.epoch == lease["epoch"]) & (leases.kind == lease["kind"])
    same &= leases.state.in_(("leased", "done", "skipped")) & (leases.id != lease["id"])
    if lease["kind"] != "arbitration":
        same &= leases.rater_id == lease["rater_id"]
    return connection.execute(select(leases.id).where(same)).first() is not None


def _append(
    store: Store, connection: Connection, lease: RowMapping, client_id: str, status: str, body: str, active: int
) -> int:
    """Write the vote and its log entry; the vote's number."""
    last = _last_of_lease(connection, lease["id"])
    now = store.clock()
    values: dict[str, Any] = {"id": next_id(connection, schema.votes), "client_id": client_id, "lease_id": lease["id"]}
    values |= {name: lease[name] for name in ("project_id", "item_id", "version", "epoch", "rater_id", "kind")}
    values |= {"status": status, "supersedes": last, "body": body, "sides": lease["sides"]}
    values |= {"guideline_version": lease["guideline_version"], "shown_at": lease["leased_at"], "submitted_at": now}
    values["active_ms"] = max(0, min(active, now - lease["leased_at"]))
    connection.execute(schema.votes.insert().values(**values))
    entry = (str(values["id"]), {"vote": values["id"], "sha256": digest(values)})
    append_log(store, connection, lease["rater_id"], "vote", [entry])
    return int(values["id"])


def _last_of_lease(connection: Connection, lease: str) -> int | None:
    chosen = select(schema.votes.c.id).where(schema.votes.c.lease_id == lease).order_by(schema.votes.c.id.desc())
    return connection.scalar(chosen.limit(1))


def _close(connection: Connection, lease: RowMapping, status: str, project: Project) -> None:
    """What a vote does to its lease and its item. A stale one changes neither."""
    leases = schema.assignments
    state = "done" if status == "cast" else "skipped"
    connection.execute(leases.update().where(leases.c.id == lease["id"]).values(state=state))
    if lease["state"] == "stale":
        return
    if status == "skipped" and lease["kind"] == "vote":
        free_place(connection, lease["item_id"], lease["epoch"])
    update_state(connection, lease["item_id"], project)


def undo(store: Store, rater: Rater, project_id: int, client_id: str) -> View:
    """Take the rater's last vote back: its item again, same sides, with what was said in `previous`.

    Raises `Refused("nothing")` where there is none, or where an expert has taken the item up.
    """
    check_client_id(client_id)
    with store.write() as connection:
        check_role(connection, rater, ("annotator", "expert"))
        project = load_project(connection, project_id)
        if (earlier := _earlier(connection, client_id)) is not None:
            lease = row(connection, schema.assignments, earlier["lease_id"])
            if lease is None or lease["rater_id"] != rater.id or earlier["status"] != "withdrawn":
                raise Refused("replayed", "this client id was used for another vote")
            before = row(connection, schema.votes, earlier["supersedes"])
        else:
            before = _last_vote(connection, rater, project_id)
            lease = _undoable(connection, before)
            _append(store, connection, lease, client_id, "withdrawn", canonical(Verdict().as_json()), 0)
            extend(store, connection, lease)
            update_state(connection, lease["item_id"], project)
            lease = row(connection, schema.assignments, lease["id"])
        assert before is not None and lease is not None
        again = dispute_view if lease["kind"] == "arbitration" else build_view
        previous = to_shown(stored_verdict(before["body"]), json.loads(lease["sides"]))
        return replace(again(connection, lease, project), previous=previous if before["status"] == "cast" else None)


def _last_vote(connection: Connection, rater: Rater, project_id: int) -> RowMapping:
    votes, later = schema.votes.c, schema.votes.alias("later")
    mine = (votes.rater_id == rater.id) & (votes.project_id == project_id) & (votes.status != "withdrawn")
    standing = mine & ~exists().where(later.c.supersedes == votes.id)
    found = connection.execute(select(schema.votes).where(standing).order_by(votes.id.desc()).limit(1))
    last = found.mappings().first()
    if last is None:
        raise Refused("nothing", "there is nothing to undo")
    return last


def _undoable(connection: Connection, vote: RowMapping) -> RowMapping:
    """The lease of a vote that may be taken back. Raises `Refused("nothing")` otherwise."""
    lease = row(connection, schema.assignments, vote["lease_id"])
    head = row(connection, schema.items, vote["item_id"])
    assert lease is not None and head is not None
    if lease["epoch"] != head["epoch"]:
        raise Refused("nothing", "the item or the guideline has changed since; the vote stays with its version")
    leases = schema.assignments.c
    taken_up = (leases.item_id == head["id"]) & (leases.epoch == head["epoch"]) & (leases.kind == "arbitration")
    chosen = select(leases.id).where(taken_up & leases.state.in_(("leased", "done")))
    if lease["kind"] == "vote" and connection.execute(chosen).first():
        raise Refused("nothing", "an expert has taken this item up; the vote stands")
    if lease["state"] == "skipped" and lease["kind"] == "vote":
        _retake(connection, lease)
    return lease


def history(store: Store, rater: Rater, project_id: int, limit: int = 50) -> list[Done]:
    """The rater's own votes, the newest first; one that was taken back shows as withdrawn."""
    votes = schema.votes.c
    mine = (votes.rater_id == rater.id) & (votes.project_id == project_id)
    chosen = select(votes.lease_id, votes.status, votes.submitted_at, votes.active_ms).where(mine)
    with store.read() as connection:
        return [Done(*one) for one in connection.execute(chosen.order_by(votes.id.desc()).limit(limit))]


def active_ms(events: Sequence[int]) -> int:
    """Working time out of moments of activity (ms since shown): what lies beyond 60 s without any is cut out."""
    if len(events) > MOST_EVENTS or any(type(one) is not int or one < 0 for one in events):
        raise Refused("invalid", f"events are at most {MOST_EVENTS} whole numbers of ms since the item was shown")
    moments = [0, *sorted(events)]
    return sum(min(later - earlier, IDLE_MS) for earlier, later in zip(moments, moments[1:], strict=False))
