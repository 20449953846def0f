"""Open answers, pairwise verdicts, documents and general knowledge on generators whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fakes import FakeGenerator, user

from xinglin.evals import dialogue, documents, general
from xinglin.records import Document, InputError, Question

REFERENCES = {f"q{i}": f"建议低盐饮食，按时服药{i}次，如有胸痛请立即就医。" for i in range(40)}
QUESTIONS = [Question(id, user(id), reference) for id, reference in REFERENCES.items()]


def score(question: Question, text: str) -> dict[str, object]:
    right = float("就医" in text)
    return {"safety": right, "professionalism": 0.5, "fluency": 1.0, "overall": right / 2, "reasons": ["short"]}


def test_the_reference_itself_is_perfect() -> None:
    found = dialogue.run(FakeGenerator(lambda prompt: REFERENCES[prompt]), QUESTIONS, seed=0, scorer=score, draws=500)
    values = {name: metric.value for name, metric in found.metrics.items()}
    assert values["bleu"] == pytest.approx(100) and values["rougeL"] == pytest.approx(1)
    assert (values["safety"], values["professionalism"], values["overall"]) == (1.0, 0.5, 0.5)
    assert found.metrics["length"].higher_is_better is None
    assert found.notes["reasons"] == {"short": 40}
    assert all(m.n == 40 for m in found.metrics.values()) and "n = 40 < 200" in found.notes["warnings"][0]
    assert found.notes["danger_unpunished"]["rougeL"] == {"n": 40, "share": 1.0}  # 建议 -> 不建议 is not noticed
    assert len(found.notes["prompt_sha256"]) == 64 and found.samples["q0"] == REFERENCES["q0"]


def test_a_fifth_of_empty_answers_lowers_every_mean_by_a_fifth() -> None:
    """E5."""
    full = {id: text[:-8] for id, text in REFERENCES.items()}
    emptied = sorted(np.random.default_rng(0).permutation(sorted(full))[:8].tolist())
    holed = {id: "" if id in emptied else text for id, text in full.items()}

    def embed(texts: list[str]) -> np.ndarray:
        return np.array([[len(text), text.count("服") * 3] for text in texts], dtype=float)

    whole = dialogue.grade(QUESTIONS, full, seed=0, scorer=score, embed=embed, draws=200)
    less = dialogue.grade(QUESTIONS, holed, seed=0, scorer=score, embed=embed, draws=200)
    assert less.notes["empty_rate"] == 0.2
    for name in ("rouge1", "rouge2", "rougeL", "similarity", "professionalism", "fluency", "length"):
        assert less.metrics[name].value == pytest.approx(0.8 * whole.metrics[name].value, rel=0.03), name
    assert less.metrics["bleu"].value < whole.metrics["bleu"].value


def test_missing_answer_is_an_error() -> None:
    with pytest.raises(InputError, match="1 questions have no answer, the first is 'q7'"):
        dialogue.grade(QUESTIONS, {id: "x" for id in REFERENCES if id != "q7"}, seed=0)


def test_repeated_ids_are_an_error() -> None:
    with pytest.raises(InputError, match="'q0' occurs twice"):
        dialogue.run(FakeGenerator(), [QUESTIONS[0], QUESTIONS[0]], seed=0)


def test_paper_compat_is_named_as_such() -> None:
    found = dialogue.grade(QUESTIONS, REFERENCES, seed=0, bleu_mode="paper_compat", draws=200)
    assert found.metrics["paper_compat_bleu_1"].value == pytest.approx(100)
    assert "bleu" not in found.metrics and "defect" in found.notes["bleu_signature"]


def test_similarity_without_triples_is_no_quality_measure() -> None:
    found = dialogue.grade(QUESTIONS, REFERENCES, seed=0, embed=lambda texts: np.ones((len(texts), 2)), draws=200)
    assert found.notes["similarity"]["floor"] == pytest.approx(100)
    assert found.notes["similarity"]["verdict"] == "not a quality measure"


# ---- pairwise ------------------------------------------------------------------------------------------------------

LONG, SHORT = {q.id: "长长长" for q in QUESTIONS}, {q.id: "短" for q in QUESTIONS}


def test_an_always_first_judge_gives_half_and_no_consistency() -> None:
    """E8."""
    found = dialogue.pairwise(lambda q, a, b: "a", QUESTIONS, LONG, SHORT)
    assert found.metrics["win_rate"].value == 0.5 and found.metrics["tie"].value == 1.0
    assert found.notes["position_consistency"] == 0 and "not a headline" in found.notes["warnings"][0]


def test_a_steady_judge_is_consistent() -> None:
    found = dialogue.pairwise(lambda q, a, b: "a" if len(a) > len(b) else "b", QUESTIONS, LONG, SHORT)
    assert found.metrics["win_rate"].value == 1.0 and found.notes["position_consistency"] == 1
    assert found.metrics["win_rate"].chance == 0.5
    turned = dialogue.pairwise(lambda q, a, b: "a" if len(a) > len(b) else "b", QUESTIONS, SHORT, LONG)
    assert turned.metrics["win_rate"].value == 0.0 and turned.metrics["lose"].value == 1.0


def test_one_tie_and_one_winner_is_a_tie() -> None:
    found = dialogue.pairwise(lambda q, a, b: "a" if len(a) > len(b) else "tie", QUESTIONS, LONG, SHORT)
    assert found.metrics["tie"].value == 1.0


def test_too_many_ungraded_pairs_fail() -> None:
    with pytest.raises(InputError, match="100.0% of the pairs are ungraded"):
        dialogue.pairwise(lambda q, a, b: None, QUESTIONS, LONG, SHORT)  # type: ignore[arg-type,return-value]


# ---- documents and general knowledge -------------------------------------------------------------------------------


def test_bits_per_character_of_documents() -> None:
    """Each character costs ln 2 in the first document and 3 ln 2 in the second: (300 + 3 * 100) / 400 bits."""
    generator = FakeGenerator(logprob=lambda context, text: -len(text) * math.log(2) * (3 if "乙" in text else 1))
    found = documents.run(generator, [Document("1", "甲" * 300), Document("2", "乙" * 100)], seed=0)
    bits = found.metrics["bits_per_character"]
    assert bits.value == pytest.approx(1.5) and bits.higher_is_better is False and bits.chance is None
    assert [len(text) for _, text in generator.pairs] == [200, 100, 100] and found.notes["characters"] == 400


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("首都是北京。", "北京", True),
        ("共有14个", "4", False),
        ("共有4个", "4", True),
        ("圆周率约3.14", "3.1", False),
        ("Ｈ２Ｏ", "h2o", True),
        ("", "北京", False),
    ],
)
def test_contains(text: str, answer: str, expected: bool) -> None:
    assert general.contains(text, answer) is expected


def test_general_knowledge() -> None:
    """Two of three answers contain the truth; the choice goes by log-probability a character."""
    questions = [
        Question("1", user("首都"), meta={"answer": "北京", "wrong": ["上海", "哈尔滨市", "天津"]}),
        Question("2", user("最长的河"), meta={"answer": ["长江", "扬子江"], "wrong": ["黄河", "珠江", "淮河"]}),
        Question("3", user("最大的洲"), meta={"answer": "亚洲"}),
    ]
    replies = {"首都": "是北京。", "最长的河": "扬子江", "最大的洲": "非洲"}
    rates = {"北京": -1.0, "上海": -3.0, "哈尔滨市": -2.9, "天津": -3.0, "长江": -2.0, "黄河": -1.0}
    generator = FakeGenerator(replies.__getitem__, lambda context, text: rates.get(text, -9.0) * len(text))
    found = general.run(generator, questions, seed=0)
    assert found.metrics["contains"].value == pytest.approx(2 / 3)
    assert (found.metrics["choice"].value, found.metrics["choice"].n, found.metrics["choice"].chance) == (0.5, 2, 0.25)


def test_general_question_without_answer_is_refused() -> None:
    with pytest.raises(InputError, match="meta.answer"):
        general.run(FakeGenerator(), [Question("1", user("?"))], seed=0)
