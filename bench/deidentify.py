"""De-identification side by side: our rules and Presidio on the same synthetic notes, in one run, taking turns.

    python -m bench.deidentify --notes 2000 --json deidentify.json

Each peer is a process of its own (deidentify_worker.py says how Presidio is set up). The notes are cut into rounds; in
every round each peer reads the same notes, one after the other, beginning with another peer each time. Speed is
megabytes (10^6) of UTF-8 text per second of CPU time of that process, so it is a speed per core, given as the median of
the rounds with the smallest and the largest. Recall: every character of the identifier is marked, whatever kind it was
taken for, with Wilson's 95 % interval. All notes are synthetic, and figures on them hold for no hospital. Presidio is
installed with pip into .bench/ on the first run, which needs a package index; --peers xinglin needs none.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from xinglin.data.ward.labelled import labelled_notes
from xinglin.data.ward.labelled.figures import Comparison, compare
from xinglin.metrics.intervals import wilson_interval
from xinglin.records import Note

ROOT = Path(__file__).resolve().parents[1]
PEERS = ("xinglin", "presidio-generic", "presidio-all")
MODES = {
    "xinglin": "rules only, no structured fields, no tagger",
    "presidio-generic": "generic pattern recognisers, blank zh engine, telephone region CN",
    "presidio-all": "pattern recognisers of every country, blank zh engine, telephone region CN",
}
PRESIDIO = "presidio-analyzer==2.2.366"


class Found(NamedTuple):
    start: int
    end: int
    kind: str


@dataclass
class Peer:
    name: str
    process: subprocess.Popen[str]
    versions: dict[str, str]
    speeds: list[float] = field(default_factory=list)
    peak_memory: int = 0
    spans: dict[str, list[Found]] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", type=int, default=2000, help="synthetic notes of the test split")
    parser.add_argument(
        "--rounds", type=int, default=10, help="parts the notes are read in, for the spread of the speed"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    if not 1 <= options.rounds <= options.notes:
        parser.error(f"--rounds {options.rounds} with --notes {options.notes}; allowed: 1 to the number of notes")
    result = measure(options.notes, options.rounds, options.seed, options.peers)
    print(table(result))
    if options.json:
        partial = options.json.with_name(options.json.name + ".partial")
        partial.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        partial.replace(options.json)


def measure(count: int, rounds: int, seed: int, names: Sequence[str]) -> dict[str, Any]:
    notes = list(labelled_notes(count, seed, "test"))
    peers = [start(name) for name in names]
    try:
        for peer in peers:
            ask(peer, list(labelled_notes(30, seed, "dev")))  # not counted: first calls build tables
        for number in range(rounds):
            part = notes[number::rounds]
            for peer in peers[number % len(peers) :] + peers[: number % len(peers)]:
                read(peer, part)
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
    finally:
        for peer in peers:
            peer.process.kill()
            peer.process.wait()
    return {
        "task": "de-identification of Chinese clinical notes",
        "data": "synthetic: xinglin.data.ward.labelled, test split",
        "notes": count,
        "identifiers": sum(len(note.entities) for note in notes),
        "megabytes": sum(len(note.text.encode()) for note in notes) / 1e6,
        "seed": seed,
        "rounds": rounds,
        "machine": machine(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rows": [row(peer, notes) for peer in peers],
    }


def start(name: str) -> Peer:
    """The peer's process, ready to read."""
    python = sys.executable if name == "xinglin" else str(presidio_python())
    worker = Path(__file__).with_name("deidentify_worker.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT) if name == "xinglin" else ""}
    process = subprocess.Popen(
        [python, str(worker), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    return Peer(name, process, answer(name, process))


def presidio_python() -> Path:
    """Its interpreter in .bench/presidio, installed there if need be. The folder tells git to ignore it."""
    home = ROOT / ".bench" / "presidio"
    python = home / "bin" / "python"
    if not (home / "complete").is_file():
        home.mkdir(parents=True, exist_ok=True)
        (home.parent / ".gitignore").write_text("*\n")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        pip = [str(python), "-m", "pip", "install", "-qqq", "--disable-pip-version-check", PRESIDIO]
        subprocess.run(pip, check=True)
        (home / "complete").touch()
    return python


def ask(peer: Peer, part: list[Note]) -> dict[str, Any]:
    assert peer.process.stdin is not None
    peer.process.stdin.write(json.dumps([note.text for note in part]) + "\n")
    peer.process.stdin.flush()
    return answer(peer.name, peer.process)


def read(peer: Peer, part: list[Note]) -> None:
    reply = ask(peer, part)
    peer.speeds.append(sum(len(note.text.encode()) for note in part) / 1e6 / reply["seconds"])
    peer.peak_memory = max(peer.peak_memory, reply["peak_memory"])
    for note, spans in zip(part, reply["spans"], strict=True):
        peer.spans[note.id] = [Found(*span) for span in spans]


def answer(name: str, process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"peer {name} ended with exit code {process.wait()}; its message stands above")
    return dict(json.loads(line))


def row(peer: Peer, notes: list[Note]) -> dict[str, Any]:
    result = compare(notes, lambda note: peer.spans[note.id])
    return {
        "peer": peer.name.split("-")[0],
        "mode": MODES[peer.name],
        "value": statistics.median(peer.speeds),
        "unit": "MB/s per core (CPU time), synthetic",
        "spread": [min(peer.speeds), max(peer.speeds)],
        "peak_memory": peer.peak_memory,
        "versions": peer.versions,
        "recall": {kind: share(*counts) for kind, counts in kinds_of(result)},
        "recall_of_all": share(*result.recall()),
        "precision": share(*result.precision()),
    }


def kinds_of(result: Comparison) -> Iterator[tuple[str, tuple[int, int]]]:
    for kind in sorted({kind for kind, _ in result.labelled}):
        yield kind, result.recall(kind)


def share(count: int, n: int) -> list[float | int] | None:
    """[value, low, high, n], or nothing where nothing was marked."""
    if not n:
        return None
    interval = wilson_interval(count, n)
    return [count / n, interval.low, interval.high, n]


def machine() -> str:
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"


def table(result: dict[str, Any]) -> str:
    """Markdown, one column a peer."""
    rows = result["rows"]
    head = ["synthetic notes", *(f"{row['peer']}: {row['mode']}" for row in rows), "n"]
    lines = [head, ["---"] * len(head)]
    lines.append(
        ["MB/s per core", *(f"{row['value']:.3f} ({_range(row['spread'])})" for row in rows), result["rounds"]]
    )
    lines.append(["peak memory, MB", *(f"{row['peak_memory'] / 1e6:.0f}" for row in rows), ""])
    for kind in rows[0]["recall"]:
        shares = [row["recall"][kind] for row in rows]
        lines.append([f"recall, {kind}", *map(_percent, shares), shares[0][3]])
    lines.append(["recall, all", *(_percent(row["recall_of_all"]) for row in rows), result["identifiers"]])
    lines.append(["precision", *(_percent(row["precision"]) for row in rows), ""])
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _range(spread: list[float]) -> str:
    return f"{spread[0]:.3f} to {spread[1]:.3f}"


def _percent(cell: list[float] | None) -> str:
    return "none" if cell is None else f"{cell[0]:.1%} ({cell[1]:.1%} to {cell[2]:.1%})"


if __name__ == "__main__":
    main()
