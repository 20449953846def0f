"""Reward models and DPO on a few rankings; the diagnostics against a count by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_stages import COMMON, log_of, preferences, run_stage

from xinglin.config import Dpo, Reward, Sft
from xinglin.models.packing import Group
from xinglin.records import Answer, InputError, Message, Preference, write_records
from xinglin.rollout.reward import load_reward
from xinglin.train import preference
from xinglin.train.preference import examine, overfit_alarm


def logged(folder: Path, name: str) -> list[float]:
    return [line[name] for line in log_of(folder) if name in line]


@pytest.mark.parametrize(
    "config",
    [
        Reward(epochs=3, **COMMON),
        Reward(epochs=3, loss="listwise", **COMMON),
        Reward(epochs=3, ranks="extremes", method="lora", **{**COMMON, "lr": 1e-2}),
    ],
    ids=["pairwise", "listwise", "lora"],
)
def test_a_reward_model_learns_to_rank(tmp_path: Path, data: Path, model: Path, config: Reward) -> None:
    stage = run_stage("reward", tmp_path, data, model, config)
    loss, accuracy = logged(tmp_path, "valid_loss"), logged(tmp_path, "valid_accuracy")
    # a head of zeros: every pair a dead heat; ln 2, or listwise (2 rankings of 3!, 4 of 2): (2 ln 6 + 4 ln 2) / 6
    start = (2 * math.log(6) + 4 * math.log(2)) / 6 if config.loss == "listwise" else math.log(2)
    assert loss[0] == pytest.approx(start, rel=1e-5) and accuracy[0] == 0.5
    assert min(loss) < 0.5 * loss[0] and max(accuracy) > 0.9
    facts = json.loads((tmp_path / "diagnostics.json").read_text("utf-8"))
    assert facts["accuracy"] > 0.9 and facts["num_pairs"] == 2 * 3 + 4
    assert len(facts.pop("pairs")) == facts["num_pairs"] and stage.manifest()["diagnostics"] == facts


def test_the_saved_reward_model_ranks_texts(tmp_path: Path, data: Path, model: Path) -> None:
    run_stage("reward", tmp_path, data, model)
    judge = load_reward(tmp_path / "model")
    good, poor = judge.score_texts((Message("user", "头痛26?"),), ["多喝水,注意休息。", "头痛头痛"])
    assert good > poor


def test_a_reward_model_that_reloads_differently_is_an_error(
    tmp_path: Path, data: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(folder: Path, **options: object) -> object:
        critic = preference_load(folder, **options)
        critic.head.weight.data += 1
        return critic

    preference_load = preference.load_critic
    monkeypatch.setattr(preference, "load_critic", other)
    with pytest.raises(RuntimeError, match="scores differently"):
        run_stage("reward", tmp_path, data, model)
    assert not (tmp_path / "manifest.json").exists() and not (tmp_path / "diagnostics.json").exists()


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("pairs", ["all", "extremes"])
def test_dpo_begins_at_zero_and_raises_the_margin(
    tmp_path: Path, data: Path, model: Path, method: str, pairs: str
) -> None:
    config = Dpo(epochs=2, method=method, pairs=pairs, **COMMON)
    run_stage("dpo", tmp_path, data, model, config)
    loss, margin = logged(tmp_path, "valid_loss"), logged(tmp_path, "valid_margin")
    assert loss[0] == pytest.approx(math.log(2), abs=1e-5) and margin[0] == pytest.approx(0, abs=1e-4)
    assert logged(tmp_path, "loss")[0] == pytest.approx(math.log(2), abs=1e-5)
    assert margin[-1] > 0.1 and min(loss) < 0.6


def test_dpo_after_an_adapter_begins_at_zero_too(tmp_path: Path, data: Path, model: Path) -> None:
    """The reference is the parent, adapter and all, not the bare base."""
    run_stage("sft", tmp_path / "sft", data, model, Sft(general_share=0, method="lora", **COMMON))
    config = Dpo(max_steps=2, method="lora", **COMMON)
    run_stage("dpo", tmp_path / "dpo", data, tmp_path / "sft/model", config)
    assert logged(tmp_path / "dpo", "valid_loss")[0] == pytest.approx(math.log(2), abs=1e-5)
    assert logged(tmp_path / "dpo", "loss")[0] == pytest.approx(math.log(2), abs=1e-5)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_an_id_in_training_and_validation_is_refused(tmp_path: Path, model: Path, kind: str) -> None:
    write_records(tmp_path / "preferences/train.jsonl", preferences(8))
    write_records(tmp_path / "preferences/valid.jsonl", preferences(4, 7))
    with pytest.raises(InputError, match=r"preference id 'p7' occurs more than once .*\(1 such ids\)"):
        run_stage(kind, tmp_path / "out", tmp_path, model)


def test_a_reward_model_with_nothing_to_examine_it_is_refused(tmp_path: Path, model: Path) -> None:
    tie = Preference("t", (Message("user", "?"),), (Answer("a"), Answer("b")), (1, 1))
    write_records(tmp_path / "preferences/train.jsonl", preferences(8))
    write_records(tmp_path / "preferences/valid.jsonl", [tie])
    with pytest.raises(InputError, match="0 rankings left to examine"):
        run_stage("reward", tmp_path / "out", tmp_path, model)


# --- diagnostics -----------------------------------------------------------------------------------------------------


def test_the_matrix_of_sources_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rankings, given in an order that is not the ranks'. Scores stand best rank first.

    A: doctor > gpt > poor, scored 3, 1, 2     doctor>gpt right, doctor>poor right, gpt>poor wrong
    B: doctor > gpt, scored 1, 1               a dead heat: half
    C: gpt > doctor = poor, scored 0, 2, -1    gpt>doctor wrong, gpt>poor right, the tie gives no pair
    """
    prompt = (Message("user", "?"),)
    texts = {"doctor": "dddd", "gpt": "gg", "poor": "pppppp"}

    def record(name: str, ranks: dict[str, int]) -> Preference:
        return Preference(name, prompt, tuple(Answer(texts[s], s) for s in ranks), tuple(ranks.values()))

    records = [
        record("A", {"poor": 3, "doctor": 1, "gpt": 2}),
        record("B", {"gpt": 2, "doctor": 1}),
        record("C", {"doctor": 2, "poor": 2, "gpt": 1}),
    ]
    scores = [np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0]), np.array([0.0, 2.0, -1.0])]
    monkeypatch.setattr(preference, "score_groups", lambda critic, groups: scores)

    def encode(found: Sequence[Preference]) -> list[Group]:
        return [Group(p.id, np.zeros(1), (), (), tuple(sorted(p.ranks))) for p in found]

    facts = examine(SimpleNamespace(), records, encode)  # type: ignore[arg-type]
    table = {(row["better"], row["worse"]): (row["accuracy"], row["n"]) for row in facts["by_source"]}
    assert table == {
        ("doctor", "gpt"): (0.75, 2),  # A right, B half
        ("doctor", "poor"): (1.0, 1),
        ("gpt", "poor"): (0.5, 2),  # A wrong, C right
        ("gpt", "doctor"): (0.0, 1),
    }
    assert facts["num_pairs"] == 6 and facts["accuracy"] == pytest.approx(3.5 / 6)
    # doctor (4) > gpt (2): longer, A and B; doctor > poor (6), gpt > poor twice, gpt > doctor: not longer
    assert facts["by_length"]["better is longer"] == {"accuracy": 0.75, "n": 2}
    assert facts["by_length"]["better is not longer"] == {"accuracy": 0.5, "n": 4}
    lengths = [4, 2, 6, 4, 2, 2, 4, 6]
    assert facts["score_length_correlation"] == pytest.approx(np.corrcoef(lengths, np.concatenate(scores))[0, 1])
    assert facts["score_mean"] == pytest.approx(9 / 8)


