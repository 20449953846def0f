"""Grouping by patient: nothing lost, order kept, memory bounded, nothing left on disk."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from xinglin.data.notes import group_by_patient
from xinglin.data.notes import patients as module
from xinglin.records import InputError, Note


def notes(count: int, patients: int) -> list[Note]:
    rng = random.Random(7)
    return [Note(f"n{i}", f"p{rng.randrange(patients):03d}", "note", f"第{i}次\n病程\u2028x") for i in range(count)]


def by_hand(given: list[Note]) -> list[tuple[str, list[Note]]]:
    return [(who, [note for note in given if note.patient_id == who]) for who in sorted({n.patient_id for n in given})]


@pytest.mark.parametrize(("memory", "runs"), [(2**20, 128), (4_000, 128), (4_000, 3), (1, 4)])
def test_grouped_as_by_hand_whatever_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int, runs: int
) -> None:
    monkeypatch.setattr(module, "MAX_RUNS", runs)
    given = notes(200, 17)
    assert list(group_by_patient(given, tmp_path / "work", memory_bytes=memory)) == by_hand(given)
    assert not list(tmp_path.rglob("*.jsonl")) and not list(tmp_path.glob("work/*"))


def test_runs_are_private_and_removed_when_the_caller_stops(tmp_path: Path) -> None:
    grouped = group_by_patient(notes(50, 5), tmp_path, memory_bytes=2_000)
    next(grouped)
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700 and len(list(folder.iterdir())) > 1
    grouped.close()
    assert not list(tmp_path.iterdir())


def test_runs_are_removed_after_an_error(tmp_path: Path) -> None:
    def failing():
        yield from notes(50, 5)
        raise InputError("broken at the end")

    with pytest.raises(InputError, match="broken at the end"):
        list(group_by_patient(failing(), tmp_path, memory_bytes=2_000))
    assert not list(tmp_path.iterdir())
