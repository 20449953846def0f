"""Synthetic exports as hospitals write them, for the tests of notes: made up, no person is in them."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import openpyxl

from xinglin.data.notes import Columns, NoteImport, propose_columns, read_notes

HEADER = ["患者ID", "姓名", "身份证号", "联系电话", "就诊日期", "主诉", "现病史"]
ROWS = [
    ["0012345", "王小明", "11010519491231002X", "13800138000", "2023-05-01", "头痛3天", "患者3天前无诱因头痛。"],
    ["0054321", "李建国", "440524188001010014", "13900139000", "2023-05-02", "咳嗽2天", "受凉后咳嗽，无发热。"],
]
CSV = "".join(",".join(row) + "\n" for row in [HEADER, *ROWS])


def confirmed(columns: Columns, **changes: Any) -> Columns:
    return dataclasses.replace(columns, confirmed=True, **changes)


def read(source: Path | str, **changes: Any) -> NoteImport:
    """An import of `source` through its own proposal, confirmed."""
    options = {key: changes.pop(key) for key in ("max_bad", "encoding", "name") if key in changes}
    proposal = {key: changes[key] for key in ("sheet", "sql", "file_name") if key in changes}
    return read_notes(source, confirmed(propose_columns(source, **proposal), **changes), **options)


def write_xlsx(path: Path, rows: list[list[Any]], title: str = "Sheet1") -> Path:
    book = openpyxl.Workbook()
    book.active.title = title
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def write_docx(path: Path, body: str, prolog: str = "") -> Path:
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    document = f'<w:document xmlns:w="{word}"><w:body>{body}</w:body></w:document>'
    xml = f'<?xml version="1.0" encoding="UTF-8"?>{prolog}{document}'
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", xml)
    return path


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def change_part(source: Path, part: str, change: Any) -> Path:
    """The same zip with one part rewritten by `change(bytes) -> bytes`."""
    with zipfile.ZipFile(source) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts[part] = change(parts[part])
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return source
