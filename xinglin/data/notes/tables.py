"""Any source of notes as a table: names of columns, and numbered rows that are streamed.

A CSV, TSV, Excel or JSON file (gzip too), a folder of .txt and .docx files, a table or query of a database.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinglin.data.sources import excel
from xinglin.data.sources.containers import detect
from xinglin.data.sources.readers import rows
from xinglin.records import InputError

SQLITE = b"SQLite format 3\0"
TABLES = ("csv", "tsv", "json lines", "json list", "json object")
Numbered = Iterator[tuple[int, Any]]  # (row number, column -> value, or Broken)


@dataclass(frozen=True, slots=True)
class Table:
    """`place` is what messages call it, without a password. `rows(flags)` streams, and counts what it changed."""

    place: str
    kind: str
    names: tuple[str, ...]
    rows: Callable[[Counter[str]], Numbered]
    sheet: str = ""
    file_name: str = ""
    header_lines: tuple[str, ...] = ()

    def sample(self) -> Numbered:
        """The rows, for looking at the first of them."""
        return self.rows(Counter())


def open_table(
    source: Path | str,
    *,
    sheet: str = "",
    sql: str = "",
    file_name: str = "",
    header_lines: tuple[str, ...] = (),
    encoding: str | None = None,
) -> Table:
    """The table of a file, a folder or a database URL. Raises `InputError` for what cannot be read."""
    from xinglin.data.notes import folders
    from xinglin.data.notes import sql as databases

    if "://" in str(source):
        return databases.open_database(str(source), sql)
    path = Path(source)
    if path.is_dir():
        return folders.open_folder(path, file_name, header_lines, encoding)
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder; give a file, a folder of .txt or .docx, or a database URL")
    with path.open("rb") as file:
        if file.read(16) == SQLITE:
            return databases.open_database(f"sqlite:///{path}", sql)
    container = detect(path, encoding, table=True)
    if container.kind == "xlsx":
        return _excel(path, sheet)
    if container.kind not in TABLES:
        raise InputError(f"{path}: found {container.kind}; allowed: CSV, TSV, Excel, JSON lines, a folder, a database")
    names = container.header or _keys(itertools.islice(rows(container), 200))
    return Table(str(path), container.kind, names, lambda flags: rows(container))


def _keys(found: Numbered) -> tuple[str, ...]:
    """Names in the order in which they come; objects may leave some out."""
    return tuple(dict.fromkeys(str(name) for _, row in found if isinstance(row, dict) for name in row))


def _excel(path: Path, wanted: str) -> Table:
    found = excel.sheets(path)
    sheet = next((sheet for sheet in found if sheet.title == wanted), None) if wanted else found[0]
    if sheet is None:
        raise InputError(f"{path}: no sheet {wanted!r}; found: {', '.join(one.title for one in found)}")

    def stream(flags: Counter[str]) -> Numbered:
        flags["sheets_not_read"] += len(found) - 1
        flags["xlsx_with_another_suffix"] += path.suffix.lower() not in (".xlsx", ".xlsm")
        return excel.sheet_rows(path, sheet, flags)

    return Table(str(path), "xlsx", sheet.header, stream, sheet=sheet.title)


def as_text(value: Any) -> str:
    """A cell as text: lists by lines, objects as JSON, dates in ISO form."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "\n".join(value)
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return excel.cell_text(value)
