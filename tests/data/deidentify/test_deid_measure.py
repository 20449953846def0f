"""Recall and precision on hand-made labels, bounds against SciPy, k-anonymity against brute force, the gate by hand."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from scipy.stats import beta

from xinglin.data.deidentify.gate import Survivor, seed_hits, seeds_of, squeeze, survivors, with_seeds
from xinglin.data.deidentify.kanonymity import anonymise, small_groups
from xinglin.data.deidentify.kinds import Span
from xinglin.data.deidentify.measure import measure, upper_bound
from xinglin.records import Entity, InputError, Note

#        0123456789...
TEXT = "王建国，电话138 1234 5678，住青禾市，主任李明"


def note(*entities: Entity) -> Note:
    return Note("1", "p", "progress", TEXT, entities=entities)


def entity(kind: str, text: str) -> Entity:
    start = TEXT.index(text)
    return Entity(start, start + len(text), kind, text)


def test_by_hand() -> None:
    gold = note(
        entity("name", "王建国"),
        entity("phone", "138 1234 5678"),
        entity("address", "青禾市"),
        entity("doctor", "李明"),
    )
    marks = [
        Span(0, 3, "name", "label"),  # exact
        Span(6, 9, "phone", "a"), Span(10, 19, "phone", "b"),  # covered without the blank between, not strict
        Span(21, 23, "address", "c"),  # 青禾 of 青禾市: in part
        Span(20, 21, "bed", "d"),  # 住: a false alarm
    ]  # fmt: skip
    found = measure([gold], lambda _: marks).summary()
    kinds = found["kinds"]
    assert kinds["name"]["labelled"] == 2 and kinds["name"]["recall"]["value"] == 0.5 and kinds["name"]["missed"] == 1
    assert kinds["phone"]["recall"]["value"] == 1.0 and kinds["phone"]["strict_recall"]["value"] == 0.0
    assert kinds["address"]["recall"]["value"] == 0.0 and kinds["address"]["partly"] == 1
    assert kinds["bed"]["precision"]["value"] == 0.0 and found["rules"]["d"] == {"false_alarm": 1}
    assert found["missed_by_rule"] == {"address": {"c": 1}, "name": {"none": 1}}
    recall = found["total"]["recall"]
    assert (recall["value"], recall["n"]) == (0.5, 4)
    assert (recall["low"], recall["high"]) == pytest.approx((0.1500, 0.8500), abs=1e-4)
    assert found["total"]["precision"]["value"] == 0.8


def test_labels_that_do_not_fit_are_refused_without_text() -> None:
    with pytest.raises(InputError, match="does not fit") as error:
        measure([note(Entity(0, 3, "name", "王建"))], lambda _: [])
    assert "王" not in str(error.value)
    with pytest.raises(InputError, match="none with `entities`"):
        measure([note()], lambda _: [])


@pytest.mark.parametrize(
    ("leaks", "notes", "percent"),
    [(0, 300, 0.99), (0, 1000, 0.30), (0, 3000, 0.10), (1, 1000, 0.47), (3, 3000, 0.26), (0, 1, 95.0), (2, 2, 100.0)],
)
def test_what_a_reading_sample_proves(leaks: int, notes: int, percent: float) -> None:
    assert round(100 * upper_bound(leaks, notes), 2) == percent
    exact = 1.0 if leaks == notes else beta.ppf(0.95, leaks + 1, notes - leaks)
    assert upper_bound(leaks, notes) == pytest.approx(exact, rel=1e-9)


def test_bound_in_closed_form() -> None:
    assert upper_bound(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300), rel=1e-12)
    with pytest.raises(InputError):
        upper_bound(4, 3)


# --- k-anonymity -----------------------------------------------------------------------------------------------------


def test_k_by_hand() -> None:
    rows = [("男", "41"), ("男", "43"), ("女", "41"), ("女", "58"), ("男", "44")]
    patients = ["a", "b", "c", "d", "e"]
    found = anonymise(rows, patients, ("性别", "年龄"), k=2, max_withheld=0.4)
    assert found.steps == {"性别": "exact", "年龄": "5 years"}
    assert found.rows == [("男", "40-44"), ("男", "40-44"), None, None, ("男", "40-44")]
    assert (found.withheld, found.withheld_patients, found.smallest, found.groups) == (2, 2, 3, 1)


def test_groups_count_patients_not_notes() -> None:
    rows = [("男",)] * 9
    assert small_groups(rows, ["one"] * 9, 2) == set(range(9))
    assert small_groups(rows, ["one"] * 8 + ["two"], 2) == set()


def test_dates_and_the_oldest_have_ladders() -> None:
    rows = [(f"2023-0{month}-1{day}", age) for month in (1, 2, 4) for day in range(4) for age in ("90+", "88")]
    found = anonymise(rows, [str(i) for i in range(len(rows))], ("出院日期", "age"), k=4, max_withheld=0.0)
    assert found.withheld == 0 and found.steps["出院日期"] == "month"
    assert {row[0] for row in found.rows if row} == {"2023-01", "2023-02", "2023-04"}


@pytest.mark.parametrize("k", [5, 20])
def test_k_holds_by_brute_force(k: int) -> None:
    rng = random.Random(k)
    rows = [
        (
            rng.choice("男女"),
            str(rng.randint(0, 99)),
            rng.choice("内外妇儿"),
            f"2023-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
        )
        for _ in range(1500)
    ]
    patients = [f"p{rng.randrange(900)}" for _ in rows]
    found = anonymise(rows, patients, ("性别", "年龄", "科室", "日期"), k=k)
    groups = defaultdict(set)
    for row, patient in zip(found.rows, patients, strict=True):
        if row is not None:
            groups[row].add(patient)
    assert min(map(len, groups.values())) >= k and found.smallest == min(map(len, groups.values()))
    assert found.withheld == found.rows.count(None) <= 0.05 * len(rows)


# --- gate ------------------------------------------------------------------------------------------------------------

SEEDS = seeds_of(
    [
        ("name", "王建国"),
        ("phone", "13812345678"),
        ("address", "青禾市春晖路3号"),
        ("bed", "12床"),
        ("name", "王"),
        ("mrn", "123"),
    ]
)


def test_seeds_that_mean_nobody_are_left_out() -> None:
    assert set(SEEDS.values()) == {"name", "phone", "address"} and len(SEEDS) == 3


@pytest.mark.parametrize(
    "text",
    [
        "患者王建国。",
        "患者王 建 国。",
        "患者王\n建国",
        "王\u200b建国",
        "王\U000e0100建\ufe00国",
        "电话13812345678",
        "１３８１２３４５６７８",
        "138 1234 5678",
        "青禾市春晖路３号",
    ],
)  # fmt: skip
def test_seeds_are_seen_in_every_spelling(text: str) -> None:
    (hit,) = seed_hits(text, SEEDS)
    assert squeeze(text[hit.start : hit.end]) in SEEDS


@pytest.mark.parametrize("text", ["王建设", "913812345678", "138123456780", "王。建国"])
def test_what_is_no_seed(text: str) -> None:
    assert not list(seed_hits(text, SEEDS))


def test_valid_ids_are_seen_even_inside_a_surrogate() -> None:
    text = "号110105 19491231 002x。"
    assert [one.why for one in survivors(text, [(0, len(text))], {}, [])] == ["valid checksum"]
    assert not survivors("号110105194912310021。", [], {}, [])


def test_survivors_outside_and_inside() -> None:
    text = "林芳，王建国"
    assert not survivors(text, [(0, 2), (3, 6)], SEEDS, [Span(0, 2, "name", "x"), Span(1, 4, "name", "y")])
    assert survivors(text, [(0, 2)], SEEDS, []) == [Survivor(3, 6, "name", "known value")]
    assert survivors(text, [(0, 2)], {}, [Span(3, 6, "name", "x")]) == [Survivor(3, 6, "name", "found again")]


def test_a_seed_swallows_what_it_overlaps() -> None:
    found = with_seeds("患者王建国，", [Span(2, 4, "name", "x")], SEEDS)
    assert found == [Span(2, 5, "name", "known value")]
    assert with_seeds("患者王建国，", [Span(0, 5, "address", "x")], SEEDS) == [Span(0, 5, "address", "x")]


def test_a_name_that_is_a_word_is_left_to_the_finder() -> None:
    seeds = seeds_of([("name", "高兴"), ("name", "马方")])
    assert not list(seed_hits("今日心情高兴", seeds)) and not list(seed_hits("考虑马方综合征", seeds))
