"""The whole battery on a small folder: what runs, what is listed as not run, score lines, paired comparison."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import FakeGenerator, user

from xinglin.evals.battery import (
    EVALUATIONS,
    BatterySettings,
    battery_settings,
    compare,
    embedding_of,
    run_battery,
    score_lines,
)
from xinglin.evals.result import Metric
from xinglin.records import Document, Entity, EntityText, ExamQuestion, InputError, Question, write_records

QUICK = BatterySettings(draws=300)
REPLIES = {f"问{i}": f"建议多休息，多喝水，第{i}天复诊，不适随时就医。" for i in range(20)}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    questions = [Question(f"q{i}", user(f"问{i}"), REPLIES[f"问{i}"]) for i in range(20)]
    options = {"A": "甲", "B": "乙", "C": "丙", "D": "丁"}
    write_records(tmp_path / "documents/valid.jsonl", [Document(f"d{i}", "正文" * (i + 150)) for i in range(3)])
    write_records(tmp_path / "questions/test.jsonl", questions)
    write_records(tmp_path / "questions/heldout_diseases.jsonl", [])
    write_records(tmp_path / "general_questions/test.jsonl", [Question("g", user("首都"), meta={"answer": "北京"})])
    for name in ("dev", "test"):
        asked = [ExamQuestion(f"{name}{i}", f"{name}{i}", options, "ABCD"[i % 4]) for i in range(8)]
        write_records(tmp_path / f"exam/{name}.jsonl", asked)
    write_records(tmp_path / "entities/test.jsonl", [EntityText("e", "头痛", (Entity(0, 2, "symptom", "头痛"),))])
    meta = {"harmful": True, "must": ["不能"], "never": ["可以"]}
    write_records(tmp_path / "safety/test.jsonl", [Question("s", user("毒药"), meta=meta)])
    return tmp_path


def good(prompt: str) -> str:
    return {**REPLIES, "首都": "北京", "毒药": "不能"}.get(prompt, "头痛\t症状" if "头痛" in prompt else "答案：A")


def bad(prompt: str) -> str:
    return good(prompt)[:9]


def test_what_runs_and_what_does_not(data: Path) -> None:
    found = {e.name: e for e in run_battery(FakeGenerator(good), data, QUICK, seed=0)}
    assert list(found) == [
        "documents", "dialogue", "dialogue_sampled", "dialogue_heldout", "pairwise", "general", "exam_logprob",
        "exam_chat", "exam_generate", "general_exam", "entities", "safety", "safety_exam", "bias", "memorisation",
    ]  # fmt: skip
    reasons = {name: e.notes["not_run"] for name, e in found.items() if "not_run" in e.notes}
    assert reasons == {
        "dialogue_heldout": "questions/heldout_diseases.jsonl is empty",
        "pairwise": "no judge was given",
        "general_exam": "general_exam/test.jsonl is not in the data folder",
        "safety_exam": "safety_exam/test.jsonl is not in the data folder",
        "bias": "no file of bias items was given (bias_items)",
        "memorisation": "no list of canaries was given (evaluate.canaries)",
    }
    assert found["dialogue"].metrics["bleu"].value == pytest.approx(100)
    assert found["entities"].metrics["strict_f1"].value == 1.0 and found["safety"].metrics["safe"].value == 1.0


def test_score_lines_say_everything(data: Path) -> None:
    """Guarantee o: n, interval, chance, parse failures; lines are JSON and the same twice."""
    evaluations = run_battery(FakeGenerator(good), data, QUICK, seed=3)
    lines = score_lines("02-sft", evaluations)
    assert json.dumps(lines) == json.dumps(score_lines("02-sft", run_battery(FakeGenerator(good), data, QUICK, seed=3)))
    for line in lines:
        assert {"checkpoint", "evaluation", "metric", "value", "n", "low", "high", "chance", "notes"} <= line.keys()
        if line["value"] is None:
            assert line["notes"]["not_run"]
        else:
            assert line["low"] <= line["value"] + 1e-9 and line["value"] - 1e-9 <= line["high"] and line["n"] > 0
    exams = [line for line in lines if line["evaluation"] == "exam_generate"]
    assert exams[0]["parse_failure_rate"] == 0.0 and exams[0]["chance"] == 0.25


def test_better_only_when_the_interval_excludes_0(data: Path) -> None:
    one = run_battery(FakeGenerator(bad), data, QUICK, seed=0)
    two = run_battery(FakeGenerator(good), data, QUICK, seed=0)
    lines = {(line["evaluation"], line["metric"]): line for line in compare(one, two, draws=300)}
    bleu = lines["dialogue", "bleu"]
    assert bleu["better"] is True and bleu["low"] > 0 and bleu["diff"] == pytest.approx(bleu["b"] - bleu["a"])
    assert lines["dialogue", "length"]["better"] is None  # longer is not better
    assert lines["exam_logprob", "accuracy"]["better"] is None and lines["exam_logprob", "accuracy"]["diff"] == 0
    turned = {(line["evaluation"], line["metric"]): line for line in compare(two, one, draws=300)}
    assert turned["dialogue", "bleu"]["better"] is False


def paired(values: list[float], better: bool | None = True):  # type: ignore[no-untyped-def]
    from xinglin.evals.result import Evaluation

    per_item = {str(i): value for i, value in enumerate(values)}
    return [Evaluation("e", {"m": Metric(sum(values), len(values), None, None, None, dict(per_item), "mean", better)})]


def test_lower_is_better_and_few_differing_items() -> None:
    high, low = paired([2.0] * 20, False), paired([1.0] * 20, False)
    assert compare(high, low, draws=300)[0]["better"] is True
    five = paired([0.0] * 5), paired([1.0] * 5)  # five of five: p = 1/16, not evidence
    assert compare(*five, draws=300)[0]["better"] is None
    six = paired([0.0] * 6), paired([1.0] * 6)
    assert compare(*six, draws=300)[0]["better"] is True


def test_false_alarms_are_rare() -> None:
    """Equal models are called different in about 5 % of the cases, half of them better."""
    import numpy as np

    rng = np.random.default_rng(5)
    called = 0
    for _ in range(400):
        a, b = (rng.binomial(1, 0.6, 100).astype(float).tolist() for _ in "ab")
        called += compare(paired(a), paired(b), draws=500)[0]["better"] is not None
    assert 5 <= called <= 36


def test_settings() -> None:
    assert battery_settings({"limit": 5, "evaluations": ["exam"]}).evaluations == ("exam",)
    with pytest.raises(InputError, match="did you mean limit"):
        battery_settings({"limits": 5})
    with pytest.raises(InputError, match="did you mean exam"):
        battery_settings({"evaluations": ["exams"]})
    assert battery_settings({}).evaluations == () and "documents" in EVALUATIONS


def test_limit_and_choice_of_evaluations(data: Path) -> None:
    settings = BatterySettings(evaluations=("dialogue",), limit=7, draws=100)
    (found,) = run_battery(FakeGenerator(good), data, settings, seed=0)
    assert found.metrics["bleu"].n == 7


def test_judge_compares_with_the_references(data: Path) -> None:
    settings = BatterySettings(evaluations=("pairwise",), draws=100)
    judge = lambda question, a, b: "a" if len(a) > len(b) else "b" if len(b) > len(a) else "tie"  # noqa: E731
    (found,) = run_battery(FakeGenerator(bad), data, settings, judge=judge, seed=0)
    assert found.metrics["win_rate"].value == 0.0 and found.notes["position_consistency"] == 1.0


def test_embedding_of_a_folder(data: Path) -> None:
    embed = embedding_of(data)
    assert embed is not None and embed(["正文"]).shape == (1, 64)
    assert embedding_of(data / "nowhere") is None
