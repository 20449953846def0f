"""One stage on several processes that meet on 127.0.0.1, without the cost of torchrun: all are forked from one that has
torch loaded."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xinglin.config import StageConfig
from xinglin.run import Stage

PRELOAD = ["xinglin.train.causal", "xinglin.train.preference", "xinglin.train.ranks", "xinglin.stages", "peft"]


def on_ranks(world_size: int, job: Callable[..., None], *args: Any, seconds: float = 300) -> list[int | None]:
    """Run `job(*args)` on so many processes; their exit codes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [context.Process(target=_rank, args=(r, world_size, port, job, args)) for r in range(world_size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(seconds)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


def _rank(rank: int, world_size: int, port: int, job: Callable[..., None], args: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    job(*args)


def stage(kind: str, out: Path, data: Path, model: Path, config: StageConfig) -> None:
    """A stage as its command runs it."""
    from xinglin.stages import run_alone
    from xinglin.train.causal import pretrain, sft
    from xinglin.train.ranks import joined

    family = {"pretrain": "documents", "sft": "conversations"}.get(kind, "preferences")
    train, valid = data / family / "train.jsonl", data / family / "valid.jsonl"

    def work(config: Any, stage: Stage) -> dict[str, Any]:
        if kind == "sft":
            return {"counts": sft(config, stage, model, train, valid, None)}
        if kind == "pretrain":
            return {"counts": pretrain(config, stage, model, train, valid)}
        from xinglin.train.preference import dpo, reward

        return (dpo if kind == "dpo" else reward)(config, stage, model, train, valid)

    with joined() if os.environ["WORLD_SIZE"] != "1" else contextlib.nullcontext():
        run_alone(kind, config, out, work, [model, train, valid])


def hit_before(step: int, signum: int, *args: Any) -> None:
    """`stage`, whose last rank gets a signal before a step."""
    from xinglin.train.engine import Engine

    whole = Engine.step

    def struck(engine: Engine, *batches: Any) -> dict[str, float]:
        last = int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1
        if last and engine.step_number == step:
            os.kill(os.getpid(), signal.Signals(signum))
        return whole(engine, *batches)

    Engine.step = struck  # type: ignore[method-assign]
    stage(*args)
