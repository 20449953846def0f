"""Metrics against hand-worked numbers and against sacrebleu, nltk, rouge_score, seqeval and scikit-learn."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest

from xinglin import metrics
from xinglin.metrics import text as text_metrics
from xinglin.records import Entity, ExamQuestion, InputError

ROOT = Path(__file__).resolve().parents[1]
SENTENCES = [
    ("高血压患者应低盐饮食，按时服药。", "高血压病人要低盐饮食，规律服药。"),
    ("阿司匹林100 mg每日1次口服", "阿司匹林肠溶片 100 mg，每日 1 次，口服。"),
    ("建议做CT检查", "建议尽快做胸部CT检查，必要时行MRI。"),
    ("血糖 7.0 mmol/L, 偏高（正常3.9-6.1）", "空腹血糖7.0 mmol/L，偏高（正常 3.9-6.1）"),
    ("请立即拨打120", "请立即就医"),
    ("“感冒”…多喝水", "普通感冒多喝水，注意休息"),
    ("a,b.c 1-2 x@y", "a, b.c 1-2 (x@y)"),
]
ALPHABET = "高血压糖尿病人应按时服药休息饮食低盐12.,-a bB（）。，"


def random_text(rng: random.Random, low: int = 0, high: int = 40) -> str:
    return "".join(rng.choice(ALPHABET) for _ in range(rng.randint(low, high)))


# ---- bits per character, length ------------------------------------------------------------------------------------


def test_bits_per_character_of_a_fair_coin_is_one_bit() -> None:
    assert metrics.bits_per_character(10 * math.log(2), 10) == pytest.approx(1.0)
    with pytest.raises(InputError):
        metrics.bits_per_character(1.0, 0)


def test_answer_length_counts_no_blanks() -> None:
    assert metrics.answer_length(" 多 喝水\n休息 ") == 5


# ---- BLEU ----------------------------------------------------------------------------------------------------------


def test_bleu_worked_by_hand() -> None:
    """甲乙丙丁戊 against 甲乙丙丁己: 4/5, 3/4, 2/3, 1/2 and no brevity penalty: (1/5)^(1/4)."""
    assert metrics.sentence_bleu("甲乙丙丁戊", "甲乙丙丁己") == pytest.approx(100 * (1 / 5) ** 0.25)
    # 甲乙丙丁 against 甲乙丙丁戊: all orders right, penalty exp(1 - 5/4)
    assert metrics.corpus_bleu(["甲乙丙丁"], ["甲乙丙丁戊"])["bleu"] == pytest.approx(100 * math.exp(-0.25))
    # 甲乙 against 甲丙 as a sentence: 1/2 and, smoothed, 1/2 of one match of one: sqrt(1/2 * 1/2)
    assert metrics.sentence_bleu("甲乙", "甲丙") == pytest.approx(50.0)


def test_bleu_of_identical_texts_is_100_and_of_silence_0() -> None:
    assert metrics.corpus_bleu(["低盐饮食"], ["低盐饮食"])["bleu"] == pytest.approx(100)
    assert metrics.corpus_bleu([""], ["低盐饮食"])["bleu"] == 0
    assert metrics.sentence_bleu("", "低盐饮食") == 0


@pytest.mark.parametrize("tokenize", ["char", "zh"])
def test_bleu_equals_sacrebleu(tokenize: str) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    rng = random.Random(1)
    pairs = SENTENCES + [(random_text(rng), random_text(rng, 1)) for _ in range(150)]
    for first in range(0, len(pairs), 7):
        ours, golds = zip(*pairs[first : first + 7], strict=True)
        theirs = sacrebleu.corpus_bleu(ours, [golds], tokenize=tokenize, force=True).score
        assert metrics.corpus_bleu(ours, golds, tokenize=tokenize)["bleu"] == pytest.approx(theirs, abs=1e-6)
    for ours, gold in pairs:
        theirs = sacrebleu.sentence_bleu(ours, [gold], tokenize=tokenize).score
        assert metrics.sentence_bleu(ours, gold, tokenize=tokenize) == pytest.approx(theirs, abs=1e-6)


def test_paper_compat_bleu_is_nltk_on_strings_with_blanks() -> None:
    bleu_score = pytest.importorskip("nltk.translate.bleu_score")
    ours, golds = zip(*SENTENCES, strict=True)
    spaced = [[text_metrics.blank_padded_characters(text) for text in side] for side in (ours, golds)]
    found = metrics.corpus_bleu(ours, golds, bleu_mode="paper_compat")
    for name, weights in (("paper_compat_bleu_1", (1 / 2,) * 2), ("paper_compat_bleu_2", (1 / 3,) * 3)):
        theirs = bleu_score.corpus_bleu([[gold] for gold in spaced[1]], spaced[0], weights=weights)
        assert found[name] == pytest.approx(100 * theirs, abs=1e-6)


def test_paper_compat_bleu_rewards_unrelated_texts() -> None:
    """The defect: unrelated texts of equal length score far above 0, because the blanks match."""
    left, right = "".join(map(chr, range(0x4E00, 0x4E78))), "".join(map(chr, range(0x5E00, 0x5E78)))
    assert metrics.corpus_bleu([left], [right])["bleu"] == 0
    assert metrics.corpus_bleu([left], [right], bleu_mode="paper_compat")["paper_compat_bleu_1"] > 40
    assert "defect" in metrics.bleu_signature(mode="paper_compat")


def test_unknown_bleu_mode_is_refused() -> None:
    with pytest.raises(InputError, match="allowed: correct, paper_compat"):
        metrics.corpus_bleu(["a"], ["a"], bleu_mode="best")


# ---- ROUGE ---------------------------------------------------------------------------------------------------------


class Characters:
    def tokenize(self, text: str) -> list[str]:
        return [char for char in text if not char.isspace()]


def test_rouge_worked_by_hand() -> None:
    """甲乙丙丁 and 甲丙乙丁: 4 of 4 characters, 0 of 3 pairs, longest common subsequence 3 of 4."""
    scores = metrics.rouge("甲乙丙丁", "甲丙乙丁")
    assert scores == pytest.approx({"rouge1": 1.0, "rouge2": 0.0, "rougeL": 0.75})


def test_rouge_equals_rouge_score_on_characters() -> None:
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Characters())
    rng = random.Random(2)
    for ours, gold in SENTENCES + [(random_text(rng), random_text(rng)) for _ in range(200)]:
        theirs = {kind: score.fmeasure for kind, score in scorer.score(gold, ours).items()}
        assert metrics.rouge(ours, gold) == pytest.approx(theirs, abs=1e-12)


# ---- danger --------------------------------------------------------------------------------------------------------


def test_danger_pairs() -> None:
    text = "左膝疼痛，布洛芬0.2克口服，青霉素过敏者禁用，不建议自行停药。"
    assert dict(metrics.danger_pairs(text)) == {
        "negation": "左膝疼痛，布洛芬0.2克口服，青霉素过敏者禁用，建议自行停药。",
        "dose_x10": "左膝疼痛，布洛芬2克口服，青霉素过敏者禁用，不建议自行停药。",
        "side": "右膝疼痛，布洛芬0.2克口服，青霉素过敏者禁用，不建议自行停药。",
        "allergy": "左膝疼痛，布洛芬0.2克口服，青霉素过敏者可用，不建议自行停药。",
    }


@pytest.mark.parametrize(
    ("text", "kind", "variant"),
    [
        ("氨氯地平5毫克每日1次", "dose_x10", "氨氯地平50毫克每日1次"),
        ("地高辛0.125mg口服", "dose_x10", "地高辛1.25mg口服"),
        ("地高辛0.125mg口服", "unit", "地高辛0.125g口服"),
        ("优甲乐50微克", "unit", "优甲乐50毫克"),
        ("无青霉素过敏", "allergy", "有青霉素过敏"),
        ("应立即就医", "negation", "不必就医"),
    ],
)
def test_danger_kinds(text: str, kind: str, variant: str) -> None:
    assert dict(metrics.danger_pairs(text))[kind] == variant


def test_drug_names_have_no_side() -> None:
    assert metrics.danger_pairs("左氧氟沙星和右美沙芬") == []


def test_surface_metrics_do_not_punish_danger_but_a_checker_does() -> None:
    texts = [
        f"患者左侧肢体无力{i}天，不建议自行停药，阿司匹林100毫克每日1次口服，青霉素过敏者禁用。" for i in range(50)
    ]
    kept = metrics.unpunished_share(lambda a, b: metrics.rouge(a, b)["rougeL"], texts)
    assert kept["all"] == {"n": 250, "share": 1.0}
    assert metrics.unpunished_share(lambda a, b: float(a == b), texts)["all"]["share"] == 0


# ---- entities ------------------------------------------------------------------------------------------------------


def span(start: int, end: int, kind: str = "disease") -> Entity:
    return Entity(start, end, kind, "x" * (end - start))


# gold, predicted, strict (tp, fp, fn), relaxed (tp, fp, fn): worked by hand
ENTITY_CASES = [
    ([span(0, 2)], [span(0, 2)], (1, 0, 0), (1, 0, 0)),
    ([span(0, 2)], [], (0, 0, 1), (0, 0, 1)),
    ([], [span(0, 2)], (0, 1, 0), (0, 1, 0)),
    ([], [], (0, 0, 0), (0, 0, 0)),
    ([span(0, 4)], [span(2, 6)], (0, 1, 1), (1, 0, 0)),
    ([span(0, 2)], [span(2, 4)], (0, 1, 1), (0, 1, 1)),  # touching is not overlapping
    ([span(0, 2)], [span(0, 2, "drug")], (0, 1, 1), (0, 1, 1)),
    ([span(0, 2), span(3, 5), span(6, 8)], [span(0, 8)], (0, 1, 3), (1, 0, 2)),  # one long span is one hit
    ([span(0, 8)], [span(0, 2), span(3, 5)], (0, 2, 1), (1, 1, 0)),
    ([span(0, 2), span(0, 6)], [span(0, 6), span(0, 2)], (2, 0, 0), (2, 0, 0)),  # nested
    ([span(0, 4), span(3, 8)], [span(3, 5), span(0, 1)], (0, 2, 2), (2, 0, 0)),
    ([span(0, 4), span(6, 8)], [span(3, 7), span(0, 2)], (0, 2, 2), (2, 0, 0)),  # needs an augmenting path
    ([span(0, 2)], [span(0, 2), span(0, 2)], (1, 0, 0), (1, 0, 0)),  # repeats count once
    ([span(0, 2), span(0, 2, "drug")], [span(1, 3), span(0, 2, "drug")], (1, 1, 1), (2, 0, 0)),
]


@pytest.mark.parametrize(("gold", "ours", "strict", "relaxed"), ENTITY_CASES)
def test_entity_counts(gold: list[Entity], ours: list[Entity], strict: tuple, relaxed: tuple) -> None:
    assert metrics.entity_counts(gold, ours, "strict")["micro"] == strict
    assert metrics.entity_counts(gold, ours, "relaxed")["micro"] == relaxed


def test_strict_never_above_relaxed() -> None:
    rng = random.Random(3)
    for _ in range(300):
        sides = [
            [span(s, s + rng.randint(1, 4), rng.choice("ab")) for s in (rng.randint(0, 12) for _ in range(5))]
            for _ in "ab"
        ]
        assert metrics.entity_counts(*sides)["micro"][0] <= metrics.entity_counts(*sides, "relaxed")["micro"][0]


def test_entity_f1_by_type() -> None:
    counts = metrics.entity_counts([span(0, 2), span(3, 5, "drug")], [span(0, 2), span(4, 5, "drug"), span(7, 9)])
    scores = metrics.entity_f1([counts])
    assert scores["disease"] == metrics.EntityScore(0.5, 1.0, pytest.approx(2 / 3), 1, 1, 0)
    assert scores["micro"].f1 == pytest.approx(2 * 1 / (2 + 2 + 1))


def test_entity_f1_equals_seqeval_on_flat_spans() -> None:
    seqeval = pytest.importorskip("seqeval.metrics")
    rng = random.Random(4)
    texts, tags = [], ([], [])
    for _ in range(60):
        sides = []
        for side in tags:
            line, entities, place = ["O"] * 30, [], 0
            while place < 26:
                place += rng.randint(0, 3)
                size, kind = rng.randint(1, 3), rng.choice(["disease", "drug", "test"])
                entities.append(span(place, place + size, kind))
                line[place : place + size] = [f"B-{kind}"] + [f"I-{kind}"] * (size - 1)
                place += size
            side.append(line[:30])
            sides.append(entities)
        texts.append(metrics.entity_counts(*sides))
    ours = metrics.entity_f1(texts)
    assert ours["micro"].f1 == pytest.approx(seqeval.f1_score(*tags), abs=1e-9)
    report = seqeval.classification_report(*tags, output_dict=True)
    for kind in ("disease", "drug", "test"):
        assert ours[kind].precision == pytest.approx(report[kind]["precision"], abs=1e-9)
        assert ours[kind].recall == pytest.approx(report[kind]["recall"], abs=1e-9)


# ---- exam answers --------------------------------------------------------------------------------------------------


def labelled_outputs() -> list[tuple[str, str, str, dict[str, str] | None]]:
    lines = (ROOT / "tests/evals/exam_outputs.tsv").read_text(encoding="utf-8").split("\n")
    cases = []
    for line in lines:
        if line and not line.startswith("#"):
            letters, expected, output, *options = line.split("\t")
            named = dict(option.split("=") for option in options[0].split("|")) if options else None
            cases.append((letters, expected.replace("-", ""), output.replace("\\n", "\n"), named))
    return cases


def test_parser_reads_99_percent_of_the_labelled_outputs() -> None:
    cases = labelled_outputs()
    assert len(cases) >= 300
    wrong = [case for case in cases if metrics.parse_choice(case[2], case[0], case[3]) != case[1]]
    assert len(wrong) <= 0.01 * len(cases), wrong[:10]


def exam_question(key: str, count: int = 4) -> ExamQuestion:
    return ExamQuestion("q", "?", {letter: letter.lower() for letter in "ABCDEF"[:count]}, key)


def test_choice_accuracy_and_chance() -> None:
    assert metrics.choice_accuracy(["A", "BD", "C", "D"], ["A", "B", "", "D"]) == 0.5
    questions = [exam_question("A"), exam_question("B", 5), exam_question("AB", 2)]
    assert metrics.chance_level(questions) == pytest.approx((1 / 4 + 1 / 5 + 1 / 3) / 3)
    with pytest.raises(InputError):
        metrics.choice_accuracy(["A", "B"], ["A"])


# ---- intervals -----------------------------------------------------------------------------------------------------


def test_wilson_interval_of_facts_1_2() -> None:
    """70 % of 22 is 49-85, of 280 64-75; Wilson's textbook case 0 of 10 ends at z^2 / (n + z^2) = 0.2775."""
    for n, low, high in ((22, 0.49, 0.85), (280, 0.64, 0.75)):
        interval = metrics.wilson_interval(0.7 * n, n)
        assert (round(interval.low, 2), round(interval.high, 2)) == (low, high)
    assert metrics.wilson_interval(0, 10).high == pytest.approx(3.8414588 / 13.8414588)
    assert metrics.wilson_interval(0, 10).low == 0


