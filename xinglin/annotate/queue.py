"""The next item for a rater: a lease on one of its places, with the sides drawn and kept.

Every (item, rater) has one lease, whose random token is all a page knows. A lease that runs out gives its place back.
Hidden repeats show an item the rater has judged, with the sides turned round; gold items have ranks known beforehand.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, exists, func, select

from xinglin.annotate import schema
from xinglin.annotate.people import Rater
from xinglin.annotate.projects import Project, load_item, load_project, release, take_place
from xinglin.annotate.rubric import Rubric, Verdict
from xinglin.annotate.sampling import draw_sides, due
from xinglin.annotate.store import Refused, Store, append_log, row
from xinglin.records import Message
from xinglin.run import seed_for

TOKEN = re.compile(r"[A-Za-z0-9_-]{8,64}")
REPEAT_GAP = 5  # votes that must lie between an item and its repeat
TAKEN = ("leased", "done", "skipped")


@dataclass(frozen=True, slots=True)
class View:
    """What a page may know of an item. `answers` are texts as shown; positions on the page count them from 0.

    `previous` is the rater's own verdict after an undo. `votes` and `conflict` are there for an expert: the verdicts
    as shown, in a drawn order, without names, and what they differ in first (danger, a dimension, or overall).
    """

    lease: str
    project_id: int
    form: str
    rubric: Rubric
    guideline_version: int
    prompt: tuple[Message, ...]
    answers: tuple[str, ...]
    reference: str
    context: str
    shown_at: int
    expires_at: int
    previous: Verdict | None = None
    votes: tuple[Verdict, ...] = ()
    conflict: str = ""


def next_item(store: Store, rater: Rater, project_id: int) -> View | None:
    """The rater's next item, or None when there is nothing left. A lease still open comes again, in every tab.

    Raises `Refused("role")` for a manager or a rater who was removed.
    """
    with store.write() as connection:
        check_role(connection, rater, ("annotator", "expert"))
        project = load_project(connection, project_id)
        release(connection, schema.assignments.c.expires_at < store.clock(), "expired")
        lease = _open_lease(connection, rater, project_id) or _new_lease(store, connection, rater, project)
        return None if lease is None else build_view(connection, lease, project)


def view(store: Store, rater: Rater, lease: str) -> View:
    """An item again, by its lease. Raises `Refused("foreign")`, which is logged, where it is not the rater's."""
    with store.read() as connection:
        if (found := own_lease(connection, rater, lease)) is not None:
            return build_view(connection, found, load_project(connection, found["project_id"]))
    raise foreign(store, rater, lease)


def renew(store: Store, rater: Rater, lease: str) -> int:
    """Keep a lease alive while its page is open; when it runs out now. Raises `Refused` ("foreign", "expired")."""
    with store.write() as connection:
        if (found := own_lease(connection, rater, lease)) is not None:
            if found["state"] != "leased":
                raise Refused("done" if found["state"] in TAKEN else "expired", "this item is no longer open here")
            return extend(store, connection, found)
    raise foreign(store, rater, lease)


def own_lease(connection: Connection, rater: Rater, lease: Any) -> RowMapping | None:
    """The rater's lease of this token, or None; `lease` may be whatever a browser sent."""
    found = row(connection, schema.assignments, lease) if _is_token(lease) else None
    return found if found and found["rater_id"] == rater.id else None


def _is_token(lease: Any) -> bool:
    return isinstance(lease, str) and TOKEN.fullmatch(lease) is not None


def foreign(store: Store, rater: Rater, lease: str) -> Refused:
    """Log that a rater asked for what is not his; the refusal to raise."""
    with store.write() as connection:
        subject = lease if _is_token(lease) else "no lease token"
        append_log(store, connection, rater.id, "refused", [(subject, {"rater": rater.id, "why": "foreign"})])
    return Refused("foreign", "this item is not in your queue")


