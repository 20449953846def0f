"""Does a probability mean what it says? Reliability curve and expected calibration error.

A reward model gives the probability sigma(s_i - s_j) that answer i beats answer j (Bradley-Terry). Of the pairs in
which it is 80 % sure it should be right in 80 %. The error is the mean gap between confidence and accuracy over ten
bins of equal width, weighted by their pairs (Naeini et al. 2015; Guo et al. 2017, arXiv:1706.04599).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xinglin.metrics.intervals import wilson_interval

NUM_BINS = 10
Array = NDArray[np.float64]


def pair_confidence(gaps: Sequence[float]) -> Array:
    """max(p, 1 - p) of p = sigma(gap): how sure the model is of the answer it prefers, .5 to 1."""
    return 1 / (1 + np.exp(-np.abs(np.asarray(gaps, float))))


def calibration(
    confidences: Sequence[float] | Array,
    hits: Sequence[float] | Array,
    groups: Sequence[str] | None = None,
    *,
    num_bins: int = NUM_BINS,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """{"ece", "low", "high", "n", "bins": [{"from", "to", "n", "confidence", "accuracy", "low", "high"}]}.

    Bins of equal width over .5 to 1. `hits` are 1, 0 or .5 (a dead heat). The error of a small sample is biased
    upwards: its bootstrap percentiles (over `groups`) say how far it moves, not where 0 lies.
    """
    sure, right = np.asarray(confidences, float), np.asarray(hits, float)
    if len(sure) == 0:
        return {"ece": None, "low": None, "high": None, "n": 0, "bins": []}
    place = np.clip(((sure - 0.5) * 2 * num_bins).astype(int), 0, num_bins - 1)
    _, of_group = np.unique(groups if groups is not None else np.arange(len(sure)), return_inverse=True)
    num_groups = int(of_group.max()) + 1
    gaps = np.zeros((num_groups, num_bins))
    np.add.at(gaps, (of_group, place), sure - right)
    rng = np.random.default_rng(seed)
    size = np.bincount(of_group, minlength=num_groups)
    errors = []
    for _ in range(draws if num_groups > 1 else 0):
        times = np.bincount(rng.integers(num_groups, size=num_groups), minlength=num_groups)
        errors.append(float(np.abs(times @ gaps).sum() / (times @ size)))
    low, high = np.percentile(errors, [2.5, 97.5]).tolist() if errors else (None, None)
    ece = float(np.abs(gaps.sum(0)).sum() / len(sure))
    bins = [_bin(i, sure[place == i], right[place == i], num_bins) for i in range(num_bins) if (place == i).any()]
    return {"ece": ece, "low": low, "high": high, "n": len(sure), "bins": bins}


def _bin(number: int, sure: Array, right: Array, num_bins: int) -> dict[str, Any]:
    interval = wilson_interval(float(right.sum()), len(right))
    edges = {"from": 0.5 + number / num_bins / 2, "to": 0.5 + (number + 1) / num_bins / 2}
    means = {"confidence": float(sure.mean()), "accuracy": float(right.mean())}
    return {**edges, "n": len(right), **means, "low": interval.low, "high": interval.high}
