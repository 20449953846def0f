"""Find identifiers in one note: rules over one normalised view, and whatever is known of the patient from fields.

    find(text, known=None, tagger=None)   non-overlapping spans in order, offsets of the original text
    known_from(fields, roles=None)        what the structured fields of a patient and the hospital give away
    Span, Known                           frozen; neither is ever written to a log

What any rule marks is covered by the result: where spans overlap the longest stays whole and the rest is cut to what it
leaves. `tagger` is an optional model of names: it is handed the text as it is and returns spans of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from xinglin.data.deidentify.kinds import Span
from xinglin.data.deidentify.recognisers.dates import dates
from xinglin.data.deidentify.recognisers.known import Known, known_from, occurrences
from xinglin.data.deidentify.recognisers.names import names
from xinglin.data.deidentify.recognisers.numbers import numbers
from xinglin.data.deidentify.recognisers.places import addresses, employers, hospitals
from xinglin.data.deidentify.recognisers.view import BLANKS, LINES, View, mended

__all__ = ["Known", "Span", "find", "known_from"]

RULES = (numbers, dates, names, hospitals, employers, addresses)
RANK = {"known": 0, "checksum": 1, "label": 2}
KIND_RANK = {
    kind: rank
    for rank, kind in enumerate(("id_card", "travel_permit", "foreign_permit", "phone", "bank_card", "email"))
}


def find(text: str, known: Known | None = None, tagger: Callable[[str], list[Span]] | None = None) -> list[Span]:
    """Identifiers of `text`, sorted by start, without overlap."""
    view = View(text)
    spans = list(_all(view.text, known))
    if view.shifted:
        spans = [
            Span(view.origin(s.start), view.origin(s.end - 1) + 1, s.kind, s.rule) for s in spans if s.end > s.start
        ]
    return _resolved(text, spans + (tagger(text) if tagger else []))


def _all(text: str, known: Known | None) -> Iterator[Span]:
    yield from (span for rule in RULES for span in rule(text))
    for gaps, rules in ((LINES, RULES), (BLANKS, (numbers, dates, names))):
        if whole := mended(text, gaps):
            yield from (span for rule in rules for found in rule(whole.text) if (span := whole.back(found)))
    if known:
        yield from occurrences(text, known)


def _certainty(span: Span) -> tuple[int, int, int, int]:
    return (span.start - span.end, RANK.get(span.rule, 3), KIND_RANK.get(span.kind, 9), span.start)


def _resolved(text: str, spans: list[Span]) -> list[Span]:
    """Longest first, then the surest; a loser keeps the part that nothing covers, when a letter or digit is in it."""
    kept: list[Span] = []
    taken = bytearray(len(text))
    for span in sorted(spans, key=_certainty):
        start, end = span.start, span.end
        if taken[start] or taken[end - 1]:
            while start < end and taken[start]:
                start += 1
            while start < end and taken[end - 1]:
                end -= 1
            if not any(char.isalnum() for char in text[start:end]):
                continue
            span = Span(start, end, span.kind, span.rule)
        if taken.find(1, start, end) < 0:
            kept.append(span)
            taken[start:end] = b"\x01" * (end - start)
    return sorted(kept, key=_start)


def _start(span: Span) -> int:
    return span.start
