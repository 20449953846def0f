"""Chinese hospital notes with the exact span of every identifier, to measure de-identification on. Synthetic.

    labelled_notes(2000, seed=0, split="test")    `Note`s of 17 kinds with gold `entities`, 15 % of them disfigured

language.py  dev.yaml, test.yaml: phrases, names, places, forms    cases.py     the values of a patient and a visit
numbers.py   numbers in real forms, with check digits              dates.py     days in every script
spelling.py  adversarial spellings                                 figures.py   recall and precision of any finder

Both splits are written apart: they share no phrase, surname, given name, hospital, street, company or city. Numbers are
random; region codes, prefixes and check digits are of real form, because a finder has to see real forms, so a number
may exist by chance, and belongs to nobody in these notes. What is measured here holds for this set, not for a hospital.

Two parallel lists in `meta` say more of each entity: `spelling` (plain, or a class of spelling.py, or missing_label,
impossible_date) and `seeded` (the text is also one of the note's structured `fields`).
"""

from __future__ import annotations

import datetime
import random
import re
import unicodedata
from collections.abc import Iterator
from functools import cache

from xinglin.data.ward.labelled import dates
from xinglin.data.ward.labelled.cases import Values, draw_patient, draw_visit
from xinglin.data.ward.labelled.language import SplitName, expand, load_language
from xinglin.data.ward.labelled.spelling import respell
from xinglin.data.ward.world import World, load_world
from xinglin.records import Entity, Note, record_id

KINDS = (
    "name id_card phone landline email bank_card mrn bed specimen imaging insurance passport travel_permit military "
    "foreign_permit wechat_qq plate address employer hospital date age_over_89 url ip"
).split()
ADVERSARIAL = 0.155  # a little over 15 %: a lone surname has no other spelling
NOTES_PER_PATIENT = 3
SLOT = re.compile(r"\{(\w+)(!?)\}")

__all__ = ["KINDS", "labelled_notes", "load_language"]


def labelled_notes(count: int, seed: int, split: SplitName) -> Iterator[Note]:
    """`count` notes of `split`, three of a patient, the kinds in turn. Same arguments, same notes."""
    language, world = load_language(split), _world()
    kinds = tuple(language.notes)
    for number in range(count):
        who = number // NOTES_PER_PATIENT
        papers, fields, patient = draw_patient(language, random.Random(f"{seed}/{split}/patient/{who}"))
        rng = random.Random(f"{seed}/{split}/note/{number}")
        kind = kinds[number % len(kinds)]
        skeleton = expand(rng.choice(language.notes[kind]), language, papers, rng)
        text, entities, spellings = _fill(skeleton, patient | draw_visit(language, world, rng), rng)
        known = {_bare(value) for value in fields.values()}
        yield Note(
            id=record_id("labelled", split, seed, number),
            patient_id=record_id("labelled-patient", split, seed, who),
            kind=kind,
            text=text,
            fields=fields,
            entities=entities,
            source=f"labelled-{split} (synthetic)",
            meta={
                "synthetic": True,
                "spelling": spellings,
                "seeded": [_bare(entity.text) in known for entity in entities],
            },
        )


@cache
def _world() -> World:
    return load_world()


def _fill(skeleton: str, values: Values, rng: random.Random) -> tuple[str, tuple[Entity, ...], list[str]]:
    """Text, spans, and the class of spelling of each span."""
    text, last = "", 0
    entities, spellings = [], []
    for match in SLOT.finditer(skeleton):
        text += skeleton[last : match.start()]
        last = match.end()
        kind, value = values[match[1]]
        spelling, written = _write(match[1], kind, value, bool(match[2]), rng)
        if kind:
            entities.append(Entity(len(text), len(text) + len(written), kind, written))
            spellings.append(spelling)
        text += written
    return text + skeleton[last:], tuple(entities), spellings


def _write(slot: str, kind: str, value: str | datetime.date, bare: bool, rng: random.Random) -> tuple[str, str]:
    if isinstance(value, datetime.date):
        if not slot.startswith(("md_", "ym_", "lunar")) and rng.random() < 0.005:
            return "impossible_date", dates.impossible_text(value, rng)
        value = _day(slot, value, rng)
    if not kind or rng.random() >= ADVERSARIAL:
        return "missing_label" if bare else "plain", value
    return respell(kind, value, rng)


def _day(slot: str, day: datetime.date, rng: random.Random) -> str:
    if slot.startswith("md_"):
        return dates.month_day_text(day, rng)
    if slot.startswith("ym_"):
        return dates.month_text(day, rng)
    return dates.lunar_text(day, rng) if slot == "lunar" else dates.day_text(day, rng)


def _bare(text: str) -> str:
    """Without width, gaps, breaks and invisible signs: what a seed has to be found through."""
    folded = unicodedata.normalize("NFKC", text).upper()
    return "".join(char for char in folded if char.isalnum())
