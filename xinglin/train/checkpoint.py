"""Checkpoints to resume from: tensors in safetensors, two integers in JSON, no pickle.

    step-000120/tensors.safetensors   weights that train, both moments of AdamW
    step-000120/checkpoint.json       step, facts, SHA-256 of these and of the tensors; written last

A checkpoint is written beside its place and renamed into it, so that a kill at any moment leaves the one before whole.
`newest` believes no folder before its hash agrees, and says which it passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from xinglin.records import InputError
from xinglin.run import file_hash, say

KEEP = 2
FREE_FACTOR = 2.2


def save(folder: Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write checkpoint `step` under `folder` and purge all but the newest two."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    partial, final = folder / f".step-{step:06d}.partial", folder / f"step-{step:06d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < FREE_FACTOR * size:
            raise InputError(
                f"{folder}: {free >> 20} MB free, a checkpoint needs {int(FREE_FACTOR * size) >> 20} MB; "
                "free some space and run the same command again to go on"
            )
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _write(partial, step, tensors, facts)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _sync(folder)
    except (OSError, SafetensorError) as error:  # a full disk inside safetensors is no OSError
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{folder}: checkpoint of {size} bytes not written ({reason}); the one before is kept, mend the disk and "
            "run the same command again to go on"
        ) from None
    _purge(folder, step)


def _write(folder: Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    path = folder / "tensors.safetensors"
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)
    _sync(path)
    body = {"step": step, "sha256": _digest(path, step, facts), "facts": facts}
    (folder / "checkpoint.json").write_text(json.dumps(body), "utf-8")
    _sync(folder / "checkpoint.json")
    _sync(folder)


def _digest(path: Path, step: int, facts: dict[str, Any]) -> str:
    """One hash over the tensors' file and what stands beside it."""
    body = json.dumps([file_hash(path), step, facts], sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()


def _purge(folder: Path, step: int) -> None:
    """Keep `step` and the one before. Later ones are damaged: the run was resumed from before them."""
    found = _in_order(folder)
    this = found.index(folder / f"step-{step:06d}") + 1
    for other in [*found[: max(0, this - KEEP)], *found[this:]]:
        shutil.rmtree(other, ignore_errors=True)


def newest(folder: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """(step, tensors, facts) of the newest checkpoint that is whole, or None."""
    for path in reversed(_in_order(folder)):
        try:
            body = json.loads((path / "checkpoint.json").read_text("utf-8"))
            if _digest(path / "tensors.safetensors", body["step"], body["facts"]) != body["sha256"]:
                raise ValueError("hash differs")
            return body["step"], load_file(path / "tensors.safetensors"), body["facts"]
        except (OSError, ValueError, KeyError) as error:
            say(f"{path}: checkpoint is not whole ({error}); using the one before")
    return None


def _in_order(folder: Path) -> list[Path]:
    """By step: past 999 999 the names grow longer."""
    return sorted(folder.glob("step-*"), key=lambda path: (len(path.name), path.name))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
