"""A folder of .txt and .docx files, one note each, as a table.

Patient and kind stand in the file's name (a pattern such as `{住院号}_{文书类型}`) or in the first lines of the text
(`住院号：0012345`). Rows are numbered by the sorted order of the files and messages give that number, because names of
files often hold names of patients.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xinglin.data.notes.tables import Numbered, Table
from xinglin.data.sources import packed
from xinglin.data.sources.containers import detect, lines
from xinglin.data.sources.readers import Broken
from xinglin.records import InputError

SUFFIXES = {".txt", ".docx"}
BODY = "正文"
HEADER_LINES = 40
MAX_NOTE = 16 * 2**20  # bytes of one file of text
MAX_DOCUMENT = 32 * 2**20  # bytes of word/document.xml, which is held as a tree
MAX_DEPTH = 100
USUAL = (
    "姓名",
    "性别",
    "年龄",
    "住院号",
    "门诊号",
    "病案号",
    "病历号",
    "登记号",
    "科室",
    "床号",
    "身份证号",
    "联系电话",
    "日期",
)


def open_folder(folder: Path, file_name: str, header_lines: tuple[str, ...], encoding: str | None) -> Table:
    """The notes under `folder`; links that leave it, hidden files and other suffixes are not read and counted."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    inside = [path for path in files if path.resolve().is_relative_to(folder.resolve())]
    notes = [path for path in inside if path.suffix.lower() in SUFFIXES]
    if not notes:
        raise InputError(f"{folder}: 0 records; no .txt or .docx file in it or below")
    pattern = _pattern(file_name) if file_name else None
    if not file_name and not header_lines:
        header_lines = _usual_headers(notes[:50], encoding)
    found = tuple(pattern.groupindex) if pattern else ()
    names = (*_braces(file_name), *(name for name in header_lines if name not in _braces(file_name)), BODY)

    def stream(flags: Counter[str]) -> Numbered:
        flags["links_leaving_the_folder"] += len(files) - len(inside)
        flags["files_of_another_kind"] += len(inside) - len(notes)
        for number, path in enumerate(notes, 1):
            try:
                text = read_text(path, encoding)
            except InputError as error:
                yield number, Broken(_reason(str(error)))
                continue
            match = pattern.fullmatch(path.stem) if pattern else None
            flags["file_names_that_do_not_fit"] += pattern is not None and match is None
            said = dict(zip(_braces(file_name), (match[group] for group in found), strict=True)) if match else {}
            yield number, {**headers(text, header_lines), **said, BODY: text}

    return Table(str(folder), "folder", names, stream, file_name=file_name, header_lines=header_lines)


def _reason(message: str) -> str:
    """A countable word for a file that cannot be read; its message would hold the file's name."""
    signs = {"0 records": "empty_file", "NUL": "nul_byte", "byte ": "not_text", "limit": "over_the_size_limit"}
    return next((word for sign, word in signs.items() if sign in message), "file_cannot_be_read")


def _braces(file_name: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\{([^{}]+)\}", file_name))


def _pattern(file_name: str) -> re.Pattern[str]:
    """`{住院号}_{文书类型}` as a pattern over the name without its suffix."""
    names = _braces(file_name)
    if not names or len(set(names)) != len(names) or "}{" in file_name:
        raise InputError(
            f"file_name {file_name!r}: give names in braces with something between, as {{住院号}}_{{文书类型}}"
        )
    parts = re.split(r"\{[^{}]+\}", file_name)
    groups = [
        f"(?P<g{number}>[^{re.escape(after[:1])}]+)" if after else f"(?P<g{number}>.+)"
        for number, after in enumerate(parts[1:])
    ]
    return re.compile(
        re.escape(parts[0]) + "".join(group + re.escape(after) for group, after in zip(groups, parts[1:], strict=True))
    )


def headers(text: str, names: tuple[str, ...]) -> dict[str, str]:
    """`住院号：0012345` in the first 40 lines; the first of each name counts."""
    head = "\n".join(text.split("\n", HEADER_LINES)[:HEADER_LINES])
    found = {}
    for name in names:
        if match := re.search(rf"(?<![\w]){re.escape(name)}[ \u3000]*[:：\t][ \u3000\t]*(\S+)", head):
            found[name] = match[1]
    return found


def _usual_headers(notes: list[Path], encoding: str | None) -> tuple[str, ...]:
    """The usual header words that half of these files have."""
    counts: Counter[str] = Counter()
    for path in notes:
        try:
            counts.update(headers(read_text(path, encoding), USUAL).keys())
        except InputError:
            continue  # counted when the folder is read
    return tuple(name for name in USUAL if counts[name] >= len(notes) / 2)


# --- one file --------------------------------------------------------------------------------------------------------


def read_text(path: Path, encoding: str | None = None) -> str:
    """The text of a .txt or .docx file. Raises `InputError`."""
    if path.suffix.lower() == ".docx":
        return docx_text(path)
    if path.stat().st_size > MAX_NOTE:
        raise InputError(f"{path}: over the size limit of {MAX_NOTE >> 20} MiB for one note; split it")
    container = detect(path, encoding, table=True)
    return "".join(lines(path, container.encoding))


def docx_text(path: Path) -> str:
    """Paragraphs and tables of a Word file in their order: cells parted by tabs, rows by line breaks.

    Deleted text of tracked changes, headers, footers and comments are left out. No entity of the XML is expanded.
    """
    try:
        from defusedxml.ElementTree import ParseError, fromstring
    except ImportError:
        raise InputError(f"{path}: reading .docx needs defusedxml; pip install 'xinglin[data]'") from None
    with packed.open_zip(path) as archive:
        if "word/document.xml" not in archive.namelist():
            raise InputError(f"{path}: no Word document inside; save it as .docx")
        packed.check_xml(path, archive, "word/document.xml", MAX_DOCUMENT)
        data = b"".join(packed.member_chunks(path, archive, "word/document.xml"))
    try:
        root = fromstring(data, forbid_dtd=True)
    except (ParseError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a sound Word document ({type(error).__name__}); save it anew") from None
    return "\n".join(_blocks(root, 0)).strip()


def _blocks(element: Any, depth: int) -> Iterator[str]:
    """One string for each paragraph and each row of a table below `element`."""
    if depth > MAX_DEPTH:
        raise InputError("a Word document nested over the size limit; save it anew")
    for child in element:
        tag = _tag(child)
        if tag == "p":
            yield _inline(child)
        elif tag == "tr":
            cells = (" ".join(filter(None, _blocks(cell, depth + 1))) for cell in child.iter() if _tag(cell) == "tc")
            yield "\t".join(cells)
        elif tag != "Fallback":  # the same text box again, for old programs
            yield from _blocks(child, depth + 1)


def _inline(paragraph: Any) -> str:
    signs = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
    return "".join((run.text or "") if _tag(run) == "t" else signs.get(_tag(run), "") for run in paragraph.iter())


def _tag(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]