def extend(store: Store, connection: Connection, lease: RowMapping) -> int:
    minutes = load_project(connection, lease["project_id"]).settings.lease_minutes
    expires_at = store.clock() + minutes * 60_000
    chosen = schema.assignments.update().where(schema.assignments.c.id == lease["id"])
    connection.execute(chosen.values(state="leased", expires_at=expires_at))
    return expires_at


def check_role(connection: Connection, rater: Rater, roles: Sequence[str]) -> None:
    """Roles are read anew: a rater may have been removed since he logged in."""
    found = row(connection, schema.raters, rater.id)
    if found is None or not found["active"] or found["role"] not in roles:
        raise Refused("role", f"this is for: {', '.join(roles)}")


def build_view(connection: Connection, lease: RowMapping, project: Project) -> View:
    _, item = load_item(connection, lease["item_id"], lease["version"])
    sides = json.loads(lease["sides"])
    return View(
        lease["id"],
        project.id,
        project.settings.form,
        project.rubric,
        lease["guideline_version"],
        item.prompt,
        tuple(item.answers[answer].text for answer in sides),
        item.reference,
        item.context,
        lease["leased_at"],
        lease["expires_at"],
    )


# --- choosing --------------------------------------------------------------------------------------------------------


def _open_lease(connection: Connection, rater: Rater, project_id: int) -> RowMapping | None:
    leases = schema.assignments.c
    mine = (leases.rater_id == rater.id) & (leases.project_id == project_id) & (leases.state == "leased")
    chosen = select(schema.assignments).where(mine & (leases.kind != "arbitration")).order_by(leases.leased_at)
    return connection.execute(chosen.limit(1)).mappings().first()


def _new_lease(store: Store, connection: Connection, rater: Rater, project: Project) -> RowMapping | None:
    leases, settings = schema.assignments.c, project.settings
    mine = (leases.rater_id == rater.id) & (leases.project_id == project.id) & (leases.state == "done")
    counted = select(leases.kind, func.count()).where(mine & (leases.kind != "arbitration")).group_by(leases.kind)
    done = {kind: count for kind, count in connection.execute(counted)}
    shown = sum(done.values())
    who = f"{project.name}/{rater.name}"
    if done.get("repeat", 0) < due(shown, settings.repeat_share, settings.seed, f"repeat/{who}"):
        if (first := _repeat(connection, rater, project.id, done.get("vote", 0))) is not None:
            sides = json.loads(first["sides"])[::-1]
            return make_lease(store, connection, rater, project, first["item_id"], "repeat", None, sides)
    if done.get("gold", 0) < due(shown, settings.gold_share, settings.seed, f"gold/{who}"):
        if (gold := _candidate(connection, rater, project.id, "gold")) is not None:
            return make_lease(store, connection, rater, project, gold, "gold", None)
    return _claim(store, connection, rater, project)


def _claim(store: Store, connection: Connection, rater: Rater, project: Project) -> RowMapping | None:
    """A place of the first open item, those of the rater's own department before others."""
    for of_field in [True, False] if rater.field else [False]:
        item_id = _candidate(connection, rater, project.id, "vote", rater.field if of_field else None)
        if item_id is not None:
            found = row(connection, schema.items, item_id)
            if found is None or not take_place(connection, item_id, found["epoch"]):
                return None
            slot = free_slot(connection, item_id, found["epoch"])
            return make_lease(store, connection, rater, project, item_id, "vote", slot)
    return None


def _candidate(
    connection: Connection, rater: Rater, project_id: int, kind: str, of_field: str | None = None
) -> int | None:
    items, leases = schema.items.c, schema.assignments.c
    state = "gold" if kind == "gold" else "open"
    where: ColumnElement[bool] = (items.project_id == project_id) & (items.state == state)
    if kind == "vote":
        where &= items.taken < items.needed
    if of_field is not None:
        where &= items.field == of_field
    seen = (leases.item_id == items.id) & (leases.epoch == items.epoch) & (leases.rater_id == rater.id)
    seen &= (leases.kind == kind) & leases.state.in_(TAKEN)
    chosen = select(items.id).where(where & ~exists().where(seen)).order_by(items.priority, items.id).limit(1)
    return connection.scalar(chosen)


