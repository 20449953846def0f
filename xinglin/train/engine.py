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
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xinglin.config import Training
from xinglin.models.packing import Batch
from xinglin.objectives.causal import Loss
from xinglin.records import InputError
from xinglin.run import Stage, on_signals, say, seed_for, stop
from xinglin.train import checkpoint, ranks
from xinglin.train.ranks import world_size

LossFn = Callable[[Any], Loss]
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
BAD_STEPS = 3  # so many in a row send the stage back to its last checkpoint
ROLLBACKS = 2  # and after so many returns it ends
SPIKE = 6.0  # a loss over the mean of the last ones by so many standard deviations
SPIKE_WINDOW, SPIKE_MINIMUM = 100, 50
FACTS = ("best", "bad_steps", "rollbacks", "losses", "owes_validation")  # of the engine, in every checkpoint
FLATTEST = 0.05  # of the mean: a loss that hardly varies has no spikes of a few thousandths


class Engine:
    """Optimiser, schedule, steps, checkpoints and validation of one stage."""

    def __init__(self, model: nn.Module, config: Training, stage: Stage, *, num_steps: int) -> None:
        self.model = model
        self.config = config
        self.stage = stage
        self.num_steps = num_steps
        self.call = ranks.shard(model)
        """What runs the model: `call(loss_fn, batch)`."""
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
        self.rollbacks = 0
        self.losses: list[float] = []
        """Of the last steps that were applied: what a spike is measured against."""
        self.owes_validation = False
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
        torch.manual_seed(seed_for(self.config.seed, self.stage.name, self.step_number) + ranks.rank())
        self.optimizer.zero_grad(set_to_none=True)
        loss_total, count = torch.zeros((), device=self.device), 0
        sums: dict[str, Tensor] = {}
        for batch, counts in ranks.deal(batches):
            with self.autocast:
                loss_sum, num, metrics = self.call(loss_fn, batch.to(self.device))
            if not counts:
                loss_sum, num = 0 * loss_sum, 0
            if num or world_size() > 1:
                loss_sum.backward()
            loss_total += loss_sum.detach()
            count += num
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0) + value.float() * num
        loss_total, count, sums = ranks.totals(loss_total, count, sums)
        for parameter in self.params.values():
            if parameter.grad is not None:
                parameter.grad.div_(max(count, 1))
        norm = ranks.whole(nn.utils.clip_grad_norm_(self.params.values(), self.config.clip))
        lr = self.lr_at(self.step_number)
        loss = float(loss_total) / max(count, 1)
        if self._sound(loss, float(norm), batches):
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
        self.step_number += 1
        means = {name: float(value) / max(count, 1) for name, value in sums.items()}
        return {"loss": loss, "grad_norm": float(norm), "lr": lr, "count": count, **means}

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
        fresh = not self.resume()
        eval_every = self.config.eval_every or max(1, self.num_steps // 10)
        save_every = self.config.save_every or max(1, self.num_steps // 5)
        asked: list[int] = []  # by a signal: to stop after the step in hand
        with on_signals(asked.append), self.stage.progress("train", self.num_steps) as advance:
            advance(self.step_number)
            if validate and (fresh or self.owes_validation):
                self._validate(validate, better)
            if fresh:
                self._first_checkpoint()
            while self.step_number < self.num_steps:
                metrics = self.step(batches(self.step_number), loss_fn)
                self.stage.log(step=self.step_number, **metrics)
                advance(1, f"loss {metrics['loss']:.3f}")
                if self.bad_steps >= BAD_STEPS:
                    self.roll_back(self.step_number)
                last = self.step_number == self.num_steps
                self.owes_validation = validate is not None and (last or self.step_number % eval_every == 0)
                if signum := ranks.agreed(asked):
                    if not self.bad_steps:  # amid bad ones the checkpoint before them stays the newest
                        self.save()
                    stop(signum)
                if validate and self.owes_validation:
                    self._validate(validate, better)
                if last or (self.step_number % save_every == 0 and not self.bad_steps):
                    self.save()
        if validate and self.config.keep_best:
            self.restore_best()
        ranks.release(self.call)

    def save(self) -> None:
        tensors: dict[str, Tensor] = {f"param.{name}": p for name, p in self.params.items()}
        for name, p in self.params.items():
            for key, value in self.optimizer.state.get(p, {}).items():
                tensors[f"{key}.{name}"] = value
        facts = {"stage": self.facts, "world_size": world_size(), **{name: getattr(self, name) for name in FACTS}}
        self._write("checkpoints", tensors, facts)

    def _write(self, name: str, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        tensors = ranks.gather(tensors)
        if ranks.is_main():
            checkpoint.save(self.stage.dir / name, self.step_number, tensors, facts)

    def _first_checkpoint(self) -> None:
        """What a bad beginning goes back to. Whether the disk holds the later ones, with both moments, is seen now."""
        size = 3 * sum(p.numel() * p.element_size() for p in self.params.values())
        if ranks.is_main():
            checkpoint.check_space(self.stage.dir / "checkpoints", size)
        self.save()

    def resume(self) -> bool:
        """Go on from the newest whole checkpoint; False where there is none."""
        found = ranks.read(checkpoint.newest, self.stage.dir / "checkpoints")
        self.stage.rewind(found[0] if found else -1)
        if found is None:
            return False
        self._restore(found)
        return True

    def _restore(self, found: checkpoint.Checkpoint) -> None:
        self.step_number, tensors, facts = found
        if facts["world_size"] != world_size():
            before = facts["world_size"]
            say(
                f"{self.stage.name}: {before} processes before, {world_size()} now: the same curve, but not bit for bit"
            )
        self.facts = facts["stage"]
        for name in FACTS:
            setattr(self, name, facts[name])
        self.best = tuple(self.best) if self.best else None  # type: ignore[assignment]
        self._load(tensors)
        self.optimizer.state.clear()
        for name, p in self.params.items():
            names = {key: f"{key}.{name}" for key in ("step", "exp_avg", "exp_avg_sq")}
            state = {key: ranks.place(tensors[full], p) for key, full in names.items() if full in tensors}
            if state:
                self.optimizer.state[p] = state

    def roll_back(self, to: int) -> None:
        """The weights and moments of the last checkpoint, at step `to`: what lies between is skipped, not repeated
        (arXiv:2204.02311, section 5.1). Raises `InputError` after `ROLLBACKS` of them."""
        found = ranks.read(checkpoint.newest, self.stage.dir / "checkpoints")
        if self.rollbacks >= ROLLBACKS or found is None:
            raise InputError(
                f"stage {self.stage.name!r}: {BAD_STEPS} bad steps in a row up to step {self.step_number} (see "
                f"`skipped` in metrics.jsonl), after {self.rollbacks} returns to a checkpoint; look at the rows named "
                f"there, or lower its lr (now {self.config.lr}), and run again"
            )
        best, rollbacks = self.best, self.rollbacks + 1  # the best weights on disk stay the best
        self._restore(found)
        self.step_number, self.best, self.rollbacks = to, best, rollbacks
        self.stage.log(step=to, rolled_back_to=found[0], skipped_steps=[found[0] + 1, to])
        say(f"{self.stage.name}: {BAD_STEPS} bad steps in a row; back to step {found[0]}, skipping up to {to}")

    def restore_best(self) -> None:
        """Put back the weights that were best on validation."""
        found = ranks.read(checkpoint.newest, self.stage.dir / "best")
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
                parameter.copy_(ranks.place(tensors[f"param.{name}"], parameter))

    def _validate(self, validate: Callable[[], dict[str, float]], better: str) -> None:
        self.model.eval()
        with torch.no_grad(), self.autocast:
            metrics = self.call(validate)
        self.model.train()
        self.owes_validation = False
        self.stage.log(step=self.step_number, **metrics)
        value = metrics[better]
        sign = -1 if better.endswith("loss") else 1
        if math.isfinite(value) and (self.best is None or sign * value > sign * self.best[0]):
            self.best = (value, self.step_number)
            if self.config.keep_best:
                tensors: dict[str, Tensor] = {f"param.{name}": p for name, p in self.params.items()}
                self._write("best", tensors, {better: value})

    def _sound(self, loss: float, norm: float, batches: Sequence[Any]) -> bool:
        """Whether a step may change the weights. One that may not is counted, and logged with the ids of its rows."""
        if math.isfinite(loss) and math.isfinite(norm) and loss <= self._spike():
            self.bad_steps = 0
            self.losses = [*self.losses, loss][-SPIKE_WINDOW:]
            return True
        self.bad_steps += 1
        reason = "loss is a spike" if math.isfinite(loss) else "loss is not finite"
        reason = reason if math.isfinite(norm) else "gradient is not finite"
        rows = [row_id for batch in batches for row_id in batch.ids]
        self.stage.log(step=self.step_number + 1, skipped=reason, rows=rows)
        return False

    def _spike(self) -> float:
        """The loss above which a step is not believed."""
        if len(self.losses) < SPIKE_MINIMUM:
            return math.inf
        mean = statistics.fmean(self.losses)
        return mean + SPIKE * max(statistics.pstdev(self.losses, mean), FLATTEST * abs(mean))


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
