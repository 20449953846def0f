"""Calibration and Dawid-Skene: by hand, and on data whose truth was planted."""

from __future__ import annotations

import numpy as np
import pytest

from xinglin.metrics.calibration import calibration, pair_confidence
from xinglin.metrics.dawid_skene import dawid_skene
from xinglin.records import InputError


def test_confidence_is_the_larger_probability() -> None:
    assert pair_confidence([0.0, np.log(3), -np.log(3)]) == pytest.approx([0.5, 0.75, 0.75])


def test_the_error_by_hand() -> None:
    """Sure of .8 four times and right once: a gap of .55. Sure of .6, right: .4 the other way. (4 x .55 + .4) / 5."""
    found = calibration([0.8, 0.8, 0.8, 0.8, 0.6], [1, 0, 0, 0, 1], draws=0)
    assert found["ece"] == pytest.approx((4 * 0.55 + 0.4) / 5) and found["n"] == 5
    assert [row["n"] for row in found["bins"]] == [1, 4]
    assert found["bins"][1]["accuracy"] == 0.25 and found["bins"][1]["confidence"] == pytest.approx(0.8)
    assert found["low"] is None


def test_gaps_of_one_bin_cancel_and_those_of_two_do_not() -> None:
    """Within a bin the mean confidence counts: .71 and .74, right once: |1.45 - 1| / 2."""
    assert calibration([0.71, 0.74], [1, 0], draws=0)["ece"] == pytest.approx(0.225)
    assert calibration([0.51, 0.99], [1, 0], draws=0)["ece"] == pytest.approx((0.49 + 0.99) / 2)


def test_a_model_that_means_what_it_says_has_a_small_error() -> None:
    rng = np.random.default_rng(0)
    gaps = rng.normal(0, 2, 20_000)
    sure = pair_confidence(gaps)
    found = calibration(sure, (rng.random(len(sure)) < sure).astype(float), draws=100)
    assert found["ece"] < 0.015 and found["low"] <= found["high"]
    assert calibration(pair_confidence(3 * gaps), (rng.random(len(sure)) < sure).astype(float), draws=0)["ece"] > 0.08


def test_nothing_to_measure() -> None:
    assert calibration([], []) == {"ece": None, "low": None, "high": None, "n": 0, "bins": []}


# --- Dawid and Skene -------------------------------------------------------------------------------------------------


def planted(errors: list[float], items: int = 800, seed: int = 0) -> tuple[np.ndarray, list[list[int | None]]]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(2, size=items)
    wrong = rng.random((items, len(errors))) < errors
    said = np.where(wrong, 1 - truth[:, None], truth[:, None])
    gaps = rng.random(said.shape) < 0.2
    gaps[:, 0] = False
    return truth, [
        [None if gap else int(x) for x, gap in zip(*row, strict=True)] for row in zip(said, gaps, strict=True)
    ]


def test_it_finds_the_raters_errors_and_beats_the_majority() -> None:
    errors = [0.05, 0.05, 0.45, 0.45, 0.45]
    truth, labels = planted(errors)
    found = dawid_skene(labels)
    assert [row[0, 1] for row in found.confusion] == pytest.approx(errors, abs=0.06)
    votes = [[label for label in row if label is not None] for row in labels]
    majority = np.array([2 * sum(row) > len(row) for row in votes])
    assert (np.array(found.labels) == truth).mean() > (majority == truth).mean() + 0.05
    assert found.prior == pytest.approx([0.5, 0.5], abs=0.05)
    assert found.posterior.sum(1) == pytest.approx(np.ones(len(truth)))


def test_a_rater_who_is_always_wrong_counts_the_other_way() -> None:
    truth, labels = planted([0.1, 0.1, 0.9])
    assert dawid_skene(labels).confusion[2][0, 1] > 0.8
    assert (np.array(dawid_skene(labels).labels) == truth).mean() > 0.9


def test_the_likelihood_rises() -> None:
    rises = np.diff(dawid_skene(planted([0.1, 0.3, 0.4])[1]).log_likelihood)
    assert len(rises) > 2 and rises.min() > -0.1  # the pseudo-count may cost a little


@pytest.mark.parametrize("labels", [[], [[1], [1, 0]], [[None, None]], [[2, 0]]])
def test_what_are_no_labels_is_refused(labels: list[list[int | None]]) -> None:
    with pytest.raises(InputError):
        dawid_skene(labels)
