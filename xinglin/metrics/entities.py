"""Entity F1. Strict: same start, end and type (CMeEE, CCKS-2019). Relaxed: same type and spans that overlap.

Relaxed matches are one to one, and as many as possible: one long prediction over three gold spans is one hit, not
three. The matching starts from the exact hits, so strict is never above relaxed. Spans may nest; repeats count once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from xinglin.records import Entity

Mode = Literal["strict", "relaxed"]
Span = tuple[int, int]
MICRO = "micro"


@dataclass(frozen=True, slots=True)
class EntityScore:
    precision: float
    recall: float
    f1: float
    tp: int
    fp: int
    fn: int


def entity_counts(
    gold: Iterable[Entity], predicted: Iterable[Entity], mode: Mode = "strict"
) -> dict[str, tuple[int, int, int]]:
    """(TP, FP, FN) of one text by type; `micro` holds their sum."""
    gold_spans, our_spans = _by_type(gold), _by_type(predicted)
    counts = {}
    for kind in sorted(gold_spans.keys() | our_spans.keys()):
        theirs, ours = gold_spans.get(kind, set()), our_spans.get(kind, set())
        hits = len(theirs & ours) if mode == "strict" else _most_overlaps(theirs, ours)
        counts[kind] = (hits, len(ours) - hits, len(theirs) - hits)
    columns = [sum(column) for column in zip(*counts.values(), strict=True)] or [0, 0, 0]
    return {**counts, MICRO: (columns[0], columns[1], columns[2])}


def entity_f1(texts: Iterable[Mapping[str, tuple[int, int, int]]]) -> dict[str, EntityScore]:
    """Scores by type and `micro`, from the counts of many texts. 0 / 0 is 0."""
    sums: dict[str, list[int]] = {MICRO: [0, 0, 0]}
    for counts in texts:
        for kind, row in counts.items():
            total = sums.setdefault(kind, [0, 0, 0])
            for column in range(3):
                total[column] += row[column]
    return {kind: _score(*total) for kind, total in sums.items()}


def _score(tp: int, fp: int, fn: int) -> EntityScore:
    precision = tp / (tp + fp) if tp else 0.0
    recall = tp / (tp + fn) if tp else 0.0
    return EntityScore(precision, recall, 2 * tp / (2 * tp + fp + fn) if tp else 0.0, tp, fp, fn)


def _by_type(entities: Iterable[Entity]) -> dict[str, set[Span]]:
    spans: dict[str, set[Span]] = {}
    for entity in entities:
        spans.setdefault(entity.type, set()).add((entity.start, entity.end))
    return spans


def _most_overlaps(gold: set[Span], ours: set[Span]) -> int:
    """Size of the largest one-to-one matching, by augmenting paths (Kuhn)."""
    owner: dict[Span, Span] = {span: span for span in gold & ours}

    def place(span: Span, tried: set[Span]) -> bool:
        for other in sorted(gold):
            if other in tried or not (span[0] < other[1] and other[0] < span[1]):
                continue
            tried.add(other)
            if other not in owner or place(owner[other], tried):
                owner[other] = span
                return True
        return False

    for span in sorted(ours - gold):
        place(span, set())
    return len(owner)
