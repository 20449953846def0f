"""Entity lists as a model writes them, placed in the text and counted."""

from __future__ import annotations

import pytest
from fakes import FakeGenerator

from xinglin.evals import entities
from xinglin.records import Entity, EntityText


def item(id: str, text: str, *marks: tuple[str, str]) -> EntityText:
    found, place = [], 0
    for mention, kind in marks:
        place = text.index(mention, place)
        found.append(Entity(place, place + len(mention), kind, mention))
        place += len(mention)
    return EntityText(id, text, tuple(found))


ONE = item("1", "患者头痛，头痛加重，诊断高血压。", ("头痛", "symptom"), ("头痛", "symptom"), ("高血压", "disease"))
TWO = item("2", "服用阿司匹林", ("阿司匹林", "drug"))


def test_repeats_take_the_next_place() -> None:
    found, lines, failed = entities.parse_entities("头痛\t症状\n头痛\t症状\n头痛\t症状", ONE.text, ["symptom"])
    assert [(e.start, e.end) for e in found[:2]] == [(2, 4), (5, 7)]
    assert found[2].start > 1_000 and (lines, failed) == (3, 0)


@pytest.mark.parametrize(
    ("answer", "count", "failed"),
    [
        ("头痛\t症状", 1, 0),
        ("头痛\tsymptom", 1, 0),
        ("头痛 症状", 1, 0),
        ("头痛：症状", 1, 0),
        ("C 反应蛋白\t症状", 1, 0),
        ("无", 0, 0),
        ("", 0, 1),
        ("没有实体哦", 0, 1),
        ("头痛\t颜色", 0, 1),
        ("头痛\t症状\n\n高血压是一种病", 1, 1),
    ],
)
def test_parse(answer: str, count: int, failed: int) -> None:
    found, _, bad = entities.parse_entities(answer, ONE.text, ["symptom", "disease"])
    assert (len(found), bad) == (count, failed)


def test_scores_worked_by_hand() -> None:
    """Item 1: one 头痛 of two, 血压 inside 高血压, one invention. Item 2: right.
    Strict TP 2, FP 2, FN 2 -> 4/8; relaxed TP 3, FP 1, FN 1 -> 6/8."""
    replies = iter(["头痛\t症状\n血压\t疾病\n糖尿病\t疾病", "阿司匹林\t药物"])
    found = entities.run(FakeGenerator(lambda prompt: next(replies)), [ONE, TWO], seed=0)
    values = {name: metric.value for name, metric in found.metrics.items()}
    assert values["strict_f1"] == pytest.approx(0.5) and values["relaxed_f1"] == pytest.approx(0.75)
    assert values["strict_f1.drug"] == 1.0 and values["strict_f1.disease"] == 0.0
    assert found.notes["strict_counts"]["micro"] == [2, 2, 2] and found.notes["parse_failure_rate"] == 0.0


def test_the_gold_answer_is_perfect_and_shots_are_turns() -> None:
    golds = {ONE.text: entities.gold_lines(ONE), TWO.text: entities.gold_lines(TWO)}
    generator = FakeGenerator(lambda prompt: golds[prompt.split("\n")[-1]])
    found = entities.run(generator, [ONE], seed=0, shots=[TWO])
    assert found.metrics["strict_f1"].value == 1.0
    assert [message.role for message in generator.asked[0]] == ["user", "assistant", "user"]
    assert generator.asked[0][0].content == "找出句子中的疾病、症状、药物，每行写一个“实体\t类型”。\n服用阿司匹林"
