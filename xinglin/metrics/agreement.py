"""How far raters agree beyond chance, with gaps in the matrix, an interval, and "undefined" said as such.

    krippendorff(matrix, "ordinal")     Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"
    fleiss(matrix)                      Fleiss 1971; items may have different numbers of ratings
    cohen(a, b, "quadratic")            Cohen 1960; weights 1968
    kendall(a, b)  spearman(a, b)       tau-b (Kendall 1945), rank correlation with mean ranks
    raw(matrix)                         share of pairs of ratings that are equal

A matrix has a row for each item and a column for each rater; None (or NaN) is a gap. A coefficient that the ratings do
not define (one value alone, a rater who always says the same, nothing rated twice) has the value None and a reason:
neither 1 nor 0. Intervals are percentiles of a bootstrap over items, or over the groups of items in `groups` (the pairs
of answers of one question). A draw is a vector of item weights, so that no matrix is built anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xinglin.records import InputError

Array = NDArray[np.float64]
Matrix = Sequence[Sequence[float | None]]
Column = Sequence[float | None]
Level = Literal["nominal", "ordinal", "interval"]
Weights = Literal["nominal", "linear", "quadratic"]
DRAWS = 1000
ACCEPTABLE, GOOD = 0.667, 0.8  # Krippendorff 2004, section 11.3.2: tentative conclusions, and conclusions
MOST_UNDEFINED = 0.05
ROUNDING = 1e-12


class Undefined(ValueError):
    """The ratings do not define the coefficient; the message says why."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """`value` is None where it is undefined, and `reason` says why. `n` counts the items that enter; `low` and `high`
    bound the 95 % interval, None where there is none."""

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    reason: str = ""

    @property
    def colour(self) -> str:
        """red under .667, amber under .8, green from there; "" where the value is undefined."""
        if self.value is None:
            return ""
        return "red" if self.value < ACCEPTABLE else "amber" if self.value < GOOD else "green"


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are drawn. `groups` names what each row is drawn with; draws 0: no interval."""

    draws: int = DRAWS
    seed: int = 0
    groups: Sequence[str] | None = None


PLAIN = Bootstrap()


def raw(matrix: Matrix, how: Bootstrap = PLAIN) -> Agreement:
    """Share of pairs of ratings of one item that are equal; items with two ratings or more enter."""
    counts, _, kept = _counts(matrix)
    size = counts.sum(1)
    hits, pairs = (counts * (counts - 1)).sum(1), size * (size - 1)

    def value(w: Array) -> float:
        return _ratio(w @ hits, w @ pairs, "no item has two ratings")

    return _measured(value, len(counts), kept, how)


def fleiss(matrix: Matrix, how: Bootstrap = PLAIN) -> Agreement:
    """Fleiss' kappa. With unequal numbers of ratings each item's agreement counts once, each rating once in the
    marginals; equal numbers give the formula of 1971."""
    counts, _, kept = _counts(matrix)
    size = counts.sum(1)
    within = (counts * (counts - 1)).sum(1) / np.maximum(size * (size - 1), 1)

    def value(w: Array) -> float:
        margins = w @ counts
        total, items = margins.sum(), w.sum()
        if total == 0:
            raise Undefined("no item has two ratings")
        expected = float(((margins / total) ** 2).sum())
        return _ratio(w @ within / items - expected, 1 - expected, "only one value was given")

    return _measured(value, len(counts), kept, how)


def krippendorff(matrix: Matrix, level: Level = "nominal", how: Bootstrap = PLAIN) -> Agreement:
    """Krippendorff's alpha, any number of raters, gaps allowed. Items with fewer than two ratings do not enter."""
    if level not in ("nominal", "ordinal", "interval"):
        raise InputError(f"level is {level!r}; allowed: nominal, ordinal, interval")
    counts, values, kept = _counts(matrix)
    size = counts.sum(1)
    centred = values - values.mean() if len(values) else values
    squares = size * (counts @ centred**2) - (counts @ centred) ** 2  # sum of (x - y)^2 over an item's pairs

    def value(w: Array) -> float:
        margins = w @ counts
        total = margins.sum()
        if level == "interval":
            within = float(w @ (squares / np.maximum(size - 1, 1)))
            across = float(total * (margins @ centred**2) - (margins @ centred) ** 2)
        else:
            scaled = counts * (w / np.maximum(size - 1, 1))[:, None]
            together = scaled.T @ counts - np.diag(scaled.sum(0))  # the coincidence matrix
            apart = _distances(margins, level)
            within, across = float((together * apart).sum()) / 2, float(margins @ apart @ margins) / 2
        return 1 - (total - 1) * _ratio(within, across, "all ratings are equal" if total else "no item has two ratings")

    return _measured(value, len(counts), kept, how)


