"""Agreement against scikit-learn, statsmodels, scipy and krippendorff, by hand, and where it is undefined."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from xinglin.metrics.agreement import (
    Agreement,
    Bootstrap,
    Level,
    Weights,
    cohen,
    fleiss,
    intra_rater,
    kendall,
    krippendorff,
    months,
    over_time,
    per_rater,
    raw,
    runs,
    spearman,
)
from xinglin.records import InputError

POINT = Bootstrap(draws=0)
EXACT = {"rel": 0, "abs": 1e-9}
Rows = list[list[float | None]]


def matrices(count: int = 100) -> Iterator[tuple[np.ndarray, Rows]]:
    """Random matrices with gaps: 5 to 40 items, 2 to 6 raters, 2 to 6 values that hang together more or less."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        items, raters, values = rng.integers(5, 41), rng.integers(2, 7), rng.integers(2, 7)
        truth = rng.integers(values, size=(items, 1))
        found = np.where(rng.random((items, raters)) < 0.6, truth, rng.integers(values, size=(items, raters)))
        found = found.astype(float)
        found[rng.random(found.shape) < rng.uniform(0, 0.4)] = np.nan
        yield found, [[None if np.isnan(x) else float(x) for x in row] for row in found]


def plain(a: np.ndarray) -> list[float | None]:
    return [None if np.isnan(x) else float(x) for x in a]


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_equals_the_krippendorff_package(level: Level) -> None:
    reference = pytest.importorskip("krippendorff")
    for found, rows in matrices():
        rated_twice = found[(~np.isnan(found)).sum(1) >= 2]
        ours = krippendorff(rows, level, POINT)
        if len(np.unique(rated_twice[~np.isnan(rated_twice)])) < 2:
            assert ours.value is None
            continue
        assert ours.value == pytest.approx(reference.alpha(found.T, level_of_measurement=level), **EXACT)


@pytest.mark.parametrize(("weights", "theirs"), [("nominal", None), ("linear", "linear"), ("quadratic", "quadratic")])
def test_kappa_equals_scikit_learn(weights: Weights, theirs: str | None) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    compared = 0
    for found, _ in matrices():
        both = found[~np.isnan(found[:, :2]).any(1)][:, :2].astype(int)
        ours = cohen(plain(found[:, 0]), plain(found[:, 1]), weights, POINT)
        if len(both) == 0 or len(set(both[:, 0])) < 2 or len(set(both[:, 1])) < 2:
            assert ours.value is None and ours.reason
            continue
        compared += 1
        assert ours.n == len(both)
        assert ours.value == pytest.approx(metrics.cohen_kappa_score(*both.T, weights=theirs), **EXACT)
    assert compared > 80


def test_fleiss_equals_statsmodels() -> None:
    """statsmodels takes no gaps: as many are made in every item, so that its table is whole."""
    reference = pytest.importorskip("statsmodels.stats.inter_rater")
    for seed in range(100):
        rng = np.random.default_rng(seed)
        items, raters, values = rng.integers(5, 41), rng.integers(3, 7), rng.integers(2, 6)
        found = rng.integers(values, size=(items, raters)).astype(float)
        found[:2, :] = [[0], [1]]
        gaps = int(rng.integers(0, raters - 1))
        for row in found:
            row[rng.choice(raters, gaps, replace=False)] = np.nan
        table = np.stack([(found == value).sum(1) for value in range(values)], 1)
        ours = fleiss([plain(row) for row in found], POINT)
        assert ours.value == pytest.approx(reference.fleiss_kappa(table), **EXACT)


@pytest.mark.parametrize(("ours", "theirs"), [(kendall, "kendalltau"), (spearman, "spearmanr")])
def test_rank_correlations_equal_scipy(ours: Callable[..., Agreement], theirs: str) -> None:
    stats = pytest.importorskip("scipy.stats")
    for seed, (found, _) in enumerate(matrices()):
        if seed % 2:  # continuous values as well
            found = found + np.random.default_rng(seed).random(found.shape)
        both = found[~np.isnan(found[:, :2]).any(1)][:, :2]
        value = ours(plain(found[:, 0]), plain(found[:, 1]), POINT).value
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = getattr(stats, theirs)(*both.T).statistic if len(both) > 1 else np.nan
        if np.isnan(expected):
            assert value is None
        else:
            assert value == pytest.approx(expected, **EXACT)


def test_raw_agreement_by_hand() -> None:
    """1,1,2: one of three pairs. 1,1: one of one. 3 alone: no pair. Together 2 of 4."""
    assert raw([[1, 1, 2], [1, 1, None], [3, None, None]], POINT) == Agreement(0.5, 2)


def test_fleiss_with_unequal_numbers_by_hand() -> None:
    """a,a,b: 1/3. a,a: 1. Mean 2/3. Marginals 4/5, 1/5: expected 17/25. (2/3 - 17/25) / (8/25) = -1/24."""
    assert fleiss([[0, 0, 1], [0, 0, None]], POINT).value == pytest.approx(-1 / 24)


