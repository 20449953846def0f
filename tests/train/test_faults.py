"""What befalls a training: numbers that are none, spikes, signals, a second process, a full disk, a jumping clock."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_stages import CONFIGS, log_of, run_stage

from xinglin.config import Pretrain
from xinglin.records import InputError
from xinglin.run import Stage, exclusive
from xinglin.stages import run_alone
from xinglin.train import checkpoint, policy
from xinglin.train.engine import SPIKE_MINIMUM, Engine

from .test_engine import Rows, draw, engine_over, linear, log_lines, squared

HOLD = """
import pathlib, sys
from xinglin.run import exclusive
with exclusive(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
TWICE = """
import os, signal
from xinglin.run import on_signals
signal.signal(signal.SIGINT, signal.default_int_handler)
with on_signals(lambda signum: print("first", flush=True)):
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    print("second", flush=True)
"""
Batches = Callable[[int], list[Rows]]


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """A shell that starts the tests in the background has them ignore SIGINT, which `on_signals` respects."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def noisy(step: int) -> list[Rows]:
    """Sixteen rows of a line with noise, so that the loss settles at some level."""
    rows = draw(16, step)
    return [replace(rows, y=rows.y + torch.randn(16, 1, generator=torch.Generator().manual_seed(step)))]


def planted(where: set[int], value: float) -> Batches:
    def batches(step: int) -> list[Rows]:
        (rows,) = noisy(step)
        return [replace(rows, y=torch.full_like(rows.y, value))] if step in where else [rows]

    return batches


def fit(folder: Path, batches: Batches, num_steps: int, validate: Any = None, **values: Any) -> Engine:
    engine = engine_over(linear(), folder, num_steps, **{"lr": 0.01, "save_every": 5, **values})
    engine.fit(batches, lambda batch: squared(engine.model, batch), validate)
    return engine


def same(one: Engine, other: Engine) -> bool:
    return all(torch.equal(one.params[name], other.params[name]) for name in one.params)


# --- numbers that are none, and spikes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "reason"),
    [(float("nan"), "gradient is not finite"), (float("inf"), "gradient is not finite"), (1e6, "loss is a spike")],
)
def test_a_planted_bad_step_changes_no_weight_and_is_logged(tmp_path: Path, value: float, reason: str) -> None:
    seen: list[torch.Tensor] = []

    def batches(step: int) -> list[Rows]:
        seen.append(engine.params["weight"].detach().clone())
        return planted({70}, value)(step)

    engine = engine_over(linear(), tmp_path, 80, lr=0.01)
    engine.fit(batches, lambda batch: squared(engine.model, batch))
    assert torch.equal(seen[70], seen[71]) and not torch.equal(seen[69], seen[70])
    told = [line for line in log_lines(tmp_path) if "skipped" in line]
    assert told == [{"step": 71, "skipped": reason, "rows": [f"row-70-{i}" for i in range(16)]}]


def test_an_infinite_loss_of_finite_gradient_changes_no_weight(tmp_path: Path) -> None:
    engine = engine_over(linear(), tmp_path)
    before = engine.params["weight"].detach().clone()

    def endless(batch: Rows) -> Any:
        loss, count, metrics = squared(engine.model, batch)
        return loss + torch.tensor(float("inf")), count, metrics

    engine.step(noisy(0), endless)
    assert torch.equal(engine.params["weight"], before)
    assert log_lines(tmp_path)[0]["skipped"] == "loss is not finite"


@pytest.mark.parametrize(("sds", "sound"), [(5.9, True), (6.1, False)])
def test_a_spike_is_six_deviations_above_the_mean_of_the_last(tmp_path: Path, sds: float, sound: bool) -> None:
    engine = engine_over(linear(), tmp_path)
    engine.losses = [1.0, 3.0] * (SPIKE_MINIMUM // 2)  # mean 2, deviation 1
    assert engine._sound(2 + sds, 1.0, []) is sound
    engine.losses = [1.0, 3.0] * (SPIKE_MINIMUM // 2 - 1)
    assert engine._sound(1e6, 1.0, [])  # too few to judge by


def test_three_in_a_row_go_back_and_skip_what_lies_between(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = fit(tmp_path / "bad", planted({11, 12, 13}, float("nan")), 20)
    by_hand = engine_over(linear(), tmp_path / "hand", 20, lr=0.01)
    for step in (*range(10), *range(14, 20)):
        by_hand.step_number = step
        by_hand.step(noisy(step), lambda batch: squared(by_hand.model, batch))
    assert same(engine, by_hand)
    told = [line for line in log_lines(tmp_path / "bad") if "rolled_back_to" in line]
    assert told == [{"step": 14, "rolled_back_to": 10, "skipped_steps": [11, 14]}]
    assert "back to step 10, skipping up to 14" in capsys.readouterr().err


def test_from_the_very_first_step(tmp_path: Path) -> None:
    engine = fit(tmp_path, planted({0, 1, 2}, float("nan")), 6)
    assert (
        engine.rollbacks == 1 and engine.step_number == 6 and not torch.equal(engine.params["weight"], linear().weight)
    )


def test_after_two_returns_the_stage_stops_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 bad steps in a row up to step 19 .* after 2 returns .*lr") as told:
        fit(tmp_path, planted(set(range(10, 99)), float("inf")), 40)
    assert "\n" not in str(told.value)


def test_returns_and_spikes_survive_kills_bit_for_bit(tmp_path: Path) -> None:
    bad = planted({11, 12, 13, 73}, 1e30)  # three infinite gradients; later, one spike
    whole = fit(tmp_path / "whole", bad, 80)
    for kill in (12, 13, 16, 73, 74):

        def dies(step: int, kill: int = kill) -> list[Rows]:
            if step == kill:
                raise KeyboardInterrupt
            return bad(step)

        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "broken", dies, 80)
    assert same(whole, fit(tmp_path / "broken", bad, 80)) and whole.rollbacks == 1
    assert log_lines(tmp_path / "broken") == log_lines(tmp_path / "whole")
    assert [line["step"] for line in log_lines(tmp_path / "whole") if "skipped" in line] == [12, 13, 14, 74]


def test_an_iteration_of_rl_without_a_finite_step_is_skipped(
    tmp_path: Path, data: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = policy.policy_loss, 0

    def second_is_bad(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        loss_fn, factor = real(*args), float("nan") if calls == 2 else 1.0

        def times(batch: Any) -> Any:
            loss, count, metrics = loss_fn(batch)
            return loss * factor, count, metrics

        return times

    monkeypatch.setattr(policy, "policy_loss", second_is_bad)
    stage = run_stage("grpo", tmp_path, data, model, CONFIGS["grpo"])
    told = [line for line in log_of(tmp_path) if "rolled_back_to" in line]
    assert told == [{"step": 8, "rolled_back_to": 4, "skipped_steps": [5, 8]}]
    assert stage.complete and [line["step"] for line in log_of(tmp_path) if "loss" in line] == [4, 12]


# --- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("at", [2, 4, 6])  # in the middle, at a checkpoint, where a validation is due
def test_a_signal_ends_at_the_next_step_with_a_checkpoint(tmp_path: Path, signum: int, code: int, at: int) -> None:
    def validate() -> dict[str, float]:
        return {"valid_loss": 1.0}

    def signalled(step: int) -> list[Rows]:
        if step == at:
            os.kill(os.getpid(), signum)
        return noisy(step)

    options: dict[str, Any] = {"validate": validate, "eval_every": 7, "keep_best": False}
    whole = fit(tmp_path / "whole", noisy, 12, **options)
    before = signal.getsignal(signum)
    with pytest.raises(SystemExit) as left:
        fit(tmp_path / "broken", signalled, 12, **options)
    assert left.value.code == code and signal.getsignal(signum) == before
    found = checkpoint.newest(tmp_path / "broken/checkpoints")
    assert found is not None and found[0] == at + 1
    assert same(whole, fit(tmp_path / "broken", noisy, 12, **options))
    assert log_lines(tmp_path / "broken") == log_lines(tmp_path / "whole")


def test_a_second_signal_ends_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT and done.stdout == "first\n"  # a shell calls it 130


def test_a_signal_outside_the_steps_ends_the_stage_to_go_on_later(tmp_path: Path) -> None:
    signals = [signal.SIGTERM]

    def work(config: Any, stage: Stage) -> dict[str, Any]:
        if signals:
            os.kill(os.getpid(), signals.pop())
            time.sleep(10)
        return {}

    with pytest.raises(SystemExit) as left:
        run_alone("pretrain", Pretrain(), tmp_path, work, [])
    assert left.value.code == 143 and not (tmp_path / "manifest.json").exists()
    assert run_alone("pretrain", Pretrain(), tmp_path, work, []) and (tmp_path / "manifest.json").is_file()


# --- two processes, clocks -------------------------------------------------------------------------------------------


def test_the_lock_names_its_process_and_a_stale_one_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"another process is running there.*\(process {other.pid} on \S+\)"):
            exclusive(tmp_path).__enter__()
        other.kill()
    with exclusive(tmp_path):
        assert f"the lock of process {other.pid} on " in capsys.readouterr().err
    with exclusive(tmp_path):
        assert capsys.readouterr().err == ""  # the one before ended by itself


def test_a_clock_that_jumps_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: rng.uniform(0, 4e9))
    engine = fit(tmp_path, noisy, 12)
    for age, path in enumerate(sorted((tmp_path / "checkpoints").iterdir(), reverse=True)):
        os.utime(path, (age, age))
    found = checkpoint.newest(tmp_path / "checkpoints")
    assert found is not None and found[0] == 12
    engine.stage.finish(config={}, inputs={}, key="k")
    assert 0 <= engine.stage.manifest()["seconds"] < 600


# --- a full disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 1 MiB. Not under pytest's folders, which another pytest may move away."""
    with tempfile.TemporaryDirectory() as place:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", place]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small file system needs root with the right to mount")
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)  # a loaded tensor may map a file of it


