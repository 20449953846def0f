"""Cleaning: every record is kept, mended or set aside with a reason, and all are counted.

    settings = read_settings(None, (), tuple(RULES))
    known = Known(settings, survey_records(read_any(path), settings))       first pass: what only the whole can tell
    for outcome in clean(read_any(path), known):                            second pass: record by record
        Kept(record, changes=("html", "tails"), original)  |  Dropped(record, reason="advert")

`clean` knows nothing of the neighbours of a record, so that batches of any cut, on any number of machines, give the
same rows. A dropped record is the one that was read, not a half mended one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from xinglin.data.clean.rules import RULES, Cleanable, Known, Rule, answers_of, cleanable
from xinglin.data.clean.settings import CleanSettings, read_settings
from xinglin.data.clean.survey import Survey, survey
from xinglin.records import NAMES, InputError, Record

__all__ = [
    "RULES",
    "CleanSettings",
    "Dropped",
    "Kept",
    "Known",
    "Survey",
    "Tally",
    "clean",
    "clean_one",
    "read_settings",
    "survey_records",
    "with_reason",
]
TEXT_RULES = ("encoding", "control", "width", "html", "markers", "script", "punctuation")


@dataclass(frozen=True, slots=True)
class Kept:
    """`changes` names the rules that changed the record, in their order; `original` is the record as it was read."""

    record: Record
    changes: tuple[str, ...]
    original: Record


@dataclass(frozen=True, slots=True)
class Dropped:
    """The record as it was read, and the rule that refused it."""

    record: Record
    reason: str


def clean(records: Iterable[Record], known: Known) -> Iterator[Kept | Dropped]:
    """One outcome for each record. Raises `InputError` for kinds of records that have no text to mend freely (exam
    questions, labelled spans, notes, rollouts)."""
    for record in records:
        yield clean_one(_allowed(record), known)


def clean_one(record: Cleanable, known: Known) -> Kept | Dropped:
    changes: list[str] = []
    now = record
    for name, rule in _chosen(known.settings).items():
        after = rule(now, known)
        if after is None:
            return Dropped(record, name)
        if after is not now:
            changes.append(name)
        now = after
    if changes:
        now = replace(now, meta={**now.meta, "clean": changes})
    return Kept(now, tuple(changes), record)


def survey_records(records: Iterable[Record], settings: CleanSettings) -> Survey:
    """The first pass over the records, with their texts mended as the second pass will see them."""
    plain = Known(settings, Survey())
    rules = [rule for name, rule in _chosen(settings).items() if name in TEXT_RULES]
    found = survey(_answers(records, rules, plain), settings)
    return replace(found, quarantined=frozenset()) if "quarantine" in settings.skip else found


def _answers(records: Iterable[Record], rules: list[Rule], plain: Known) -> Iterator[tuple[str, str]]:
    for record in records:
        now: Cleanable | None = _allowed(record)
        for rule in rules:
            now = rule(now, plain) if now else None
        yield from ((record.source, answer) for answer in (answers_of(now)[-1:] if now else ()))


def _chosen(settings: CleanSettings) -> dict[str, Rule]:
    return {name: rule for name, rule in RULES.items() if name not in settings.skip}


def _allowed(record: Record) -> Cleanable:
    found = cleanable(record)
    if found is None:
        raise InputError(
            f"record {record.id!r} is of type {NAMES[type(record)]}; cleaning takes document, conversation, preference "
            "and question records: give the others past it"
        )
    return found


def with_reason(dropped: Dropped) -> Record:
    """The dropped record for the file of rejected ones: itself, with the reason in its meta."""
    return replace(dropped.record, meta={**dropped.record.meta, "rejected": dropped.reason})


@dataclass(slots=True)
class Tally:
    """Running counts of outcomes; `read` is always `accepted` plus the sum of `rejected`."""

    read: int = 0
    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    sources: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, outcome: Kept | Dropped) -> None:
        self.read += 1
        source = self.sources.setdefault(outcome.record.source, Counter(read=0, accepted=0))
        source["read"] += 1
        if isinstance(outcome, Kept):
            self.accepted += 1
            self.changed.update(outcome.changes)
            source["accepted"] += 1
        else:
            self.rejected[outcome.reason] += 1

    def summary(self) -> dict[str, Any]:
        return {
            "read": self.read,
            "accepted": self.accepted,
            "rejected": dict(self.rejected.most_common()),
            "changed": dict(self.changed.most_common()),
            "sources": {name: dict(counts) for name, counts in self.sources.items()},
        }