@pytest.mark.parametrize(
    ("measure", "reason"),
    [
        (lambda: krippendorff([[1, 1], [1, 1]]), "all ratings are equal"),
        (lambda: krippendorff([[1, None], [None, 2]]), "no item has two ratings"),
        (lambda: krippendorff([]), "no item has two ratings"),
        (lambda: krippendorff([[1, 1], [1, 1]], "interval"), "all ratings are equal"),
        (lambda: fleiss([[1, 1], [1, 1]]), "only one value"),
        (lambda: raw([[1, None]]), "no item has two ratings"),
        (lambda: cohen([1, 1, 1], [1, 1, 1]), "one value alone"),  # perfect agreement, and no evidence of any
        (lambda: cohen([1, 1, 1], [1, 2, 1]), "one value alone"),  # 0 by the formula
        (lambda: cohen([1, None], [None, 1]), "rated by both"),
        (lambda: kendall([1, 1, 1], [1, 2, 3]), "one value alone"),
        (lambda: spearman([1, 2, 3], [2, 2, 2]), "one value alone"),
        (lambda: kendall([], []), "rated by both"),
    ],
)
def test_what_is_undefined_is_said_to_be(measure: Callable[[], Agreement], reason: str) -> None:
    found = measure()
    assert found.value is None and found.low is None and found.high is None
    assert reason in found.reason and found.colour == ""


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Two raters who are right with 0.9 each on a fair coin: they agree on .82, so kappa is 2 x .82 - 1 = .64."""
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        truth = rng.integers(2, size=150)
        a, b = (np.where(rng.random(150) < 0.9, truth, 1 - truth).tolist() for _ in range(2))
        found = cohen(a, b, "nominal", Bootstrap(draws=200, seed=seed))
        covered += found.low <= 0.64 <= found.high
    assert 0.90 <= covered / 200 <= 0.985


def test_an_interval_resamples_groups_and_is_repeatable() -> None:
    """Twenty rows of one group carry one piece of evidence: the interval is wider than with twenty groups."""
    rng = np.random.default_rng(1)
    right = np.repeat(rng.random(12) < 0.7, 20)
    rows: Rows = [[i % 2, i % 2 if ok else 1 - i % 2] for i, ok in enumerate(right)]
    groups = [str(i // 20) for i in range(len(rows))]
    alone, together = raw(rows), raw(rows, Bootstrap(groups=groups))
    assert alone == raw(rows) and alone.value == together.value == pytest.approx(right.mean())
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_no_interval_where_too_many_draws_are_undefined() -> None:
    """One 2 among four items: (3/4)^4 = 32 % of the draws are all ones."""
    found = krippendorff([[1, 1], [1, 1], [1, 1], [2, 2]])
    assert found.value == 1.0 and found.low is None and found.reason.startswith("no interval: undefined in 3")


def test_colours_at_their_borders() -> None:
    assert [Agreement(x, 9).colour for x in (0.666, 0.667, 0.799, 0.8)] == ["red", "amber", "amber", "green"]


def test_the_rater_at_odds_stands_out() -> None:
    """Two who always agree and one who always says the opposite: with the rest 1/2, 1/2 and 0 by hand."""
    rows: Rows = [[x, x, 1 - x] for x in (0, 1, 0, 1, 1, 0)]
    found = per_rater(rows, how=POINT)
    assert [one["raw"].value for one in found] == [0.5, 0.5, 0.0]
    assert found[2]["alpha_without"].value == 1.0 and found[0]["alpha_without"].value < 0


def test_time_goes_by_month_and_by_votes() -> None:
    day = 86_400_000
    times = [20_500 * day, 20_400 * day, 20_501 * day]  # 2026-02-16, 2025-11-08
    assert months(times) == ["2026-02", "2025-11", "2026-02"]
    assert runs([30, 10, 20], 2) == ["3-4", "1-2", "1-2"]
    rows: Rows = [[1, 1], [0, 1], [0, 0]]
    found = over_time(rows, months(times), how=POINT)
    assert list(found) == ["2025-11", "2026-02"]
    assert [found[name]["raw"].value for name in found] == [0.0, 1.0]
    assert found["2026-02"]["alpha"].value == 1.0 and found["2026-02"]["alpha"].n == 2


def test_a_rater_against_himself() -> None:
    found = intra_rater([1, 2, 1, None], [1, 1, 1, 2], POINT)
    assert found["raw"].value == pytest.approx(2 / 3) and found["cohen"].value is None  # one value the second time


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: raw([[1, 2], [1]]),
        lambda: raw([[1, float("inf")]]),
        lambda: krippendorff([[1, 2]], "ratio"),  # type: ignore[arg-type]
        lambda: cohen([1], [1], "cubic"),  # type: ignore[arg-type]
        lambda: runs([1], 0),
    ],
)
def test_what_is_no_matrix_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        wrong()
