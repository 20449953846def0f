"""Exact and near duplicates among millions of texts, in memory that a setting bounds.

    prepare      texts -> digests, band keys, code points of their normal forms   (a map: any number of workers)
    Store        what was prepared, one file for each column, in a temporary folder
    find_groups  equal digests; then band after band: rows with an equal key are candidates, their true Jaccard
                 similarity is counted, and those at the threshold or above are joined (union-find)

Exact means equal normal form (texts.py). Near means Jaccard of sets of character 5-grams; the bands propose, the count
decides, so that a false candidate costs time and nothing else. A group is what is connected: its ends may be less alike
than the threshold, and the similarity of every dropped row to the one that stays is given.
A text without a letter or digit is never a duplicate.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from xinglin.data import shingles
from xinglin.data.shingles import I64, U64
from xinglin.data.spread import Arrays, Chunk, Engine, chunks_of, lines_of, map_chunks, records_of
from xinglin.data.texts import answer_of, question_of
from xinglin.records import InputError
from xinglin.run import file_hash, write_text

Keep = Literal["first", "longest"]
On = Literal["question", "answer", "pair"]
KINDS: tuple[On, ...] = ("question", "answer", "pair")
ASIDE = "duplicates.jsonl"
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
NO_TEXT = bytes(16)
MOST_LEADERS = 64
"""Members of one bucket that all later ones are compared with; pairs that this leaves out are counted."""
MOST_PAIRS, MOST_POINTS = 4096, 1 << 20  # pairs, and their characters, that are verified at a time
ROW_BYTES = 100  # memory for each row: its digests while they are sorted, where its text stands, its group
CANDIDATE_BYTES = 64
READ_ROWS = 1 << 18


@dataclass(frozen=True, slots=True)
class Groups:
    """`kept[i]` is the row that stays in place of row i: i itself where it stays.

    `exact[i]`: row i has the same normal form as the row that stays; `similarity[i]`: its Jaccard similarity to it.
    `compared`: pairs whose similarity was counted; `left_out`: pairs in huge buckets that were not compared.
    """

    kept: I64
    exact: Bools
    similarity: Floats
    empty: int
    compared: int
    left_out: int


def find_duplicates(
    texts: Iterable[str], *, near: float = 0.8, keep: Keep = "first", memory_mb: int = 1024, folder: Path | None = None
) -> Groups:
    """Groups of texts that are equal, or alike to `near` (Jaccard similarity; 0: equal ones only).

    Columns are spilled to a temporary folder inside `folder`. `InputError` for a threshold outside 0.3 to 1, or where
    `memory_mb` cannot hold `ROW_BYTES` for each row twice.
    """
    rows = iter(texts)
    with open_store(folder) as store:
        while batch := list(islice(rows, 1024)):
            store.add(prepare(batch, near))
        return find_groups(store, near=near, keep=keep, memory_mb=memory_mb)


def prepare(texts: Sequence[str], near: float, *, fields: int = 1, compared: int = 0) -> Arrays:
    """Columns of some rows. `texts` holds `fields` texts for each row, one after the other.

    There is a digest of every field and, where there are more than one, of the whole row as the last; `compared` is the
    number of the one in which near duplicates are looked for. `InputError` for a threshold that is not allowed.
    """
    if near and not 0.3 <= near <= 1:
        raise InputError(f"near is {near:g}; allowed: 0 (exact duplicates only) or a Jaccard similarity of 0.3 to 1")
    points, sizes = shingles.normal_points(texts)
    starts, sizes = (column.reshape(-1, fields) for column in (shingles.starts_of(sizes), sizes))
    spans = [(starts[:, n], sizes[:, n]) for n in range(fields)]
    if fields > 1:
        spans.append((starts[:, 0], sizes.sum(axis=1)))
    columns: Arrays = {f"digests{n}": _digests(points, *span) for n, span in enumerate(spans)}
    begins, lengths = spans[compared]
    columns["chars"] = lengths
    if near:
        chosen = points[np.repeat(begins, lengths) + shingles.within(lengths)] if fields > 1 else points
        columns |= _sketches(*shingles.padded(chosen, lengths), *shingles.bands_for(near))
    return columns


def _sketches(points: NDArray[np.uint32], lengths: I64, bands: int, rows: int) -> Arrays:
    keys = np.empty((bands, len(lengths)), np.uint64)
    ends = np.cumsum(lengths)
    for start, stop in shingles.blocks(lengths):
        sizes = lengths[start:stop]
        found = shingles.hashes(points[ends[start] - sizes[0] : ends[stop - 1]], sizes)
        keys[:, start:stop] = shingles.band_keys(found, sizes, bands, rows)
    return {"points": points, "lengths": lengths, **{f"band{number}": column for number, column in enumerate(keys)}}


def _digests(points: NDArray[np.uint32], starts: I64, lengths: I64) -> NDArray[np.uint64]:
    """Two 64-bit numbers for each span; zeros for an empty one."""
    spans = zip((4 * starts).tolist(), (4 * (starts + lengths)).tolist(), strict=True)
    body = memoryview(points.tobytes())
    found = b"".join(
        hashlib.blake2b(body[start:stop], digest_size=16).digest() if stop > start else NO_TEXT for start, stop in spans
    )
    return np.frombuffer(found, np.uint64).reshape(-1, 2)


# --- columns on disk -------------------------------------------------------------------------------------------------


class Store:
    """Columns that grow batch by batch, each in a file of its own."""

    def __init__(self, folder: Path, files: ExitStack) -> None:
        self.folder, self._open = folder, files
        self._files: dict[str, BinaryIO] = {}
        self.num_rows = 0

    def add(self, columns: Arrays) -> None:
        """The columns of the next rows."""
        self.num_rows += len(columns["chars"])
        for name, values in columns.items():
            if name not in self._files:
                self._files[name] = self._open.enter_context((self.folder / name).open("wb", buffering=0))
            self._files[name].write(np.ascontiguousarray(values).data)

    def read(self, name: str, dtype: Any, start: int = 0, count: int = -1) -> NDArray[Any]:
        """`count` items of a column from item `start` on."""
        return np.fromfile(self.folder / name, dtype, count, offset=start * np.dtype(dtype).itemsize)

    def points(self) -> NDArray[np.uint32]:
        return np.memmap(self.folder / "points", np.uint32, "r")


@contextmanager
def open_store(folder: Path | None = None) -> Iterator[Store]:
    """An empty store in a temporary folder, which goes in the end: it holds the texts' normal forms."""
    with tempfile.TemporaryDirectory(prefix=".dedup-", dir=folder) as name, ExitStack() as files:
        yield Store(Path(name), files)


