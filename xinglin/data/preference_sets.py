"""Parts of a set of rankings, and the set as raters of uneven skill would have labelled it.

    half_of(records, "first", counts)      one half, by the hash of the id: a second reward model sees none of the other
    noisy_pairs(records, noise, seed, counts)   a pair of each ranking with planted wrong labels, settled as asked

The noise study asks how a reward model's accuracy falls with the share of wrong labels, and how much of it weights of
raters bring back (Dawid and Skene 1979). The planted raters err at rates spread evenly from 0 to twice the share.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from xinglin.config import LabelNoise
from xinglin.metrics.dawid_skene import dawid_skene
from xinglin.records import InputError, Preference
from xinglin.run import seed_for


def half_of(records: Iterable[Preference], half: str, counts: Counter[str]) -> Iterator[Preference]:
    """Rankings of the half (first, second) or all of them."""
    for record in records:
        if half == "all" or (seed_for("half", record.id) % 2 == 0) == (half == "first"):
            yield record
        else:
            counts["preferences of the other half"] += 1


def noisy_pairs(
    records: Iterable[Preference], noise: LabelNoise, seed: int, counts: Counter[str]
) -> Iterator[Preference]:
    """One pair of each ranking, labelled by `noise.votes` of `noise.raters`; counts the labels that are wrong.

    The label is the first vote, the majority's, or the likeliest under Dawid-Skene. Raises `InputError` where more
    votes are asked for than there are raters.
    """
    if noise.votes > noise.raters:
        raise InputError(f"noise.votes is {noise.votes}, but noise.raters is {noise.raters}; lower the votes")
    rng = random.Random(f"{seed}/noise/pairs")
    pairs = [pair for record in records if (pair := _one_pair(record, rng)) is not None]
    votes = _votes(pairs, noise, random.Random(f"{seed}/noise/votes/{noise.share}"))
    for pair, label in zip(pairs, _settled(votes, noise), strict=True):
        wrong = label != int(pair.ranks[0] < pair.ranks[1])
        counts["pairs labelled"] += 1
        counts["labels that are wrong"] += wrong
        yield replace(pair, ranks=(1, 2) if label else (2, 1), meta={**pair.meta, "label_is_wrong": wrong})


def _one_pair(record: Preference, rng: random.Random) -> Preference | None:
    """Two answers of a ranking that are no tie, in the record's own order."""
    ranks = record.ranks
    pairs = [(i, j) for i, j in itertools.combinations(range(len(ranks)), 2) if ranks[i] != ranks[j]]
    if not pairs:
        return None
    i, j = rng.choice(pairs)
    order = (1, 2) if ranks[i] < ranks[j] else (2, 1)
    return replace(record, answers=(record.answers[i], record.answers[j]), ranks=order)


def _votes(pairs: list[Preference], noise: LabelNoise, rng: random.Random) -> list[dict[int, int]]:
    """For each pair what each rater said, in the order they were asked: 1 where the first answer is better."""
    steps = max(noise.raters - 1, 1)
    errors = [noise.share if noise.raters == 1 else 2 * noise.share * r / steps for r in range(noise.raters)]
    found = []
    for pair in pairs:
        truth = int(pair.ranks[0] < pair.ranks[1])
        asked = rng.sample(range(noise.raters), noise.votes)
        found.append({r: 1 - truth if rng.random() < errors[r] else truth for r in asked})
    return found


def _settled(votes: list[dict[int, int]], noise: LabelNoise) -> list[int]:
    """One label for each pair. An even split of the votes goes the way of the first."""
    if noise.settle == "weighted":
        return dawid_skene([[said.get(r) for r in range(noise.raters)] for said in votes]).labels if votes else []
    given = [list(said.values()) for said in votes]
    if noise.settle == "majority":
        return [int(sum(row) + 0.5 * row[0] > len(row) / 2) for row in given]
    return [row[0] for row in given]
