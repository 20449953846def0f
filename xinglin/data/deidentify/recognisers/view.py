"""One normalised view of a text, and the way back to its own offsets.

    View(text)        .text: full-width letters, digits and blanks made half-width, invisible characters dropped
    view.origin(i)    offset in the original of character i of the view (len(view.text) maps to the end)

Chinese punctuation stays as it is, so an ordinary note is its own view and costs one scan.
"""

from __future__ import annotations

import re
from bisect import bisect_right

INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]+"
)
WIDE = re.compile("[\u3000\u00a0０-９Ａ-Ｚａ-ｚ＠．－＿＋／＃＊\u2002-\u200a\U0001d7ce-\U0001d7ff]")
_TO_HALF = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if chr(code) not in "，：；（）？！"}
_TO_HALF |= {code: 0x20 for code in (0x3000, 0xA0, *range(0x2002, 0x200B))}
_TO_HALF |= {0x1D7CE + i: 0x30 + i % 10 for i in range(50)}


def squeezed(text: str) -> tuple[str, list[int]] | None:
    """The text without the blanks of words that are written apart (张 建 国), and the offset of each of its characters;
    None when there is no such word. A label (姓 名：) does not count."""
    gaps = [i for match in APART.finditer(text) for i in range(*match.span()) if text[i] == " "]
    if not gaps:
        return None
    dropped = set(gaps)
    kept = [i for i in range(len(text)) if i not in dropped]
    return "".join(text[i] for i in kept), [*kept, len(text)]


HAN = "\u4e00-\u9fff"
APART = re.compile(
    rf"[{HAN}](?:[ ]{{1,3}}[{HAN}](?![{HAN}:：]|[ ]{{1,4}}[{HAN}][:：]))*[ ]{{1,3}}[{HAN}](?:(?![{HAN}])"
    rf"|(?<=院)|(?=副?主任|医[师生]|教授|主治|护士|查房|先生|女士|签))(?![:：]|[ ]{{1,4}}[{HAN}][:：])"
)


class View:
    """Text as the rules read it. A class because the map is needed only for texts with invisible characters."""

    __slots__ = ("text", "_kept", "_shift")

    def __init__(self, original: str) -> None:
        self._kept: list[int] = []
        self._shift: list[int] = []
        text = original
        if WIDE.search(text):
            text = text.translate(_TO_HALF)
        if INVISIBLE.search(text):
            text = self._drop(text)
        self.text = text

    def _drop(self, text: str) -> str:
        """Remove the invisible runs; remember from which offset on the view lags by how much."""
        pieces, end, gone = [], 0, 0
        for match in INVISIBLE.finditer(text):
            pieces.append(text[end : match.start()])
            self._kept.append(match.start() - gone)
            gone += match.end() - match.start()
            self._shift.append(gone)
            end = match.end()
        pieces.append(text[end:])
        return "".join(pieces)

    @property
    def shifted(self) -> bool:
        """Whether offsets differ from those of the original."""
        return bool(self._kept)

    def origin(self, offset: int) -> int:
        """Where character `offset` of the view stands in the original."""
        place = bisect_right(self._kept, offset)
        return offset + (self._shift[place - 1] if place else 0)