# --- groups ----------------------------------------------------------------------------------------------------------


def find_groups(store: Store, *, near: float, keep: Keep = "first", memory_mb: int = 1024, compared: int = 0) -> Groups:
    """The groups of everything in the store. `compared` is the number of the text that counts, as for `prepare`."""
    budget = memory_mb << 20
    if store.num_rows * ROW_BYTES * 2 > budget:
        needed = math.ceil(store.num_rows * ROW_BYTES * 2 / (1 << 20))
        raise InputError(f"{store.num_rows} rows do not fit --memory-mb {memory_mb}; give {needed} or more")
    if not store.num_rows:
        return Groups(np.empty(0, np.int64), np.empty(0, np.bool_), np.empty(0), 0, 0, 0)
    first, empty = first_equal(store, compared)
    search = _Search(store, first.copy()) if near else None
    if search:
        fresh = (first == np.arange(len(first))) & ~empty
        parts = math.ceil(int(fresh.sum()) * CANDIDATE_BYTES / (budget / 2))
        for band in range(shingles.bands_for(near)[0]):
            for part in range(parts):
                search.join_alike(*_buckets(store, band, fresh, part, parts), near)
    parent = search.parent if search else first
    kept = _stays(roots_of(parent, np.arange(len(first))), store.read("chars", np.int64), keep)
    exact = first == first[kept]
    similarity = np.ones(len(first))
    if search and not exact.all():
        others = np.flatnonzero(~exact)
        similarity[others] = search.similarities(first[kept[others]], first[others])
    counts = (search.compared, search.left_out) if search else (0, 0)
    return Groups(kept, exact, similarity, int(empty.sum()), *counts)


