"""The one loop of all stages. It knows no dataset and no objective.

    engine = Engine(model, config, stage, num_steps=len(plan))
    engine.fit(batches=lambda step: [...], loss_fn=..., validate=...)

A step takes packed micro-batches, sums their losses, counts what was summed, and divides once: a mean of micro-batch
means would weigh short answers more. Exact resume follows from two choices: batches are a pure function of the step,
and randomness is reseeded from (seed, step) before each; so the state on disk is tensors and one integer.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xinglin.config import Training
from xinglin.models.packing import Batch
from xinglin.objectives.causal import Loss
from xinglin.records import InputError
from xinglin.run import Stage, seed_for
from xinglin.train import checkpoint

LossFn = Callable[[Any], Loss]
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
BAD_STEPS = 3  # so many steps in a row without a finite gradient end the stage


class Engine:
    """Optimiser, schedule, steps, checkpoints and validation of one stage."""

    def __init__(self, model: nn.Module, config: Training, stage: Stage, *, num_steps: int) -> None:
        self.model = model
        self.config = config
        self.stage = stage
        self.num_steps = num_steps
        self.params = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.params:
            raise InputError(f"stage {stage.name!r} has nothing to train: every weight is frozen")
        self.device = next(iter(self.params.values())).device
        if self.device.type == "cpu":
            keep_freed_memory()
        decayed = [p for p in self.params.values() if p.ndim >= 2]
        plain = [p for p in self.params.values() if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=config.lr,
            betas=config.betas,
            fused=True,
        )
        self.autocast = autocast(config.precision, self.device)
        self.step_number = 0
        self.bad_steps = 0
        self.best: tuple[float, int] | None = None
        self.facts: dict[str, Any] = {}
        """What the stage wants back after a resume, beside the tensors."""

    def lr_at(self, step: int) -> float:
        """Learning rate of step 0, 1, ...: linear warm-up, then the schedule down to `final_lr` of the peak."""
        config = self.config
        warmup = math.ceil(config.warmup * self.num_steps)
        if step < warmup:
            return config.lr * (step + 1) / warmup
        progress = (step - warmup) / max(1, self.num_steps - warmup)
        left = {"constant": 1.0, "linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}
        return config.lr * (config.final_lr + (1 - config.final_lr) * left[config.schedule])

    def step(self, batches: Sequence[Any], loss_fn: LossFn) -> dict[str, float]:
        """One optimiser step over all micro-batches."""
        torch.manual_seed(seed_for(self.config.seed, self.stage.name, self.step_number))
        self.optimizer.zero_grad(set_to_none=True)
        loss_total, count = torch.zeros((), device=self.device), 0
        sums: dict[str, Tensor] = {}
        for batch in batches:
            with self.autocast:
                loss_sum, num, metrics = loss_fn(batch.to(self.device))
            if num:
                loss_sum.backward()
            loss_total += loss_sum.detach()
            count += num
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0) + value.float() * num
        for parameter in self.params.values():
            if parameter.grad is not None:
                parameter.grad.div_(max(count, 1))
        norm = nn.utils.clip_grad_norm_(self.params.values(), self.config.clip)
        lr = self.lr_at(self.step_number)
        if self._finite(norm, batches):
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
        self.step_number += 1
        means = {name: float(value) / max(count, 1) for name, value in sums.items()}
        return {"loss": float(loss_total) / max(count, 1), "grad_norm": float(norm), "lr": lr, "count": count, **means}

    def fit(
        self,
        batches: Callable[[int], Sequence[Batch]],
        loss_fn: LossFn,
        validate: Callable[[], dict[str, float]] | None = None,
        better: str = "valid_loss",
    ) -> None:
        """All steps still to do, with validation and checkpoints; ends with the best weights, if so configured.

        `better` names the validation metric that chooses the best: lower is better for a loss, higher for all else.
        """
        self.resume()
        eval_every = self.config.eval_every or max(1, self.num_steps // 10)
        save_every = self.config.save_every or max(1, self.num_steps // 5)
        with self.stage.progress("train", self.num_steps) as advance:
            advance(self.step_number)
            if self.step_number == 0 and validate:
                self._validate(validate, better)
            while self.step_number < self.num_steps:
                metrics = self.step(batches(self.step_number), loss_fn)
                self.stage.log(step=self.step_number, **metrics)
                advance(1, f"loss {metrics['loss']:.3f}")
                last = self.step_number == self.num_steps
                if validate and (last or self.step_number % eval_every == 0):
                    self._validate(validate, better)
                if last or self.step_number % save_every == 0:
                    self.save()
        if validate and self.config.keep_best:
            self.restore_best()

    def save(self) -> None:
        tensors: dict[str, Tensor] = {f"param.{name}": p for name, p in self.params.items()}
        for name, p in self.params.items():
            for key, value in self.optimizer.state.get(p, {}).items():
                tensors[f"{key}.{name}"] = value
        facts = {**self.facts, "best": self.best, "bad_steps": self.bad_steps}
        checkpoint.save(self.stage.dir / "checkpoints", self.step_number, tensors, facts)

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, if there is one."""
        found = checkpoint.newest(self.stage.dir / "checkpoints")
        self.stage.rewind(found[0] if found else -1)
        if found is None:
            return
        self.step_number, tensors, facts = found
        self.bad_steps = facts.pop("bad_steps")
        self.best = tuple(facts.pop("best") or ()) or None
        self.facts = facts
        self._load(tensors)
        for name, p in self.params.items():
            names = {key: f"{key}.{name}" for key in ("step", "exp_avg", "exp_avg_sq")}
            state = {key: tensors[full].to(p.device) for key, full in names.items() if full in tensors}
            if state:
                self.optimizer.state[p] = state

    def restore_best(self) -> None:
        """Put back the weights that were best on validation."""
        found = checkpoint.newest(self.stage.dir / "best")
        if self.best is None:  # no validation gave a number: the last weights stay
            return
        if found is None or found[0] != self.best[1]:
            raise InputError(
                f"{self.stage.dir / 'best'}: the weights of step {self.best[1]}, best on validation, are damaged or "
                "gone; delete the stage's folder and run again"
            )
        self._load(found[1])

    def _load(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.params.items():
                parameter.copy_(tensors[f"param.{name}"])

    def _validate(self, validate: Callable[[], dict[str, float]], better: str) -> None:
        self.model.eval()
        with torch.no_grad(), self.autocast:
            metrics = validate()
        self.model.train()
        self.stage.log(step=self.step_number, **metrics)
        value = metrics[better]
        sign = -1 if better.endswith("loss") else 1
        if math.isfinite(value) and (self.best is None or sign * value > sign * self.best[0]):
            self.best = (value, self.step_number)
            if self.config.keep_best:
                tensors: dict[str, Tensor] = {f"param.{name}": p for name, p in self.params.items()}
                checkpoint.save(self.stage.dir / "best", self.step_number, tensors, {better: value})

    def _finite(self, norm: Tensor, batches: Sequence[Any]) -> bool:
        """A step without a finite gradient changes nothing and is counted; three in a row end the stage."""
        if torch.isfinite(norm):
            self.bad_steps = 0
            return True
        self.bad_steps += 1
        rows = [row_id for batch in batches for row_id in batch.ids]
        self.stage.log(step=self.step_number + 1, skipped="gradient is not finite", rows=rows)
        if self.bad_steps >= BAD_STEPS:
            raise InputError(
                f"stage {self.stage.name!r}: gradient not finite in {BAD_STEPS} steps in a row up to step "
                f"{self.step_number + 1}; lower its lr (now {self.config.lr}) and run again"
            )
        return False


def keep_freed_memory() -> None:
    """Ask the C library to keep large freed blocks: by default each goes back to the kernel, which hands out and clears
    its pages again in the next step (a sixth of a small model's step). Without glibc nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The arithmetic of the forward pass. `auto` takes bf16 where the machine multiplies it natively: without that,
    bf16 on a CPU is slower than fp32 by a large factor."""
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
    use_bf16 = precision == "bf16" or (precision == "auto" and native)
    return torch.autocast(device.type, torch.bfloat16) if use_bf16 else contextlib.nullcontext()
