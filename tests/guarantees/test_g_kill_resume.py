"""Guarantee g: SIGKILL at any step, then run again: the same weights, moments, best weights and log, bit for bit, and
no row learned from twice or never.

A stage kills itself after a step, between two micro-batches of a step, or with a checkpoint half written; in one test
the kill comes from outside, wherever the process happens to be.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest
from fault_stages import SYNCS, Fault, end_state, finish, kill, rows_learned
from tiny_stages import CONFIGS, NUM_STEPS, in_another_process, log_of, run_stage, training_steps, weights

from xinglin.run import Stage

KINDS = ["pretrain", "sft", "reward", "dpo", "ppo", "grpo"]
TIMES = {"sft": {1, 2}, "ppo": {6}, "grpo": {6}}  # each row: one epoch and a half; twice in each of three iterations
KILLS = 20


@pytest.fixture(scope="module", params=KINDS)
def unbroken(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data: Path, model: Path
) -> tuple[str, Path]:
    kind, out = request.param, tmp_path_factory.mktemp(request.param) / "whole"
    finish(kind, out, data, model)
    rows = rows_learned(out)
    assert len(rows) == NUM_STEPS and max(map(len, rows)) > 1  # several micro-batches in a step
    times = Counter(row_id for step in rows for batch in step for row_id in batch)
    assert set(times.values()) == TIMES.get(kind, {2}) and sum(times.values()) == 4 * NUM_STEPS
    assert any(name.startswith("checkpoints/step-000012") for name in end_state(out))
    return kind, out


def prove(kind: str, whole: Path, broken: Path, data: Path, model: Path, faults: list[Fault]) -> int:
    """The kills there were; faults after the end of the stage do not happen."""
    kills = sum(kill(fault, kind, broken, data, model) for fault in faults if not (broken / "manifest.json").is_file())
    finish(kind, broken, data, model)
    assert end_state(broken) == end_state(whole) and weights(broken) == weights(whole) != {}
    assert rows_learned(broken) == rows_learned(whole)
    assert log_of(broken) == log_of(whole)
    return kills


def test_three_kills_in_a_row(unbroken: tuple[str, Path], tmp_path: Path, data: Path, model: Path) -> None:
    kind, whole = unbroken
    faults = [Fault("save", 3, 0), Fault("batch", 7), Fault("step", 10)]
    assert prove(kind, whole, tmp_path / "broken", data, model, faults) == 3


@pytest.mark.slow
def test_twenty_kills(unbroken: tuple[str, Path], tmp_path: Path, data: Path, model: Path) -> None:
    """At random steps and places, up to five to a run."""
    kind, whole = unbroken
    rng, kills, runs = random.Random(kind), 0, 0
    while kills < KILLS:
        steps = sorted(rng.sample(range(1, NUM_STEPS + 1), 5))
        places = [rng.choice(["step", "batch", "save"]) for _ in steps]
        faults = [
            Fault(place, step, rng.randrange(SYNCS) if place == "save" else 0)  # type: ignore[arg-type]
            for place, step in zip(places, steps, strict=True)
        ]
        kills += prove(kind, whole, tmp_path / f"broken-{runs}", data, model, faults)
        runs += 1


@pytest.mark.parametrize("kind", ["ppo", "grpo"])
def test_a_kill_in_the_middle_of_an_iteration(tmp_path: Path, data: Path, model: Path, kind: str) -> None:
    """Between two lines of the log: while answers are sampled, scored or learned from."""
    finish(kind, tmp_path / "whole", data, model)
    process = in_another_process(kind, tmp_path / "broken", data, model)
    while process.is_alive() and not training_steps(tmp_path / "broken"):
        time.sleep(0.0005)
    time.sleep(0.05)
    process.kill()
    process.join(30)
    assert process.exitcode == -9
    finish(kind, tmp_path / "broken", data, model)
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")
    assert log_of(tmp_path / "broken") == log_of(tmp_path / "whole")


def test_a_kill_after_a_health_rule(tmp_path: Path, data: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between going back and the manifest: the next run stops at the same place, and says so once."""
    config = CONFIGS["grpo"].model_copy(update={"max_kl": 1e-6, "schedule": "constant"})
    whole = run_stage("grpo", tmp_path / "whole", data, model, config)
    with monkeypatch.context() as patch:
        patch.setattr(Stage, "finish", _dies)
        with pytest.raises(KeyboardInterrupt):
            run_stage("grpo", tmp_path / "broken", data, model, config)
    again = run_stage("grpo", tmp_path / "broken", data, model, config)
    assert again.manifest()["stopped_by"] == whole.manifest()["stopped_by"] is not None
    assert weights(again.dir) == weights(whole.dir) and log_of(again.dir) == log_of(whole.dir)


def _dies(*args: object, **facts: object) -> None:
    raise KeyboardInterrupt
