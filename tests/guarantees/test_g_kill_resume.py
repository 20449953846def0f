"""Guarantee g: SIGKILL at any step, then run again: the same weights, bit for bit, and the same log, line for line.

The stage runs in a process of its own; the kill comes from outside, wherever the process happens to be.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from tiny_stages import CONFIGS, NUM_STEPS, in_another_process, log_of, run_stage, training_steps, weights

from xinglin.run import Stage

KINDS = ["pretrain", "sft", "reward", "dpo", "ppo", "grpo"]
STRIDES = {"ppo": 4, "grpo": 4}  # steps of an iteration: one line of the log, one checkpoint


@pytest.fixture(scope="module", params=KINDS)
def unbroken(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data: Path, model: Path
) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    finish(request.param, folder, data, model)
    assert training_steps(folder) == all_steps(request.param)
    return request.param, folder


def all_steps(kind: str) -> list[int]:
    return list(range(STRIDES.get(kind, 1), NUM_STEPS + 1, STRIDES.get(kind, 1)))


def finish(kind: str, folder: Path, data: Path, model: Path) -> None:
    process = in_another_process(kind, folder, data, model)
    process.join(120)
    assert process.exitcode == 0


def kill_at(step: int, kind: str, folder: Path, data: Path, model: Path) -> bool:
    """Start the stage and kill it once its log holds `step` (0: its first checkpoint); False where it had finished."""
    seen = training_steps(folder)
    process = in_another_process(kind, folder, data, model)
    deadline = time.monotonic() + 120
    while process.is_alive() and time.monotonic() < deadline:
        now = training_steps(folder)
        if now != seen and now and now[-1] >= step:
            break
        if step == 0 and any(folder.glob("checkpoints/step-*")):
            break
        time.sleep(0.0005)
    process.kill()
    process.join(30)
    return process.exitcode == -9


def prove(kind: str, whole: Path, broken: Path, data: Path, model: Path, steps: list[int]) -> int:
    kills = 0
    for step in steps:
        kills += kill_at(step, kind, broken, data, model)
        if (broken / "manifest.json").is_file():
            break
    finish(kind, broken, data, model)
    assert weights(broken) == weights(whole) and weights(whole)
    assert log_of(broken) == log_of(whole)
    assert training_steps(broken) == all_steps(kind)
    return kills


def test_three_kills_in_a_row(unbroken: tuple[str, Path], tmp_path: Path, data: Path, model: Path) -> None:
    kind, whole = unbroken
    steps = [0, 4, 8] if kind in STRIDES else sorted(random.Random(kind).sample(range(1, NUM_STEPS - 1), 3))
    assert prove(kind, whole, tmp_path, data, model, steps) >= 2


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


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_twenty_kills(unbroken: tuple[str, Path], tmp_path: Path, data: Path, model: Path, seed: int) -> None:
    """Two at random steps of each of ten runs."""
    kind, whole = unbroken
    steps = sorted(random.Random(f"{kind}{seed}").sample(range(1, NUM_STEPS), 2))
    prove(kind, whole, tmp_path, data, model, steps)


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
