"""A stage in a process of its own that kills itself at a chosen place, and a record of what it learned from.

    kill(Fault("save", 4, 0), "sft", out, data, model)     # the first checkpoint after step 4 is cut short
    finish("sft", out, data, model)                        # goes on to the end
    end_state(out), rows_learned(out)

The record lies beside `out`: a line for each optimiser step with the ids of each of its micro-batches, and, at the end,
hashes of the last checkpoint, of the best weights and of the log.
"""

from __future__ import annotations

import json
import os
import random
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tiny_stages import CONFIGS, run_stage, start

from xinglin.run import Stage, file_hash

SYNCS = 4  # of a save: the tensors, the manifest, the folder, the folder it stands in


@dataclass(frozen=True)
class Fault:
    """`step`: after that step, before its line in the log. `batch`: in it, its last micro-batch still to come. `save`:
    in the first save after it, when `part` of its four files and folders is to be flushed; a file is cut short then."""

    place: Literal["step", "batch", "save"]
    step: int
    part: int = 0


def kill(fault: Fault, kind: str, out: Path, data: Path, model: Path) -> bool:
    """Run the stage until the fault; False where it came to its end."""
    return _run(kind, out, data, model, fault) == -signal.SIGKILL


def finish(kind: str, out: Path, data: Path, model: Path) -> None:
    assert _run(kind, out, data, model, None) == 0


def _run(kind: str, out: Path, data: Path, model: Path, fault: Fault | None) -> int | None:
    process = start(_job, (kind, out, data, model, fault))
    process.join(600)
    return process.exitcode


def _job(kind: str, out: Path, data: Path, model: Path, fault: Fault | None) -> None:
    import torch

    torch.set_num_threads(1)
    _record(out)
    if fault is not None:
        _arm(fault)
    tokens = 16 if kind == "pretrain" else 64  # documents are short: a micro-batch each
    changes = {"micro_batch_tokens": tokens, **({"max_ratio": 1e6} if kind in ("ppo", "grpo") else {})}
    run_stage(kind, out, data, model, CONFIGS[kind].model_copy(update=changes))


def _record(out: Path) -> None:
    from xinglin.train.engine import Engine

    step, clear = Engine.step, Stage.clear_resume

    def recorded(engine: Engine, batches: Any, loss_fn: Any) -> Any:
        found = step(engine, batches, loss_fn)
        with _beside(out, "rows").open("a") as file:
            file.write(json.dumps([os.getpid(), engine.step_number, [batch.ids for batch in batches]]) + "\n")
        return found

    def cleared(stage: Stage) -> None:
        newest = [max((out / name).glob("step-*"), default=out / name) for name in ("checkpoints", "best")]
        kept = [path for folder in newest for path in sorted(folder.glob("*"))]
        hashes = {str(path.relative_to(out)): file_hash(path) for path in [*kept, out / "metrics.jsonl"]}
        _beside(out, "end").write_text(json.dumps(hashes))
        clear(stage)

    Engine.step, Stage.clear_resume = recorded, cleared  # type: ignore[method-assign]


def _arm(fault: Fault) -> None:
    from xinglin.train import checkpoint
    from xinglin.train.engine import Engine

    step, sync, syncs = Engine.step, checkpoint._sync, 0
    now = 0

    def stepped(engine: Engine, batches: Any, loss_fn: Any) -> Any:
        nonlocal now
        calls = 0

        def last_dies(batch: Any) -> Any:
            nonlocal calls
            calls += 1
            if fault == Fault("batch", engine.step_number + 1) and calls == len(batches):
                _die()
            return loss_fn(batch)

        found = step(engine, batches, last_dies)
        now = engine.step_number
        if fault == Fault("step", now):
            _die()
        return found

    def synced(path: Path) -> None:
        nonlocal syncs
        if fault.place == "save" and now >= fault.step:
            if syncs == fault.part:
                if path.is_file():
                    os.truncate(path, random.Random(fault.step).randrange(path.stat().st_size))
                _die()
            syncs += 1
        sync(path)

    Engine.step, checkpoint._sync = stepped, synced  # type: ignore[method-assign]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _beside(out: Path, name: str) -> Path:
    return out.with_name(f"{out.name}.{name}")


def end_state(out: Path) -> dict[str, str]:
    """Hashes: weights, both moments and the facts of the last checkpoints, the best weights, the log."""
    return json.loads(_beside(out, "end").read_text())


def rows_learned(out: Path) -> list[list[list[str]]]:
    """For each step the ids of each micro-batch. What a killed process did in vain must have been done again alike, and
    no process may begin beyond what was done before."""
    steps: dict[int, list[list[str]]] = {}
    last: tuple[int, int] | None = None
    for line in _beside(out, "rows").read_text().splitlines():
        process, step, ids = json.loads(line)
        goes_on = last is not None and last[0] == process
        assert step == last[1] + 1 if goes_on and last else step <= len(steps) + 1
        assert steps.setdefault(step, ids) == ids
        last = process, step
    return [steps[step] for step in range(1, len(steps) + 1)]