def test_wilson_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for successes, n in [(0, 5), (3, 7), (41, 41), (150, 200)]:
        theirs = stats.binomtest(successes, n).proportion_ci(method="wilson")
        ours = metrics.wilson_interval(successes, n)
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_bootstrap_is_seeded_and_close_to_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(2.0, 1.0, 400).tolist()
    one, two = metrics.bootstrap_interval(values, seed=1), metrics.bootstrap_interval(values, seed=1)
    assert one == two
    half = 1.96 * np.std(values) / math.sqrt(400)
    assert one.low == pytest.approx(np.mean(values) - half, abs=0.02)
    assert one.high == pytest.approx(np.mean(values) + half, abs=0.02)


def test_groups_widen_the_interval() -> None:
    """100 items that are 10 items ten times over know no more than 10."""
    ten = np.random.default_rng(1).normal(0, 1, 10)
    values, groups = np.repeat(ten, 10).tolist(), [str(i // 10) for i in range(100)]
    alone, grouped = metrics.bootstrap_interval(values), metrics.bootstrap_interval(values, groups=groups)
    assert (grouped.high - grouped.low) / (alone.high - alone.low) == pytest.approx(math.sqrt(10), rel=0.1)


def test_interval_of_corpus_bleu_holds_corpus_bleu() -> None:
    rng = random.Random(5)
    pairs = [(random_text(rng, 10), random_text(rng, 10)) for _ in range(60)]
    rows = [metrics.bleu_statistics(*pair) for pair in pairs]
    interval = metrics.bootstrap_interval(rows, 2_000, statistic="bleu")
    assert interval.low < metrics.corpus_bleu(*zip(*pairs, strict=True))["bleu"] < interval.high


def test_interval_of_nothing_or_of_nan_is_refused() -> None:
    for values in ([], [1.0, math.nan]):
        with pytest.raises(InputError):
            metrics.bootstrap_interval(values)


def test_paired_difference() -> None:
    a = {str(i): float(i % 2) for i in range(100)}
    b = {str(i): 1.0 if i < 20 else float(i % 2) for i in range(100)}  # ten items turned right
    found = metrics.paired_difference(a, b)
    assert (found.diff, found.n, found.num_differ) == (pytest.approx(0.1), 100, 10)
    assert 0 < found.low < 0.1 < found.high < 0.2
    assert metrics.paired_difference(a, dict(reversed(a.items()))).diff == 0
    with pytest.raises(InputError, match="1 items only in a"):
        metrics.paired_difference(a, {name: value for name, value in b.items() if name != "3"})


def test_coverage_of_the_intervals() -> None:
    """E3: over 1,000 simulated data sets the 95 % interval holds the truth in 93-97 % of them."""
    rng = np.random.default_rng(7)
    hits = {"wilson": 0, "mean": 0, "f1": 0, "paired": 0}
    for number in range(1_000):
        right = int(rng.binomial(150, 0.7))
        wilson = metrics.wilson_interval(right, 150)
        hits["wilson"] += wilson.low <= 0.7 <= wilson.high
        mean = metrics.bootstrap_interval(rng.beta(2, 3, 120).tolist(), 1_000, number)
        hits["mean"] += mean.low <= 0.4 <= mean.high
        gold = rng.poisson(3, 120)
        tp = rng.binomial(gold, 0.6)
        fp = rng.poisson(1.0, 120)
        rows = np.column_stack([tp, fp, gold - tp]).tolist()
        f1 = metrics.bootstrap_interval(rows, 1_000, number, statistic="f1")
        hits["f1"] += f1.low <= 2 * 1.8 / (2 * 1.8 + 1.0 + 1.2) <= f1.high
        a = rng.binomial(1, 0.5, 150)
        b = np.where(rng.random(150) < 0.3, 1, a)  # true difference 0.15
        names = [str(i) for i in range(150)]
        paired = metrics.paired_difference(
            dict(zip(names, a.tolist(), strict=True)),
            dict(zip(names, b.tolist(), strict=True)),
            draws=1_000,
            seed=number,
        )
        hits["paired"] += paired.low <= 0.15 <= paired.high
    assert all(930 <= count <= 970 for count in hits.values()), hits
