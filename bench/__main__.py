"""Xinglin beside its peers on this machine: equal results first, then the clock.

    python -m bench sft                                   # sft, dpo, reward, rollout, grpo, ppo
    python -m bench sft --lengths 25 --json bench/results/sft-25.json
    python -m bench rollout --peers xinglin generate --modes default --repeats 1
    python -m bench scaling                               # memory over steps, time over data, the packing plan
    python -m bench deid | dedup | plan [ARGUMENTS]       # the data tools and the planner: modules of their own

Peers are installed with pip into .bench/ on the first run, which needs a package index; --peers xinglin needs none.
Use an idle machine: the load before each run stands in the result. bench/gpu.py is the script for one large GPU.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import data, scaling, side_by_side
from bench.peers import Missing
from bench.tasks import OURS, TASKS, Peer, Task

MODULES = {"deid": "bench.deidentify", "dedup": "bench.dedup", "plan": "bench.plan"}


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in MODULES:
        sys.argv = [f"python -m bench {given[0]}", *given[1:]]
        importlib.import_module(MODULES[given[0]]).main()
        return
    chosen = parse(given)
    if chosen.task == "scaling":
        try:
            result = scaling.measure(chosen.threads, quick=chosen.quick)
        except Missing as reason:
            raise SystemExit(f"bench scaling: {reason}") from None
        scaling.print_table(result)
    else:
        result = run_task(chosen)
        side_by_side.print_table(result)
    if chosen.json:
        write_json(chosen.json, {**result, "command": f"python -m bench {' '.join(given)}"})


def parse(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=[*TASKS, "scaling", *MODULES])
    parser.add_argument("--peers", nargs="+", help="only these [default: all of the task; ours is always measured]")
    parser.add_argument(
        "--modes", nargs="*", choices=["default", "best"], default=["default", "best"], help="none: the check alone"
    )
    parser.add_argument("--repeats", type=int, default=3, help="processes of each peer and mode")
    parser.add_argument("--steps", type=int, help="timed steps of each [default: the task's]")
    parser.add_argument("--check-steps", type=int, help="steps of the check of equal results [default: the task's]")
    parser.add_argument("--lengths", default="logn", choices=["logn", "25", "200", "1000"], help="of sft rows, tokens")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="a few tiny steps of a tiny model: no measurement")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    chosen = parser.parse_args(given)
    known = TASKS[chosen.task].peers if chosen.task in TASKS else {}
    for name in chosen.peers or ():
        if name not in known:
            parser.error(f"--peers {name}: {chosen.task} has {', '.join(known) or 'no peers'}")
    return chosen


def run_task(chosen: argparse.Namespace) -> dict[str, Any]:
    task = TASKS[chosen.task]
    if chosen.quick:
        task = quick(task)
    if chosen.steps:
        task = replace(task, steps=chosen.steps)
    run = side_by_side.Run(
        name=chosen.task,
        task=task,
        shape=data.TINY if chosen.quick else data.SHAPE,
        modes=chosen.modes,
        peers=list(dict.fromkeys([OURS, *(chosen.peers or task.peers)])),
        repeats=1 if chosen.quick else chosen.repeats,
        lengths=chosen.lengths,
        threads=chosen.threads,
    )
    return side_by_side.measure(run, chosen.check_steps or task.check_steps)


def quick(task: Task) -> Task:
    """The same road with tiny counts."""
    small = replace(task, batch=2, warmup=1, steps=2, check_steps=2, cases=(1, 2) if task.cases else ())
    small = replace(small, peers={name: _one_candidate(peer) for name, peer in task.peers.items()})
    if task.groups:
        return replace(small, batch=4, groups=2, answers=2, new_tokens=4)
    return replace(small, new_tokens=4) if task.new_tokens else small


def _one_candidate(peer: Peer) -> Peer:
    return replace(peer, best=peer.best[-1:])


def write_json(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", "utf-8")
    partial.replace(path)


if __name__ == "__main__":
    main()
