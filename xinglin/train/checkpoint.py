"""Checkpoints to resume from: tensors in safetensors, what stands beside them in JSON, no pickle.

    step-000120/tensors.safetensors   weights that train, both moments of AdamW
    step-000120/checkpoint.json       step, facts, size and SHA-256 of the tensors' file, and a hash over itself

A checkpoint is written beside its place, flushed to the disk, and renamed into it, so that a kill or a full disk at any
moment leaves the one before whole. `newest` goes by the step inside the manifest, never by names or clocks; it believes
no folder before every hash agrees, and says which it passed over and why.
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
TENSORS, MANIFEST = "tensors.safetensors", "checkpoint.json"

Checkpoint = tuple[int, dict[str, Tensor], dict[str, Any]]
"""(step, tensors, facts)"""


def save(folder: Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write checkpoint `step` under `folder`, then purge. Raises `InputError` where the disk will not take it."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    partial, final = folder / f".step-{step:06d}.partial", folder / f"step-{step:06d}"
    check_space(folder, size)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _write(partial, step, tensors, facts)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _sync(folder)
    except (OSError, SafetensorError) as error:  # a full disk inside safetensors is no OSError
        free = shutil.disk_usage(folder).free  # before what was half written is gone
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{folder}: checkpoint of step {step} not written ({reason}): {size} bytes needed, {free} bytes free; "
            "the one before is kept, mend the disk and run the same command again to go on"
        ) from None
    _purge(folder, final)


def check_space(folder: Path, size: int) -> None:
    """Refuse, before anything is written, a disk without room for a checkpoint of `size` bytes beside the one before.
    Raises `InputError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise InputError(f"{folder}: cannot write there ({error.strerror}); mend the disk and run again") from None
    needed = int(FREE_FACTOR * size)
    if free < needed:
        raise InputError(
            f"{folder}: {free} bytes free, a checkpoint needs {needed} bytes ({FREE_FACTOR} times its size); free some "
            "space and run the same command again to go on"
        )


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None. Those passed over are named, with the reason."""
    passed_over = False
    for path, manifest in _by_step(folder):
        try:
            found = _read(path, manifest)
        except (OSError, ValueError, SafetensorError) as error:
            say(f"{path}: checkpoint is not whole ({error}); using the one before")
            passed_over = True
            continue
        if passed_over:
            say(f"{path}: going on from here")
        return found
    if passed_over:
        say(f"{folder}: no whole checkpoint is left; starting from the beginning")
    return None


def _write(folder: Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    path = folder / TENSORS
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)
    _sync(path)
    files = {TENSORS: {"bytes": path.stat().st_size, "sha256": file_hash(path)}}
    body = {"step": step, "files": files, "facts": facts}
    (folder / MANIFEST).write_text(json.dumps({**body, "sha256": _digest(body)}), "utf-8")
    _sync(folder / MANIFEST)
    _sync(folder)


def _digest(body: dict[str, Any]) -> str:
    """Over all of a manifest but the digest itself."""
    rest = {name: value for name, value in body.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _manifest(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself. Raises `OSError` or `ValueError` where that is damaged."""
    text = (path / MANIFEST).read_text("utf-8")
    body = json.loads(text)
    known = isinstance(body, dict) and body.get("sha256") == _digest(body)
    if not known or json.dumps(body) != text:  # 1e-5 and 1E-5 are one number and two texts
        raise ValueError(f"{MANIFEST}: hash differs")
    for name, file in body["files"].items():
        found = (path / name).stat().st_size
        if found != file["bytes"]:
            raise ValueError(f"{name}: {found} bytes, written were {file['bytes']}")
    return body


def _by_step(folder: Path) -> list[tuple[Path, dict[str, Any] | Exception]]:
    """Every checkpoint with its manifest, the newest first; before them those whose manifest cannot be trusted."""
    found: list[tuple[float, Path, dict[str, Any] | Exception]] = []
    for path in sorted(folder.glob("step-*")):
        try:
            manifest = _manifest(path)
            found.append((manifest["step"], path, manifest))
        except (OSError, ValueError) as error:
            found.append((float("inf"), path, error))
    return [(path, manifest) for _, path, manifest in sorted(found, key=lambda item: item[0], reverse=True)]


def _read(path: Path, manifest: dict[str, Any] | Exception) -> Checkpoint:
    if isinstance(manifest, Exception):
        raise manifest
    for name, file in manifest["files"].items():
        if file_hash(path / name) != file["sha256"]:
            raise ValueError(f"{name}: hash differs")
    return manifest["step"], load_file(path / TENSORS), manifest["facts"]


def _purge(folder: Path, written: Path) -> None:
    """Keep what was just written and the one before it. Later ones are damaged, or the run would have gone on from
    them; a damaged one never takes a good one's place."""
    order = _by_step(folder)
    place = [path for path, _ in order].index(written)
    sound = [path for path, manifest in order[place:] if not isinstance(manifest, Exception)]
    for path, _ in order:
        if path not in sound[:KEEP]:
            shutil.rmtree(path, ignore_errors=True)  # one that will not go must not end the run


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
