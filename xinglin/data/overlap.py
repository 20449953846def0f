"""Contamination: which items of a test stand in the training data, and which rows of the training data hold them.

An item overlaps with a data set when one row of it
    exact    has a text (question, message, line) with the same normal form, or
    ngram    holds at least `threshold` of the item's distinct 13-character n-grams (n as in arXiv:2005.14165, app. C;
             characters, because Chinese has no spaces).
Items whose n-grams are found in several rows together, but in no single one, are counted apart as `piecewise`.
N-grams of more than 20 items of one test are its template ("the following statement about ...") and count for no item.
Equal items of one test are one. An item shorter than 13 characters is found by equality alone; one shorter than 26 that
was changed in its middle has no n-gram left and is not found.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xinglin.data import shingles
from xinglin.data.shingles import I64, U64
from xinglin.data.spread import Chunk, chunks_of, lines_of, records_of
from xinglin.data.texts import answer_of, normal, pieces_of, question_of
from xinglin.records import InputError
from xinglin.run import check_disjoint

NUM_CHARS = 13
TEMPLATE_ITEMS = 20
SIEVE_BITS = 24


@dataclass(frozen=True, slots=True)
class Hit:
    """A test item in a data set. `share` of its n-grams stands in row `row`; `ids` are the equal items' ids."""

    data: str
    test: str
    ids: tuple[str, ...]
    how: str
    share: float
    row: str


@dataclass(slots=True)
class Found:
    """`drops`: file and byte offset of each training row that overlaps -> why, the test, the item, its share."""

    threshold: float
    table: list[dict[str, Any]] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=list)
    drops: dict[tuple[Path, int], dict[str, Any]] = field(default_factory=dict)
    num_rows: int = 0

    def summary(self) -> dict[str, Any]:
        """One JSON object: counts of rows, the table, every hit. Ids and numbers, no text."""
        reasons = Counter(f"overlap with {drop['test']} ({drop['reason']})" for drop in self.drops.values())
        items = [{name: getattr(hit, name) for name in Hit.__slots__} for hit in self.hits]
        return {
            "read": self.num_rows,
            "accepted": self.num_rows - len(self.drops),
            "rejected": dict(reasons.most_common()),
            "threshold": self.threshold,
            "num_chars": NUM_CHARS,
            "table": self.table,
            "items": items,
        }


def find_overlap(train: Sequence[Path], tests: Sequence[Path], *, threshold: float = 0.3) -> Found:
    """Overlap of every training file with every test, and of every test with those after it.

    Raises `InputError` for a threshold outside (0, 1], a file that is on both sides, or a bad line.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"threshold is {threshold:g}; allowed: above 0, up to 1")
    for path in train:
        for test in tests:
            check_disjoint(path, test)
    items = _Items(tests, _labels((*train, *tests)))
    found = Found(threshold)
    for path in (*train, *tests[:-1]):
        scan = _Scan(items, path, found, is_train=path in train)
        for chunk in chunks_of([path]):
            scan.read(chunk)
        scan.close()
    return found


def _labels(paths: Sequence[Path]) -> dict[Path, str]:
    """File names; the folder before those that several files have: `exam/test.jsonl`."""
    names = Counter(path.name for path in set(paths))
    return {path: path.name if names[path.name] == 1 else f"{path.parent.name}/{path.name}" for path in paths}


def drop_overlap(found: Found, train: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write the training rows that overlap with no test to `out`, and the others beside it with the reason and the
    test's name (OUT-overlap.jsonl); where they are."""
    aside = out.with_name(f"{out.stem}-overlap.jsonl")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = {path: path.with_name(path.name + ".partial") for path in (out, aside)}
    with partial[out].open("w", encoding="utf-8") as kept, partial[aside].open("w", encoding="utf-8") as dropped:
        for chunk in chunks_of(train):
            for _, offset, line in lines_of(chunk):
                if drop := found.drops.get((chunk.path, offset)):
                    body = {**drop, "file": chunk.path.name, "record": json.loads(line)}
                    dropped.write(json.dumps(body, ensure_ascii=False) + "\n")
                else:
                    kept.write(line + "\n")
    for path in (aside, out):
        partial[path].replace(path)
    return {"written": str(out), "aside": str(aside)}


