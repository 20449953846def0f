"""Checkpoints against cut, flipped, missing and unwritable files."""

from __future__ import annotations

import errno
import random
import resource
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from xinglin.records import InputError
from xinglin.train import checkpoint

FACTS = {"best": [1.5, 3], "bad_steps": 0, "kl": 0.25}


def tensors(step: int) -> dict[str, torch.Tensor]:
    return {"param.w": torch.full((4, 4), float(step)), "exp_avg.w": torch.arange(6.0) + step}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (10, 20):
        checkpoint.save(tmp_path / "checkpoints", step, tensors(step), FACTS)
    return tmp_path / "checkpoints"


def newest_step(folder: Path) -> int | None:
    found = checkpoint.newest(folder)
    if found is None:
        return None
    step, loaded, facts = found
    assert facts == FACTS and all(torch.equal(loaded[name], value) for name, value in tensors(step).items())
    return step


def test_what_is_saved_is_loaded(folder: Path) -> None:
    assert newest_step(folder) == 20


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "nothing") is None


def damaged(folder: Path, place: Path, file: str, change: object) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place)
    path = place / "step-000020" / file
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    return place


FILES = ("tensors.safetensors", "checkpoint.json")


def test_a_hundred_truncations_are_all_detected(folder: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    for number in range(100):
        place = damaged(folder, tmp_path / "cut", FILES[number % 2], lambda raw: raw[: rng.randrange(len(raw))])
        assert newest_step(place) == 10


def test_a_hundred_bit_flips_are_all_detected(folder: Path, tmp_path: Path) -> None:
    rng = random.Random(1)

    def flip(raw: bytes) -> bytes:
        place = rng.randrange(len(raw))
        return raw[:place] + bytes([raw[place] ^ (1 << rng.randrange(8))]) + raw[place + 1 :]

    for number in range(100):
        assert newest_step(damaged(folder, tmp_path / "flip", FILES[number % 2], flip)) == 10


@pytest.mark.parametrize("file", FILES)
def test_each_missing_file_is_detected_and_said(folder: Path, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "step-000020" / file).unlink()
    assert newest_step(folder) == 10
    said = capsys.readouterr().err
    assert "step-000020: checkpoint is not whole" in said and "using the one before" in said
    assert "step-000010: going on from here" in said


def test_both_damaged_begins_anew(folder: Path) -> None:
    for step in (10, 20):
        (folder / f"step-0000{step}/checkpoint.json").unlink()
    assert newest_step(folder) is None


def test_purge_keeps_the_last_two(folder: Path) -> None:
    for step in (30, 40):
        checkpoint.save(folder, step, tensors(step), FACTS)
    assert sorted(path.name for path in folder.iterdir()) == ["step-000030", "step-000040"]


def test_order_is_by_step_past_a_million(folder: Path) -> None:
    for step in (999_999, 1_000_000):
        checkpoint.save(folder, step, tensors(step), FACTS)
    assert newest_step(folder) == 1_000_000
    checkpoint.save(folder, 1_000_001, tensors(1_000_001), FACTS)
    assert sorted(path.name for path in folder.iterdir()) == ["step-1000000", "step-1000001"]


def test_purge_never_prefers_damaged_later_ones(folder: Path) -> None:
    """Resumed from the beginning because both were damaged: the first good one must outlive them."""
    for step in (10, 20):
        (folder / f"step-0000{step}/tensors.safetensors").write_bytes(b"")
    checkpoint.save(folder, 5, tensors(5), FACTS)
    assert newest_step(folder) == 5


def test_order_is_by_the_step_inside_not_by_names(folder: Path) -> None:
    (folder / "step-000020").rename(folder / "step-000003")
    (folder / "step-000010").rename(folder / "step-999999")
    assert newest_step(folder) == 20
    checkpoint.save(folder, 30, tensors(30), FACTS)
    assert sorted(path.name for path in folder.iterdir()) == ["step-000003", "step-000030"]


def test_purge_keeps_two_that_are_good(folder: Path) -> None:
    """A damaged one does not take the place of the last good one."""
    (folder / "step-000020/tensors.safetensors").write_bytes(b"cut")
    checkpoint.save(folder, 30, tensors(30), FACTS)
    assert sorted(path.name for path in folder.iterdir()) == ["step-000010", "step-000030"]
    (folder / "step-000030/tensors.safetensors").unlink()
    assert newest_step(folder) == 10


def test_a_delete_that_fails_does_not_end_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(path: Path, ignore_errors: bool = False) -> None:
        assert ignore_errors

    monkeypatch.setattr(checkpoint.shutil, "rmtree", busy)
    checkpoint.save(folder, 30, tensors(30), FACTS)
    assert newest_step(folder) == 30 and (folder / "step-000010").is_dir()


def test_a_half_written_one_is_never_seen(folder: Path) -> None:
    partial = folder / ".step-000030.partial"
    partial.mkdir()
    (partial / "tensors.safetensors").write_bytes(b"half")
    assert newest_step(folder) == 20
    checkpoint.save(folder, 30, tensors(30), FACTS)
    assert newest_step(folder) == 30 and not partial.exists()


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left on device (28)")],
)
def test_a_full_disk_keeps_the_old_one(folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def full(*args: object) -> None:
        raise error

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(InputError, match="No space left on device.*the one before is kept") as told:
        checkpoint.save(folder, 30, tensors(30), FACTS)
    assert str(folder) in str(told.value) and "\n" not in str(told.value)
    assert newest_step(folder) == 20
    assert sorted(path.name for path in folder.iterdir()) == ["step-000010", "step-000020"]


def test_a_write_that_really_fails_keeps_the_old_one(folder: Path) -> None:
    """The kernel's own refusal: no file may grow past 64 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(InputError, match="not written .*the one before is kept"):
            checkpoint.save(folder, 30, tensors(30), FACTS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert newest_step(folder) == 20


def test_too_little_space_is_told_before_anything_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage(0, 0, 3 << 20))
    big = {"w": torch.zeros(1 << 20)}  # 4 MiB: 2.2 times that is 8 MB
    with pytest.raises(InputError, match=f"3145728 bytes free, a checkpoint needs {int(2.2 * 4 * 2**20)} bytes"):
        checkpoint.save(folder, 30, big, FACTS)
    assert newest_step(folder) == 20
