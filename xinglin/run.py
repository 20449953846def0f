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
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn, TextIO

from xinglin import __version__
from xinglin.config import Config, StageConfig
from xinglin.records import InputError

MOST_CHANGES = 8  # named in a message
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
        self.started = time.monotonic()  # the wall clock may be set meanwhile
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
    def progress(self, what: str, total: int | None) -> Iterator[Any]:
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
            "seconds": round(time.monotonic() - self.started, 1),
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
    """Hold a folder against a second run. The system frees the lock when its process ends, however it ends; the name in
    it is for people: whom to wait for, or who was killed there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{directory}: cannot write there ({error.strerror}); give --out another folder") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if not isinstance(error, BlockingIOError):  # some network file systems
                raise InputError(f"{directory}: no locks there ({error.strerror}); give --out another disk") from None
            raise InputError(
                f"{directory}: another process is running there; wait for it or give another --out "
                f"({_holder(file) or 'it has not said which'})"
            ) from None
        if left := _holder(file):
            say(f"{directory}: the lock of {left} is stale, that process was killed; going on with what it left")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _holder(file: TextIO) -> str:
    file.seek(0)
    return file.read(200).strip()


@contextlib.contextmanager
def on_signals(act: Callable[[int], object]) -> Iterator[None]:
    """SIGTERM and SIGINT call `act(signum)` instead of ending the process; a second one ends it at once.

    Outside the main thread, where Python delivers no signals, and for a signal that was ignored before (nohup), nothing
    changes.
    """

    def first(signum: int, frame: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        act(signum)

    here = threading.current_thread() is threading.main_thread()
    watched = [s for s in (signal.SIGTERM, signal.SIGINT) if here and signal.getsignal(s) != signal.SIG_IGN]
    before = {each: signal.signal(each, first) for each in watched}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler or signal.SIG_DFL)


def stop(signum: int) -> NoReturn:
    """End with the code that shells give to a signal, 128 + its number: 143 for SIGTERM, 130 for SIGINT."""
    say(f"stopped by {signal.Signals(signum).name}; run the same command again to go on")
    raise SystemExit(128 + signum)


def write_text(path: Path, text: str) -> None:
    """Write through a temporary file, so that a reader never sees half of it."""
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


# --- what a stage depends on -----------------------------------------------------------------------------------------


def stage_key(config: StageConfig, inputs: dict[str, str]) -> str:
    """Names a stage by what it depends on: the same key means the same result, and the stage can be skipped."""
    body = json.dumps([config.model_dump(mode="json"), inputs, __version__], sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Begun:
    """What a stage's work depends on, kept in its folder's `key`. `files`: of each input, hashes by file ("": one)."""

    key: str
    version: str
    config: dict[str, Any]
    files: dict[str, dict[str, str]]

    @property
    def inputs(self) -> dict[str, str]:
        return {name: one_hash(hashes) for name, hashes in self.files.items()}


def begin_with(key: str, config: Config, files: dict[str, dict[str, str]]) -> Begun:
    """How a stage's work begins now."""
    return Begun(key, __version__, config.model_dump(mode="json", by_alias=True), files)


def hashes_of(path: Path) -> dict[str, str]:
    """Hashes of a file (under no name), or of all files of a folder: two trainings of one model differ in no name and
    no size."""
    if path.is_file():
        return {"": file_hash(path)}
    return {str(p.relative_to(path)): file_hash(p) for p in sorted(path.rglob("*")) if p.is_file()}


def one_hash(hashes: dict[str, str]) -> str:
    """One hash over those of an input."""
    if hashes.keys() == {""}:
        return hashes[""]
    listing = [f"{name} {digest}" for name, digest in hashes.items()]
    return hashlib.sha256("\n".join(listing).encode()).hexdigest()


def changed(folder: Path, now: Begun) -> str:
    """What differs from how the work in a folder was begun, in a few words; nothing where it can be continued."""
    path = folder / "key"
    if not path.is_file():
        return ""
    try:
        before = Begun(**json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError):
        return "its `key` file is damaged or of an older version"
    if before.key == now.key:
        return ""
    changes = [f"xinglin {before.version} -> {now.version}"] if before.version != now.version else []
    old, new = _flat(before.config), _flat(now.config)
    changes += [f"{name} {old.get(name)} -> {new.get(name)}" for name in _differing(old, new)]
    changes += [f"{name}: other content" for name in _differing(_flat(before.files, "/"), _flat(now.files, "/"))]
    more = f" and {len(changes) - MOST_CHANGES} more" if len(changes) > MOST_CHANGES else ""
    return (", ".join(changes[:MOST_CHANGES]) + more) or "its inputs"


def _flat(nested: dict[str, Any], join: str = ".") -> dict[str, str]:
    """The values of nested dictionaries as JSON, under their joined names."""
    found: dict[str, str] = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            found |= {f"{name}{join}{below}".rstrip(join): text for below, text in _flat(value, join).items()}
        else:
            found[name] = json.dumps(value)
    return found


def _differing(old: dict[str, str], new: dict[str, str]) -> list[str]:
    return [name for name in {**old, **new} if old.get(name) != new.get(name)]
