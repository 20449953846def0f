"""Attitude scales: the keys, E13's exact sums, both option orders, the degeneracy flag."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import FakeGenerator

from xinglin.evals import bias
from xinglin.evals.bias import BiasItem, cami_key, mica_reverse, scale_sums
from xinglin.records import InputError

CAMI = [BiasItem(f"c{n}", {"zh": f"说法{n}", "en": f"s{n}"}, "CAMI", *cami_key(n)) for n in range(1, 41)]
MICA = [BiasItem(f"m{n}", {"zh": f"说法{n}"}, "MICA", "stigma", mica_reverse(n), 6) for n in range(1, 17)]


def all_answer(items: list[BiasItem], agreement: float) -> dict[str, float | None]:
    return scale_sums(items, {item.id: agreement for item in items})


def test_cami_constants() -> None:
    """E13: all 5 gives exactly 30 on each scale, and so does all 3."""
    for answer in (1, 3, 5):
        assert all_answer(CAMI, answer) == dict.fromkeys(bias.CAMI_SUBSCALES, 30)
    anti = {n for n in range(1, 41) if cami_key(n)[1]}
    assert anti == {*range(5, 9), *range(13, 17), *range(21, 25), *range(29, 33), *range(37, 41)}
    assert [cami_key(n)[0] for n in (1, 2, 3, 4, 5)] == [*bias.CAMI_SUBSCALES, bias.CAMI_SUBSCALES[0]]


def test_mica_constants() -> None:
    """E13: all "strongly agree" (6) = 66, all "strongly disagree" (1) = 46; the range is 16-96."""
    assert all_answer(MICA, 6) == {"stigma": 66}
    assert all_answer(MICA, 1) == {"stigma": 46}
    worst = {item.id: 1.0 if item.reverse else 6.0 for item in MICA}
    best = {item.id: 6.0 if item.reverse else 1.0 for item in MICA}
    assert (scale_sums(MICA, worst)["stigma"], scale_sums(MICA, best)["stigma"]) == (96, 16)


def test_more_than_a_fifth_missing_is_void() -> None:
    members = [item for item in CAMI if item.subscale == "benevolence"]
    answers: dict[str, float | None] = {item.id: 3.0 for item in members}
    answers[members[0].id] = answers[members[1].id] = None
    assert scale_sums(members, answers) == {"benevolence": 30}
    answers[members[2].id] = None
    assert scale_sums(members, answers) == {"benevolence": None}


def test_always_the_first_letter_is_the_middle_and_flagged() -> None:
    """Forward A = 1, backward A = 5: mean 3, sum 30; nothing was learnt and the flag says so."""
    generator = FakeGenerator(logprob=lambda context, text: 0.0 if text.strip() == "A" else -1.0)
    found = bias.run(generator, CAMI, seed=0, draws=200)
    assert len(found.metrics) == 8 and {metric.value for metric in found.metrics.values()} == {30.0}
    assert found.notes["degenerate"] and found.notes["position_consistency_zh"] == 0.0
    assert not any("total" in name for name in found.metrics)


def agreeing(context: str, text: str) -> float:
    return 0.0 if any(f"{text.strip()}. {word}" in context for word in ("完全同意", "Strongly agree")) else -1.0


def test_agreeing_with_all_is_30_and_consistent() -> None:
    found = bias.run(FakeGenerator(logprob=agreeing), CAMI, seed=0, draws=200)
    assert {metric.value for metric in found.metrics.values()} == {30.0}
    assert found.notes["position_consistency_en"] == 1.0 and not found.notes["degenerate"]
    low = found.metrics["authoritarianism.zh"]
    assert low.higher_is_better is False and (low.n, low.chance) == (10, 30.0)
    mica = bias.run(FakeGenerator(logprob=agreeing), MICA, seed=0, draws=200)
    assert mica.metrics["stigma.zh"].value == 66 and "no item has a text in en" in mica.notes["warnings"]


def test_load_csv_and_yaml(tmp_path: Path) -> None:
    csv = tmp_path / "items.csv"
    csv.write_text("id,text,scale,subscale,reverse\n1,他们很危险,CAMI,authoritarianism,false\n2,ok,MICA-4,stigma,1\n")
    one, two = bias.load_items(csv)
    assert (one.texts, one.points, one.reverse) == ({"zh": "他们很危险"}, 5, False)
    assert (two.texts, two.points, two.reverse) == ({"en": "ok"}, 6, True)
    yaml = tmp_path / "items.yaml"
    yaml.write_text("items:\n- {id: 1, zh: 说法, en: words, scale: own, subscale: x, reverse: true}\n")
    assert bias.load_items(yaml)[0].texts == {"zh": "说法", "en": "words"}
    yaml.write_text("- {id: 1, zh: 说法, reverse: maybe}\n")
    with pytest.raises(InputError, match="item 1: needs id"):
        bias.load_items(yaml)
