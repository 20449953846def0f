"""Cost must not grow with what is not used: memory over steps, time over data, the plan of a million rows.

    python -m bench scaling --json bench/results/scaling.json

memory    resident set of a long sft run: the last quarter's peak over the second quarter's (1 = flat)
time      sft on 1, 2, 4, 8 and 16 times the data: seconds a token against those of 1x (1 = linear)
plan      row numbers of every step for a million rows, and the packing of a step, both in CPU seconds
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

import numpy as np

from bench import data, machine, side_by_side
from bench.peers import run_worker
from bench.tasks import OURS, TASKS

TIMES = (1, 2, 4, 8, 16)
BASE_STEPS = 10
ROWS = 1_000_000
PACKED_STEPS = 200


def measure(threads: int, *, quick: bool = False) -> dict[str, Any]:
    """All three; `quick` takes tiny counts and measures nothing."""
    shape, steps = (data.TINY, 2) if quick else (data.SHAPE, BASE_STEPS)
    times = TIMES[:2] if quick else TIMES
    runs = {n: train(shape, threads, n * steps) for n in times}
    per_token = {n: run["seconds"] / run["tokens"] for n, run in runs.items()}
    return {
        "task": "scaling",
        "memory": memory_growth(runs[times[-1]]["resident"]),
        "time": {
            str(n): {**{k: runs[n][k] for k in ("seconds", "tokens")}, "against_1x": per_token[n] / per_token[1]}
            for n in times
        },
        "plan": plan_times(10_000 if quick else ROWS, 5 if quick else PACKED_STEPS),
        "machine": {**machine.describe(), "threads": threads, "load": machine.load()},
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def train(shape: dict[str, int], threads: int, steps: int) -> dict[str, Any]:
    """One epoch of sft over `steps` steps of rows, after a few to warm up; each row once in the clock."""
    task = replace(TASKS["sft"], steps=steps)
    run = side_by_side.Run("sft", task, shape, ["default"], [OURS], 1, "logn", threads)
    name, rows = side_by_side.write_data(run)
    job = side_by_side.job_of(run, task.peers[OURS], name, "default", {})
    found = run_worker(OURS, job)
    tokens, seconds = side_by_side.timed_work(run, found, rows)
    return {"seconds": seconds, "tokens": tokens, "resident": found["resident"]}


def memory_growth(resident: list[int]) -> dict[str, float]:
    """Bytes after each step: the peak of the last quarter over that of the second."""
    quarter = max(1, len(resident) // 4)
    early, late = max(resident[quarter : 2 * quarter]), max(resident[-quarter:])
    return {"steps": len(resident), "early_bytes": early, "late_bytes": late, "growth": late / early}


def plan_times(rows: int, steps: int) -> dict[str, float]:
    """CPU seconds: the order of every step of `rows` rows; the packing of a step of short rows and of mixed ones."""
    from xinglin.data.batches import plan_steps
    from xinglin.models.packing import Group, micro_batches

    start = time.process_time()
    plan_steps(rows, 16, 1, seed=0)
    planned = time.process_time() - start
    found: dict[str, float] = {"rows": rows, "plan_seconds": planned}
    for lengths, batch in (("25", 160), ("logn", 16)):
        groups = []
        for index, row in enumerate(data.sft_rows(batch, lengths, data.SHAPE["vocab_size"])):
            ids = np.array(row["prompt"] + row["answer"], np.int64)
            groups.append(Group(str(index), ids[:0], (ids,), (np.ones(len(ids), bool),)))
        times = []
        for _ in range(steps):
            start = time.process_time()
            micro_batches(groups, 4096)
            times.append(time.process_time() - start)
        found[f"pack_seconds_{lengths}_{batch}_rows"] = statistics.median(times)
    return found


def print_table(result: dict[str, Any]) -> None:
    memory, plan = result["memory"], result["plan"]
    print(f"memory over {memory['steps']} steps: {memory['growth']:.3f} of the early peak")
    for n, one in result["time"].items():
        print(f"time at {n:>2}x: {one['seconds']:8.2f} s, {one['against_1x']:.3f} of 1x a token")
    print(f"plan of {plan['rows']:,.0f} rows: {plan['plan_seconds']:.3f} s")
    for name, value in plan.items():
        if name.startswith("pack_"):
            print(f"{name}: {value * 1e3:.2f} ms")
