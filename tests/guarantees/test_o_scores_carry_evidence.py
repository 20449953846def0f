"""Guarantee o: every score carries n, an interval, chance and, where parsed, the parse-failure rate; "better" is said
only when the paired interval excludes 0."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny_models

from xinglin.config import Decoding, Evaluate, Pretrain
from xinglin.data.ward.build import WardConfig, build_ward
from xinglin.evals.checkpoints import evaluate
from xinglin.models.load import save_model
from xinglin.models.template import template_named
from xinglin.models.tiny import build_model
from xinglin.rollout.local import LocalGenerator
from xinglin.run import Stage
from xinglin.train.causal import pretrain

SMALL = {"num_page_renderings": 1, "num_facts": 30, "num_consultations": 10, "num_dialogues": 2, "num_note_tasks": 2}
SMALL |= {"num_entity_tasks": 2, "num_exam_tasks": 2, "num_preferences": 4, "num_questions": 4, "num_notes": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model, itself under another name, and itself after a few steps on the ward's documents."""
    out = tmp_path_factory.mktemp("run")
    build_ward(out / "data", WardConfig(**SMALL), seed=0)
    tokenizer = tiny_models.tokenizer()
    built = build_model(
        "llama", len(tokenizer), hidden_size=32, num_layers=1, num_heads=2, max_seq_len=2048, seed=0
    )  # fmt: skip
    save_model(out / "base", built, tokenizer, template_named("chatml"))
    config = Pretrain(lr=1e-2, max_steps=12, batch_size=8, precision="fp32")
    stage = Stage(out / "trained", "pretrain", quiet=True)
    pretrain(config, stage, out / "base", out / "data/documents/train.jsonl", None)
    folders = {"base": out / "base", "twin": out / "base", "trained": out / "trained/model"}
    evaluation = Evaluate(
        checkpoints=tuple(folders),
        compare=(("twin", "base"), ("trained", "base"), ("base", "trained")),
        limit=12,
        decoding=Decoding(max_new_tokens=4, temperature=0.0),
        evaluations=("documents", "general", "exam", "general_exam", "safety"),
        exam_modes=("logprob", "generate"),
    )
    models = {name: (lambda folder=folder: LocalGenerator.load(folder)) for name, folder in folders.items()}
    evaluate(evaluation, Stage(out / "evaluate", "evaluate", quiet=True), models, out / "data", None, out / "no", out)
    return out


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_every_score_carries_its_evidence(run: Path) -> None:
    scores = lines(run / "scores.jsonl")
    assert {line["checkpoint"] for line in scores} == {"base", "twin", "trained"}
    assert {"documents", "general", "exam_logprob", "exam_generate", "safety"} <= {
        line["evaluation"] for line in scores
    }
    for line in scores:
        assert {"checkpoint", "evaluation", "metric", "value", "n", "low", "high", "chance"} <= line.keys()
        if line["value"] is None:
            assert line["n"] == 0
            continue
        assert isinstance(line["n"], int) and line["n"] > 0
        assert line["low"] - 1e-9 <= line["value"] <= line["high"] + 1e-9, line["metric"]


def test_choices_carry_their_chance_level(run: Path) -> None:
    scores = {(s["checkpoint"], s["evaluation"], s["metric"]): s for s in lines(run / "scores.jsonl")}
    exam = scores["base", "general_exam_logprob", "accuracy"]
    assert exam["chance"] == pytest.approx(0.25) and exam["n"] == 12  # four options
    assert 0 < scores["base", "exam_logprob", "accuracy"]["chance"] <= 0.25
    assert scores["base", "documents", "bits_per_character"]["chance"] is None


def test_what_is_parsed_carries_its_failures(run: Path) -> None:
    for line in lines(run / "scores.jsonl"):
        assert ("parse_failure_rate" in line) == line["evaluation"].endswith("_generate"), line["evaluation"]


def test_few_items_carry_a_warning(run: Path) -> None:
    for line in lines(run / "scores.jsonl"):
        if line["value"] is not None:
            assert any("the interval is wide" in warning for warning in line["notes"]["warnings"])


def test_better_is_said_only_where_the_interval_excludes_zero(run: Path) -> None:
    comparisons = lines(run / "comparisons.jsonl")
    assert comparisons
    for line in comparisons:
        assert {"checkpoint", "against", "diff", "low", "high", "n", "better"} <= line.keys()
        if line["low"] <= 0 <= line["high"]:
            assert line["better"] is None, line
        assert line["diff"] == pytest.approx(line["b"] - line["a"]) and math.isfinite(line["diff"])


def test_a_model_is_never_better_than_itself(run: Path) -> None:
    twins = [line for line in lines(run / "comparisons.jsonl") if line["checkpoint"] == "twin"]
    assert twins and all(line["better"] is None and line["diff"] == 0 for line in twins)


def test_a_trained_model_is_better_at_the_ward_and_the_other_way_round_worse(run: Path) -> None:
    found = {
        line["checkpoint"]: line["better"]
        for line in lines(run / "comparisons.jsonl")
        if line["evaluation"] == "documents" and line["against"] != "twin" and line["checkpoint"] != "twin"
    }
    assert found == {"trained": True, "base": False}
