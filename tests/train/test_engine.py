"""The loop, on a model of one matrix: every number by hand or against torch's own optimiser."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from xinglin.config import Training
from xinglin.objectives.causal import Loss
from xinglin.records import InputError
from xinglin.run import Stage
from xinglin.train.engine import Engine


@dataclass
class Rows:
    x: Tensor
    y: Tensor
    ids: tuple[str, ...] = ("row",)

    def to(self, device: object) -> Rows:
        return self


def squared(model: nn.Module, batch: Rows) -> Loss:
    error = model(batch.x) - batch.y
    return (error**2).sum(), len(batch.x), {"error": error.detach().abs().mean()}


def engine_over(model: nn.Module, folder: Path, num_steps: int = 10, **values: object) -> Engine:
    config = Training(**{"lr": 0.1, "warmup": 0.0, "schedule": "constant", "precision": "fp32", **values})
    return Engine(model, config, Stage(folder, "test", quiet=True), num_steps=num_steps)


def draw(count: int, seed: int) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, generator=generator)
    return Rows(x, x.sum(-1, keepdim=True) + 1, tuple(f"row-{seed}-{i}" for i in range(count)))


def linear(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(3, 1)


def log_lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # 10 steps, 2 of warm-up to 1.0, then 8 steps from 1 towards 0.2: step 6 is half-way
        ("constant", {0: 0.5, 1: 1.0, 2: 1.0, 6: 1.0, 9: 1.0}),
        ("linear", {0: 0.5, 1: 1.0, 2: 1.0, 6: 0.2 + 0.8 * 0.5, 9: 0.2 + 0.8 / 8}),
        ("cosine", {0: 0.5, 1: 1.0, 2: 1.0, 4: 0.2 + 0.4 * (1 + math.sqrt(0.5)), 6: 0.6}),
    ],
)
def test_learning_rate_by_hand(tmp_path: Path, schedule: str, expected: dict[int, float]) -> None:
    engine = engine_over(linear(), tmp_path, lr=0.5, warmup=0.2, final_lr=0.2, schedule=schedule)
    for step, share in expected.items():
        assert engine.lr_at(step) == pytest.approx(0.5 * share), step


def test_without_warmup_the_first_step_is_at_the_peak(tmp_path: Path) -> None:
    assert engine_over(linear(), tmp_path, schedule="cosine").lr_at(0) == pytest.approx(0.1)


def test_a_step_is_torchs_adamw_over_the_mean_loss(tmp_path: Path) -> None:
    ours, theirs = linear(), linear()
    engine = engine_over(ours, tmp_path, weight_decay=0.1, betas=(0.8, 0.9), clip=0.5)
    groups = [{"params": [theirs.weight], "weight_decay": 0.1}, {"params": [theirs.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.1, betas=(0.8, 0.9))
    for step in range(5):
        metrics = engine.step([draw(4, step)], lambda batch: squared(ours, batch))
        optimizer.zero_grad()
        loss = ((theirs(draw(4, step).x) - draw(4, step).y) ** 2).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        optimizer.step()
        assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert metrics["grad_norm"] == pytest.approx(float(norm), rel=1e-5)
        assert metrics["count"] == 4
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6) and torch.allclose(ours.bias, theirs.bias, atol=1e-6)


def test_the_gradient_is_clipped_and_its_true_norm_told(tmp_path: Path) -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    engine = engine_over(model, tmp_path, clip=1.0)
    metrics = engine.step([Rows(torch.tensor([[3.0]]), torch.tensor([[4.0]]))], lambda batch: squared(model, batch))
    assert metrics["loss"] == 16  # (0 * 3 - 4)^2
    assert metrics["grad_norm"] == 24  # |2 * (0 - 4) * 3|
    assert float(model.weight.grad) == pytest.approx(-1.0, abs=1e-5)


def test_eight_micro_batches_of_one_are_one_of_eight(tmp_path: Path) -> None:
    whole, parts = linear(), linear()
    rows = draw(8, 1)
    single = [Rows(rows.x[i : i + 1], rows.y[i : i + 1]) for i in range(8)]
    first = engine_over(whole, tmp_path).step([rows], lambda batch: squared(whole, batch))
    second = engine_over(parts, tmp_path).step(single, lambda batch: squared(parts, batch))
    assert torch.allclose(whole.weight, parts.weight, atol=1e-6) and torch.allclose(whole.bias, parts.bias, atol=1e-6)
    for name, value in first.items():
        assert second[name] == pytest.approx(value, rel=1e-5), name


def test_a_micro_batch_without_targets_adds_nothing(tmp_path: Path) -> None:
    with_empty, without = linear(), linear()
    empty = Rows(torch.zeros(0, 3), torch.zeros(0, 1))
    engine_over(with_empty, tmp_path).step([draw(4, 1), empty], lambda batch: _no_mean(with_empty, batch))
    engine_over(without, tmp_path).step([draw(4, 1)], lambda batch: _no_mean(without, batch))
    assert torch.equal(with_empty.weight, without.weight)


def _no_mean(model: nn.Module, batch: Rows) -> Loss:
    return ((model(batch.x) - batch.y) ** 2).sum(), len(batch.x), {}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_gradient_changes_nothing_and_names_its_rows(tmp_path: Path, bad: float) -> None:
    model = linear()
    engine = engine_over(model, tmp_path, weight_decay=0.1)
    engine.step([draw(4, 0)], lambda batch: squared(model, batch))
    before = copy.deepcopy(model.state_dict())
    broken = Rows(torch.full((1, 3), bad), torch.ones(1, 1), ("culprit",))
    engine.step([draw(2, 1), broken], lambda batch: squared(model, batch))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert log_lines(tmp_path) == [
        {"step": 2, "skipped": "gradient is not finite", "rows": ["row-1-0", "row-1-1", "culprit"]}
    ]
    engine.step([draw(4, 2)], lambda batch: squared(model, batch))
    assert engine.bad_steps == 0 and not torch.equal(model.weight, before["weight"])


def test_nothing_to_train_is_told(tmp_path: Path) -> None:
    model = linear().requires_grad_(False)
    with pytest.raises(InputError, match="every weight is frozen"):
        engine_over(model, tmp_path)


def fit_scripted(folder: Path, losses: list[float], **values: object) -> tuple[Engine, list[Tensor]]:
    """Train with a validation that says what the script says; the weights at each validation."""
    model = linear()
    engine = engine_over(model, folder, num_steps=len(losses) - 1, eval_every=1, **values)
    seen: list[Tensor] = []

    def validate() -> dict[str, float]:
        seen.append(model.weight.detach().clone())
        return {"valid_loss": losses[len(seen) - 1]}

    engine.fit(lambda step: [draw(4, step)], lambda batch: squared(model, batch), validate)
    return engine, seen


def test_the_stage_ends_with_the_weights_best_on_validation(tmp_path: Path) -> None:
    engine, seen = fit_scripted(tmp_path, [5.0, 3.0, 1.0, 2.0, 4.0])
    assert engine.best == (1.0, 2)
    assert torch.equal(engine.params["weight"], seen[2]) and not torch.equal(seen[2], seen[4])


def test_keep_best_off_ends_with_the_last(tmp_path: Path) -> None:
    engine, seen = fit_scripted(tmp_path, [5.0, 3.0, 1.0, 2.0, 4.0], keep_best=False)
    assert torch.equal(engine.params["weight"], seen[4])


def test_a_validation_that_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    engine, seen = fit_scripted(tmp_path, [float("nan"), 3.0, float("nan")])
    assert engine.best == (3.0, 1) and torch.equal(engine.params["weight"], seen[1])


def test_damaged_best_weights_are_an_error_not_the_last_weights(tmp_path: Path) -> None:
    engine, _ = fit_scripted(tmp_path, [5.0, 1.0, 2.0])
    (tmp_path / "best/step-000001/tensors.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="step 1, best on validation, are damaged or gone"):
        engine.restore_best()


def test_a_resumed_engine_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def fit(folder: Path, stop_after: int | None = None) -> nn.Module:
        net = model()
        engine = engine_over(net, folder, num_steps=9, save_every=2, weight_decay=0.1, schedule="cosine")
        calls = 0

        def batches(step: int) -> list[Rows]:
            nonlocal calls
            calls += 1
            if calls == stop_after:
                raise KeyboardInterrupt
            return [draw(4, step), draw(3, 100 + step)]

        engine.fit(batches, lambda batch: squared(net, batch))
        return net

    whole = fit(tmp_path / "whole")
    for stop in (6, 2, 4):  # each run goes on from the last even step
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "broken", stop)
    broken = fit(tmp_path / "broken")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, broken.state_dict()[name]), name
    assert log_lines(tmp_path / "whole") == log_lines(tmp_path / "broken")
    assert [line["step"] for line in log_lines(tmp_path / "broken")] == list(range(1, 10))
