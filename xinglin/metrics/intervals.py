"""How sure a score is: Wilson intervals for shares, bootstrap intervals for the rest, paired differences.

An item's value is a float, or a row of sufficient statistics whose column sums give the corpus score: BLEU needs
n-gram counts, F1 needs (TP, FP, FN), bits per character needs (nats, characters). `STATISTICS` turns sums into scores.
The bootstrap resamples items, or whole groups (conversations, patients) where items of one group hang together, and
takes percentiles (Efron and Tibshirani 1993, chapter 13).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from xinglin.metrics.text import bits_of_sums, bleu_of_sums, compat_bleu_2_of_sums, compat_bleu_3_of_sums
from xinglin.records import InputError

Array = NDArray[np.float64]
Value = float | Sequence[float]
CELLS = 2_000_000  # counts held at once while resampling: 16 MB


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """`diff` is b minus a. `num_differ` counts the items whose values differ at all."""

    diff: float
    low: float
    high: float
    n: int
    num_differ: int


def mean_of_sums(sums: Array) -> Array:
    """Rows (sum of values, number of values)."""
    return _ratio(sums[..., 0], sums[..., 1])


def f1_of_sums(sums: Array) -> Array:
    """Rows (TP, FP, FN)."""
    return _ratio(2 * sums[..., 0], 2 * sums[..., 0] + sums[..., 1] + sums[..., 2])


STATISTICS: dict[str, Callable[[Array], Array]] = {
    "mean": mean_of_sums,
    "f1": f1_of_sums,
    "bits": bits_of_sums,
    "bleu": bleu_of_sums,
    "compat_bleu_2": compat_bleu_2_of_sums,
    "compat_bleu_3": compat_bleu_3_of_sums,
}


def wilson_interval(successes: float, n: int, level: float = 0.95) -> Interval:
    """Wilson 1927, without continuity correction."""
    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"{successes} successes of {n}: a share needs n >= 1 and 0 <= successes <= n")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else centre - half  # exact at the ends, where rounding leaves 1e-17
    return Interval(low, 1.0 if successes == n else centre + half, level)


def bootstrap_interval(
    values: Sequence[Value],
    draws: int = 10_000,
    seed: int = 0,
    *,
    groups: Sequence[str] | None = None,
    statistic: str = "mean",
    level: float = 0.95,
) -> Interval:
    """Percentile interval of the corpus statistic over items, or over groups where `groups` names each item's."""
    rows = _group_rows(_as_rows(values), groups)
    scores = STATISTICS[statistic](_resample(rows, draws, seed))
    low, high = _percentiles(scores, level)
    return Interval(low, high, level)


def paired_difference(
    a: Mapping[str, Value],
    b: Mapping[str, Value],
    *,
    draws: int = 10_000,
    seed: int = 0,
    groups: Mapping[str, str] | None = None,
    statistic: str = "mean",
    level: float = 0.95,
) -> PairedDifference:
    """b minus a over the same items. Both must hold the same ids: an item left out would be a hidden choice."""
    if a.keys() != b.keys() or not a:
        raise InputError(
            f"paired comparison: {len(a.keys() - b.keys())} items only in a, {len(b.keys() - a.keys())} only in b, "
            f"{len(a.keys() & b.keys())} in both; both sides need the same items, at least one"
        )
    ids = sorted(a)
    rows_a, rows_b = _as_rows([a[i] for i in ids]), _as_rows([b[i] for i in ids])
    names = None if groups is None else [groups.get(i, i) for i in ids]
    width = rows_a.shape[1]
    rows = _group_rows(np.hstack([rows_a, rows_b]), names)
    score = STATISTICS[statistic]
    sums = _resample(rows, draws, seed)
    low, high = _percentiles(score(sums[:, width:]) - score(sums[:, :width]), level)
    total = rows.sum(0)
    diff = float(score(total[width:]) - score(total[:width]))
    differ = int((rows[:, :width] != rows[:, width:]).any(1).sum())
    return PairedDifference(diff, low, high, len(ids), differ)


def _as_rows(values: Sequence[Value]) -> Array:
    rows = np.asarray(values, dtype=np.float64)
    if rows.size == 0 or not np.isfinite(rows).all():
        raise InputError("an interval needs at least one value, and every value finite; missing is not a value")
    return np.column_stack([rows, np.ones(len(rows))]) if rows.ndim == 1 else rows


def _group_rows(rows: Array, groups: Sequence[str] | None) -> Array:
    if groups is None:
        return rows
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((len(names), rows.shape[1]))
    np.add.at(sums, index, rows)
    return sums


def _resample(rows: Array, draws: int, seed: int) -> Array:
    return np.concatenate(list(_resample_chunks(rows, draws, np.random.default_rng(seed))))


def _resample_chunks(rows: Array, draws: int, rng: np.random.Generator) -> Iterator[Array]:
    n = len(rows)
    step = max(1, CELLS // n)
    for first in range(0, draws, step):
        size = min(step, draws - first)
        picks = rng.integers(0, n, (size, n)) + np.arange(size)[:, None] * n
        counts = np.bincount(picks.ravel(), minlength=size * n).reshape(size, n)
        yield counts.astype(np.float64) @ rows


def _percentiles(scores: Array, level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = np.quantile(scores, [tail, 1 - tail])
    return float(low), float(high)


def _ratio(numerator: Array, denominator: Array) -> Array:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator, dtype=np.float64), where=denominator > 0)