def first_equal(store: Store, number: int) -> tuple[I64, Bools]:
    """For each row the first row with an equal text `number`, and which rows have none; an empty one equals itself."""
    high, low = store.read(f"digests{number}", np.uint64).reshape(-1, 2).T.copy()
    order = np.lexsort((low, high))
    sorted_high, sorted_low = high[order], low[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (sorted_high[1:] != sorted_high[:-1]) | (sorted_low[1:] != sorted_low[:-1])
    first = np.empty(len(order), np.int64)
    first[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]  # lexsort is stable
    empty = (high == 0) & (low == 0)
    return np.where(empty, np.arange(len(order)), first), empty


def roots_of(parent: I64, rows: I64) -> I64:
    """The first row of the group of each of `rows`."""
    found = parent[rows]
    while not np.array_equal(up := parent[found], found):
        found = up
    return found


def _unite(parent: I64, left: I64, right: I64) -> None:
    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        while parent[a] != a:
            parent[a] = a = parent[parent[a]]
        while parent[b] != b:
            parent[b] = b = parent[parent[b]]
        parent[max(a, b)] = min(a, b)


def _stays(roots: I64, chars: I64, keep: Keep) -> I64:
    """The row that stays for each row: the first of its group, or the longest (of equally long ones the first)."""
    if keep == "first":
        return roots
    order = np.lexsort((-chars, roots))
    longest = np.empty(len(roots), np.int64)
    new = np.flatnonzero(np.diff(roots[order], prepend=-1))
    longest[roots[order[new]]] = order[new]
    return longest[roots]


def _buckets(store: Store, band: int, fresh: Bools, part: int, parts: int) -> tuple[I64, I64, I64]:
    """Rows that share a key of the band with another: the rows, bucket by bucket, each bucket's start and size.

    A part is the keys with one remainder; where all rows of a band do not fit, the parts come one after the other.
    """
    keys, rows = [], []
    for start in range(0, store.num_rows, READ_ROWS):
        column = store.read(f"band{band}", np.uint64, start, READ_ROWS)
        chosen = fresh[start : start + READ_ROWS] & (column % np.uint64(parts) == part)
        keys.append(column[chosen])
        rows.append(np.flatnonzero(chosen) + start)
    column, row = np.concatenate(keys), np.concatenate(rows)
    order = np.argsort(column, kind="stable")
    column, row = column[order], row[order]
    starts = np.flatnonzero(np.concatenate([[True], column[1:] != column[:-1]])) if len(column) else row
    sizes = np.diff(starts, append=len(row))
    return row, starts[sizes > 1], sizes[sizes > 1]


class _Search:
    """Joins candidates that are alike. `parent` is the forest of groups; the root of a tree is its first row."""

    def __init__(self, store: Store, parent: I64) -> None:
        self.parent = parent
        self.lengths = store.read("lengths", np.int64)
        self.starts = shingles.starts_of(self.lengths)
        self.points = store.points()
        self.compared = self.left_out = 0

    def join_alike(self, rows: I64, starts: I64, sizes: I64, near: float) -> None:
        """Compare each bucket's first member with all others, then its second, until all of it is one group."""
        for turn in range(MOST_LEADERS):
            counts = sizes - turn - 1
            leaders = np.repeat(starts + turn, counts)
            members = leaders + 1 + shingles.within(counts)
            left, right = rows[leaders], rows[members]
            apart = roots_of(self.parent, left) != roots_of(self.parent, right)
            open_ = np.add.reduceat(apart, shingles.starts_of(counts)) > 0 if len(counts) else counts > 0
            left, right = left[apart], right[apart]
            alike = self.similarities(left, right) >= near
            _unite(self.parent, left[alike], right[alike])
            self.compared += len(left)
            starts, sizes = (x[open_ & (counts > 1)] for x in (starts, sizes))
            if not len(sizes):
                return
        rest = sizes - MOST_LEADERS
        self.left_out += int((rest * (rest - 1) // 2).sum())

    def similarities(self, left: I64, right: I64) -> Floats:
        """The true Jaccard similarity of each pair of rows."""
        found = np.empty(len(left))
        ends = np.cumsum(self.lengths[left] + self.lengths[right])
        start = 0
        while start < len(left):
            most = int(np.searchsorted(ends, (ends[start - 1] if start else 0) + MOST_POINTS, "right"))
            stop = min(max(most, start + 1), start + MOST_PAIRS)
            sides = (*self._hashed(left[start:stop]), *self._hashed(right[start:stop]))
            found[start:stop] = shingles.jaccard(*sides, stop - start)
            start = stop
        return found

    def _hashed(self, rows: I64) -> tuple[U64, I64]:
        """The hashes of some rows, and for each of them the place of its row in `rows`."""
        sizes = self.lengths[rows]
        places = np.repeat(self.starts[rows], sizes) + shingles.within(sizes)
        return shingles.hashes(self.points[places], sizes), np.repeat(np.arange(len(rows)), sizes)


# --- files of records ------------------------------------------------------------------------------------------------


def dedup_files(
    paths: Sequence[Path],
    out: Path,
    *,
    on: On = "pair",
    near: float = 0.8,
    keep: Keep = "first",
    memory_mb: int = 1024,
    engine: Engine = "local",
    workers: int = 1,
) -> dict[str, Any]:
    """Write each file without its duplicates into the folder `out`, the dropped rows beside (duplicates.jsonl), and
    manifest.json last; the summary. Duplicates are looked for over all files together, in their order.

    Raises `InputError` for two files of one name, a bad line, a threshold or a memory limit that cannot be.
    """
    names = [path.name for path in paths]
    if clash := next((name for name in names if names.count(name) > 1 or name in (ASIDE, "manifest.json")), None):
        raise InputError(f"{clash}: this name is taken in the output folder; rename the file, or give it alone")
    chunks = chunks_of(paths)
    out.mkdir(parents=True, exist_ok=True)
    with open_store(out) as store:
        work = partial(_prepare_chunk, near=near, compared=KINDS.index(on))
        for columns in map_chunks(work, chunks, engine=engine, workers=workers):
            if len(columns["chars"]):
                store.add(columns)
        if not store.num_rows:
            raise InputError(f"{paths[0]}: no records in {len(paths)} file(s); give JSONL files of records")
        groups = find_groups(store, near=near, keep=keep, memory_mb=memory_mb, compared=KINDS.index(on))
        firsts = {kind: first_equal(store, number)[0] for number, kind in enumerate(KINDS)}
        equal = {kind: int((first != np.arange(len(first))).sum()) for kind, first in firsts.items()}
        offsets = store.read("offsets", np.int64)
        files = np.repeat(np.arange(len(chunks)), store.read("rows", np.int64))
    written = _write(out, paths, chunks, groups, offsets, files)
    settings = {"on": on, "near": near, "keep": keep, "num_chars": shingles.NUM_CHARS}
    summary = {**settings, **_facts(groups), "equal": equal, "files": written}
    inputs = {path.name: file_hash(path) for path in paths}
    write_text(out / "manifest.json", json.dumps({**summary, "inputs": inputs}, ensure_ascii=False, indent=1))
    return summary


def _prepare_chunk(chunk: Chunk, near: float, compared: int) -> Arrays:
    texts: list[str] = []
    offsets = []
    for offset, record in records_of(chunk):
        texts += [question_of(record), answer_of(record)]
        offsets.append(offset)
    columns = prepare(texts, near, fields=2, compared=compared)
    return {**columns, "offsets": np.array(offsets, np.int64), "rows": np.array([len(offsets)])}


def _facts(groups: Groups) -> dict[str, Any]:
    dropped = groups.kept != np.arange(len(groups.kept))
    sizes = np.bincount(groups.kept)
    alike = groups.similarity[dropped & ~groups.exact]
    return {
        "read": len(groups.kept),
        "accepted": int((~dropped).sum()),
        "rejected": {"exact duplicate": int((dropped & groups.exact).sum()), "near duplicate": len(alike)},
        "groups": int((sizes > 1).sum()),
        "largest_group": int(sizes.max(initial=0)),
        "lowest_similarity": round(float(alike.min()), 4) if len(alike) else None,
        "empty": groups.empty,
        "compared": groups.compared,
        "left_out": groups.left_out,
    }


def _write(
    out: Path, paths: Sequence[Path], chunks: Sequence[Chunk], groups: Groups, offsets: I64, where: I64
) -> dict[str, int]:
    """The lines as they were, each into its file or aside."""
    counts = {path.name: 0 for path in paths}
    row = 0
    with ExitStack() as stack:
        files = {name: stack.enter_context((out / f"{name}.partial").open("wb")) for name in (*counts, ASIDE)}
        inputs = {path: stack.enter_context(path.open("rb")) for path in paths}
        for chunk in chunks:
            for _, _, line in lines_of(chunk):
                kept = int(groups.kept[row])
                if kept == row:
                    files[chunk.path.name].write(line.encode() + b"\n")
                    counts[chunk.path.name] += 1
                else:
                    source = inputs[chunks[where[kept]].path]
                    source.seek(offsets[kept])
                    aside = {
                        "reason": "exact duplicate" if groups.exact[row] else "near duplicate",
                        "kept": json.loads(source.readline().decode("utf-8-sig"))["id"],
                        "similarity": round(float(groups.similarity[row]), 4),
                        "file": chunk.path.name,
                        "record": json.loads(line),
                    }
                    files[ASIDE].write(json.dumps(aside, ensure_ascii=False).encode() + b"\n")
                row += 1
    for name in files:
        (out / f"{name}.partial").replace(out / name)
    return counts
