"""A run: its folder, its log, its randomness (recipe.py reads what is to be run).

    OUT/01-pretrain/manifest.json   written last: its presence means the stage is complete
    OUT/01-pretrain/metrics.jsonl   one line per step
    OUT/scores.jsonl                one line per (checkpoint, evaluation, metric)

`Stage` is the folder one stage writes. `seed_for` makes randomness a function of where one is, so that nothing about it
need be saved. Logs hold numbers, row ids and reasons, never record text.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from xinglin import __version__
from xinglin.config import StageConfig
from xinglin.records import InputError

RESUME_FOLDERS = frozenset({"checkpoints", "best"})
TEXT_KEYS = frozenset({"text", "prompt", "answer", "content", "messages"})


def seed_for(*parts: object) -> int:
    """A 63-bit seed from what names the place: `seed_for(run_seed, "ppo", step)`. The same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8]) >> 1


# --- the folder of a stage -------------------------------------------------------------------------------------------


class Stage:
    """The folder one stage writes, with its log and its progress."""

    def __init__(self, directory: Path, name: str, *, quiet: bool = False) -> None:
        self.dir = directory
        self.name = name
        self.quiet = quiet
        self.started = time.time()
        directory.mkdir(parents=True, exist_ok=True)

    def log(self, **metrics: Any) -> None:
        """One line of metrics.jsonl. Numbers, ids and reasons; a key that would hold text is refused."""
        assert not TEXT_KEYS & metrics.keys(), "record text does not go into a log"
        with (self.dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics, ensure_ascii=False) + "\n")

    def rewind(self, step: int) -> None:
        """Drop the log lines after `step`, and one that a kill cut short: a resumed stage writes them again."""
        path = self.dir / "metrics.jsonl"
        if path.is_file():
            whole = [line for line in path.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]
            write_text(path, "".join(line for line in whole if json.loads(line).get("step", 0) <= step))

    @contextlib.contextmanager
    def progress(self, what: str, total: int) -> Iterator[Any]:
        """A bar with the time left; yields `advance(count=1, note="")`."""
        if self.quiet:
            yield lambda count=1, note="": None
            return
        with _bar() as bar:
            task = bar.add_task(f"{self.name}: {what}", total=total, note="")

            def advance(count: int = 1, note: str = "") -> None:
                bar.update(task, advance=count, note=note)

            yield advance

    @property
    def complete(self) -> bool:
        return (self.dir / "manifest.json").is_file()

    def manifest(self) -> dict[str, Any]:
        """What the finished stage says of itself."""
        return json.loads((self.dir / "manifest.json").read_text("utf-8"))

    def finish(self, *, config: dict[str, Any], inputs: dict[str, str], key: str, **facts: Any) -> None:
        """Write manifest.json, last and at once."""
        body = {
            "stage": self.name,
            "key": key,
            "config": config,
            "inputs": inputs,
            "seconds": round(time.time() - self.started, 1),
            "versions": versions(),
            "outputs": {str(p.relative_to(self.dir)): file_hash(p) for p in self._outputs()},
            **facts,
        }
        write_text(self.dir / "manifest.json", json.dumps(body, ensure_ascii=False, indent=1))

    def _outputs(self) -> Iterator[Path]:
        for path in sorted(self.dir.rglob("*")):
            hidden = path.name.startswith(".")
            if path.is_file() and not hidden and not RESUME_FOLDERS & set(path.relative_to(self.dir).parts):
                yield path

    def clear_resume(self) -> None:
        """Delete what only served to go on after a stop."""
        for name in RESUME_FOLDERS:
            for folder in list(self.dir.rglob(name)):
                shutil.rmtree(folder, ignore_errors=True)


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


def prepare_output(directory: Path, *, free_bytes: int = 0) -> None:
    """Make the run's folder. Refuses one that holds something else, cannot be written, or lies on a full disk."""
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory}: is a file; --out names a folder")
    found = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    if set(found) - {".lock"} and "run.json" not in found:
        raise InputError(f"{directory}: not empty and no run of ours; give --out a new or empty folder")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".write-probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise InputError(f"{directory}: cannot write there ({error.strerror}); give --out another folder") from None
    free = shutil.disk_usage(directory).free
    if free < free_bytes:
        raise InputError(
            f"{directory}: {free >> 20} MB free, the run needs about {free_bytes >> 20} MB; free some space"
        )


def check_disjoint(train: Path, valid: Path | None) -> None:
    """Training and validation in one file, or in two copies of it, would prove anything."""
    if valid is None or not train.is_file() or not valid.is_file():
        return
    if train.resolve() == valid.resolve() or file_hash(train) == file_hash(valid):
        raise InputError(f"{valid}: holds the same rows as {train}, which are trained on; split by patient first")


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold a folder against a second run. The system frees the lock when the process ends, however it ends."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"{directory}: another process is running there; wait for it or give another --out"
            ) from None
        yield


def write_text(path: Path, text: str) -> None:
    """Write through a temporary file, so that a reader never sees half of it."""
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stage_key(config: StageConfig, inputs: dict[str, str]) -> str:
    """Names a stage by what it depends on: the same key means the same result, and the stage can be skipped."""
    body = json.dumps([config.model_dump(mode="json"), inputs, __version__], sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """What a number was made with."""
    packages = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers", "numpy")
    found = {name: metadata.version(name) for name in packages}
    return {"xinglin": __version__, "code": _commit(), "python": platform.python_version(), **found}


def _commit() -> str:
    try:
        here = Path(__file__).resolve().parents[1]
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, timeout=5, check=True
        )
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "not a git checkout"


def say(text: str) -> None:
    """A line for the person at the terminal."""
    print(text, file=sys.stderr, flush=True)
