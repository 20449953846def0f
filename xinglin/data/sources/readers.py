"""The rows of a file whose container is known.

A row is one item of a JSON list or object, one line of JSON lines or TSV, one CSV record, one sentence of a
character-per-line file, one section of a book, one block of plain text. Lines, CSV and TSV are streamed.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from xinglin.data.sources import books, excel
from xinglin.data.sources.containers import Container, lines, try_json, try_literal, try_objects, whole
from xinglin.records import InputError

MAX_FIELD = 16 * 2**20
csv.field_size_limit(MAX_FIELD)  # the default refuses a discharge record of over 131,072 characters
WRAPPERS = ("data", "records", "items", "examples", "rows", "results", "train", "dev", "test")


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that could not be parsed; `reason` holds no text of it."""

    reason: str


def rows(container: Container) -> Iterator[tuple[int, Any]]:
    """(row number, value) of every row: a dict, a list, or `Broken`. Streams where the container allows it."""
    found = 0
    for number, value in _READERS[container.kind](container):
        found += 1
        yield number, value
    if not found:
        raise InputError(f"{container.path}: 0 records; the file holds a header or blank lines only")


def _json_rows(container: Container) -> Iterator[tuple[int, Any]]:
    text = whole(container.path, container.encoding)
    value = try_json(text)
    if value is None:
        value = try_objects(text)
    yield from _items(value)


def _literal_rows(container: Container) -> Iterator[tuple[int, Any]]:
    yield from _items(try_literal(whole(container.path, container.encoding)))


def _items(value: Any) -> Iterator[tuple[int, Any]]:
    if isinstance(value, dict):
        inner = next((value[key] for key in WRAPPERS if _is_rows(value.get(key))), None)
        if inner is not None:
            value = inner
        elif value and all(isinstance(item, dict) for item in value.values()):
            value = [{"_key": key, **item} for key, item in value.items()]
        else:
            value = [value]
    yield from enumerate(value, 1)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _jsonl_rows(container: Container) -> Iterator[tuple[int, Any]]:
    parse = try_literal if container.kind == "python literal lines" else try_json
    for number, line in enumerate(lines(container.path, container.encoding), 1):
        if not line.strip():
            continue
        value = parse(line)
        if value is None and not line.endswith("\n"):
            raise InputError(f"{container.path}:{number}: file ends inside a record; it was cut: fetch it again")
        yield number, Broken("broken_json") if value is None else value


def _csv_rows(container: Container) -> Iterator[tuple[int, Any]]:
    path, seen = container.path, [""]

    def remember() -> Iterator[str]:
        for line in lines(path, container.encoding, newline=""):
            seen.append(line)
            yield line

    reader = csv.reader(remember())
    width, start, record = 0, 1, []
    if container.header is not None:
        width, start = len(next(reader)), reader.line_num + 1
    try:
        for record in reader:
            if record:
                width = width or len(record)
                yield start, _cells(container.header, record, width)
            start, last, seen[:] = reader.line_num + 1, "".join(seen), []
    except csv.Error:
        most = f"or a field is over {MAX_FIELD >> 20} Mi characters"
        raise InputError(f"{path}:{start}: a quote opened here is not closed, {most}; repair that row") from None
    if record and _is_cut(record, width, last):
        raise InputError(f"{path}:{start - 1}: file ends inside a record; it was cut: fetch it again")


def _is_cut(record: list[str], width: int, text: str) -> bool:
    if len(record) < width and not text.endswith(("\n", "\r")):
        return True
    try:
        list(csv.reader(text.splitlines(keepends=True), strict=True))
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def _tsv_rows(container: Container) -> Iterator[tuple[int, Any]]:
    width = 0
    for number, line in enumerate(lines(container.path, container.encoding), 1):
        if not line.strip():
            continue
        cells = [_unquote(cell) for cell in line.rstrip("\n").split("\t")]
        width = width or len(cells)
        if len(cells) < width and not line.endswith("\n"):
            raise InputError(f"{container.path}:{number}: file ends inside a record; it was cut: fetch it again")
        if number > 1 or container.header is None:
            yield number, _cells(container.header, cells, width)


def _unquote(cell: str) -> str:
    """Some TSV writers quote as CSV does; a lone quote is text."""
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def _cells(header: tuple[str, ...] | None, cells: list[str], width: int) -> Any:
    if len(cells) != width:
        return Broken(f"columns_found_{min(len(cells), 99)}_expected_{width}")
    if any("E+1" in cell and re.fullmatch(r"\d\.\d+E\+1[4-9]", cell) for cell in cells):
        return Broken("id_damaged_by_excel")
    return cells if header is None else dict(zip(header, cells, strict=True))


def _xlsx_rows(container: Container) -> Iterator[tuple[int, Any]]:
    """All visible sheets, each with a header of its own; row numbers go on from sheet to sheet."""
    before = 0
    for sheet in excel.sheets(container.path):
        number = 0
        for number, row in excel.sheet_rows(container.path, sheet, Counter()):
            cells = [excel.cell_text(value) for value in row.values()]
            yield before + number, _cells(sheet.header, cells, len(cells))
        before += number


def _tagged_rows(container: Container) -> Iterator[tuple[int, Any]]:
    start, chars, tags = 1, list[str](), list[str]()
    for number, line in enumerate(itertools.chain(lines(container.path, container.encoding), ["\n"]), 1):
        parts = line.split()
        if parts and not chars:
            start = number
        if parts:
            chars.append(parts[0] if len(parts) > 1 else " ")  # a blank is itself a character of the text
            tags.append(parts[-1])
        elif chars:
            yield start, {"chars": chars, "tags": tags}
            chars, tags = [], []


def _book_rows(container: Container) -> Iterator[tuple[int, Any]]:
    yield from enumerate(books.sections(whole(container.path, container.encoding)), 1)


def _text_rows(container: Container) -> Iterator[tuple[int, Any]]:
    """Blocks between blank lines; without blank lines, every line is a row."""
    blocks = any(not line.strip() for line in itertools.islice(lines(container.path, container.encoding), 10_000))
    start, block = 1, list[str]()
    for number, line in enumerate(itertools.chain(lines(container.path, container.encoding), [""]), 1):
        if line.strip() and not block:
            start = number
        if line.strip():
            block.append(line.strip("\r\n"))
        if block and (not blocks or not line.strip()):
            yield start, {"text": books.unwrap(block)}
            block = []


_READERS = {
    "json list": _json_rows,
    "json object": _json_rows,
    "json lines": _jsonl_rows,
    "python literal": _literal_rows,
    "python literal lines": _jsonl_rows,
    "csv": _csv_rows,
    "tsv": _tsv_rows,
    "xlsx": _xlsx_rows,
    "tagged characters": _tagged_rows,
    "book": _book_rows,
    "text": _text_rows,
}
