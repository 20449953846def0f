"""Which item next, on which side each answer stands, when a hidden repeat is due. Pure functions, seeded.

Sides are drawn by minimisation (Pocock and Simon 1975): among the arrangements that leave every model's places most
even, one is drawn by seed. A plain coin would need thousands of items to come within 50 +- 2 %.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xinglin.records import Score
from xinglin.run import seed_for

ORDERS = ("random", "file", "disagreed", "uncertain")
ARRANGEMENTS = 24  # tried for each item: all of them up to four answers


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the order of items is decided by. `scores[i]` are the known scores of answer i."""

    id: int
    external_id: str
    domain: str
    scores: tuple[tuple[Score, ...], ...]


def sampling_order(items: Sequence[Candidate], order: str, seed: int, in_domain_share: float | None) -> list[int]:
    """The ids in the order they are to be judged.

    file: as given. random: by seed. disagreed: the items first whose scorers order most answer pairs oppositely.
    uncertain: the items first whose best two answers the reward model holds closest together. `in_domain_share` mixes
    the domains `in` and `out` evenly in that share, until one runs out.
    """
    key = {
        "file": lambda one: 0.0,
        "random": lambda one: seed_for(seed, "order", one.external_id),
        "disagreed": lambda one: -scorer_conflict(one.scores),
        "uncertain": lambda one: reward_gap(one.scores),
    }[order]
    ordered = sorted(items, key=key)
    if in_domain_share is None:
        return [one.id for one in ordered]
    inside = [one.id for one in ordered if one.domain == "in"]
    return _interleave(inside, [one.id for one in ordered if one.domain != "in"], in_domain_share)


def _interleave(first: list[int], second: list[int], share: float) -> list[int]:
    """Both lists in their own order, `share` of every stretch from the first, until one is empty."""
    mixed: list[int] = []
    i = j = 0
    while i < len(first) and j < len(second):
        if i < share * (i + j + 1):
            mixed.append(first[i])
            i += 1
        else:
            mixed.append(second[j])
            j += 1
    return mixed + first[i:] + second[j:]


def scorer_conflict(scores: Sequence[Sequence[Score]]) -> float:
    """Share of (answer pair, scorer pair) that are ordered oppositely; 0 where there is nothing to compare."""
    columns: dict[tuple[str, str, str], dict[int, float]] = {}
    for answer, given in enumerate(scores):
        for score in given:
            columns.setdefault((score.source, score.scorer, score.criterion), {})[answer] = score.value
    against = total = 0
    for a, b in itertools.combinations(columns.values(), 2):
        for i, j in itertools.combinations(sorted(a.keys() & b.keys()), 2):
            against += (a[i] - a[j]) * (b[i] - b[j]) < 0
            total += 1
    return against / total if total else 0.0


def reward_gap(scores: Sequence[Sequence[Score]]) -> float:
    """Distance of the two best reward scores; infinite where fewer than two answers have one."""
    rewards = sorted((one.value for given in scores for one in given if one.source == "reward"), reverse=True)
    return rewards[0] - rewards[1] if len(rewards) > 1 else math.inf


def draw_sides(sources: Sequence[str], shown: Mapping[tuple[str, int], int], seed: int) -> tuple[int, ...]:
    """The arrangement of the answers: `sides[position]` is the answer shown there.

    `shown[source, position]` counts how often a source has stood there so far.
    """
    rng = random.Random(seed)
    places = range(len(sources))
    if math.factorial(len(sources)) <= ARRANGEMENTS:
        choices = list(itertools.permutations(places))
    else:
        choices = [tuple(rng.sample(places, len(sources))) for _ in range(ARRANGEMENTS)]
    rng.shuffle(choices)
    return min(choices, key=lambda sides: sum(shown.get((sources[a], p), 0) for p, a in enumerate(sides)))


def due(num_shown: int, share: float, seed: int, what: str) -> int:
    """How many repeats (or gold items) should have been among the first `num_shown` items: one at a seeded place in
    each block of 1 / share, so that nobody can count them out."""
    if share <= 0:
        return 0
    block = round(1 / share)
    blocks, rest = divmod(num_shown, block)
    return blocks + (rest >= seed_for(seed, what, blocks) % block)
