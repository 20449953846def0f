"""Look at a file of unknown making: which bytes, which line ends, which container (readers.py then gives its rows).

The content decides, never the suffix: JSON lines come in `.json`, JSON in `.txt`, GB18030 in `.csv`. Nothing is ever
decoded with silent replacement.
"""

from __future__ import annotations

import ast
import codecs
import csv
import io
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from xinglin.data.sources import excel, packed
from xinglin.records import InputError

MAX_LINE = 64 * 2**20
MAX_WHOLE = 256 * 2**20
MAX_HEAD = 4 * 2**20  # characters looked at to tell the container
CHUNK = 2**20
ENCODINGS = {"utf-8": "utf-8", "utf8": "utf-8", "utf-8-sig": "utf-8-sig", "gb18030": "gb18030", "gbk": "gb18030"}
MAGIC = {
    b"%PDF": "pdf",
    b"\xd0\xcf\x11\xe0": "xls",
    b"PAR1": "parquet",
    b"SQLite format 3": "sqlite",
    b"\x80\x02": "pickle",
    b"\x80\x03": "pickle",
    b"\x80\x04": "pickle",
    b"\x80\x05": "pickle",
    b"\xff\xfe": "utf-16 text",
    b"\xfe\xff": "utf-16 text",
}
ADVICE = {
    "xls": "an old or a password-protected workbook: save it as .xlsx without a password",
    "zip": "unpack it and import the folder",
    "tar": "unpack it and import the folder",
    "docx": "xinglin data notes reads folders of them",
    "pickle": "pickles can run code and are never read; ask for JSON",
    "utf-16 text": "save it as UTF-8",
}
ZIPPED = {"xlsx": "xl/workbook.xml", "docx": "word/document.xml", "xlsb": "xl/workbook.bin"}
TAG = re.compile(r"(?:O|[BIESM](?:[-_]\S+)?|\S+[-_][BIESM])")
HEADER_WORDS = set(
    "科室 标题 问题 回答 答案 题目 题干 选项 解析 疾病 症状 文本 标签 类别 患者 医生 正文 内容 编号".split()
)
# Strings come first in the pattern, so that a constructor's name inside a text stays text.
MONGO = re.compile(r'"(?:[^"\\]|\\.)*"|\b(?:ObjectId|ISODate|NumberLong|NumberInt|NumberDecimal)\(("[^"\\]*"|-?\d+)\)')


@dataclass(frozen=True, slots=True)
class Container:
    """What a file turned out to be. `header` is set for CSV, TSV and Excel that name their columns."""

    path: Path
    encoding: str
    line_ends: str
    kind: str
    num_bytes: int
    header: tuple[str, ...] | None = None


