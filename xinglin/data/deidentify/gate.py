"""The last gate: what is about to be published is read again, by rules that trust nothing before them.

    survivors(text, inserted, seeds, hits)   -> [Survivor(start, end, why)]: empty, or nothing is published

It looks for the patient's own values from the structured fields (`seed_hits`, blind to blanks, width and case), for ids
with a valid checksum anywhere, and takes what the finder still sees (`hits`) outside the surrogates that were put in.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from xinglin.data.deidentify.kinds import Span
from xinglin.data.deidentify.recognisers.lexicon import protected, words
from xinglin.data.deidentify.surrogates import DROPPED, valid_id

SHORTEST = {"name": 2, "phone": 7, "landline": 7, "address": 6, "employer": 4, "hospital": 4, "email": 5, "id_card": 6}
SEED_KINDS = frozenset(
    "name id_card phone landline email bank_card mrn insurance passport "
    "travel_permit military foreign_permit wechat_qq "
    "plate address employer licence specimen imaging number".split()
)
SHORTEST_OTHER = 5
ID_LIKE = re.compile(r"(?<!\d)\d{17}[\dX](?!\d)")
AGAIN = "found again"
Region = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Survivor:
    """Characters start to end of the output, as what it was taken for, and why. Never text."""

    start: int
    end: int
    kind: str
    why: str


def _table() -> dict[int, str]:
    """Blanks and invisible characters to nothing, compatibility forms (full width, circled, radicals) to plain ones."""
    odd = [*range(0x2000, 0x3400), *range(0xF900, 0xFB00), *range(0xFE00, 0x10000), *range(0x1D400, 0x1D800)]
    table = {code: unicodedata.normalize("NFKC", chr(code)) for code in odd}
    table = {code: "".join(plain.split()) for code, plain in table.items() if plain != chr(code)}
    return table | {code: "" for code in (*range(0x10000), *range(0xE0100, 0xE01F0)) if DROPPED.match(chr(code))}


PLAIN = _table()


def squeeze(text: str) -> str:
    """The text without blanks and invisible characters, in half width and upper case."""
    return text.translate(PLAIN).upper()


def _regions(text: str, plain: str, seed: str) -> Iterator[Region]:
    """Where a squeezed seed stands in `text`, overlapping places too."""
    places = [match.start() for match in re.finditer(f"(?={re.escape(seed)})", plain)]
    if not places:
        return
    written = [match.start() for match in re.finditer(f"(?={re.escape(seed)})", text)]
    if len(written) == len(places):  # as nearly always: no place is split or written in another way
        yield from ((start, start + len(seed)) for start in written)
        return
    for start in places:
        yield _region(text, start, start + len(seed))


def _region(text: str, start: int, end: int) -> Region:
    """Where characters start to end of `squeeze(text)` stand in `text`."""
    length, first = 0, -1
    for place, char in enumerate(text):
        length += len(squeeze(char))
        if first < 0 and length > start:
            first = place
        if length >= end:
            return first, place + 1
    return first, len(text)


def seeds_of(values: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Squeezed value -> kind, of (kind, value) pairs long enough to mean one person."""
    found = {squeeze(value): kind for kind, value in values if kind in SEED_KINDS}
    return {text: kind for text, kind in found.items() if len(text) >= SHORTEST.get(kind, SHORTEST_OTHER)}


def seed_hits(text: str, seeds: dict[str, str]) -> Iterator[Span]:
    """Where a seed or a valid id card stands, also split by blanks, in full width or in lower case. A number inside a
    longer one is none."""
    plain = squeeze(text)
    for seed, kind in seeds.items():
        for start, end in _regions(text, plain, seed) if seed in plain else ():
            left = seed[0].isdigit() and start > 0 and text[start - 1].isdigit()
            right = seed[-1].isdigit() and text[end : end + 1].isdigit()
            if not left and not right and not (kind == "name" and _ordinary(text, start, end)):
                yield Span(start, end, kind, "known value")
    for match in ID_LIKE.finditer(plain):
        if valid_id(match[0]):
            yield Span(*_region(text, *match.span()), "id_card", "valid checksum")


def _ordinary(text: str, start: int, end: int) -> bool:
    """A name that is a word (高兴), or stands inside one (马方 in 马方综合征), is left to the finder's judgement."""
    written = text[start:end]
    if written in words("names", "words") or protected().fullmatch(written):
        return True
    word = protected().match(text, start)
    return end - start <= 2 and word is not None and word.end() > end


def with_seeds(text: str, spans: Sequence[Span], seeds: dict[str, str]) -> list[Span]:
    """The finder's spans and the seeds it left; one that overlaps spans swallows them."""
    found = list(spans)
    for hit in seed_hits(text, seeds):
        over = [span for span in found if span.start < hit.end and hit.start < span.end]
        if any(span.start <= hit.start and hit.end <= span.end for span in over):
            continue
        found = [span for span in found if span not in over]
        start, end = min([hit, *over]).start, max(span.end for span in [hit, *over])
        found.append(Span(start, end, hit.kind, hit.rule))
    return sorted(found)


def survivors(text: str, inserted: Sequence[Region], seeds: dict[str, str], hits: Iterable[Span]) -> list[Survivor]:
    """What must not be published. `inserted` are the regions of surrogates, in order; `hits` the finder's on the
    output.

    A hit that leans on a surrogate was judged in its own surroundings before and is no survivor; a seed or a valid id
    is one unless it lies inside a surrogate as a whole, and a valid id even there.
    """
    found = [Survivor(hit.start, hit.end, hit.kind, AGAIN) for hit in outside(hits, inserted)]
    for hit in seed_hits(text, seeds):
        within = any(start <= hit.start and hit.end <= end for start, end in inserted)
        if not within or hit.rule == "valid checksum":
            found.append(Survivor(hit.start, hit.end, hit.kind, hit.rule))
    return found


def outside(hits: Iterable[Span], inserted: Sequence[Region]) -> list[Span]:
    return [hit for hit in hits if not any(start < hit.end and hit.start < end for start, end in inserted)]