def test_a_disk_that_fills_up_keeps_the_checkpoint_before(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, tensors = small_disk / "checkpoints", {"w": torch.zeros(25_000)}  # 100 kB
    checkpoint.save(folder, 1, tensors, {})
    (small_disk / "other").write_bytes(bytes(850_000))
    with pytest.raises(InputError, match=rf"{folder}: \d+ bytes free, a checkpoint needs 220000 bytes"):
        checkpoint.save(folder, 2, tensors, {})
    monkeypatch.setattr(checkpoint, "FREE_FACTOR", 0)  # as if another process had filled it meanwhile
    with pytest.raises(InputError, match=rf"{folder}: checkpoint of step 2 not .*: 100000 bytes needed, \d+ bytes"):
        checkpoint.save(folder, 2, tensors, {})
    found = checkpoint.newest(folder)
    assert found is not None and found[0] == 1 and [path.name for path in folder.iterdir()] == ["step-000001"]
    (small_disk / "other").unlink()
    checkpoint.save(folder, 2, tensors, {})
    assert sorted(path.name for path in folder.iterdir()) == ["step-000001", "step-000002"]


def test_a_disk_too_small_for_later_checkpoints_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_over(linear(), tmp_path)
    needed = int(2.2 * 4 * 4 * 3)  # three weights and a bias, with both moments
    usage = checkpoint.shutil.disk_usage(tmp_path)._replace(free=needed - 1)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=f"{needed - 1} bytes free, a checkpoint needs {needed} bytes"):
        engine.fit(noisy, lambda batch: squared(engine.model, batch))
    assert engine.step_number == 0
