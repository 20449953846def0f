"""Overlap with the doctor's answer: values worked out by hand."""

import pytest

from xinglin.metrics import overlap_score
from xinglin.metrics.overlap import has_loop
from xinglin.records import Message, Question

QUESTION = Question("q", (Message("user", "怎么办？"),), "多喝水。")


@pytest.mark.parametrize(
    ("text", "professionalism", "fluency", "reasons"),
    [
        ("多喝水。", 1.0, 1.0, []),
        ("喝水", 2 * 2 / (2 + 4), 0.6, ["no_end"]),  # LCS 喝水 of 2 and 4 characters
        ("多休息。", 2 * 2 / (4 + 4), 1.0, []),  # LCS 多 and 。
        ("喝水喝水喝水", 2 * 2 / (6 + 4), 0.6 * 0.4, ["no_end", "loop"]),
        ("是！", 0.0, 1.0, []),
    ],
)
def test_scores(text, professionalism, fluency, reasons):
    found = overlap_score(QUESTION, text)
    assert found["safety"] == 1.0 and found["reasons"] == reasons
    assert found["professionalism"] == pytest.approx(professionalism, abs=1e-6)
    assert found["fluency"] == pytest.approx(fluency, abs=1e-6)
    assert found["overall"] == pytest.approx(0.8 * professionalism + 0.2 * fluency, abs=1e-6)


def test_silence_scores_nothing_and_a_missing_reference_is_named():
    empty = overlap_score(QUESTION, " \n")
    assert empty.pop("reasons") == ["empty"] and set(empty.values()) == {0.0}
    found = overlap_score(Question("q", QUESTION.prompt), "多喝水。")
    assert found["professionalism"] == 0.0 and found["reasons"] == ["no_reference"] and found["overall"] == 0.2


def test_loops():
    assert has_loop("好好好好") and has_loop("请多喝水请多喝水请多喝水。") and not has_loop("多喝水，少熬夜。")
    assert not has_loop("用1000毫升。")
