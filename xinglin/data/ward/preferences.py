"""Ranked answers: doctor > strong model > weak model > rejected, with ties.

As in ChiMed-GPT the rejected answer is often easy (off-topic or garbled): a reward model that sees doctor-rejected
pairs only learns that and cannot order the middle. Each record carries all four: both ways of training can be drawn.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from xinglin.data.ward.answers import ASKS, answer
from xinglin.data.ward.consult import Case, case_answer, cases
from xinglin.data.ward.world import World
from xinglin.records import Answer, Message, Preference, record_id

SOURCES = ("doctor", "strong-model", "weak-model", "rejected")
REJECTED_KINDS = ("dangerous", "off_topic", "garbled")
TIE_SHARE = 0.15


def preferences(world: World, count: int, split: str, part: str, seed: int) -> Iterator[Preference]:
    rng = random.Random(f"{seed}/{split}/preferences")
    for case in cases(world, count, split, part, seed):
        texts, qualities, ranks, rejected = _ranked(world, case, rng)
        order = rng.sample(range(4), 4)
        yield Preference(
            id=record_id("ward-preference", case.patient.id),
            prompt=(Message("user", case.prompt),),
            answers=tuple(Answer(texts[i], SOURCES[i]) for i in order),
            ranks=tuple(ranks[i] for i in order),
            source="ward",
            meta={**case.meta(), "qualities": [qualities[i] for i in order], "rejected_kind": rejected},
        )


def _ranked(world: World, case: Case, rng: random.Random) -> tuple[list[str], list[str], list[int], str]:
    """Four texts from best to worst. A tie: the weak model does as well as the strong one, and shares its place."""
    tie = rng.random() < TIE_SHARE
    doctor = case_answer(world, case, "complete", rng)
    strong = case_answer(world, case, "good", rng)
    weak = case_answer(world, case, "good" if tie else "poor", rng)
    kind = rng.choice(REJECTED_KINDS)
    qualities = ["complete", "good", "good" if tie else "poor", kind]
    return [doctor, strong, weak, _rejected(world, case, kind, rng)], qualities, [1, 2, 2 if tie else 3, 4], kind


def _rejected(world: World, case: Case, kind: str, rng: random.Random) -> str:
    if kind == "dangerous":
        return case_answer(world, case, "dangerous", rng)
    if kind == "garbled":
        return garble(case_answer(world, case, "complete", rng), rng)
    other = rng.choice([d for d in world.diseases if d.id != case.patient.disease])
    return answer(world, other, rng.choice(ASKS), "complete", rng)


def garble(text: str, rng: random.Random) -> str:
    """Pieces of three to five characters in a wrong order, without an end."""
    plain = text.rstrip("。")
    pieces = []
    while plain:
        width = rng.randint(3, 5)
        pieces.append(plain[:width])
        plain = plain[width:]
    rng.shuffle(pieces)
    return "".join(pieces[: max(3, len(pieces) * 2 // 3)])
