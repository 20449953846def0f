"""The same work on one core, on many, or on a Ray cluster, with the same result in the same order.

A JSONL file is cut at line borders into chunks that each worker reads by itself; a function turns a chunk into arrays
(`map_chunks`) or a line into lines (`map_rows`), and the results come back in the order of the file.

    engine="local"   this process, or `workers` processes of multiprocessing (spawn)
    engine="ray"     Ray Data; a running cluster by RAY_ADDRESS, where every node must see the files under the same path

A function must be picklable: a function of a module, or functools.partial of one with plain arguments.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xinglin.records import InputError, Record, from_json

Engine = Literal["local", "ray"]
Arrays = dict[str, NDArray[Any]]
ChunkFunction = Callable[["Chunk"], Arrays]
RowFunction = Callable[[str], Iterable[tuple[str, str]]]
CHUNK_BYTES = 1 << 20
"""Small enough that the arrays of a chunk stay in the cache."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines of a file: bytes `start` to `stop`; `line` is the number of the first one, from 1."""

    path: Path
    start: int
    stop: int
    line: int


def chunks_of(paths: Sequence[Path], size: int = CHUNK_BYTES) -> list[Chunk]:
    """The files cut at line borders. Raises `InputError` where a file is missing."""
    found: list[Chunk] = []
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such file; give a JSONL file of records (see `xinglin data import --help`)")
        with path.open("rb") as file:
            start, line = 0, 1
            while block := file.read(size):
                block += file.readline()
                found.append(Chunk(path, start, start + len(block), line))
                start, line = start + len(block), line + block.count(b"\n")
    return found


def lines_of(chunk: Chunk) -> Iterator[tuple[int, int, str]]:
    """(line number, byte offset, text) of every line that is not blank."""
    with chunk.path.open("rb") as file:
        file.seek(chunk.start)
        offset = chunk.start
        for number, raw in enumerate(file.read(chunk.stop - chunk.start).splitlines(keepends=True), chunk.line):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                where = f"{chunk.path}:{number}: byte {error.start}"
                raise InputError(f"{where} is not UTF-8; records are UTF-8 JSONL") from None
            if text.strip():
                yield number, offset, text
            offset += len(raw)


def records_of(chunk: Chunk) -> Iterator[tuple[int, Record]]:
    """(byte offset, record) of every line. Raises `InputError` with file and line."""
    for number, offset, text in lines_of(chunk):
        try:
            yield offset, from_json(text)
        except InputError as error:
            raise InputError(f"{chunk.path}:{number}: {error}") from None


def map_chunks(
    function: ChunkFunction, chunks: Sequence[Chunk], *, engine: Engine = "local", workers: int = 1
) -> Iterator[Arrays]:
    """`function` of every chunk, in order. An `InputError` of a worker is raised here as it was said there."""
    if engine not in ("local", "ray"):
        raise InputError(f"engine {engine!r} is not one of local, ray")
    if engine == "ray":
        results = _on_ray(function, chunks, workers)
    elif workers > 1 and len(chunks) > 1:
        results = _on_processes(function, chunks, workers)
    else:
        results = map(partial(_guarded, function), chunks)
    for arrays in results:
        if "input_error" in arrays:
            raise InputError(arrays["input_error"].tobytes().decode())
        yield arrays


def map_rows(
    function: RowFunction, paths: Sequence[Path], out: Path, *, engine: Engine = "local", workers: int = 1
) -> Counter[str]:
    """Every line of the files through `function`, into files of the folder `out`; the count of lines of each file.

    `function(line)` gives any number of (file name, line): a kept row, a rejected one beside it, both or none.
    """
    out.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        files: dict[str, io.BufferedWriter] = {}
        for arrays in map_chunks(partial(_rows, function), chunks_of(paths), engine=engine, workers=workers):
            for name, lines in arrays.items():
                if name not in files:
                    files[name] = stack.enter_context((out / f"{name}.partial").open("wb"))
                files[name].write(lines.tobytes())
                counts[name] += int(np.count_nonzero(lines == ord("\n")))
    for name in files:
        (out / f"{name}.partial").replace(out / name)
    return counts


def _rows(function: RowFunction, chunk: Chunk) -> Arrays:
    found: dict[str, list[str]] = {}
    for number, _, line in lines_of(chunk):
        try:
            for name, result in function(line):
                found.setdefault(name, []).append(result)
        except InputError as error:
            raise InputError(f"{chunk.path}:{number}: {error}") from None
    return {name: np.frombuffer(("\n".join(lines) + "\n").encode(), np.uint8) for name, lines in found.items()}


def _guarded(function: ChunkFunction, chunk: Chunk) -> Arrays:
    """A user's mistake travels as a result: an exception would come back wrapped, with a traceback in some log."""
    try:
        return function(chunk)
    except InputError as error:
        return {"input_error": np.frombuffer(str(error).encode(), np.uint8)}


def _on_processes(function: ChunkFunction, chunks: Sequence[Chunk], workers: int) -> Iterator[Arrays]:
    """At most two chunks for each worker wait, so that memory does not grow where the reader is the slower one."""
    waiting: deque[Any] = deque()
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for chunk in chunks:
            waiting.append(pool.submit(_guarded, function, chunk))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _on_ray(function: ChunkFunction, chunks: Sequence[Chunk], workers: int) -> Iterator[Arrays]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when Ray starts: no telemetry
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise InputError("--engine ray needs Ray Data: pip install 'xinglin[ray]', or use --engine local") from None
    with _ray_session(ray, workers):
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        rows = [
            {"path": str(chunk.path.resolve()), "start": chunk.start, "stop": chunk.stop, "line": chunk.line}
            for chunk in chunks
        ]
        if rows:
            data = ray.data.from_items(rows, override_num_blocks=len(rows))
            for batch in data.map_batches(partial(_ray_batch, function), batch_size=1).iter_rows():
                yield _unpacked(batch["arrays"])


def _ray_batch(function: ChunkFunction, batch: dict[str, Any]) -> dict[str, Any]:
    columns = zip(batch["path"], batch["start"], batch["stop"], batch["line"], strict=True)
    chunks = [Chunk(Path(path), int(start), int(stop), int(line)) for path, start, stop, line in columns]
    return {"arrays": [_packed(_guarded(function, chunk)) for chunk in chunks]}


def _packed(arrays: Arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _unpacked(body: bytes) -> Arrays:
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        return dict(arrays)


@contextlib.contextmanager
def _ray_session(ray: Any, workers: int) -> Iterator[None]:
    """A cluster that runs already (RAY_ADDRESS), or one of our own on this machine.

    Our own spills and logs into a folder that goes with it: rows of records must not stay behind in /tmp/ray.
    """
    if ray.is_initialized():
        yield
    elif address := os.environ.get("RAY_ADDRESS"):
        ray.init(address=address, log_to_driver=False)
        try:
            yield
        finally:
            ray.shutdown()
    else:
        short = "/tmp" if Path("/tmp").is_dir() else None  # the path of a socket has at most 107 bytes
        with tempfile.TemporaryDirectory(prefix="xl", dir=short, ignore_cleanup_errors=True) as folder:
            ray.init(
                num_cpus=max(workers, 1),
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                _node_ip_address="127.0.0.1",
                _temp_dir=folder,
                runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}},  # as spawn does
            )
            try:
                yield
            finally:
                ray.shutdown()
