"""How good the doctor's plan is: plan a recipe, run it, and print the ratio for every stage.

    python -m bench.plan quickstart                       # on a quiet machine: both are timed alone
    python -m bench.plan ivygpt --scale tiny --json bench/results/plan-ivygpt.json

Plan and run are processes of their own, one after the other. Aim: time within 25 %, memory within 10 % of the run's.
Stage times of the run are those of its manifests, its memory the peak resident set of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TIME_AIM, MEMORY_AIM = 0.25, 0.10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--scale", default="full", choices=["full", "tiny"])
    parser.add_argument("--out", type=Path, help="keep the run here [default: a temporary folder]")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="xinglin-bench-plan-") as scratch:
        result = compare(chosen.recipe, chosen.scale, chosen.out or Path(scratch) / "run")
    print_result(result)
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def compare(recipe: str, scale: str, out: Path) -> dict[str, Any]:
    """Plan, then run; seconds and gigabytes of both for each stage."""
    xinglin = [sys.executable, "-m", "xinglin"]
    load = os.getloadavg()[0]
    started = time.perf_counter()
    plan = subprocess.run(
        [*xinglin, "doctor", "--plan", recipe, "--scale", scale, "--json"], check=True, capture_output=True, text=True
    )
    planned = time.perf_counter() - started
    peak = run_with_peak([*xinglin, "run", recipe, "--scale", scale, "--out", str(out), "--quiet"])
    forecasts = json.loads(plan.stdout)["stages"]
    real = {
        path.parent.name.split("-", 1)[1]: json.loads(path.read_text("utf-8")) for path in out.glob("*/manifest.json")
    }
    rows = []
    for name, manifest in real.items():
        parts = [one for one in forecasts if one["stage"].split(":")[0] == name]
        known = parts and all(one["seconds"] is not None for one in parts)
        rows.append(
            {
                "stage": name,
                "real": manifest["seconds"],
                "plan": sum(one["seconds"] for one in parts) if known else None,
            }
        )
    memory = max(one["gigabytes"] or 0.0 for one in forecasts)
    return {"recipe": recipe, "scale": scale, "load_before": load, "plan_seconds": planned, "stages": rows} | {
        "memory": {"real": peak, "plan": memory}
    }


def run_with_peak(command: list[str]) -> float:
    """Run a command to its end; the peak resident set of that process in gigabytes."""
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss * 1024 / 1e9


def print_result(result: dict[str, Any]) -> None:
    print(f"{result['recipe']}: planned in {result['plan_seconds']:.0f} s, load before {result['load_before']:.1f}\n")
    print(f"{'stage':<20} {'real s':>8} {'plan s':>8} {'plan/real':>9}")
    known = [row for row in result["stages"] if row["plan"] is not None]
    whole = {"stage": "together", "real": sum(r["real"] for r in known), "plan": sum(r["plan"] for r in known)}
    for row in [*result["stages"], whole]:
        plan = "-" if row["plan"] is None else f"{row['plan']:8.1f} {row['plan'] / max(row['real'], 0.1):9.2f}"
        print(f"{row['stage']:<20} {row['real']:>8.1f} {plan:>8}")
    memory = result["memory"]
    ratio = memory["plan"] / memory["real"]
    print(f"{'peak memory, GB':<20} {memory['real']:>8.2f} {memory['plan']:8.2f} {ratio:9.2f}")
    right = abs(whole["plan"] / whole["real"] - 1) <= TIME_AIM and abs(ratio - 1) <= MEMORY_AIM
    print(f"\naim (time within {TIME_AIM:.0%}, memory within {MEMORY_AIM:.0%}): {'met' if right else 'not met'}")


if __name__ == "__main__":
    main()
