"""Excel workbooks (.xlsx, .xlsm) as rows of cells, streamed by openpyxl (extra: `xinglin[data]`).

No macro runs and no formula is computed: a formula gives the value that Excel saved with it. Merged cells all get the
value that is shown over them. Title rows above the header are left out. Each of these is counted in `flags`.
"""

from __future__ import annotations

import datetime
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinglin.data.sources import packed
from xinglin.records import InputError

MAX_ROWS = 1_048_576  # Excel's own limits
MAX_COLUMNS = 16_384
MAX_MERGED = 200_000
FORMULA = re.compile(rb"<(?:\w+:)?f[ />]")
MERGED = re.compile(rb"<(?:\w+:)?mergeCell ")
# What openpyxl raises for a workbook that breaks its own rules; messages of it may hold cells and are not shown.
UNSOUND = (KeyError, ValueError, TypeError, IndexError, AttributeError, SyntaxError, OSError, zipfile.BadZipFile)
Range = tuple[int, int, int, int]  # first row, last row, first column, last column

warnings.filterwarnings("ignore", module="openpyxl")  # its warnings quote cells


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet with something in it: where its header stands, and what it is called."""

    title: str
    header_row: int
    header: tuple[str, ...]


def sheets(path: Path) -> list[Sheet]:
    """Every visible sheet that has a header, in order. Raises `InputError` for what is no sound workbook."""
    found = []
    with _opened(path) as book:
        for title in _visible(book):
            for number, cells in _numbered(path, book[title]):
                texts = [_text(cell.value) for cell in cells]
                if len({text for text in texts if text}) > 1 or (number > 20 and any(texts)):
                    while texts and not texts[-1]:
                        texts.pop()
                    found.append(Sheet(title, number, column_names(texts)))
                    break
    if not found:
        raise InputError(f"{path}: 0 records; no visible sheet has a row with two columns")
    return found


def column_names(cells: list[str]) -> tuple[str, ...]:
    """Names of their own for all columns: `column_3` for a nameless one, `诊断_2` for the second of a name."""
    names: list[str] = []
    for number, cell in enumerate(cells, 1):
        name = re.sub(r"\s+", " ", cell).strip() or f"column_{number}"
        while name in names:
            name = f"{name}_2" if not (last := re.fullmatch(r"(.*)_(\d+)", name)) else f"{last[1]}_{int(last[2]) + 1}"
        names.append(name)
    return tuple(names)


def sheet_rows(path: Path, sheet: Sheet, flags: Counter[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(Excel's row number, column -> value) below the header; rows without any value are left out.

    A value is a str, int, float, bool, date or None. Numbers shown with leading zeros by a format like 00000000 are the
    text that Excel shows. `flags` counts formulas, formulas_without_value, merged_cells_filled, title_rows,
    error_cells and cells_beyond_header.
    """
    width = len(sheet.header)
    with _opened(path) as book:
        merged = _facts(path, book, sheet.title, flags)
        flags["title_rows"] += sheet.header_row - 1
        shown: dict[Range, Any] = {}
        for number, cells in _numbered(path, book[sheet.title]):
            if number <= sheet.header_row:
                continue
            values = [_value(cell, flags) for cell in cells[:width]]
            values += [None] * (width - len(values))
            _fill(merged, number, values, shown, flags)
            if any(value not in (None, "") for value in values):
                flags["cells_beyond_header"] += sum(cell.value is not None for cell in cells[width:])
                yield number, dict(zip(sheet.header, values, strict=True))


# --- openpyxl --------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The workbook, read only, once every part of it that is parsed was looked at."""
    try:
        import defusedxml.ElementTree  # noqa: F401  (openpyxl uses it when it is there)
        import openpyxl
    except ImportError:
        raise InputError(f"{path}: reading Excel needs openpyxl and defusedxml; pip install 'xinglin[data]'") from None
    _check_parts(path)
    with path.open("rb") as file:  # openpyxl judges a path by its suffix
        try:
            book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
        except UNSOUND as error:
            raise _unsound(path, error) from None
        yield book
        book.close()


