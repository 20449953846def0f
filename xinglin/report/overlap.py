"""How much of each test stands in the training data: the matrix that the data stage wrote before training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from xinglin.report import words
from xinglin.report.folder import RunFolder, listing, mapping


def matrix(run: RunFolder) -> dict[str, Any]:
    """Training files x tests; a cell is (items of the test that stand there, their share)."""
    found = _found(run)
    rows = [mapping(row) for row in listing(found.get("table"))]
    tests = {str(row.get("test")): words.plain(row.get("items")) for row in rows}
    cells: dict[str, dict[str, tuple[int, str]]] = {}
    for row in rows:
        count = int(words.number(row.get("overlap")) or 0)
        cells.setdefault(str(row.get("data")), {})[str(row.get("test"))] = (count, words.share(row.get("share")))
    return {
        "tests": list(tests.items()),
        "rows": [(train, [found.get(test, (0, "—")) for test in tests]) for train, found in cells.items()],
        "not_compared": "、".join(str(name) for name in listing(found.get("not_compared"))),
    }


def caveats(run: RunFolder) -> Iterator[str]:
    for row in map(mapping, listing(_found(run).get("table"))):
        if row.get("overlap"):
            held = f"{row['overlap']} 题（{words.share(row.get('share'))}）出现在 {row.get('data')} 中"
            yield f"测试集 {row.get('test')} 有 {held}，分数可能偏高"


def _found(run: RunFolder) -> dict[str, Any]:
    return mapping(run.data.manifest.get("training_overlap")) if run.data else {}
