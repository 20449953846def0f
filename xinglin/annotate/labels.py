"""What the votes on an item come to: unanimous, majority, or an expert's decision.

Two votes in conflict go to an expert who sees them blind to names. A danger span that only some of the raters marked is
a conflict of safety, whatever the orders say. `Settlement.conflict` names what the votes differ in first, in the order
of the rubric: for SPF safety, then professionalism, then fluency.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, exists, select

from xinglin.annotate import schema
from xinglin.annotate.people import Rater
from xinglin.annotate.projects import Item, Project, load_item, load_project, release
from xinglin.annotate.queue import View, build_view, check_role, make_lease
from xinglin.annotate.rubric import Ranks, Verdict, dense, to_shown
from xinglin.annotate.store import Store
from xinglin.records import InputError
from xinglin.run import seed_for


@dataclass(frozen=True, slots=True)
class Settlement:
    """`method` is unanimous, majority or conflict; `ranks` is None in a conflict, which `conflict` then names."""

    method: str
    ranks: Ranks | None
    conflict: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """The final word on an item. `votes` are rows of the store, those on older versions not among them."""

    item_id: int
    round: int
    item: Item
    ranks: Ranks
    method: str
    reason: str
    dimensions: Mapping[str, Ranks]
    votes: tuple[RowMapping, ...]


def settle(verdicts: Sequence[Verdict], dimensions: Sequence[str], mode: str) -> Settlement:
    """What verdicts on one item, in the answers' own order, come to. `mode` is the project's `conflict` setting.

    any: all orders equal is unanimous, one held by more than half is the majority. reversal: each pair of answers is
    ordered as most of those votes say that order it at all; a pair with as many for as against, or a circle, is a
    conflict.
    """
    orders = [verdict.ranks for verdict in verdicts]
    if len({frozenset(span[0] for span in verdict.danger) for verdict in verdicts}) > 1:
        return Settlement("conflict", None, "danger")
    order, count = Counter(orders).most_common(1)[0]
    if count == len(orders):
        return Settlement("unanimous", order)
    if count * 2 > len(orders):
        return Settlement("majority", order)
    merged = _majority_of_pairs(orders) if mode == "reversal" else None
    if merged is not None:
        return Settlement("majority", merged)
    return Settlement("conflict", None, _first_difference(verdicts, dimensions))


def relation(ranks: Sequence[int], i: int, j: int) -> int:
    """1 where answer i stands before j, -1 where it stands behind, 0 for a tie."""
    return (ranks[j] > ranks[i]) - (ranks[j] < ranks[i])


def _majority_of_pairs(orders: Sequence[Ranks]) -> Ranks | None:
    k = len(orders[0])
    wins = [0] * k
    net: dict[tuple[int, int], int] = {}
    for i, j in itertools.combinations(range(k), 2):
        said = [relation(ranks, i, j) for ranks in orders]
        if any(said) and sum(said) == 0:
            return None
        net[i, j] = (sum(said) > 0) - (sum(said) < 0)
        wins[i] += net[i, j]
        wins[j] -= net[i, j]
    merged = dense([-won for won in wins])
    return merged if all(relation(merged, i, j) == sign for (i, j), sign in net.items()) else None


def _first_difference(verdicts: Sequence[Verdict], dimensions: Sequence[str]) -> str:
    """The first dimension whose orders differ on a pair of answers that the overall orders differ on."""
    pairs = [
        (i, j)
        for i, j in itertools.combinations(range(len(verdicts[0].ranks)), 2)
        if len({relation(verdict.ranks, i, j) for verdict in verdicts}) > 1
    ]
    for name in dimensions:
        orders = [verdict.dimensions[name] for verdict in verdicts if name in verdict.dimensions]
        if len(orders) == len(verdicts) and any(len({relation(one, i, j) for one in orders}) > 1 for i, j in pairs):
            return name
    return "overall"


# --- the store -------------------------------------------------------------------------------------------------------


def stored_verdict(body: str) -> Verdict:
    """A verdict as the store keeps it."""
    plain = json.loads(body)
    return Verdict(
        tuple(plain["ranks"]),
        {name: tuple(ranks) for name, ranks in plain["dimensions"].items()},
        {name: tuple(scores) for name, scores in plain["scores"].items()},
        tuple((span[0], span[1], span[2]) for span in plain["danger"]),
        {int(answer): text for answer, text in plain["rewrites"].items()},
        plain["comment"],
    )


def in_force(where: ColumnElement[bool]) -> Any:
    """The query for votes that stand: cast, and superseded by none."""
    later = schema.votes.alias("later")
    votes = schema.votes.c
    standing = (votes.status == "cast") & ~exists().where(later.c.supersedes == votes.id)
    return select(schema.votes).where(standing & where).order_by(votes.id)


def item_votes(connection: Connection, item: RowMapping, kind: str) -> Sequence[RowMapping]:
    """The votes in force on the item as it is now, of one kind."""
    votes = schema.votes.c
    here = (votes.item_id == item["id"]) & (votes.epoch == item["epoch"]) & (votes.kind == kind)
    return connection.execute(in_force(here)).mappings().all()


def update_state(connection: Connection, item_id: int, project: Project) -> None:
    """Work out anew whether an item is open, settled or disputed. Runs inside the caller's transaction."""
    found = connection.execute(select(schema.items).where(schema.items.c.id == item_id)).mappings().one()
    if found["state"] == "gold":
        return
    cast = item_votes(connection, found, "vote")
    state = "open"
    if item_votes(connection, found, "arbitration"):
        state = "settled"
    elif len(cast) >= found["needed"]:
        settled = settle([stored_verdict(one["body"]) for one in cast], project.rubric.names, project.settings.conflict)
        state = "disputed" if settled.ranks is None else "settled"
    connection.execute(schema.items.update().where(schema.items.c.id == item_id).values(state=state))


