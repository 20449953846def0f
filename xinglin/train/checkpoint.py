"""Checkpoints to resume from: tensors in safetensors, two integers in JSON, no pickle.

    step-000120/tensors.safetensors   weights that train, both moments of AdamW
    step-000120/checkpoint.json       step, facts, SHA-256 of the tensors; written last

A checkpoint is written beside its place and renamed into it, so that a kill at any moment leaves the one before whole.
`newest` believes no folder before its hash agrees, and says which it passed over.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from xinglin.records import InputError
from xinglin.run import file_hash, say

KEEP = 2
FREE_FACTOR = 2.2


def save(folder: Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write checkpoint `step` under `folder` and purge all but the newest two."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < FREE_FACTOR * size:
        raise InputError(
            f"{folder}: {free >> 20} MB free, a checkpoint needs {int(FREE_FACTOR * size) >> 20} MB; "
            "free some space and run the same command again to go on"
        )
    partial = folder / f".step-{step:06d}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        path = partial / "tensors.safetensors"
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)
        _sync(path)
        body = {"step": step, "sha256": file_hash(path), "facts": facts}
        (partial / "checkpoint.json").write_text(json.dumps(body), "utf-8")
        _sync(partial / "checkpoint.json")
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise InputError(f"{folder}: checkpoint not written ({error.strerror}); the one before is kept") from None
    final = folder / f"step-{step:06d}"
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _sync(folder)
    for old in sorted(folder.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)


def newest(folder: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """(step, tensors, facts) of the newest checkpoint that is whole, or None."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            body = json.loads((path / "checkpoint.json").read_text("utf-8"))
            if file_hash(path / "tensors.safetensors") != body["sha256"]:
                raise ValueError("hash differs")
            return body["step"], load_file(path / "tensors.safetensors"), body["facts"]
        except (OSError, ValueError, KeyError) as error:
            say(f"{path}: checkpoint is not whole ({error}); using the one before")
    return None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