def _check_parts(path: Path) -> None:
    with packed.open_zip(path) as archive:
        for name in archive.namelist():
            if name.endswith((".xml", ".rels")) and "/media/" not in name:
                is_sheet = "worksheets/" in name
                packed.check_xml(path, archive, name, packed.MAX_UNPACKED if is_sheet else packed.MAX_MEMBER)


def _unsound(path: Path, error: BaseException) -> InputError:
    return InputError(f"{path}: not a sound Excel workbook ({type(error).__name__}); open it in Excel and save it anew")


def _visible(book: Any) -> list[str]:
    return [sheet.title for sheet in book.worksheets if sheet.sheet_state == "visible"]


def _numbered(path: Path, sheet: Any) -> Iterator[tuple[int, tuple[Any, ...]]]:
    sheet.reset_dimensions()  # many exporters write a size of A1, and only that would be read
    rows = enumerate(sheet.iter_rows(), 1)
    while True:
        try:
            number, cells = next(rows)
        except StopIteration:
            return
        except UNSOUND as error:
            raise _unsound(path, error) from None
        if number > MAX_ROWS:
            raise InputError(f"{path}: a row beyond {MAX_ROWS}; no Excel sheet has more")
        yield number, cells


def _facts(path: Path, book: Any, title: str, flags: Counter[str]) -> list[Range]:
    """Counts the sheet's formulas and gives its merged ranges, by first row; openpyxl tells neither when streaming."""
    archive, name = book._archive, book[title]._worksheet_path
    formulas = merges = 0
    tail = b""
    for chunk in packed.member_chunks(path, archive, name):
        chunk = tail + chunk
        cut = chunk.rfind(b"<")
        formulas += len(FORMULA.findall(chunk[:cut]))
        merges += len(MERGED.findall(chunk[:cut]))
        tail = chunk[cut:]
    if merges > MAX_MERGED:
        raise InputError(f"{path}: {merges} merged ranges; allowed are {MAX_MERGED}: export the sheet without merging")
    flags["formulas"] += formulas
    return _merged_ranges(path, archive, name, flags) if formulas or merges else []


def _merged_ranges(path: Path, archive: zipfile.ZipFile, name: str, flags: Counter[str]) -> list[Range]:
    from defusedxml.ElementTree import iterparse
    from openpyxl.utils import range_boundaries

    found: list[Range] = []
    try:
        with archive.open(name) as member:
            for _, element in iterparse(member, forbid_dtd=True):
                tag = element.tag.rpartition("}")[2]
                if tag == "mergeCell":
                    left, top, right, bottom = range_boundaries(element.get("ref"))
                    found.append((top or 1, bottom or MAX_ROWS, left or 1, right or MAX_COLUMNS))
                elif tag == "c" and any(child.tag.endswith("}f") for child in element):
                    flags["formulas_without_value"] += not any(
                        child.tag.endswith("}v") and child.text for child in element
                    )
                if tag == "row":
                    element.clear()
    except UNSOUND as error:
        raise _unsound(path, error) from None
    return sorted(found, reverse=True)


def _fill(merged: list[Range], number: int, values: list[Any], shown: dict[Range, Any], flags: Counter[str]) -> None:
    """Put a merged range's one value into all its cells of this row. `shown` holds the ranges that are open."""
    for area in [area for area in shown if area[1] < number]:
        del shown[area]
    while merged and merged[-1][0] <= number:
        area = merged.pop()
        if area[0] == number and area[2] <= len(values):
            shown[area] = values[area[2] - 1]
    for (_, _, left, right), value in shown.items():
        for column in range(left - 1, min(right, len(values))):
            if values[column] is None and value is not None:
                values[column] = value
                flags["merged_cells_filled"] += 1


# --- values ----------------------------------------------------------------------------------------------------------


def _value(cell: Any, flags: Counter[str]) -> Any:
    value = cell.value
    if cell.data_type == "e":
        flags["error_cells"] += 1
        return None
    if isinstance(value, str):
        return value.replace("_x000D_", "")
    if type(value) is int and value >= 0 and cell.has_style and re.fullmatch("0{2,}", cell.number_format):
        return str(value).zfill(len(cell.number_format))
    return value


def _text(value: Any) -> str:
    return cell_text(value).strip()


def cell_text(value: Any) -> str:
    """A value as the text that a CSV of it would hold; dates in ISO form."""
    if value is None:
        return ""
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", "minutes")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
