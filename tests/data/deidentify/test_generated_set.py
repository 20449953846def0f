"""The labelled notes are what they claim: exact spans, size, kinds, spellings, check digits, splits written apart."""

from __future__ import annotations

import datetime
import random
import re
import unicodedata
from collections import Counter
from itertools import pairwise

import pytest

from xinglin.data.ward.labelled import KINDS, labelled_notes, load_language, numbers
from xinglin.data.ward.labelled.spelling import CHINESE_DIGITS, SIMPLIFIED, TO_TRADITIONAL, TRADITIONAL, respell
from xinglin.records import Note, from_json, to_json

SPLITS = ("dev", "test")


@pytest.fixture(scope="module", params=SPLITS)
def notes(request: pytest.FixtureRequest) -> list[Note]:
    return list(labelled_notes(2000, 0, request.param))


def test_size_and_kinds(notes: list[Note]) -> None:
    counts = Counter(entity.type for note in notes for entity in note.entities)
    assert counts.total() >= 30_000
    assert set(counts) == set(KINDS) and len(KINDS) >= 20
    assert min(counts.values()) >= 25
    assert len({note.kind for note in notes}) >= 15
    assert len({note.text for note in notes}) == len({note.id for note in notes}) == 2000


def test_spans_are_exact_ordered_and_apart(notes: list[Note]) -> None:
    for note in notes:
        assert all(note.text[entity.start : entity.end] == entity.text for entity in note.entities)
        assert all(left.end <= right.start for left, right in pairwise(note.entities))
        assert len(note.meta["spelling"]) == len(note.meta["seeded"]) == len(note.entities)
        assert note.meta["synthetic"] and "synthetic" in note.source
        assert not re.search(r"[{}<>]\w+[{}>]|⏎", note.text)


def test_fifteen_percent_is_disfigured_in_every_way(notes: list[Note]) -> None:
    spellings = Counter(spelling for note in notes for spelling in note.meta["spelling"])
    assert 0.15 <= 1 - spellings["plain"] / spellings.total() <= 0.17
    asked = "full_width spaces zero_width variation_selector line_break chinese_digits missing_label wrong_checksum"
    asked += " fifteen_digits spaced_name somebody dotted_name hyphens traditional spaced_date impossible_date"
    assert all(spellings[name] >= 15 for name in asked.split()), spellings


def test_nothing_of_the_patient_stands_outside_the_gold_spans(notes: list[Note]) -> None:
    """The export's own name and numbers, wherever they occur, are labelled; so is every long number but a drug's."""
    for note in notes:
        rest = list(note.text)
        for entity in note.entities:
            rest[entity.start : entity.end] = "■" * len(entity.text)
        outside = "".join(rest)
        numbered = {column: value for column, value in note.fields.items() if len(value) >= 6 and column != "出生日期"}
        assert not [column for column, value in numbered.items() if value in outside]
        assert not re.search(r"(?<!国药准字[HZ])(?<!\d)\d{7,}", outside)


def test_patients_stay_the_same_over_their_notes(notes: list[Note]) -> None:
    fields: dict[str, dict[str, str]] = {}
    for note in notes:
        assert fields.setdefault(note.patient_id, note.fields) == note.fields
    assert len(fields) == -(-len(notes) // 3)


def test_plain_cards_have_the_check_digits_of_the_standards(notes: list[Note]) -> None:
    """GB 11643 (ISO 7064 MOD 11-2) as a polynomial, and Luhn from the right: written apart from the generator."""

    def mod_11_2(card: str) -> bool:
        return sum((10 if d == "X" else int(d)) * pow(2, 17 - i, 11) for i, d in enumerate(card)) % 11 == 1

    def luhn(card: str) -> bool:
        doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(card[::-1])]
        return sum(number - 9 * (number > 9) for number in doubled) % 10 == 0

    assert mod_11_2("11010519491231002X") and not mod_11_2("110105194912310021")
    assert luhn("4111111111111111") and not luhn("4111111111111112")
    plain = [
        entity
        for note in notes
        for entity, spelling in zip(note.entities, note.meta["spelling"], strict=True)
        if spelling == "plain"
    ]
    cards = [entity.text for entity in plain if entity.type == "id_card"]
    assert len(cards) > 500 and all(map(mod_11_2, cards))
    bank = [entity.text for entity in plain if entity.type == "bank_card"]
    assert len(bank) > 100 and all(map(luhn, bank))