def next_dispute(store: Store, expert: Rater, project_id: int) -> View | None:
    """The next disputed item for an expert who has not voted on it, with its votes; None when there is none."""
    with store.write() as connection:
        check_role(connection, expert, ("expert",))
        project = load_project(connection, project_id)
        release(connection, schema.assignments.c.expires_at < store.clock(), "expired")
        leases = schema.assignments.c
        mine = (leases.rater_id == expert.id) & (leases.project_id == project_id) & (leases.state == "leased")
        chosen = select(schema.assignments).where(mine & (leases.kind == "arbitration"))
        lease = connection.execute(chosen).mappings().first()
        if lease is None:
            item_id = _disputed(connection, expert, project_id)
            if item_id is None:
                return None
            lease = make_lease(store, connection, expert, project, item_id, "arbitration", 0)
        return dispute_view(connection, lease, project)


def dispute_view(connection: Connection, lease: RowMapping, project: Project) -> View:
    """The view of an arbitration lease: the votes as shown, in an order drawn for this lease, without names."""
    votes = schema.votes.c
    here = (votes.item_id == lease["item_id"]) & (votes.epoch == lease["epoch"]) & (votes.kind == "vote")
    cast = connection.execute(in_force(here)).mappings().all()
    verdicts = [stored_verdict(one["body"]) for one in cast]
    settled = settle(verdicts, project.rubric.names, project.settings.conflict)
    verdicts.sort(key=lambda one: seed_for(lease["id"], one.ranks, one.comment))
    sides = json.loads(lease["sides"])
    shown = tuple(to_shown(one, sides) for one in verdicts)
    return replace(build_view(connection, lease, project), votes=shown, conflict=settled.conflict)


def _disputed(connection: Connection, expert: Rater, project_id: int) -> int | None:
    items, leases = schema.items.c, schema.assignments.c
    here = (leases.item_id == items.id) & (leases.epoch == items.epoch)
    own = here & (leases.rater_id == expert.id) & leases.kind.in_(("vote", "arbitration"))
    own &= leases.state.in_(("done", "skipped"))
    held = here & (leases.kind == "arbitration") & (leases.state == "leased")
    where = (items.project_id == project_id) & (items.state == "disputed")
    chosen = select(items.id).where(where & ~exists().where(own) & ~exists().where(held))
    return connection.scalar(chosen.order_by(items.priority, items.id).limit(1))


def labels(store: Store, project_id: int, round: int | None = None) -> Iterator[Label]:
    """Every settled item's label, in the order the items came in; one round, or all."""
    with store.read() as connection:
        project = load_project(connection, project_id)
        items = schema.items.c
        where = (items.project_id == project_id) & (items.state == "settled")
        if round is not None:
            where &= items.round == round
        for item_id in connection.scalars(select(items.id).where(where).order_by(items.id)).all():
            yield label_of(connection, item_id, project)


def label_of(connection: Connection, item_id: int, project: Project) -> Label:
    """The label of a settled item. Raises `InputError` where it has none yet."""
    head, item = load_item(connection, item_id)
    cast = item_votes(connection, head, "vote")
    verdicts = [stored_verdict(one["body"]) for one in cast]
    arbitrations = item_votes(connection, head, "arbitration")
    if arbitrations:
        decided = stored_verdict(arbitrations[-1]["body"])
        ranks, method, reason, dimensions = decided.ranks, "arbiter", decided.comment, dict(decided.dimensions)
    else:
        settled = settle(verdicts, project.rubric.names, project.settings.conflict) if verdicts else None
        if settled is None or settled.ranks is None:
            raise InputError(f"item {item_id} has no label yet")
        ranks, method, reason = settled.ranks, settled.method, ""
        dimensions = _agreed_dimensions(verdicts, project.rubric.names)
    return Label(item_id, head["round"], item, ranks, method, reason, dimensions, (*cast, *arbitrations))


def _agreed_dimensions(verdicts: Sequence[Verdict], names: Sequence[str]) -> dict[str, Ranks]:
    """The orders per dimension that the votes agree on, pair by pair; a dimension in conflict is left out."""
    agreed: dict[str, Ranks] = {}
    for name in names:
        orders = [verdict.dimensions[name] for verdict in verdicts if name in verdict.dimensions]
        if len(orders) == len(verdicts) and (merged := _majority_of_pairs(orders)) is not None:
            agreed[name] = merged
    return agreed
