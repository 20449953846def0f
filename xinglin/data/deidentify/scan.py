"""What is run over the texts of a note, in this process or in several: find what is there, check what is left.

slots(note, roles)                the texts of a note: itself, its kind and source, fields that are text
Spread(workers, stack)(mark, tasks)   spans of each text, or the name of the error (its message may hold text)
marker(notes, roles)              what would be marked in a note, for measuring
"""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from xinglin.data.deidentify.columns import KEPT, role_of
from xinglin.data.deidentify.find import find, known_from
from xinglin.data.deidentify.gate import Survivor, survivors, with_seeds
from xinglin.data.deidentify.kinds import Span
from xinglin.data.deidentify.rewrite import Pairs, Patient, Patients
from xinglin.records import Note

BATCH = 64
T = TypeVar("T")
R = TypeVar("R")
Knowledge = tuple[Pairs, Pairs, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Slot:
    """One text of a note. `place` is text, kind, source or a column; `full` ones go through the finder, others only
    through the search for known values."""

    place: str
    text: str
    full: bool


def slots(note: Note, roles: Mapping[str, str]) -> list[Slot]:
    found = [Slot("text", note.text, True), Slot("kind", note.kind, True), Slot("source", note.source, True)]
    for column, value in note.fields.items():
        role = role_of(column, roles)
        if value and (role == "text" or role in KEPT):
            found.append(Slot(f"field {column}", value, role == "text"))
    return [slot for slot in found if slot.text]


def knowledge(patient: Patient) -> Knowledge:
    """What a worker needs to know of a patient."""
    return patient.fields, patient.kinds, patient.seeds


class Spread:
    """Maps a function over a batch, here or in `workers` processes; results in order."""

    def __init__(self, workers: int, stack: ExitStack) -> None:
        self.size = BATCH * workers
        self._pool = stack.enter_context(multiprocessing.Pool(workers)) if workers > 1 else None

    def __call__(self, function: Callable[[T], R], batch: Sequence[T]) -> list[R]:
        return self._pool.map(function, batch, chunksize=8) if self._pool else list(map(function, batch))


@functools.lru_cache(maxsize=4096)
def _known(fields: Pairs, roles: Pairs) -> Any:
    return known_from(dict(fields), dict(roles))


SHORT = 80  # characters: kinds and sources of notes recur by the thousand


@functools.lru_cache(maxsize=4096)
def _find_short(text: str, fields: Pairs, roles: Pairs) -> tuple[Span, ...]:
    return tuple(find(text, _known(fields, roles)))


def _find(text: str, fields: Pairs, roles: Pairs) -> list[Span]:
    return list(_find_short(text, fields, roles)) if len(text) <= SHORT else find(text, _known(fields, roles))


def mark(task: tuple[list[tuple[str, bool]], Pairs, Pairs, dict[str, str]]) -> list[list[Span]] | str:
    """The spans of each text of a note; the name of the error where the finder fails, because its message may hold
    text.
    """
    texts, fields, roles, seeds = task
    try:
        return [with_seeds(text, _find(text, fields, roles) if full else [], seeds) for text, full in texts]
    except Exception as error:
        return type(error).__name__


def check(task: tuple[list[tuple[str, bool, Any]], Pairs, Pairs, dict[str, str]]) -> list[list[Survivor]] | str:
    """What survives in each rewritten text of a note."""
    texts, fields, roles, seeds = task
    try:
        return [
            survivors(text, inserted, seeds, _find(text, fields, roles) if full else [])
            for text, full, inserted in texts
        ]
    except Exception as error:
        return type(error).__name__


def marker(notes: Iterable[Note], roles: Mapping[str, str]) -> Callable[[Note], list[Span]]:
    """What the second pass would mark in the text of a note, when these notes are all there are."""
    people = Patients(b"measuring needs no secret", roles)
    for note in notes:
        people.add(note)
    people.settle()

    def spans(note: Note) -> list[Span]:
        marks = mark(([(note.text, True)], *knowledge(people.of(note))))
        if isinstance(marks, str):
            raise RuntimeError(f"the finder failed with {marks} on a labelled note")
        return marks[0]

    return spans
