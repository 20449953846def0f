"""Recall and precision of any finder on labelled notes: counts by kind and by spelling, and what was missed.

    result = compare(notes, find)     find(note) -> spans with .start and .end, whatever else they hold
    result.recall("phone")            (covered, labelled)

An identifier is covered when every one of its characters lies in some found span, whatever kind that span has. A found
span is right when it touches a labelled identifier. Clocks, punctuation and titles beside an identifier cost nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from xinglin.records import Entity, Note


class Marked(Protocol):
    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...

    @property
    def kind(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Missed:
    note: Note
    entity: Entity
    spelling: str


@dataclass(frozen=True, slots=True)
class FalseAlarm:
    note: Note
    start: int
    end: int
    kind: str


@dataclass(slots=True)
class Comparison:
    labelled: Counter[tuple[str, str]] = field(default_factory=Counter)  # (kind, spelling)
    covered: Counter[tuple[str, str]] = field(default_factory=Counter)
    seeded: Counter[str] = field(default_factory=Counter)  # kind, of identifiers that the note's fields hold
    seeded_covered: Counter[str] = field(default_factory=Counter)
    marked: Counter[str] = field(default_factory=Counter)  # kind the finder gave
    right: Counter[str] = field(default_factory=Counter)
    missed: list[Missed] = field(default_factory=list)
    false_alarms: list[FalseAlarm] = field(default_factory=list)

    def recall(self, *kinds: str) -> tuple[int, int]:
        """(covered, labelled) of the kinds together; of all kinds when none is named."""
        return _total(self.covered, kinds), _total(self.labelled, kinds)

    def precision(self) -> tuple[int, int]:
        return self.right.total(), self.marked.total()


def compare(notes: Iterable[Note], find: Callable[[Note], Iterable[Marked]]) -> Comparison:
    result = Comparison()
    for note in notes:
        spans = list(find(note))
        _count_recall(note, spans, result)
        _count_precision(note, spans, result)
    return result


def _count_recall(note: Note, spans: list[Marked], result: Comparison) -> None:
    hidden = bytearray(len(note.text))
    for span in spans:
        hidden[span.start : span.end] = b"\x01" * (span.end - span.start)
    for entity, spelling, seeded in zip(note.entities, note.meta["spelling"], note.meta["seeded"], strict=True):
        covered = all(hidden[entity.start : entity.end])
        result.labelled[entity.type, spelling] += 1
        result.covered[entity.type, spelling] += covered
        result.seeded[entity.type] += seeded
        result.seeded_covered[entity.type] += seeded and covered
        if not covered:
            result.missed.append(Missed(note, entity, spelling))


def _count_precision(note: Note, spans: list[Marked], result: Comparison) -> None:
    gold = bytearray(len(note.text))
    for entity in note.entities:
        gold[entity.start : entity.end] = b"\x01" * (entity.end - entity.start)
    for span in spans:
        right = any(gold[span.start : span.end])
        result.marked[span.kind] += 1
        result.right[span.kind] += right
        if not right:
            result.false_alarms.append(FalseAlarm(note, span.start, span.end, span.kind))


def _total(counts: Counter[tuple[str, str]], kinds: tuple[str, ...]) -> int:
    return sum(count for (kind, _), count in counts.items() if not kinds or kind in kinds)