def cohen(a: Column, b: Column, weights: Weights = "nominal", how: Bootstrap = PLAIN) -> Agreement:
    """Cohen's kappa of two raters over what both rated. Weights go by the place of a value among those given."""
    if weights not in ("nominal", "linear", "quadratic"):
        raise InputError(f"weights is {weights!r}; allowed: nominal, linear, quadratic")
    table, n, kept, values = _table(a, b)
    places = np.arange(len(values), dtype=float)
    apart = np.abs(places[:, None] - places)
    apart = {"nominal": (apart > 0).astype(float), "linear": apart, "quadratic": apart**2}[weights]

    def value(w: Array) -> float:
        seen = table(w)
        rows, columns = seen.sum(1), seen.sum(0)
        _check_varied(rows, columns)
        expected = float(rows @ apart @ columns) / seen.sum()
        return 1 - float((seen * apart).sum()) / expected

    return _measured(value, n, kept, how)


def kendall(a: Column, b: Column, how: Bootstrap = PLAIN) -> Agreement:
    """Kendall's tau-b over what both rated; costs the square of the number of different pairs of values."""
    both = as_array(list(zip(a, b, strict=True))).reshape(-1, 2)
    kept = np.flatnonzero(~np.isnan(both).any(1))
    points, places = np.unique(both[kept], axis=0, return_inverse=True)
    first, second = (np.sign(column[:, None] - column) for column in points.T)
    products = (first * second, first**2, second**2)

    def value(w: Array) -> float:
        v = np.bincount(places.ravel(), w, len(points))
        together, untied_a, untied_b = (float(v @ product @ v) for product in products)
        _check_rated(v.sum(), untied_a, untied_b)
        return together / float(np.sqrt(untied_a * untied_b))

    return _measured(value, len(kept), kept, how)


def spearman(a: Column, b: Column, how: Bootstrap = PLAIN) -> Agreement:
    """Spearman's rank correlation over what both rated; equal values share their mean rank."""
    table, n, kept, _ = _table(a, b)

    def value(w: Array) -> float:
        seen = table(w)
        rows, columns = seen.sum(1), seen.sum(0)
        _check_varied(rows, columns)
        x, y = (margin.cumsum() - margin / 2 - seen.sum() / 2 for margin in (rows, columns))
        return float(x @ seen @ y / np.sqrt((rows @ x**2) * (columns @ y**2)))

    return _measured(value, n, kept, how)


def intra_rater(first: Column, again: Column, how: Bootstrap = PLAIN) -> dict[str, Agreement]:
    """How far a rater agrees with himself on hidden repeats: raw share and Cohen's kappa."""
    pairs = list(zip(first, again, strict=True))
    return {"raw": raw(pairs, how), "cohen": cohen(first, again, "nominal", how)}


def per_rater(matrix: Matrix, level: Level = "nominal", how: Bootstrap = PLAIN) -> list[dict[str, Agreement]]:
    """For each column: raw agreement with everyone else, and alpha without this rater. An alpha that rises without a
    rater says that he is at odds with the others."""
    found = as_array(matrix)
    columns = range(found.shape[1])
    return [
        {"raw": _with_others(found, i, how), "alpha_without": krippendorff(np.delete(found, i, 1).tolist(), level, how)}
        for i in columns
    ]


def gap_to_others(matrix: Matrix, rater: int, how: Bootstrap = PLAIN) -> Agreement:
    """Raw agreement of one column with the others, less that of the others among themselves, over the same draws."""
    found = as_array(matrix)
    others = np.delete(found, rater, 1)
    counts, _, rows = _counts(others.tolist())
    hits, pairs = np.zeros((2, len(found))), np.zeros((2, len(found)))
    hits[1, rows], pairs[1, rows] = (counts * (counts - 1)).sum(1), counts.sum(1) * (counts.sum(1) - 1)
    pairs[0] = (~np.isnan(others) & ~np.isnan(found[:, [rater]])).sum(1)
    hits[0] = (others == found[:, [rater]]).sum(1)

    def value(w: Array) -> float:
        mine, theirs = (_ratio(w @ hits[i], w @ pairs[i], "too few shared items") for i in (0, 1))
        return mine - theirs

    return _measured(value, len(found), np.arange(len(found)), how)


def _with_others(found: Array, rater: int, how: Bootstrap) -> Agreement:
    """Share of pairs of ratings with this rater in them that are equal."""
    mine = found[:, [rater]]
    others = np.delete(found, rater, 1)
    pairs = (~np.isnan(others) & ~np.isnan(mine)).sum(1)
    hits = (others == mine).sum(1)
    kept = np.flatnonzero(pairs)

    def value(w: Array) -> float:
        return _ratio(w @ hits[kept], w @ pairs[kept], "no item is shared with another rater")

    return _measured(value, len(kept), kept, how)


def months(times: Sequence[int]) -> list[str]:
    """The month, in UTC, of times in milliseconds since 1970: "2026-03"."""
    return [datetime.fromtimestamp(time / 1000, UTC).strftime("%Y-%m") for time in times]