def detect(path: Path, encoding: str | None = None, *, table: bool = False) -> Container:
    """Encoding, line ends and container of a file, unpacked where it is gzip. With `table`, text that is not JSON has
    the names of its columns in the first line. Raises `InputError` for what cannot be read."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a file or a folder of data")
    size = path.stat().st_size
    kind = _binary_kind(path)
    if kind == "xlsx":
        return Container(path, "utf-8", "none", kind, size, excel.sheets(path)[0].header)
    if kind:
        advice = ADVICE.get(kind, "convert it to UTF-8 JSON lines or CSV")
        raise InputError(f"{path}: found {kind}, allowed: UTF-8 or GB18030 text, .gz of it, or .xlsx; {advice}")
    line_ends = _line_ends(path)
    encoding = _encoding(path, encoding)
    kind, header = _text_kind(path, encoding, table)
    return Container(path, encoding, line_ends, kind, size, header)


# --- bytes ---------------------------------------------------------------------------------------------------------


def _binary_kind(path: Path) -> str:
    with packed.open_bytes(path) as file:
        head = file.read(4096)
    if not head.strip():
        raise InputError(f"{path}: 0 records; the file is empty")
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    if head[257:262] == b"ustar":
        packed.check_tar(path)
        return "tar"
    return next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), "")


def _zip_kind(path: Path) -> str:
    with packed.open_zip(path) as archive:
        names = {name.replace("\\", "/") for name in archive.namelist()}
    return next((kind for kind, part in ZIPPED.items() if part in names), "zip")


def _chunks(path: Path) -> Iterator[bytes]:
    with packed.open_bytes(path) as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _line_ends(path: Path) -> str:
    """LF, CRLF, CR, mixed or none; a NUL byte is an error that names its offset."""
    offset = crlf = cr = lf = 0
    last = b""
    for chunk in _chunks(path):
        if (at := chunk.find(b"\0")) >= 0:
            raise InputError(f"{path}: NUL byte at offset {offset + at}; text has none: re-export the file")
        crlf += chunk.count(b"\r\n") + (last == b"\r" and chunk[:1] == b"\n")
        cr += chunk.count(b"\r")
        lf += chunk.count(b"\n")
        offset, last = offset + len(chunk), chunk[-1:]
    counts = {"CRLF": crlf, "CR": cr - crlf, "LF": lf - crlf}
    present = [name for name, count in counts.items() if count]
    return present[0] if len(present) == 1 else "mixed" if present else "none"


def _encoding(path: Path, wanted: str | None) -> str:
    if wanted is not None:
        name = ENCODINGS.get(wanted.lower())
        if name is None:
            raise InputError(f"encoding {wanted!r} is not one of {', '.join(ENCODINGS)}")
        if (bad := _first_bad(path, name)) is not None:
            raise InputError(f"{path}: byte {bad} is not {name}; leave --encoding out to let it be detected")
        return name
    with packed.open_bytes(path) as file:
        bom = file.read(3) == codecs.BOM_UTF8
    bad = _first_bad(path, "utf-8")
    if bad is None:
        return "utf-8-sig" if bom else "utf-8"
    if bom or _mostly_utf8(path):
        raise InputError(f"{path}: looks like UTF-8, but byte {bad} is not; repair or re-export the file")
    bad_gb = _first_bad(path, "gb18030")
    if bad_gb is None:
        return "gb18030"
    raise InputError(f"{path}: looks like GB18030, but byte {bad_gb} is not (and byte {bad} is not UTF-8); repair it")


def _first_bad(path: Path, codec: str) -> int | None:
    """Offset of the first byte that does not decode, None when all do."""
    decoder = codecs.getincrementaldecoder(codec)()
    offset = 0
    for chunk in itertools.chain(_chunks(path), [b""]):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            return offset - pending + error.start
        offset += len(chunk)
    return None


def _mostly_utf8(path: Path) -> bool:
    """A damaged UTF-8 file would decode as GB18030 too, into nonsense: count how much of it is sound UTF-8."""
    good = bad = 0
    for chunk in itertools.islice(_chunks(path), 64):
        text = chunk.decode("utf-8", errors="replace")  # for counting only
        bad += text.count("\ufffd")
        good += sum(1 for character in text if character >= "\u0800") - text.count("\ufffd")
    return good > 4 * bad


# --- containers ----------------------------------------------------------------------------------------------------


def _open(path: Path, encoding: str, newline: str | None = None) -> TextIO:
    return io.TextIOWrapper(packed.open_bytes(path), encoding=encoding, newline=newline)


def lines(path: Path, encoding: str, newline: str | None = None) -> Iterator[str]:
    with _open(path, encoding, newline) as file:
        number = 0
        while line := file.readline(MAX_LINE):
            number += 1
            if len(line) >= MAX_LINE:
                raise InputError(f"{path}:{number}: a line of over {MAX_LINE >> 20} MiB; allowed is less: split it")
            yield line


def whole(path: Path, encoding: str) -> str:
    with _open(path, encoding) as file:
        text = file.read(MAX_WHOLE) if path.stat().st_size <= MAX_WHOLE else ""
        if not text or file.read(1):
            raise InputError(
                f"{path}: over {MAX_WHOLE >> 20} MiB in one piece; convert it to JSON lines, one record a line"
            )
    return text


def _text_kind(path: Path, encoding: str, table: bool) -> tuple[str, tuple[str, ...] | None]:
    head = _head(path, encoding)
    if not head:
        raise InputError(f"{path}: 0 records; the file holds blank lines only")
    if head[0].lstrip()[0] in "[{(":
        return _json_kind(path, encoding, head), None
    if table:
        return _named_table(head)
    if any(line.startswith("<篇名>") for line in head[:20]):
        return "book", None
    if _is_tagged(head):
        return "tagged characters", None
    return _table_kind(head)


def _head(path: Path, encoding: str) -> list[str]:
    """The first lines that are not blank: 400 of them, or fewer when they are very long."""
    head: list[str] = []
    size = 0
    for line in lines(path, encoding):
        if line.strip():
            head.append(line)
        size += len(line)
        if len(head) == 400 or (len(head) > 1 and size > MAX_HEAD):
            break
    return head


def _named_table(head: list[str]) -> tuple[str, tuple[str, ...]]:
    if "\t" in head[0]:
        return "tsv", excel.column_names(head[0].rstrip("\r\n").split("\t"))
    return "csv", excel.column_names(next(csv.reader(head)))


def _json_kind(path: Path, encoding: str, head: list[str]) -> str:
    first = head[0].strip()
    if first not in "[{(":
        if isinstance(try_json(first), dict | list):
            return "json lines" if len(head) > 1 else _top(first)
        if any(isinstance(try_json(line), dict) for line in head[1:4]):
            return "json lines"
        if isinstance(try_literal(first), dict | list | tuple):
            return "python literal lines" if len(head) > 1 else "python literal"
    text = whole(path, encoding)
    if try_json(text) is not None or try_objects(text):
        return _top(text)
    if isinstance(try_literal(text), dict | list | tuple):
        return "python literal"
    if first[0] == "(" or not first.startswith(("[", "{")):
        return "text"
    if first[0] == "[" and not re.match(r'\[\s*(?:[\[{"\]\d-]|true|false|null|$)', first):
        return "text"
    raise _broken_json(path, text)


def _top(text: str) -> str:
    return "json list" if text.lstrip()[0] == "[" else "json object"


def _broken_json(path: Path, text: str) -> InputError:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated"):
            return InputError(f"{path}: file ends inside a record (line {error.lineno}); it was cut: fetch it again")
        return InputError(f"{path}:{error.lineno}: not JSON: {error.msg} at column {error.colno}; repair that line")
    except RecursionError:
        return InputError(f"{path}: JSON nested too deeply; records are flat objects")
    return InputError(f"{path}: not JSON")


def try_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        pass
    try:
        return json.loads(_plain(text)) if "(" in text else None
    except (json.JSONDecodeError, RecursionError):
        return None


def _plain(text: str) -> str:
    """Mongo shell constructors replaced by what they hold."""
    return MONGO.sub(lambda match: match[1] or match[0], text)


def try_literal(text: str) -> Any:
    if len(text) > 2**24:
        return None
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def try_objects(text: str) -> list[Any]:
    """Pretty-printed objects one after another, as Mongo exports them; [] when it is not that."""
    decoder, found, at = json.JSONDecoder(), [], 0
    text = _plain(text)
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError):
            return []
        found.append(value)
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
    return found if all(isinstance(value, dict) for value in found) else []


def _is_tagged(head: list[str]) -> bool:
    parts = [line.split() for line in head]
    fits = sum(len(p) == 2 and len(p[0]) <= 2 and TAG.fullmatch(p[1]) is not None for p in parts)
    return len(head) >= 2 and fits >= 0.8 * len(head)


def _table_kind(head: list[str]) -> tuple[str, tuple[str, ...] | None]:
    tabs = [line.count("\t") for line in head]
    told = tabs[:-1] or tabs  # the last line may be cut
    if tabs[0] and sum(count == tabs[0] for count in told) >= 0.9 * len(told):
        cells = [cell.strip() for cell in head[0].split("\t")]
        return "tsv", tuple(cells) if _is_header(cells) else None
    records = list(itertools.islice(csv.reader(head), 50))
    cells = [cell.strip() for cell in records[0]]
    width = len(cells)
    same = sum(len(record) == width for record in records[:-1]) + 1
    if width >= 2 and same >= 0.5 * len(records) and _is_header(cells):
        return "csv", tuple(cells)
    if width >= 3 and same >= 0.9 * len(records) and len(records) > 2:
        return "csv", None
    if len(head) > 1 and re.fullmatch(r"id|name|word|term", cells[0], re.I) and width == 1:
        return "csv", tuple(cells)
    return "text", None


def _is_header(cells: list[str]) -> bool:
    named = [cell for cell in cells if cell]
    if len(set(cells)) != len(cells) or len(named) < len(cells) - 1 or not named:
        return False
    latin = sum(re.fullmatch(r"[A-Za-z_][\w .\-]{0,30}", cell) is not None for cell in named)
    return latin == len(named) or sum(cell in HEADER_WORDS for cell in named) >= len(named) / 2