def test_splits_share_no_phrase_name_or_place() -> None:
    dev, test = map(load_language, SPLITS)
    for kind in ("lists", "groups"):
        ours, theirs = getattr(dev, kind), getattr(test, kind)
        assert set(ours) == set(theirs)
        for name in ours:
            assert not set(ours[name]) & set(theirs[name]), name
    surnames = [{*split.lists["surnames"], *split.lists["rare_surnames"]} for split in (dev, test)]
    assert not surnames[0] & surnames[1]
    assert not {region.code for region in dev.regions} & {region.code for region in test.regions}
    assert not {region.city for region in dev.regions} & {region.city for region in test.regions}
    skeletons = [{text for texts in split.notes.values() for text in texts} for split in (dev, test)]
    assert not skeletons[0] & skeletons[1]


@pytest.mark.parametrize("split", SPLITS)
def test_eight_phrasings_of_everything(split: str) -> None:
    language = load_language(split)
    assert all(len(set(phrases)) == len(phrases) >= 8 for phrases in language.groups.values())
    assert all(len(set(entries)) == len(entries) for entries in language.lists.values())
    assert set(language.notes) == set(load_language("dev").notes)


def test_same_seed_same_notes_and_records_survive_jsonl() -> None:
    first = list(labelled_notes(40, 7, "dev"))
    assert first == list(labelled_notes(40, 7, "dev"))
    assert first[:10] == list(labelled_notes(10, 7, "dev"))
    assert first[0].text != next(labelled_notes(1, 8, "dev")).text
    assert [from_json(to_json(note)) for note in first] == first


REVERSIBLE = {
    "id_card": (
        "11010519491231002X",
        {"full_width", "spaces", "zero_width", "variation_selector", "hyphens", "lower_x"},
    ),
    "phone": ("13800138000", {"full_width", "spaces", "zero_width", "variation_selector", "line_break", "hyphens"}),
    "name": ("欧阳建国", {"zero_width", "spaced_name"}),
}


@pytest.mark.parametrize("kind", REVERSIBLE)
def test_a_disfigured_identifier_is_the_same_to_the_eye(kind: str) -> None:
    text, reversible = REVERSIBLE[kind]
    seen = set()
    for seed in range(300):
        spelling, written = respell(kind, text, random.Random(seed))
        assert written != text
        seen.add(spelling)
        if spelling in reversible:
            folded = unicodedata.normalize("NFKC", written).upper()
            assert "".join(char for char in folded if char.isalnum()) == text
    assert reversible <= seen


def test_spellings_by_hand() -> None:
    assert "13800138000".translate(CHINESE_DIGITS) == "一三八零零一三八零零零"
    assert "张伟".translate(TO_TRADITIONAL) == "張偉" and len(SIMPLIFIED) == len(TRADITIONAL)
    fifteen = {respell("id_card", "440524188001010014", random.Random(seed)) for seed in range(200)}
    assert ("fifteen_digits", "440524800101001") in fifteen
    assert {written for spelling, written in fifteen if spelling == "spaces"} == {
        "440524 18800101 0014",
        "4405 2418 8001 0100 14",
    }


def test_number_forms_by_hand() -> None:
    rng = random.Random(0)
    assert re.fullmatch(r"ZY[0-9]{3}[1-9][A-Z][a-z]-", numbers.by_format(r"\Z\Y0001Aa-", rng))
    assert numbers.id_card("110105", datetime.date(1949, 12, 31), "女", rng).startswith("11010519491231")
    assert all(int(numbers.id_card("110105", datetime.date(1990, 1, 1), "男", rng)[16]) % 2 for _ in range(50))
