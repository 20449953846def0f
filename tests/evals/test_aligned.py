"""Ways of alignment side by side, on generators whose every number is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import FakeGenerator, user

from xinglin.evals.aligned import Measures, cost_of, distinct, run
from xinglin.records import Question

QUESTIONS = [Question(f"q{i}", user(f"q{i}")) for i in range(30)]
MEASURES = Measures(lambda q, text: {"overall": len(text) / 10}, lambda q, text: -float(len(text)), 8, draws=500)


def models() -> dict[str, object]:
    """The reference says 好, at one nat a character; the other says 好好 with nothing to doubt."""
    sft = FakeGenerator(lambda prompt: "好")
    ppo = FakeGenerator(lambda prompt: "好好", lambda context, text: -0.5 * len(text))
    return {"ppo": lambda: ppo, "sft": lambda: sft}


def test_every_number_by_hand() -> None:
    sft, ppo = run(models(), "sft", QUESTIONS, MEASURES, {"ppo": {"seconds": 3.0}})  # type: ignore[arg-type]
    assert (sft["checkpoint"], ppo["checkpoint"]) == ("sft", "ppo")
    assert sft["kl"]["value"] == 0.0 and "gain_rule" not in sft
    assert ppo["kl"]["value"] == pytest.approx(-1.0 - -2.0)  # two characters: -1 under itself, -2 under the reference
    assert ppo["gain_rule"]["value"] == pytest.approx(0.1) and ppo["gain_rule"]["better"] is True
    assert ppo["gain_held_out_reward"]["value"] == -1.0 and ppo["gain_held_out_reward"]["better"] is False
    assert ppo["length"]["value"] == 2.0 and ppo["seconds"] == 3.0 and ppo["rule"]["n"] == 30
    assert ppo["distinct1"]["value"] == pytest.approx(1 / 60) and ppo["distinct2"]["value"] == pytest.approx(1 / 30)


def test_distinct_by_hand() -> None:
    assert distinct(["甲乙甲", "乙"], 1) == 2 / 4  # 甲 乙 among 甲 乙 甲 乙
    assert distinct(["甲乙甲", "乙"], 2) == 2 / 2 and distinct(["甲"], 2) is None


@pytest.mark.parametrize(
    ("manifest", "lines", "rounds", "cost"),
    [
        (  # PPO: two iterations of 4 x 2 answers of 10 and 5 tokens, each learned from twice
            {"config": {"prompts": 4, "num_answers": 2, "inner_epochs": 2}, "stopped_by": "KL"},
            [{"iteration": 0, "length": 10.0}, {"iteration": 1, "length": 5.0}],
            [],
            (120, 240, "KL"),
        ),
        ({"config": {}, "tokens": 77}, [{"step": 1, "count": 3}], [], (0, 77, None)),  # DPO counts them itself
        (
            {"config": {}, "rounds": [{"counts": {"tokens sampled": 50}}]},
            [],
            [{"step": 1, "count": 9}, {"step": 2, "count": 4}],
            (50, 13, None),
        ),
    ],
)
def test_costs_are_read_from_what_stages_wrote(
    tmp_path: Path, manifest: dict, lines: list, rounds: list, cost: tuple
) -> None:
    (tmp_path / "round-1").mkdir()
    (tmp_path / "manifest.json").write_text(json.dumps({"seconds": 1.5, **manifest}))
    for path, rows in ((tmp_path, lines), (tmp_path / "round-1", rounds)):
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = cost_of(tmp_path)
    assert (found["tokens_sampled"], found["tokens_trained"], found["stopped"]) == cost and found["seconds"] == 1.5
