"""What is true when raters differ in skill: Dawid and Skene 1979, by expectation and maximisation.

    found = dawid_skene([[1, 1, 0], [0, None, 0], ...])
    found.posterior[i, c]       probability that item i is of class c
    found.confusion[r, c, k]    how often rater r says k where the truth is c: his weight follows from it

Starts from the vote shares. A rater who is wrong more often than right counts for the opposite of what he says, so the
raters must be right more often than wrong as a whole. A pseudo-count keeps a rater seen a few times from certainty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xinglin.records import InputError

Array = NDArray[np.float64]
ITERATIONS, TOLERANCE = 200, 1e-8
PSEUDO_COUNT = 0.01


@dataclass(frozen=True, slots=True)
class Truth:
    """`log_likelihood` after each iteration; it never falls but for the pseudo-count."""

    posterior: Array
    confusion: Array
    prior: Array
    log_likelihood: list[float]

    @property
    def labels(self) -> list[int]:
        """The likeliest class of each item; the first of equals."""
        return [int(row.argmax()) for row in self.posterior]


def dawid_skene(labels: Sequence[Sequence[int | None]], num_classes: int = 2) -> Truth:
    """Items by raters, classes 0 to num_classes - 1, None for a gap. Raises `InputError` for an item without labels."""
    said = _one_hot(labels, num_classes)
    posterior = said.sum(1) / said.sum((1, 2))[:, None]
    history: list[float] = []
    for _ in range(ITERATIONS):
        prior = posterior.mean(0)
        confusion = np.einsum("ic,irk->rck", posterior, said) + PSEUDO_COUNT
        confusion /= confusion.sum(2, keepdims=True)
        joint = np.log(np.maximum(prior, 1e-300)) + np.einsum("irk,rck->ic", said, np.log(confusion))
        top = joint.max(1, keepdims=True)
        evidence = np.log(np.exp(joint - top).sum(1, keepdims=True)) + top
        posterior = np.exp(joint - evidence)
        history.append(float(evidence.sum()))
        if len(history) > 1 and abs(history[-1] - history[-2]) < TOLERANCE:
            break
    return Truth(posterior, confusion, prior, history)


def _one_hot(labels: Sequence[Sequence[int | None]], num_classes: int) -> Array:
    """(items, raters, classes)."""
    if not labels or len({len(row) for row in labels}) > 1:
        raise InputError("labels are a row for each item and a column for each rater, all of one width")
    found = np.zeros((len(labels), len(labels[0]), num_classes))
    for i, row in enumerate(labels):
        if all(label is None for label in row):
            raise InputError(f"item {i + 1} of {len(labels)} has no label; leave it out")
        for r, label in enumerate(row):
            if label is not None:
                if not 0 <= label < num_classes:
                    raise InputError(f"item {i + 1} has the label {label}; allowed: 0 to {num_classes - 1}")
                found[i, r, label] = 1
    return found
