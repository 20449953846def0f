"""How far the doctors of a project agree: per dimension, per rater, over time, with intervals.

    agreement(store, project_id)    a plain dict, ready for JSON: see there

The unit is a pair of answers of one item: 1 where the first is better, -1 the second, 0 a tie. Intervals resample
items, since the pairs of one item hang together. Every figure is {"value", "n", "low", "high", "reason", "colour"};
value None is undefined and reason says why; colour is red under .667, amber under .8, green from there, "" where
undefined.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import RowMapping, select

from xinglin.annotate import schema
from xinglin.annotate.labels import in_force, relation, stored_verdict
from xinglin.annotate.projects import load_project
from xinglin.annotate.rubric import Verdict
from xinglin.annotate.store import Store
from xinglin.metrics import agreement as measures
from xinglin.metrics.agreement import Agreement, Bootstrap, Level

VOTES_A_RUN = 200
Unit = tuple[int, int, int]  # item, first answer, second answer (or an answer, for scores)


@dataclass(frozen=True, slots=True)
class Ratings:
    """A row for each unit, a column for each rater; `items` and `times` (ms, of the last vote) of each row."""

    raters: tuple[str, ...]
    matrix: list[list[float | None]]
    items: list[str]
    times: list[int]

    def column(self, rater: str) -> list[float | None]:
        place = self.raters.index(rater)
        return [row[place] for row in self.matrix]


Votes = Sequence[tuple[RowMapping, Verdict]]
Said = Iterable[tuple[Unit, float]]


def agreement(
    store: Store, project_id: int, *, draws: int = measures.DRAWS, seed: int = 0, run: int = VOTES_A_RUN
) -> dict[str, Any]:
    """Agreement of the votes in force on the items as they are now.

    {"project", "guideline_version", "raters": [code], "limits": {"red_below", "amber_below"},
     "dimensions": {dimension or "overall": {
         "all": {"raw", "alpha_nominal", "alpha_ordinal", "fleiss"},
         "pairs": [{"a", "b", "raw", "cohen", "cohen_linear", "kendall"}],
         "raters": [{"rater", "raw", "alpha_without", "repeats_raw", "repeats_cohen"}],
         "by_month": {"2026-03": {"raw", "alpha"}}, "by_votes": {"1-200": {"raw", "alpha"}}}},
     "abilities": {ability: {"raw", "alpha_ordinal", "alpha_interval"}}}

    `by_votes` counts answer pairs, oldest first, in runs of `run`. Raises `InputError` for a project that is not there.
    """
    with store.read() as connection:
        project = load_project(connection, project_id)
        cast = connection.execute(in_force(schema.votes.c.project_id == project_id)).mappings().all()
        items = select(schema.items.c.id, schema.items.c.epoch).where(schema.items.c.project_id == project_id)
        epochs = {item: epoch for item, epoch in connection.execute(items)}
        codes = {rater: code for rater, code in connection.execute(select(schema.raters.c.id, schema.raters.c.code))}
    votes = [(row, stored_verdict(row["body"])) for row in cast if row["epoch"] == epochs.get(row["item_id"])]
    how = Bootstrap(draws, seed)
    names = ("overall", *project.rubric.names)
    abilities = sorted({name for _, verdict in votes for name in verdict.scores})
    return {
        "project": project.name,
        "guideline_version": project.guideline_version,
        "raters": list(_ratings(votes, "overall", codes).raters),
        "limits": {"red_below": measures.ACCEPTABLE, "amber_below": measures.GOOD},
        "dimensions": {name: _dimension(votes, name, codes, how, run) for name in names},
        "abilities": {name: _ability(votes, name, codes, how) for name in abilities},
    }


def _dimension(votes: Votes, name: str, codes: Mapping[int, str], how: Bootstrap, run: int) -> dict[str, Any]:
    found = _ratings(votes, name, codes)
    here = Bootstrap(how.draws, how.seed, found.items)
    each = measures.per_rater(found.matrix, "ordinal", here)
    return {
        "all": _plain(
            raw=measures.raw(found.matrix, here),
            alpha_nominal=measures.krippendorff(found.matrix, "nominal", here),
            alpha_ordinal=measures.krippendorff(found.matrix, "ordinal", here),
            fleiss=measures.fleiss(found.matrix, here),
        ),
        "pairs": [_pair(found, a, b, here) for a, b in itertools.combinations(found.raters, 2)],
        "raters": [
            {"rater": rater, **_plain(**one, **_repeats(votes, name, codes, rater, how))}
            for rater, one in zip(found.raters, each, strict=True)
        ],
        "by_month": _over_time(found, measures.months(found.times), here),
        "by_votes": _over_time(found, measures.runs(found.times, run), here),
    }


def _pair(found: Ratings, a: str, b: str, how: Bootstrap) -> dict[str, Any]:
    """Two raters on what both rated."""
    one, two = found.column(a), found.column(b)
    both = list(zip(one, two, strict=True))
    return {"a": a, "b": b} | _plain(
        raw=measures.raw(both, how),
        cohen=measures.cohen(one, two, "nominal", how),
        cohen_linear=measures.cohen(one, two, "linear", how),
        kendall=measures.kendall(one, two, how),
    )


def _repeats(votes: Votes, name: str, codes: Mapping[int, str], rater: str, how: Bootstrap) -> dict[str, Agreement]:
    """The rater's hidden repeats against his first votes."""
    again = dict(_said([vote for vote in votes if _is(vote[0], codes, rater, "repeat")], name))
    first = dict(_said([vote for vote in votes if _is(vote[0], codes, rater, "vote")], name))
    units = [unit for unit in again if unit in first]
    here = Bootstrap(how.draws, how.seed, [str(unit[0]) for unit in units])
    found = measures.intra_rater([first[unit] for unit in units], [again[unit] for unit in units], here)
    return {f"repeats_{measure}": value for measure, value in found.items()}


