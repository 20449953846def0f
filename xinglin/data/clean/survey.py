"""The first pass: what only the whole corpus can tell.

    tails        last sentences that stand behind many different sentences: boilerplate (R9, R11)
    pile_ups     lengths at which answers without an end mark pile up: somebody cut them there (R11)
    quarantined  sources in which too many answers were rewritten by a synonym machine (R12)

Memory is bounded: endings that stay rare are forgotten along the way (lossy counting, Manku & Motwani, VLDB 2002), so
that an ending may be missed only if it is rarer than the threshold by a wide margin.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from xinglin.data.clean import words
from xinglin.data.clean.settings import CleanSettings

MOST_ENDINGS = 200_000
LONGEST_TAIL = 80
# A tail that warns is never boilerplate, however often it is said.
WARNING = re.compile(r"立即|立刻|马上|急诊|急救|120|抢救|停药|遵医嘱|禁用|慎用|过量|危险|\d")


@dataclass(frozen=True, slots=True)
class Survey:
    """`tails` are whole last sentences; `sources` holds, for each source, its answers and how many are rewritten."""

    tails: frozenset[str] = frozenset()
    pile_ups: frozenset[int] = frozenset()
    quarantined: frozenset[str] = frozenset()
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)


def survey(answers: Iterable[tuple[str, str]], settings: CleanSettings) -> Survey:
    """Count over (source, answer) pairs, as mended by the text rules."""
    endings: dict[str, set[int]] = defaultdict(set)
    lengths: dict[bool, Counter[int]] = {True: Counter(), False: Counter()}
    told: dict[str, Counter[str]] = defaultdict(Counter)
    for source, answer in answers:
        _note_ending(endings, answer, settings.tail_contexts)
        lengths[words.END.search(answer) is not None][len(answer)] += 1
        told[source].update(answers=1, reversed=_is_reversed(answer), rewritten=is_rewritten(answer))
    total = sum(sum(counts.values()) for counts in lengths.values())
    enough = max(settings.tail_contexts, settings.tail_share * total)
    shares = {name: {**counts, "share": counts["rewritten"] / counts["answers"]} for name, counts in told.items()}
    return Survey(
        frozenset(tail for tail, contexts in endings.items() if len(contexts) >= enough),
        frozenset(_pile_ups(lengths[False], settings)),
        frozenset(name for name, counts in shares.items() if _poisoned(counts, settings)),
        shares,
    )


def last_sentence(text: str) -> str:
    """The last sentence with its end mark, "" where it is the only one."""
    parts = [part for part in re.split(r"(?<=[。！？!?\n])", text.rstrip()) if part.strip()]
    return parts[-1].strip() if len(parts) > 1 else ""


def is_rewritten(text: str) -> bool:
    """Whether the synonym machine has been at work: a reversed meaning, or its harmless traces."""
    return _is_reversed(text) or words.FINGERPRINTS.search(text) is not None


def _is_reversed(text: str) -> bool:
    return any(pattern.search(text) for pattern in words.REVERSED.values())


def _note_ending(endings: dict[str, set[int]], answer: str, enough: int) -> None:
    ending = last_sentence(answer)
    if not 2 <= len(ending) <= LONGEST_TAIL or WARNING.search(ending):
        return
    before = answer[: answer.rindex(ending)].rstrip()[-12:]
    # Different sentences before it, not rows: in a text about one disease the same ending is no boilerplate
    endings[ending].add(crc32(before.encode()))
    if len(endings) > MOST_ENDINGS:
        for rare in [name for name, contexts in endings.items() if len(contexts) == 1]:
            del endings[rare]


def _pile_ups(lengths: Counter[int], settings: CleanSettings) -> Iterable[int]:
    for length, count in lengths.items():
        if length >= 30 and count >= settings.pile_up_answers:
            around = [lengths[length + step] for step in (*range(-10, 0), *range(1, 11))]
            if count >= settings.pile_up * max(1, sum(around) / len(around)):
                yield length


def _poisoned(counts: dict[str, Any], settings: CleanSettings) -> bool:
    return counts["answers"] >= settings.quarantine_answers and counts["share"] > settings.quarantine_share
