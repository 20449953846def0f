"""What every worker shares: `python WORKER.py job.json result.json`, one process for one measurement.

A worker runs in its peer's environment, so this file imports nothing but the standard library. The job names the task,
the data, the settings and the counts; the result holds the clock at the end of each step, the numbers that must agree
between peers (`curve`), tokens per step, peak memory and versions. The clock is `time.perf_counter` of the worker.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FIRST_FREE_ID = 5  # ids below are the tokenizer's control tokens


@dataclass(slots=True)
class Clock:
    """Ends of steps. `tokens` counts what is no padding, where the worker sees it."""

    ends: list[float] = field(default_factory=list)
    curve: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    """Bytes of the process after each step, where it is asked for."""
    apart: dict[str, float] = field(default_factory=dict)
    """Seconds of work before the first step that every row causes once (DPO's reference pass)."""

    def tick(self, **found: float) -> None:
        self.ends.append(time.perf_counter())
        if "curve" in found:
            self.curve.append(float(found["curve"]))


def read_rows(job: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The rows of a data file: token ids under `prompt`, `answer`, `chosen`, `rejected`."""
    with (Path(job["data"]) / f"{name}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def even_share(ids: list[int]) -> float:
    """The constant-time reward of grpo and ppo: the share of even token ids."""
    return sum(1 for token in ids if token % 2 == 0) / max(1, len(ids))


def unit_rewards(groups: list[list[list[int]]]) -> list[list[float]]:
    """Rewards of groups with mean 0 and (population) deviation 1: what the check of equal results trains on."""
    found = []
    for group in groups:
        raw = [even_share(ids) for ids in group]
        mean = sum(raw) / len(raw)
        deviation = (sum((x - mean) ** 2 for x in raw) / len(raw)) ** 0.5
        found.append([(x - mean) / deviation if deviation else 0.0 for x in raw])
    return found


def measure_rollout(job: dict[str, Any], generate: Callable[[int, int], list[list[int]]]) -> dict[str, Any]:
    """`generate(rows, new_tokens)` at each of the job's numbers of rows; in the check of equal results, its ids."""
    if job["equality"]:
        return {"curve": [token for ids in generate(job["cases"][0], job["new_tokens"]) for token in ids]}
    cases = {}
    for count in job["cases"]:
        generate(count, min(8, job["new_tokens"]))  # not timed: first calls build tables
        seconds, tokens = [], []
        for _ in range(job["steps"]):
            start = time.perf_counter()
            answers = generate(count, job["new_tokens"])
            seconds.append(time.perf_counter() - start)
            tokens.append(sum(map(len, answers)))
        cases[str(count)] = {"seconds": seconds, "tokens": tokens}
    return {"cases": cases}


def peak_memory() -> int:
    """Bytes of the largest resident set of this process. Linux only; elsewhere 0."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except OSError:
        return 0


def resident() -> int:
    """Bytes of this process in memory now. Linux only; elsewhere 0."""
    try:
        with open("/proc/self/statm", encoding="ascii") as status:
            return int(status.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def versions(*packages: str) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main(work: Callable[[dict[str, Any]], dict[str, Any]], *packages: str) -> None:
    """Read the job, do it, write the result through a temporary name."""
    job = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    body = {**work(job), "peak_memory": peak_memory(), "versions": versions(*packages)}
    path = Path(sys.argv[2])
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(body), "utf-8")
    partial.replace(path)
