"""What the report says of reward models' probes, judges, noise and alignment, from stage folders made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xinglin.report import write_report
from xinglin.report.judging import interval


def figure(value: float | None, **more: object) -> dict[str, object]:
    return {"value": value, "low": None if value is None else value - 0.1, "high": None, "n": 240, **more}


EXAM = {
    "overfit_alarm": {"raised": False, "training_accuracy_passed_95_at_step": None},
    "accuracy": 0.8,
    "num_pairs": 60,
    "calibration": {
        "ece": 0.123, "low": 0.1, "high": 0.2, "n": 60,
        "bins": [{"from": 0.5, "to": 0.55, "n": 60, "confidence": 0.52, "accuracy": 0.6, "low": 0.4, "high": 0.7}],
    },
    "padding": {"n": 120, "mean": 0.5, "low": 0.4, "high": 0.6, "rises": 0.9},
    "repetition": {"n": 120, "mean": None, "low": None, "high": None, "rises": None},
    "length_at_equal_quality": {"n": 120, "correlation": 0.42, "low": 0.3, "high": 0.5},
    "danger": {"side": {"accuracy": 0.55, "n": 60, "low": 0.425, "high": 0.669}},
    "raters": {"rater": {"r1": {"accuracy": 0.7, "n": 30, "low": 0.5, "high": 0.9}}, "label": {}},
}  # fmt: skip
JUDGED = {
    "judge": "llm:<b>m</b>", "items": 60, "pairs": 60, "doctors": 2, "judge_doctor": figure(0.7, high=0.8),
    "doctor_doctor": figure(0.82, high=0.9), "gap": figure(-0.12, high=0.0), "alpha_doctors": figure(None, reason="no"),
    "position_consistency": 0.9, "tie_rate": 0.1, "ungraded_rate": 0.0, "headline": False,
    "against": ["60 items with two doctors' votes, 200 are needed"], "cost": {"calls": 120},
}  # fmt: skip
ALIGNED = [
    {"checkpoint": "sft", "rule": figure(0.5, high=0.6), "distinct1": {"value": 0.1}, "distinct2": {"value": 0.3}},
    {"checkpoint": "ppo", "gain_rule": {**figure(0.2, high=0.3), "better": True}, "stopped": "KL", "seconds": 41.9},
]


@pytest.fixture
def page(tmp_path: Path) -> str:
    stages = {"rm": {"stage": "reward"}, "noisy": {"stage": "reward"}, "evaluate": {"stage": "evaluate"}}
    (tmp_path / "recipe.json").write_text(json.dumps({"name": "r", "base": {"path": "x"}, "stages": stages}))
    (tmp_path / "run.json").write_text(json.dumps({"data": "ward"}))
    noise = {"share": 0.3, "raters": 5, "votes": 3, "settle": "weighted"}
    counts = {"pairs labelled": 200, "labels that are wrong": 24}
    manifests = {
        "01-rm": {"kind": "reward", "config": {}},
        "02-noisy": {"kind": "reward", "config": {"noise": noise}, "counts": counts},
        "03-evaluate": {"kind": "evaluate", "config": {}, "judge_exam": JUDGED, "aligned": ALIGNED},
    }
    for name, manifest in manifests.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps({"stage": name[3:], "key": "k", **manifest}))
        if manifest["kind"] == "reward":
            lines = [{"step": s, "accuracy": 0.5, "valid_accuracy": 0.6, "valid_margin": 0.1 * s} for s in (1, 2)]
            (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            (tmp_path / name / "diagnostics.json").write_text(json.dumps(EXAM))
    return write_report(tmp_path).read_text("utf-8")


@pytest.mark.parametrize(
    "shown",
    [
        "0.123 [0.100, 0.200]（n 60）",  # calibration
        "0.500 [0.400, 0.600]（n 120），90.0 % 的答案得分上升",
        "未定义（数据不足）",  # repetition
        "危险对判对：左右颠倒",
        "0.550 [0.425, 0.669]（n 60）",
        "与评审者 r1 一致",
        "训练过程的对照",
        "按评审者加权（Dawid–Skene）",
        "12.0 %（n 200）",  # 24 of 200 labels still wrong
        "不可作为主要结论的依据：60 items",
        "llm:&lt;b&gt;m&lt;/b&gt;",
        "未定义（no）",
        "同一批偏好，几种对齐方法",
        "0.200 [0.100, 0.300]（n 240） 变好",
        "0.100 / 0.300",
    ],
)
def test_the_page_shows(page: str, shown: str) -> None:
    assert shown in page


def test_a_reliability_curve_stands_for_each_reward_model(page: str) -> None:
    assert page.count(">模型的把握<") == 2 and "<b>m</b>" not in page


def test_figures_without_a_value_or_an_interval() -> None:
    assert interval({}) == "—" and interval(None) == "—"
    assert interval({"value": 0.5, "n": 3}) == "0.500（n 3）"
