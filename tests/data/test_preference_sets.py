"""Halves that do not meet, and planted noise that is what was asked for."""

from __future__ import annotations

from collections import Counter

import pytest

from xinglin.config import LabelNoise
from xinglin.data.preference_sets import half_of, noisy_pairs
from xinglin.records import Answer, InputError, Message, Preference


def rankings(count: int) -> list[Preference]:
    ranks = [(1, 2, 3), (3, 1, 2), (2, 3, 1)]
    return [
        Preference(f"p{i}", (Message("user", "?"),), tuple(Answer(f"{r}") for r in ranks[i % 3]), ranks[i % 3])
        for i in range(count)
    ]


def test_halves_share_nothing_and_lose_nothing() -> None:
    counts: Counter[str] = Counter()
    first, second = ({p.id for p in half_of(rankings(400), name, counts)} for name in ("first", "second"))
    assert not first & second and len(first | second) == 400 and 150 < len(first) < 250
    assert counts["preferences of the other half"] == 400
    assert len(list(half_of(rankings(9), "all", counts))) == 9


def made(share: float, settle: str, count: int = 1500) -> tuple[list[Preference], float]:
    counts: Counter[str] = Counter()
    noise = LabelNoise(share=share, settle=settle)  # type: ignore[arg-type]
    found = list(noisy_pairs(rankings(count), noise, 0, counts))
    assert counts["pairs labelled"] == len(found) == count
    return found, counts["labels that are wrong"] / count


def test_without_noise_every_label_is_right() -> None:
    found, wrong = made(0.0, "first", 60)
    assert wrong == 0
    for pair in found:  # the text of an answer is its true rank
        better, worse = sorted(pair.answers, key=lambda answer: pair.ranks[pair.answers.index(answer)])
        assert int(better.text) < int(worse.text) and sorted(pair.ranks) == [1, 2]


def test_one_vote_errs_as_often_as_asked_and_weights_err_less() -> None:
    shares = {how: made(0.3, how)[1] for how in ("first", "majority", "weighted")}
    assert shares["first"] == pytest.approx(0.3, abs=0.04)
    assert shares["weighted"] < shares["majority"] - 0.03 < shares["first"]


def test_the_same_pairs_whatever_the_noise() -> None:
    texts = [[[answer.text for answer in pair.answers] for pair in made(share, "first", 50)[0]] for share in (0.0, 0.4)]
    assert texts[0] == texts[1]


def test_ties_give_no_pair_and_too_many_votes_are_refused() -> None:
    tie = Preference("t", (Message("user", "?"),), (Answer("a"), Answer("b")), (1, 1))
    assert list(noisy_pairs([tie], LabelNoise(), 0, Counter())) == []
    with pytest.raises(InputError, match="noise.votes is 6"):
        list(noisy_pairs([], LabelNoise(votes=6), 0, Counter()))
