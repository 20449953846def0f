"""The manager's numbers: progress, pace, agreement, side preference, repeats, gold, and raters to talk to.

A flag is a figure to ask about, never a reason to delete: every vote stays. What cannot be computed (one rater, no
repeats yet) is None, not 1.0.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from sqlalchemy import Connection, RowMapping, func, select

from xinglin.annotate import schema
from xinglin.annotate.labels import in_force, relation, stored_verdict
from xinglin.annotate.projects import load_project
from xinglin.annotate.rubric import Verdict
from xinglin.annotate.store import Store
from xinglin.metrics.intervals import bootstrap_interval, wilson_interval

FASTEST_MS, FASTEST_READING = 2_000, 25  # ms a vote, characters a second: faster than anyone reads
FEW = 10  # votes a flag needs
ONE_SIDED, ALL_TIES, FAST_SHARE, GOLD_SHARE = 0.9, 0.9, 0.1, 0.7
DRAWS = 1000


def summary(store: Store, project_id: int) -> dict[str, Any]:
    """Everything the manager's page shows, as plain JSON values; shares carry n and a 95 % interval."""
    with store.read() as connection:
        project = load_project(connection, project_id)
        cast = connection.execute(in_force(schema.votes.c.project_id == project_id)).mappings().all()
        votes = [(row, stored_verdict(row["body"])) for row in cast]
        return {
            "project": project.name,
            "guideline_version": project.guideline_version,
            "progress": _progress(connection, project_id),
            "agreement": _agreement(connection, project_id, votes, (*project.rubric.names, "overall")),
            "raters": _raters(connection, project_id, votes),
        }


def share(hits: int, n: int) -> dict[str, Any] | None:
    """A share with its Wilson interval, or None where there is nothing to count."""
    if n == 0:
        return None
    interval = wilson_interval(hits, n)
    return {"share": hits / n, "hits": hits, "n": n, "low": interval.low, "high": interval.high}


def _progress(connection: Connection, project_id: int) -> dict[str, Any]:
    items, votes = schema.items.c, schema.votes.c
    where = items.project_id == project_id
    grouped = select(items.round, items.state, func.count(), func.sum(items.taken), func.sum(items.needed))
    rounds: dict[str, dict[str, int]] = defaultdict(lambda: Counter())
    for number, state, count, taken, needed in connection.execute(
        grouped.where(where).group_by(items.round, items.state)
    ):
        rounds[str(number)][state] += count
        rounds[str(number)]["taken"] += int(taken)
        rounds[str(number)]["needed"] += int(needed)
    counted = select(votes.status, func.count()).where(votes.project_id == project_id).group_by(votes.status)
    statuses = {status: count for status, count in connection.execute(counted)}
    return {"rounds": {number: dict(found) for number, found in rounds.items()}, "votes": statuses}


# --- agreement between raters ----------------------------------------------------------------------------------------


def rating_matrix(
    store: Store, project_id: int, dimension: str = "overall"
) -> tuple[list[str], list[list[int | None]], list[str]]:
    """(rater codes, matrix, units) for agreement coefficients: a row for each pair of answers of an item, a column for
    each rater, 1 where the first answer is better, -1 the second, 0 a tie, None where there is no vote. `units` name
    the item each row belongs to, for a bootstrap over items."""
    with store.read() as connection:
        cast = connection.execute(in_force(schema.votes.c.project_id == project_id)).mappings().all()
        epochs = _epochs(connection, project_id)
        codes = _codes(connection)
    units: dict[tuple[int, int, int], dict[str, int]] = defaultdict(dict)
    for row in cast:
        ranks = _ranks(stored_verdict(row["body"]), dimension)
        if row["kind"] == "vote" and row["epoch"] == epochs[row["item_id"]] and ranks:
            for i, j in itertools.combinations(range(len(ranks)), 2):
                units[row["item_id"], i, j][codes[row["rater_id"]]] = relation(ranks, i, j)
    names = sorted({code for said in units.values() for code in said})
    return names, [[said.get(name) for name in names] for said in units.values()], [str(unit[0]) for unit in units]


def _epochs(connection: Connection, project_id: int) -> dict[int, int]:
    chosen = select(schema.items.c.id, schema.items.c.epoch).where(schema.items.c.project_id == project_id)
    return {item_id: epoch for item_id, epoch in connection.execute(chosen)}


def _codes(connection: Connection) -> dict[int, str]:
    return {id_: code for id_, code in connection.execute(select(schema.raters.c.id, schema.raters.c.code))}


def _ranks(verdict: Verdict, dimension: str) -> Sequence[int]:
    return verdict.ranks if dimension == "overall" else verdict.dimensions.get(dimension, ())


def _agreement(
    connection: Connection, project_id: int, votes: Sequence[tuple[RowMapping, Verdict]], dimensions: Sequence[str]
) -> dict[str, Any]:
    """Raw agreement: share of answer pairs that two raters order alike, a tie being an order of its own. The interval
    is a bootstrap over items where an item has several pairs, Wilson's otherwise."""
    epochs = _epochs(connection, project_id)
    by_item: dict[int, list[Verdict]] = defaultdict(list)
    for row, verdict in votes:
        if row["kind"] == "vote" and row["epoch"] == epochs[row["item_id"]]:
            by_item[row["item_id"]].append(verdict)
    found: dict[str, Any] = {}
    for name in dimensions:
        rows = [same_pairs([_ranks(one, name) for one in verdicts]) for verdicts in by_item.values()]
        found[name] = _pooled([(hits, n) for hits, n in rows if n])
    return found


