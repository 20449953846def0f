"""Ours and the peers on one task in one run: equal results first, then the clock, taking turns.

Every measurement is a fresh process. First each peer trains a few steps in fp32 on the same rows: its curve must agree
with ours to TOLERANCE, or its rows are void. Then the candidates for `best` are tried, a few steps each. Then all peers
and modes run `repeats` times, in an order that turns round each time (ABBA). Values are medians, spreads smallest and
largest. A peer that is missing stands in the result with the reason.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import data, machine
from bench.peers import HOME, Missing, run_worker
from bench.tasks import OURS, Peer, Task

TOLERANCE = 1e-3  # relative, of loss curves (gradient norms for grpo)
SEARCH_STEPS = 4
PAIRS = 128
PROMPT = 64  # tokens
FORMULA = (
    "6 x (layer matrices x tokens + head x supervised tokens) FLOP a step for training, 2 x both for decoding; each "
    "stored token once, a shared prompt too; attention, embedding and the reference pass not counted"
)


@dataclass(slots=True)
class Run:
    """One call of the bench."""

    name: str
    task: Task
    shape: dict[str, int]
    modes: Sequence[str]
    peers: Sequence[str]
    repeats: int
    lengths: str
    threads: int
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return HOME / "data"


@dataclass(slots=True)
class Measured:
    """All repeats of one peer in one mode; `values` by case ("" where a task has only one)."""

    peer: str
    mode: str
    settings: Mapping[str, Any]
    tried: list[dict[str, Any]]
    values: dict[str, list[float]] = field(default_factory=dict)
    steps_only: list[float] = field(default_factory=list)
    memory: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    loads: list[float] = field(default_factory=list)


def measure(run: Run, check_steps: int) -> dict[str, Any]:
    """The whole task; the dictionary is what `--json` writes."""
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    peak = machine.matmul_peak(run.threads)
    rows_file, rows = write_data(run)
    check = check_equal(run, rows_file, check_steps)
    measured = take_turns(run, rows_file, rows)
    later = machine.matmul_peak(run.threads)
    peak = {name: max(value, later[name]) for name, value in peak.items()}
    table = [row for one in measured for row in rows_of(run, one, peak, rows, check)]
    return {
        "task": run.name,
        "rows": table,
        "missing": run.missing,
        "ratio": ratios(run, table, str(run.task.cases[-1]) if run.task.cases else ""),
        **({"ratio_by_rows": {str(n): ratios(run, table, str(n)) for n in run.task.cases}} if run.task.cases else {}),
        "equal": all(one["equal"] for one in check.values()) if check else None,
        "check": check,
        "tolerance": TOLERANCE,
        "machine": {**machine.describe(), "threads": run.threads, "matmul_gflops": peak},
        "flop_formula": FORMULA,
        "note": run.task.note,
        "counts": {"steps": run.task.steps, "warmup": run.task.warmup, "repeats": run.repeats, "batch": run.task.batch},
        "lengths": run.lengths if run.name == "sft" else None,
        "shape": run.shape,
        "data": "synthetic token ids, fixed seed (bench/data.py); not medicine",
        "date": started,
    }


# --- data ------------------------------------------------------------------------------------------------------------


def write_data(run: Run, suffix: str = "") -> tuple[str, list[dict[str, Any]]]:
    """The file of this task's rows, written anew (it is a function of the seed), and the rows."""
    task, vocabulary = run.task, run.shape["vocab_size"]
    if run.name == "sft":
        name, rows = f"sft-{run.lengths}", data.sft_rows(task.steps * task.batch, run.lengths, vocabulary)
    elif run.name in ("dpo", "reward"):
        name, rows = "pairs", data.pair_rows(min(PAIRS, task.steps * task.batch), vocabulary)
    elif run.name == "rollout":
        name, rows = "prompts", data.prompt_rows(max(task.cases), PROMPT, 0, 0, vocabulary)
    else:
        name, rows = "questions", data.prompt_rows(task.groups, PROMPT, task.answers, task.new_tokens, vocabulary)
    found = list(rows)
    data.write_rows(run.folder / f"{name}{suffix}.jsonl", iter(found))
    return name + suffix, found


