"""Old books as text: headings for tags, paragraphs for hard-wrapped lines, and a count of what the e-text lost.

A book of the TCM-Ancient-Books layout opens with a header (书名, 作者, 朝代, 年份) under its first `<篇名>`; every
further `<篇名>` opens a section, the `<目录>` line before it names the chapter. Works that the header does not place
before 1912 are refused: they are under copyright.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

DYNASTY = re.compile(r"先秦|春秋|战国|秦|汉|三国|魏|蜀|吴|晋|南北朝|宋|齐|梁|陈|隋|唐|五代|辽|金|元|明|清|周|西夏")
MODERN = re.compile(r"民国|民初|近代|现代|当代|人民共和国|建国")
PICTURE = re.compile(r"\\p[\w.\-]*")
MARK = re.compile(r"\\[A-Za-z]?")
GAP = re.compile(r"(?<=[\u4e00-\u9fff]) (?=[\u4e00-\u9fff])")
NUMBERED = re.compile(r"\d{1,3}[．.、]|[○◎●]|[（(][一二三四五六七八九十]+[）)]")
SENTENCE_END = tuple("。！？：；）)】」』”.!?")


def sections(text: str) -> Iterator[dict[str, Any]]:
    """Every section of a book: book, author, dynasty, year, chapter, title, body, and the book's measured losses."""
    header, parts = _split(text)
    width = _wrap_width(text)
    refused = modern_reason(header)
    found = [{**header, **part, "body": _body(part["lines"], width)} for part in parts]
    lost = Counter({"num_boxes": 0, "num_gaps": 0, "num_half_lines": 0})
    for part in parts:
        lost.update(losses(part["lines"], width))
    for section in found:
        del section["lines"]
        yield {**section, "refused": refused, "book_losses": dict(lost)}


def modern_reason(header: dict[str, str]) -> str:
    """Why the header does not show a work from before 1912; "" when it does."""
    dynasty = header.get("dynasty", "") + header.get("year", "")
    years = [int(year) for year in re.findall(r"\d{4}", dynasty)]
    if MODERN.search(dynasty) or (years and min(years) > 1911):
        return "modern_work"
    return "" if DYNASTY.search(header.get("dynasty", "")) else "no_dynasty_in_header"


def losses(lines: list[str], width: int) -> dict[str, int]:
    """What rare characters left behind when they were dropped: □, blanks inside a word, lines that stop half-way.
    Verse and tables look like half lines too, so the last two are upper bounds."""
    text = [line.strip() for line in lines]
    half = sum(
        0 < len(line) < 0.6 * width and not line.endswith((*SENTENCE_END, "，", "、")) and bool(after)
        for line, after in zip(text, text[1:], strict=False)
    )
    return {
        "num_boxes": sum(line.count("□") for line in text),
        "num_gaps": sum(len(GAP.findall(line)) for line in text),
        "num_half_lines": half,
    }


def unwrap(lines: list[str], width: int | None = None) -> str:
    """Join hard-wrapped lines to paragraphs. A line ends its paragraph when it closes a sentence short of the wrap
    width; text without any full stop (verse, tables) keeps its short lines."""
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        return ""
    width = width or max(len(line) for line in lines)
    punctuated = any("。" in line for line in lines)
    wrapped = width <= 60 and len(lines) > 1
    pieces: list[str] = []
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        pieces.append(line)
        full = len(line) >= width - 2
        open_end = not line.endswith(SENTENCE_END) and (punctuated or len(line) >= 0.8 * width)
        if not (wrapped and (full or open_end)) or NUMBERED.match(after):
            pieces.append("\n")
        elif line[-1].isascii() and line[-1].isalnum():
            pieces.append(" ")
    return "".join(pieces).strip()


def _split(text: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
    names = {"书名": "book", "作者": "author", "朝代": "dynasty", "年份": "year"}
    header: dict[str, str] = {}
    parts: list[dict[str, Any]] = []
    chapter = ""
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if line.startswith("<目录>"):
            chapter = " / ".join(part.strip() for part in line[4:].split("\\") if part.strip())
        elif line.startswith("<篇名>"):
            parts.append({"chapter": chapter, "title": _clean(line[4:]), "lines": []})
        elif len(parts) == 1 and line[:2] in names and line[2:3] == "：":
            header[names[line[:2]]] = line[3:].strip()
        elif parts:
            parts[-1]["lines"].append(_clean(line))
    if header and parts and not any(line for line in parts[0]["lines"]):
        parts = parts[1:]  # the header is no section
    return header, parts


def _clean(line: str) -> str:
    if "\\" in line:
        line = MARK.sub("", PICTURE.sub("", line))
    line = line.replace("∶", "：").strip()
    return line[3:] if line.startswith(("属性：", "内容：")) else line


def _wrap_width(text: str) -> int:
    lengths = Counter(len(line.rstrip()) for line in text.split("\n"))
    wide = {length: count for length, count in lengths.items() if 20 <= length <= 60}
    return max(wide, key=lambda length: wide[length]) if wide else 60


def _body(lines: list[str], width: int) -> str:
    return unwrap(lines, width)