def _repeat(connection: Connection, rater: Rater, project_id: int, num_votes: int) -> RowMapping | None:
    """The rater's oldest vote that has not come again and lies far enough back."""
    if num_votes <= REPEAT_GAP:
        return None
    first, again, items = schema.assignments.alias("one"), schema.assignments.alias("again"), schema.items.c
    mine = (first.c.rater_id == rater.id) & (first.c.project_id == project_id) & (first.c.state == "done")
    mine &= first.c.kind == "vote"
    recent = select(first.c.id).where(mine).order_by(first.c.leased_at.desc(), first.c.id).limit(REPEAT_GAP)
    same = (again.c.item_id == first.c.item_id) & (again.c.rater_id == rater.id) & (again.c.epoch == first.c.epoch)
    same &= (again.c.kind == "repeat") & again.c.state.in_(TAKEN)
    current = exists().where((items.id == first.c.item_id) & (items.epoch == first.c.epoch))
    where = mine & current & ~exists().where(same) & first.c.id.not_in(list(connection.scalars(recent)))
    return connection.execute(select(first).where(where).order_by(first.c.leased_at).limit(1)).mappings().first()


def free_slot(connection: Connection, item_id: int, epoch: int) -> int:
    """The lowest place nobody holds; a unique index stands behind it."""
    leases = schema.assignments.c
    held = (leases.item_id == item_id) & (leases.epoch == epoch) & (leases.kind == "vote")
    chosen = select(leases.slot).where(held & leases.state.in_(("leased", "done")))
    taken = set(connection.scalars(chosen))
    return next(slot for slot in range(len(taken) + 1) if slot not in taken)


def make_lease(
    store: Store,
    connection: Connection,
    rater: Rater,
    project: Project,
    item_id: int,
    kind: str,
    slot: int | None,
    sides: Sequence[int] | None = None,
) -> RowMapping:
    """Write the lease, with sides drawn unless they are given."""
    head, item = load_item(connection, item_id)
    sources = [answer.source or f"#{place}" for place, answer in enumerate(item.answers)]
    if sides is None:
        seed = seed_for(project.settings.seed, item.external_id, head["round"], head["epoch"], rater.name, kind)
        sides = draw_sides(sources, _side_counts(connection, project.id), seed)
    if kind != "arbitration":
        _count_sides(connection, project.id, [sources[answer] for answer in sides])
    now = store.clock()
    values: dict[str, Any] = {"id": secrets.token_urlsafe(12), "project_id": project.id, "item_id": item_id}
    values |= {"version": head["version"], "epoch": head["epoch"], "rater_id": rater.id, "kind": kind, "slot": slot}
    values |= {"sides": json.dumps(list(sides)), "guideline_version": project.guideline_version, "state": "leased"}
    values |= {"leased_at": now, "expires_at": now + project.settings.lease_minutes * 60_000}
    connection.execute(schema.assignments.insert().values(**values))
    made = row(connection, schema.assignments, values["id"])
    assert made is not None
    return made


def _side_counts(connection: Connection, project_id: int) -> dict[tuple[str, int], int]:
    counts = schema.side_counts.c
    chosen = select(counts.source, counts.place, counts.shown).where(counts.project_id == project_id)
    return {(source, place): shown for source, place, shown in connection.execute(chosen)}


def _count_sides(connection: Connection, project_id: int, sources: Sequence[str]) -> None:
    counts = schema.side_counts
    for place, source in enumerate(sources):
        where = (counts.c.project_id == project_id) & (counts.c.source == source) & (counts.c.place == place)
        if connection.execute(counts.update().where(where).values(shown=counts.c.shown + 1)).rowcount == 0:
            values = {"project_id": project_id, "source": source, "place": place, "shown": 1}
            connection.execute(counts.insert().values(**values))