# --- the tests -------------------------------------------------------------------------------------------------------


class _Items:
    """The distinct items of all tests: by normal form, and by n-gram."""

    def __init__(self, tests: Sequence[Path], labels: Mapping[Path, str]) -> None:
        self.tests, self.labels = tests, labels
        self.num_items: Counter[int] = Counter()
        self.by_text: dict[str, list[int]] = defaultdict(list)
        self.ids: list[list[str]] = []
        test_of: list[int] = []
        texts: list[str] = []
        for number, path in enumerate(tests):
            known: dict[str, int] = {}
            for chunk in chunks_of([path]):
                for _, record in records_of(chunk):
                    text = normal(question_of(record))
                    self.num_items[number] += 1
                    if text and text not in known:
                        known[text] = len(texts)
                        self.by_text[text].append(len(texts))
                        texts.append(text)
                        test_of.append(number)
                        self.ids.append([])
                    if text:
                        self.ids[known[text]].append(record.id)
        if not texts:
            raise InputError(f"{tests[0]}: no item with a question in {len(tests)} test file(s); give JSONL of records")
        self.test_of = np.array(test_of, np.int64)
        self._index(texts)

    def _index(self, texts: Sequence[str]) -> None:
        """`grams`: all hashes, sorted; the items of gram g are `items[bounds[g]:bounds[g + 1]]`."""
        long = [number for number, text in enumerate(texts) if len(text) >= NUM_CHARS]
        points, lengths = shingles.normal_points([texts[number] for number in long])
        pairs = np.empty((0, 2), np.uint64)
        if long:
            owners = np.repeat(np.array(long, np.uint64), lengths)
            pairs = np.unique(np.stack([shingles.hashes(points, lengths, NUM_CHARS), owners], axis=1), axis=0)
        pairs = pairs[~self._is_template(pairs)]
        new = shingles.first_of_equal(pairs[:, 0])
        self.grams: U64 = pairs[new, 0]
        self.items: I64 = pairs[:, 1].astype(np.int64)
        self.bounds = np.append(np.flatnonzero(new), len(pairs))
        self.num_grams = np.bincount(self.items, minlength=len(texts))
        self.sieve = np.zeros(1 << SIEVE_BITS, np.bool_)
        self.sieve[self.grams >> np.uint64(64 - SIEVE_BITS)] = True

    def _is_template(self, pairs: U64) -> Any:
        """Which (gram, item) pairs are of a gram that more than `TEMPLATE_ITEMS` items of one test have."""
        if not len(pairs):
            return np.zeros(0, np.bool_)
        keys = np.stack([pairs[:, 0], self.test_of[pairs[:, 1].astype(np.int64)].astype(np.uint64)], axis=1)
        _, place, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        return counts[place.ravel()] > TEMPLATE_ITEMS

    def places(self, found: U64) -> tuple[I64, I64]:
        """Where in `found` a gram of the tests stands, and which one."""
        maybe = np.flatnonzero(self.sieve[found >> np.uint64(64 - SIEVE_BITS)])
        if not len(self.grams):
            return maybe[:0], maybe[:0]
        place = np.minimum(np.searchsorted(self.grams, found[maybe]), len(self.grams) - 1)
        true = self.grams[place] == found[maybe]
        return maybe[true], place[true]


# --- the data --------------------------------------------------------------------------------------------------------