def runs(times: Sequence[int], size: int) -> list[str]:
    """The same times in runs of `size`, oldest first: "1-200", "201-400". Equal times keep their order."""
    if size < 1:
        raise InputError(f"runs of {size} votes; a run is 1 or more")
    places = np.argsort(np.argsort(times, kind="stable"), kind="stable")
    return [f"{start + 1}-{start + size}" for start in (places // size * size).tolist()]


def over_time(
    matrix: Matrix, periods: Sequence[str], level: Level = "nominal", how: Bootstrap = PLAIN
) -> dict[str, dict[str, Agreement]]:
    """Raw agreement and alpha of each period; `periods` names the one of each row (see `months`, `runs`)."""
    found: dict[str, dict[str, Agreement]] = {}
    for period in sorted(set(periods), key=lambda name: [int(part) for part in name.split("-")]):
        rows = [i for i, name in enumerate(periods) if name == period]
        groups = [how.groups[i] for i in rows] if how.groups is not None else None
        part, here = [matrix[i] for i in rows], replace(how, groups=groups)
        found[period] = {"raw": raw(part, here), "alpha": krippendorff(part, level, here)}
    return found


# --- the parts that coefficients share -------------------------------------------------------------------------------


def as_array(matrix: Matrix) -> Array:
    """(items, raters) with NaN for a gap. Raises `InputError` where rows differ in length or a value is infinite."""
    widths = {len(row) for row in matrix}
    if len(widths) > 1:
        raise InputError(f"rows of {min(widths)} and of {max(widths)} ratings; give one column for each rater")
    found = np.array([[np.nan if x is None else float(x) for x in row] for row in matrix], float)
    if np.isinf(found).any():
        raise InputError("a rating is infinite; ratings are finite numbers, a gap is None")
    return found.reshape(len(matrix), next(iter(widths), 0))


def _counts(matrix: Matrix) -> tuple[Array, Array, NDArray[np.intp]]:
    """(items, values) how often each value was given; the values, rising; the rows kept: those rated twice or more."""
    found = as_array(matrix)
    kept = np.flatnonzero((~np.isnan(found)).sum(1) >= 2)
    found = found[kept]
    values = np.unique(found[~np.isnan(found)])
    counts = np.stack([(found == value).sum(1) for value in values], 1) if len(values) else np.zeros((0, 0))
    return counts.astype(float), values, kept


def _table(a: Column, b: Column) -> tuple[Callable[[Array], Array], int, NDArray[np.intp], Array]:
    """A function from item weights to the contingency table of what both rated; n; rows kept; the values, rising."""
    both = as_array(list(zip(a, b, strict=True))).reshape(-1, 2)
    kept = np.flatnonzero(~np.isnan(both).any(1))
    values, places = np.unique(both[kept], return_inverse=True)
    places = places.reshape(-1, 2)
    c = len(values)
    cells = places[:, 0] * c + places[:, 1]
    return lambda w: np.bincount(cells, w, c * c).reshape(c, c).astype(float), len(kept), kept, values


def _distances(margins: Array, level: Level) -> Array:
    """Squared distances of values: nominal, or ordinal by how many ratings lie between (half of the ends)."""
    if level == "nominal":
        return 1 - np.eye(len(margins))
    middles = margins.cumsum() - margins / 2
    return np.asarray((middles[:, None] - middles) ** 2)


def _check_varied(rows: Array, columns: Array) -> None:
    _check_rated(rows.sum(), (rows > 0).sum() - 1, (columns > 0).sum() - 1)


def _check_rated(total: float, varied_a: float, varied_b: float) -> None:
    if total == 0:
        raise Undefined("no item is rated by both")
    if varied_a <= 0 or varied_b <= 0:
        raise Undefined("a rater gave one value alone")


def _ratio(top: float, bottom: float, reason: str) -> float:
    if bottom <= ROUNDING:
        raise Undefined(reason)
    return float(top / bottom)


def _measured(value: Callable[[Array], float], n: int, kept: NDArray[np.intp], how: Bootstrap) -> Agreement:
    """The coefficient with every item once, and its bootstrap interval."""
    try:
        found = float(value(np.ones(n)))
    except Undefined as undefined:
        return Agreement(None, n, reason=str(undefined))
    draws = _draws(value, n, kept, how)
    if how.draws and len(draws) < (1 - MOST_UNDEFINED) * how.draws:
        share = 1 - len(draws) / how.draws
        return Agreement(found, n, reason=f"no interval: undefined in {share:.0%} of the draws")
    low, high = np.percentile(draws, [2.5, 97.5]) if len(draws) else (None, None)
    return Agreement(found, n, None if low is None else float(low), None if high is None else float(high))


def _draws(value: Callable[[Array], float], n: int, kept: NDArray[np.intp], how: Bootstrap) -> list[float]:
    """The coefficient in each draw that defines it."""
    names = np.arange(n) if how.groups is None else np.unique([how.groups[i] for i in kept], return_inverse=True)[1]
    num_groups = int(names.max()) + 1 if n else 0
    rng = np.random.default_rng(how.seed)
    found = []
    for _ in range(how.draws if num_groups > 1 else 0):
        times = np.bincount(rng.integers(num_groups, size=num_groups), minlength=num_groups)
        try:
            found.append(float(value(times[names].astype(float))))
        except Undefined:
            continue
    return found