def alarm(tmp_path: Path, lines: list[dict[str, float]]) -> tuple[bool, int | None]:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = overfit_alarm(path)
    return found["raised"], found["training_accuracy_passed_95_at_step"]


def training(steps: range, accuracy: float) -> list[dict[str, float]]:
    return [{"step": step, "accuracy": accuracy} for step in steps]


def validation(step: int, margin: float) -> list[dict[str, float]]:
    return [{"step": step, "valid_margin": margin}]


def test_no_alarm_below_95_percent(tmp_path: Path) -> None:
    lines = [*validation(0, 0.0), *training(range(1, 11), 0.95), *validation(10, 0.0)]
    assert alarm(tmp_path, lines) == (False, None)


def test_alarm_where_the_margin_stands_still(tmp_path: Path) -> None:
    lines = [*training(range(1, 5), 0.5), *validation(4, 1.0), *training(range(5, 15), 1.0), *validation(14, 1.05)]
    # the mean of five passes 95 % when the last 0.5 has left the window: steps 5 to 9
    assert alarm(tmp_path, lines) == (True, 9)


def test_no_alarm_where_the_margin_still_grows(tmp_path: Path) -> None:
    lines = [*training(range(1, 5), 0.5), *validation(4, 1.0), *training(range(5, 15), 1.0), *validation(14, 1.2)]
    assert alarm(tmp_path, lines) == (False, 9)


def test_no_alarm_without_a_validation_after_it(tmp_path: Path) -> None:
    """Nothing was measured since: that is no sign of standing still."""
    lines = [*validation(0, 0.0), *training(range(1, 6), 1.0), *validation(5, 1.0)]
    assert alarm(tmp_path, lines) == (False, 5)
