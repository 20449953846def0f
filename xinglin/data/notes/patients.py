"""All notes of one patient together, from a stream in any order and in bounded memory.

An external merge sort: sorted runs in a folder of their own inside `work_dir` (mode 0700, removed at the end and after
an error; a killed process leaves it behind, so `work_dir` belongs on the protected disk), then one merge.
"""

from __future__ import annotations

import heapq
import itertools
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import cast

from xinglin.records import InputError, Note, from_json, to_json

MAX_RUNS = 128  # files open at once
Line = tuple[str, int, str]  # patient, place in the stream, the note's JSON


def group_by_patient(
    notes: Iterable[Note], work_dir: Path, *, memory_bytes: int = 256 * 2**20
) -> Iterator[tuple[str, list[Note]]]:
    """(patient id, that patient's notes in the order they came), by patient id. One patient's notes are in memory at a
    time; while sorting, notes of about `memory_bytes`. Nothing is written when all notes fit."""
    if memory_bytes < 1:
        raise InputError(f"memory_bytes is {memory_bytes}; allowed is 1 or more")
    with ExitStack() as files:
        runs: list[Path] = []
        buffer: list[Line] = []
        size = 0
        for place, note in enumerate(notes):
            line = to_json(note)
            buffer.append((note.patient_id, place, line))
            size += 2 * len(line) + 200  # characters of Chinese text take two bytes, the tuple the rest
            if size >= memory_bytes:
                runs.append(_write_run(sorted(buffer), _folder(work_dir, runs, files), len(runs)))
                buffer, size = [], 0
                runs = _fewer(runs) if len(runs) == MAX_RUNS else runs
        ordered = heapq.merge(*(_read_run(path, files) for path in runs), sorted(buffer))
        for patient, lines in itertools.groupby(ordered, key=lambda line: line[0]):
            yield patient, [_note(line) for _, _, line in lines]


def _folder(work_dir: Path, runs: list[Path], files: ExitStack) -> Path:
    """The folder of the runs; made for the first, removed when the grouping ends."""
    if runs:
        return runs[0].parent
    work_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="patients-", dir=work_dir))
    files.callback(shutil.rmtree, folder)
    return folder


def _write_run(lines: Iterable[Line], folder: Path, number: int) -> Path:
    path = folder / f"run-{number:04d}.jsonl"
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{place}\t{line}\n" for _, place, line in lines)
    return path


def _read_run(path: Path, files: ExitStack) -> Iterator[Line]:
    file = files.enter_context(path.open(encoding="utf-8", newline="\n"))
    for text in file:
        place, _, line = text.partition("\t")
        yield _note(line).patient_id, int(place), line.rstrip("\n")


def _note(line: str) -> Note:
    return cast(Note, from_json(line))


def _fewer(runs: list[Path]) -> list[Path]:
    """All runs merged into one, so that the number of open files stays bounded."""
    with ExitStack() as files:
        merged = _write_run(heapq.merge(*(_read_run(path, files) for path in runs)), runs[0].parent, 10_000)
    for path in runs:
        path.unlink()
    return [merged.replace(runs[0])]