def _is(row: RowMapping, codes: Mapping[int, str], rater: str, kind: str) -> bool:
    return row["kind"] == kind and codes[row["rater_id"]] == rater


def _ability(votes: Votes, name: str, codes: Mapping[int, str], how: Bootstrap) -> dict[str, Any]:
    """Scores of single answers, where the rubric asks for them."""
    found = _ratings(votes, name, codes, scores=True)
    here = Bootstrap(how.draws, how.seed, found.items)
    levels: tuple[Level, ...] = ("ordinal", "interval")
    alphas = {f"alpha_{level}": measures.krippendorff(found.matrix, level, here) for level in levels}
    return _plain(raw=measures.raw(found.matrix, here), **alphas)


def _over_time(found: Ratings, periods: Sequence[str], how: Bootstrap) -> dict[str, Any]:
    rows = measures.over_time(found.matrix, periods, "ordinal", how)
    return {period: _plain(**figures) for period, figures in rows.items()}


def _ratings(votes: Votes, name: str, codes: Mapping[int, str], *, scores: bool = False) -> Ratings:
    """The matrix of one dimension (or of the scores of one ability)."""
    units: dict[Unit, dict[str, float]] = defaultdict(dict)
    times: dict[Unit, int] = defaultdict(int)
    for row, verdict in votes:
        if row["kind"] == "vote":
            for unit, value in _scores(row, verdict, name) if scores else _said([(row, verdict)], name):
                units[unit][codes[row["rater_id"]]] = value
                times[unit] = max(times[unit], row["submitted_at"])
    raters = tuple(sorted({code for given in units.values() for code in given}))
    matrix = [[given.get(code) for code in raters] for given in units.values()]
    return Ratings(raters, matrix, [str(unit[0]) for unit in units], [times[unit] for unit in units])


def _said(votes: Votes, name: str) -> Said:
    """Which of two answers is better, for every pair that the verdicts order in this dimension."""
    for row, verdict in votes:
        ranks = verdict.ranks if name == "overall" else verdict.dimensions.get(name, ())
        for i, j in itertools.combinations(range(len(ranks)), 2):
            yield (row["item_id"], i, j), float(relation(ranks, i, j))


def _scores(row: RowMapping, verdict: Verdict, name: str) -> Said:
    for place, value in enumerate(verdict.scores.get(name, ())):
        if value is not None:
            yield (row["item_id"], place, place), float(value)


def _plain(**figures: Agreement) -> dict[str, Any]:
    return {name: {**asdict(figure), "colour": figure.colour} for name, figure in figures.items()}