def job_of(run: Run, peer: Peer, rows_file: str, mode: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    task = run.task
    return {
        "task": peer.task or run.name,
        "mode": mode,
        "settings": dict(settings),
        "equality": mode == "check",
        "model": str(data.model_folder(run.folder, run.shape)),
        "data": str(run.folder),
        "rows": rows_file,
        "cases": list(peer.cases or task.cases),
        "threads": run.threads,
        **{name: getattr(task, name) for name in ("batch", "warmup", "steps", "lr", "groups", "answers", "new_tokens")},
    }


def run_one(run: Run, name: str, job: dict[str, Any]) -> dict[str, Any] | None:
    """A worker's result; a failure is written down and the peer left out from then on."""
    said = f"{name} {job['mode']} {job['settings'] or ''}".rstrip()
    print(f"bench {run.name}: {said}, load {machine.load()}", file=sys.stderr, flush=True)
    try:
        return run_worker(name, job)
    except Missing as reason:
        print(f"bench {run.name}: {said}: {reason}", file=sys.stderr, flush=True)
        if job["mode"] != "search":
            run.missing[name] = str(reason)
        return None


# --- equal results ---------------------------------------------------------------------------------------------------


def check_equal(run: Run, rows_file: str, steps: int) -> dict[str, dict[str, Any]]:
    """Each peer's fp32 curve against ours. A peer that trains another objective (`Peer.task`) is not compared."""
    curves = {}
    for name in run.peers:
        peer = run.task.peers[name]
        if any(run.task.peers[one].task for one in run.peers):
            continue
        job = job_of(run, peer, rows_file, "check", peer.fp32)
        cases = [1] if run.task.cases else []
        found = run_one(run, name, {**job, "warmup": 0, "steps": steps, "cases": cases})
        if found:
            curves[name] = found["curve"]
    if OURS not in curves:
        return {}
    ours = curves.pop(OURS)
    if run.task.cases:
        return {name: same_ids(ours, theirs) for name, theirs in curves.items()}
    return {name: same_curve(ours, theirs) for name, theirs in curves.items()}


def same_curve(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """The largest relative difference over all steps. Curves of other lengths, or of none, are not equal."""
    whole = 0 < len(ours) == len(theirs)
    worst = max((abs(a - b) / max(abs(b), 1e-12) for a, b in zip(ours, theirs, strict=False)), default=float("inf"))
    return {
        "equal": whole and worst <= TOLERANCE,
        "largest_difference": worst,
        "steps": len(theirs),
        "ours": [ours[0], ours[-1]] if ours else [],
        "theirs": [theirs[0], theirs[-1]] if theirs else [],
    }


def same_ids(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Greedy token ids must be the same, all of them."""
    different = sum(a != b for a, b in zip(ours, theirs, strict=False))
    return {
        "equal": 0 < len(ours) == len(theirs) and different == 0,
        "largest_difference": different,
        "tokens": len(theirs),
    }


# --- the clock -------------------------------------------------------------------------------------------------------


def take_turns(run: Run, rows_file: str, rows: list[dict[str, Any]]) -> list[Measured]:
    """All repeats of all that is present."""
    entries = []
    for name in run.peers:
        for mode in run.modes if name not in run.missing else ():
            tried = search(run, name) if mode == "best" else []
            chosen = max(tried, key=lambda one: one["value"])["settings"] if tried else run.task.peers[name].default
            entries.append(Measured(name, mode, chosen, tried))
    for repeat in range(run.repeats):
        for entry in entries if repeat % 2 == 0 else entries[::-1]:
            if entry.peer in run.missing:
                continue
            load = machine.load()
            job = job_of(run, run.task.peers[entry.peer], rows_file, entry.mode, entry.settings)
            if found := run_one(run, entry.peer, job):
                add(run, entry, found, rows)
                entry.loads.append(load)
    return [entry for entry in entries if entry.values]


def search(run: Run, name: str) -> list[dict[str, Any]]:
    """Each candidate for `best` with its value over a few steps; those that do not run are left out (see the log)."""
    task = replace(run.task, steps=min(SEARCH_STEPS, run.task.steps), warmup=min(2, run.task.warmup))
    few = replace(run, task=task)
    rows_file, rows = write_data(few, "-few")
    tried = []
    for settings in task.peers[name].best:
        found = run_one(few, name, job_of(few, task.peers[name], rows_file, "search", settings))
        if found:
            trial = Measured(name, "search", settings, [])
            add(few, trial, found, rows)
            tried.append({"settings": dict(settings), "value": next(reversed(trial.values.values()))[0]})
    return tried


def add(run: Run, entry: Measured, found: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """One repeat's values, in units of the task (more is better)."""
    entry.memory = max(entry.memory, found["peak_memory"])
    entry.versions = found["versions"]
    for case, timed in found.get("cases", {}).items():
        speeds = [count / seconds for count, seconds in zip(timed["tokens"], timed["seconds"], strict=True)]
        entry.values.setdefault(case, []).append(statistics.median(speeds))
    if "cases" not in found:
        work, seconds = timed_work(run, found, rows)
        whole = seconds + found["apart"] * work / len(rows)  # the timed share of what was done for all rows
        entry.values.setdefault("", []).append(work / whole)
        entry.steps_only.append(work / seconds)


def timed_work(run: Run, found: dict[str, Any], rows: list[dict[str, Any]]) -> tuple[float, float]:
    """(tokens, pairs or answers of the timed steps, their seconds)."""
    task = run.task
    ends, warmup = found["ends"], task.warmup
    seconds = ends[-1] - ends[warmup - 1]
    if run.name == "sft":
        return sum(step_tokens(run, found, rows)[warmup:]), seconds
    return (len(ends) - warmup) * task.batch, seconds


def step_tokens(run: Run, found: dict[str, Any], rows: list[dict[str, Any]]) -> list[int]:
    """Real tokens of each step: as the worker counted them, or those of the rows in the file's order."""
    if "tokens" in found:
        return found["tokens"]
    sizes = [len(row["prompt"]) + len(row["answer"]) for row in rows]
    batch = run.task.batch
    return [
        sum(sizes[i % len(sizes)] for i in range(step * batch, (step + 1) * batch))
        for step in range(len(found["ends"]))
    ]


# --- the result ------------------------------------------------------------------------------------------------------


def rows_of(
    run: Run, entry: Measured, peak: dict[str, float], rows: list[dict[str, Any]], check: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """A row of the table for each case of a peer in a mode."""
    found = []
    for case, values in entry.values.items():
        value = statistics.median(values)
        row = {
            "peer": entry.peer,
            "mode": entry.mode,
            "case": case,
            "value": value,
            "unit": run.task.unit + (f" at {case} rows" if case else ""),
            "spread": [min(values), max(values)],
            "repeats": len(values),
            "peak_memory": entry.memory,
            "versions": entry.versions,
            "settings": dict(entry.settings),
            "tried": entry.tried,
            "share_of_peak": share_of_peak(run, value, peak, rows),
            "load": entry.loads,
            "void": not check.get(entry.peer, {"equal": True})["equal"],
        }
        if run.task.groups:
            row["seconds_per_step"] = run.task.batch / value
        if run.name == "dpo":
            row["steps_only"] = statistics.median(entry.steps_only)
        found.append(row)
    return found


def share_of_peak(run: Run, value: float, peak: dict[str, float], rows: list[dict[str, Any]]) -> float | None:
    """FORMULA's FLOP a second over the faster of the machine's fp32 and bf16 products."""
    layers, head = data.matrix_parameters(run.shape)
    if run.task.groups:
        return None
    if run.name == "rollout":
        flops = 2 * (layers + head) * value
    else:
        tokens = sum(len(ids) for row in rows for ids in row.values())
        supervised = sum(len(row.get(name, ())) for row in rows for name in ("answer", "chosen", "rejected"))
        supervised = 0 if run.name == "reward" else supervised
        work = tokens if run.name == "sft" else len(rows)
        flops = 6 * (layers * tokens + head * supervised) * value / work
    return flops / (max(peak.values()) * 1e9)


def ratios(run: Run, table: list[dict[str, Any]], case: str) -> dict[str, float | None]:
    """Ours over the baseline as documented, and over the fastest peer at its best. Void rows do not count."""
    values = {(row["peer"], row["mode"]): row["value"] for row in table if row["case"] == case and not row["void"]}
    best = [value for (peer, mode), value in values.items() if peer != OURS and mode == "best"]
    ours, baseline = values.get((OURS, "default")), values.get((run.task.baseline, "default"))
    ours_best = values.get((OURS, "best"))
    return {
        "default": ours / baseline if ours and baseline else None,
        "best": ours_best / max(best) if ours_best and best else None,
    }


def print_table(result: dict[str, Any]) -> None:
    """Markdown."""
    head = ["peer", "mode", "value", "unit", "spread", "of peak", "memory, MB", "settings", "equal"]
    lines = [head, ["---"] * len(head)]
    for row in result["rows"]:
        share = row["share_of_peak"]
        checked = result["check"].get(row["peer"])
        lines.append(
            [
                row["peer"],
                row["mode"],
                f"{row['value']:.4g}",
                row["unit"],
                f"{row['spread'][0]:.4g} to {row['spread'][1]:.4g}",
                f"{share:.1%}" if share else "-",
                f"{row['peak_memory'] / 1e6:.0f}",
                " ".join(f"{name}={value}" for name, value in row["settings"].items()) or "its own",
                {None: "-", True: "yes", False: "NO: void"}[checked and checked["equal"]],
            ]
        )
    print("\n".join("| " + " | ".join(line) + " |" for line in lines))
    for peer, reason in result["missing"].items():
        print(f"missing: {peer}: {reason}")
    for peer, one in result["check"].items():
        print(f"check against {peer}: largest difference {one['largest_difference']:.3g}, equal: {one['equal']}")
    for name, ratio in result["ratio"].items():
        print(f"ratio, {name}: {'-' if ratio is None else f'{ratio:.2f}'}")
    peaks = result["machine"]["matmul_gflops"]
    print(f"machine: {result['machine']['cpu']}, {result['machine']['threads']} threads, GFLOP/s {peaks}")
