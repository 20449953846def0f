"""Guarantee g: SIGKILL at any step, then run again: the same weights, bit for bit, and the same log, line for line.

The stage runs in a process of its own; the kill comes from outside, wherever the process happens to be.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from tiny_stages import NUM_STEPS, in_another_process, log_of, training_steps, weights

KINDS = ["pretrain", "sft", "reward", "dpo"]


@pytest.fixture(scope="module", params=KINDS)
def unbroken(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data: Path, model: Path
) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    finish(request.param, folder, data, model)
    assert training_steps(folder) == list(range(1, NUM_STEPS + 1))
    return request.param, folder


def finish(kind: str, folder: Path, data: Path, model: Path) -> None:
    process = in_another_process(kind, folder, data, model)
    process.join(120)
    assert process.exitcode == 0


def kill_at(step: int, kind: str, folder: Path, data: Path, model: Path) -> bool:
    """Start the stage and kill it once its log holds `step`; False where it had finished before."""
    seen = training_steps(folder)
    process = in_another_process(kind, folder, data, model)
    deadline = time.monotonic() + 120
    while process.is_alive() and time.monotonic() < deadline:
        now = training_steps(folder)
        if now != seen and now and now[-1] >= step:
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
    assert training_steps(broken) == list(range(1, NUM_STEPS + 1))
    return kills


def test_three_kills_in_a_row(unbroken: tuple[str, Path], tmp_path: Path, data: Path, model: Path) -> None:
    kind, whole = unbroken
    steps = sorted(random.Random(kind).sample(range(1, NUM_STEPS - 1), 3))
    assert prove(kind, whole, tmp_path, data, model, steps) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_twenty_kills(unbroken: tuple[str, Path], tmp_path: Path, data: Path, model: Path, seed: int) -> None:
    """Two at random steps of each of ten runs."""
    kind, whole = unbroken
    steps = sorted(random.Random(f"{kind}{seed}").sample(range(1, NUM_STEPS), 2))
    prove(kind, whole, tmp_path, data, model, steps)