def same_pairs(orders: Sequence[Sequence[int]]) -> tuple[int, int]:
    """(alike, all) over answer pairs and pairs of raters who both gave an order."""
    given = [ranks for ranks in orders if ranks]
    hits = n = 0
    for a, b in itertools.combinations(given, 2):
        for i, j in itertools.combinations(range(len(a)), 2):
            hits += relation(a, i, j) == relation(b, i, j)
            n += 1
    return hits, n


def _pooled(rows: Sequence[tuple[int, int]]) -> dict[str, Any] | None:
    hits, n = sum(row[0] for row in rows), sum(row[1] for row in rows)
    found = share(hits, n)
    if found is not None and any(row[1] > 1 for row in rows):
        interval = bootstrap_interval([(float(row[0]), float(row[1])) for row in rows], DRAWS)
        found |= {"low": interval.low, "high": interval.high}
    return found


# --- raters ----------------------------------------------------------------------------------------------------------


def _raters(
    connection: Connection, project_id: int, votes: Sequence[tuple[RowMapping, Verdict]]
) -> list[dict[str, Any]]:
    lengths = _lengths(connection, project_id)
    gold = _gold(connection, project_id)
    mine: dict[int, list[tuple[RowMapping, Verdict]]] = defaultdict(list)
    for vote in votes:
        mine[vote[0]["rater_id"]].append(vote)
    found = connection.execute(select(schema.raters).order_by(schema.raters.c.id)).mappings()
    return [_rater(row, mine[row["id"]], lengths, gold) for row in found]


def _lengths(connection: Connection, project_id: int) -> dict[tuple[int, int], int]:
    """Characters of the answers of each (item, version)."""
    answers = schema.answers.c
    joined = schema.answers.join(schema.items, schema.items.c.id == answers.item_id)
    chosen = select(answers.item_id, answers.version, func.sum(func.length(answers.text))).select_from(joined)
    grouped = chosen.where(schema.items.c.project_id == project_id).group_by(answers.item_id, answers.version)
    return {(item, version): int(count) for item, version, count in connection.execute(grouped)}


def _gold(connection: Connection, project_id: int) -> dict[int, list[int]]:
    items = schema.items.c
    chosen = select(items.id, items.gold).where((items.project_id == project_id) & items.gold.is_not(None))
    return {item_id: json.loads(ranks) for item_id, ranks in connection.execute(chosen)}


def _rater(
    row: RowMapping,
    votes: Sequence[tuple[RowMapping, Verdict]],
    lengths: Mapping[tuple[int, int], int],
    gold: Mapping[int, Sequence[int]],
) -> dict[str, Any]:
    active = [vote["active_ms"] for vote, _ in votes]
    hours = sum(active) / 3_600_000
    fast = [vote for vote, _ in votes if is_fast(vote["active_ms"], lengths[vote["item_id"], vote["version"]])]
    first = [(json.loads(vote["sides"]), verdict.ranks) for vote, verdict in votes]
    ties = sum(len(set(ranks)) == 1 for _, ranks in first)
    found = {
        **{name: row[name] for name in ("id", "name", "code", "role", "field")},
        **{"active": bool(row["active"]), "votes": dict(Counter(vote["kind"] for vote, _ in votes))},
        **{"active_hours": hours, "votes_per_hour": len(votes) / hours if hours else None},
        "median_seconds": median(active) / 1000 if active else None,
        "first_side": side_preference(first),
        "ties": share(ties, len(votes)),
        "fast": share(len(fast), len(votes)),
        "repeats": _repeats(votes),
        "gold": _pooled(
            [same_pairs([gold[vote["item_id"]], one.ranks]) for vote, one in votes if vote["kind"] == "gold"]
        ),
    }
    return {**found, "flags": flags(found)}


def is_fast(active_ms: int, characters: int) -> bool:
    """Under 2 s, or more than 25 characters a second."""
    return active_ms < FASTEST_MS or characters * 1000 > FASTEST_READING * active_ms


def side_preference(votes: Iterable[tuple[Sequence[int], Sequence[int]]]) -> dict[str, Any] | None:
    """How often the answer shown first is the single best one, among votes with a single best; with the share
    expected by chance. `votes` are (sides, ranks in the answers' own order)."""
    hits = n = 0
    expected = 0.0
    for sides, ranks in votes:
        if list(ranks).count(1) == 1:
            hits += ranks[sides[0]] == 1
            expected += 1 / len(ranks)
            n += 1
    found = share(hits, n)
    return found and {**found, "expected": expected / n}


def _repeats(votes: Sequence[tuple[RowMapping, Verdict]]) -> dict[str, Any] | None:
    """Intra-rater agreement: hidden repeats ordered as the first time, by answer pair."""
    first = {(vote["item_id"], vote["epoch"]): verdict for vote, verdict in votes if vote["kind"] == "vote"}
    rows = []
    for vote, verdict in votes:
        before = first.get((vote["item_id"], vote["epoch"]))
        if vote["kind"] == "repeat" and before is not None:
            rows.append(same_pairs([before.ranks, verdict.ranks]))
    return _pooled(rows)


def flags(found: Mapping[str, Any]) -> list[str]:
    """Reasons to talk to a rater, each with its figures beside it in `summary`: fast, one side, ties, gold."""
    side, ties, fast, gold = found["first_side"], found["ties"], found["fast"], found["gold"]
    named = []
    if fast and fast["n"] >= FEW and fast["share"] >= FAST_SHARE:
        named.append("fast")
    if side and side["n"] >= FEW and (side["share"] >= ONE_SIDED or side["high"] < side["expected"] / 2):
        named.append("one side")
    if ties and ties["n"] >= FEW and ties["share"] >= ALL_TIES:
        named.append("ties")
    if gold and gold["n"] >= FEW // 2 and gold["high"] < GOLD_SHARE:
        named.append("gold")
    return named