class _Scan:
    """One data file against the tests (those after it, where it is a test itself)."""

    def __init__(self, items: _Items, path: Path, found: Found, *, is_train: bool) -> None:
        self.items, self.path, self.found, self.is_train = items, path, found, is_train
        number = -1 if is_train else list(items.tests).index(path)
        self.wanted = items.test_of > number
        self.best = np.zeros(len(items.ids))
        self.best_row = [""] * len(items.ids)
        self.exact = np.zeros(len(items.ids), np.bool_)
        self.seen = np.zeros(len(items.grams), np.bool_)

    def read(self, chunk: Chunk) -> None:
        rows = list(records_of(chunk))
        self.found.num_rows += len(rows) if self.is_train else 0
        whole = []
        for offset, record in rows:
            equal = {n for text in {normal(t) for t in pieces_of(record)} for n in self.items.by_text.get(text, ())}
            for item in sorted(equal):
                if self.wanted[item]:
                    self.exact[item] = True
                    self._note(item, offset, record.id, "exact", 1.0)
            whole.append(f"{question_of(record)}\n{answer_of(record)}")
        for row, item, share in self._shares(whole):
            offset, record = rows[row]
            if self.wanted[item]:
                self._note(item, offset, record.id, "ngram", share)

    def _shares(self, texts: Sequence[str]) -> list[tuple[int, int, float]]:
        """(row, item, share) wherever a row holds any n-gram of an item."""
        points, lengths = shingles.padded(*shingles.normal_points(texts), NUM_CHARS)
        if not len(lengths):
            return []
        places, grams = self.items.places(shingles.hashes(points, lengths, NUM_CHARS))
        self.seen[grams] = True
        rows = np.searchsorted(np.cumsum(lengths), places, "right")
        pairs = np.unique(np.stack([rows, grams], axis=1), axis=0) if len(rows) else np.empty((0, 2), np.int64)
        counts = np.diff(self.items.bounds)[pairs[:, 1]]
        owners = self.items.items[np.repeat(self.items.bounds[pairs[:, 1]], counts) + shingles.within(counts)]
        keys, hits = np.unique(np.repeat(pairs[:, 0], counts) * len(self.best) + owners, return_counts=True)
        row, item = keys // len(self.best), keys % len(self.best)
        return list(zip(row.tolist(), item.tolist(), (hits / self.items.num_grams[item]).tolist(), strict=True))

    def _note(self, item: int, offset: int, row_id: str, how: str, share: float) -> None:
        if share > self.best[item]:
            self.best[item], self.best_row[item] = share, row_id
        if not self.is_train or share < self.found.threshold:
            return
        test = self.items.labels[self.items.tests[self.items.test_of[item]]]
        drop = {"reason": how, "test": test, "item": self.items.ids[item][0], "share": round(share, 4)}
        self.found.drops.setdefault((self.path, offset), drop)

    def close(self) -> None:
        """The rows of the table, and the hits."""
        union = np.bincount(
            self.items.items, np.repeat(self.seen, np.diff(self.items.bounds)), minlength=len(self.best)
        ) / np.maximum(self.items.num_grams, 1)
        found = self.best >= self.found.threshold
        for number, test in enumerate(self.items.tests):
            mine = (self.items.test_of == number) & self.wanted
            if not self.is_train and number <= list(self.items.tests).index(self.path):
                continue
            hits = np.flatnonzero(mine & found)
            num_items = sum(len(self.items.ids[item]) for item in hits)
            self.found.table.append(
                {
                    "data": self.items.labels[self.path],
                    "test": self.items.labels[test],
                    "items": self.items.num_items[number],
                    "distinct": int(mine.sum()),
                    "exact": int((self.exact & mine).sum()),
                    "ngram": int((found & ~self.exact & mine).sum()),
                    "overlap": num_items,
                    "share": round(num_items / max(self.items.num_items[number], 1), 6),
                    "piecewise": int((mine & ~found & (union >= self.found.threshold)).sum()),
                }
            )
            for item in hits.tolist():
                how = "exact" if self.exact[item] else "ngram"
                ids, share = tuple(self.items.ids[item]), round(float(self.best[item]), 4)
                self.found.hits.append(
                    Hit(self.items.labels[self.path], self.items.labels[test], ids, how, share, self.best_row[item])
                )
