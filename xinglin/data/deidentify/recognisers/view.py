# ruff: noqa: E501 - a regular expression is easier to check in one piece
"""One normalised view of a text, and the way back to its own offsets.

    View(text)        .text: full-width letters, digits and blanks made half-width, traditional characters simplified,
                      invisible characters dropped
    view.origin(i)    offset in the original of character i of the view (len(view.text) maps to the end)
    mended(text, k)   Mended: the places where a word or a number is broken by LINES or by BLANKS, put together

Chinese punctuation stays as it is, so an ordinary note is its own view and costs one scan.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from xinglin.data.deidentify.kinds import Span
from xinglin.data.deidentify.recognisers.lexicon import HAN, characters, words

INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]+"
)
_TO_HALF = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if chr(code) not in "，：；（）？！"}
_TO_HALF |= {code: 0x20 for code in (0x3000, 0xA0, *range(0x2002, 0x200B))}
_TO_HALF |= {0x1D7CE + i: 0x30 + i % 10 for i in range(50)}
_PLAIN = _TO_HALF | {ord(pair[0]): ord(pair[1]) for pair in words("traditional", "pairs")}
_STRANGE = re.compile(f"[{''.join(map(re.escape, map(chr, _PLAIN)))}]")

HEADING = (
    rf"(?:[{HAN}][{HAN} （）()]{{0,6}}[:：]|[0-9]{{1,2}}[.、)）](?![0-9])|[（(]?[一二三四五六七八九十]{{1,2}}[、.）)])"
)
OPENER = (
    "患者|病人|患儿|既往|查体|体格|体检|诊断|初步|现病|主诉|辅助|记录|签名|医师|医生|护士|主治|主任|上级|今日|入院|出院|处理|诊疗|手术|术前|术后|家属|家族|联系|身份|电话|住址|地址|"
    "性别|年龄|科室|科别|门诊|住院|床号|姓名|日期|时间|报告|检验|检查|病程|病理|影像|申请|送检|会诊|随访|医嘱|长期|临时|备注|鉴别|分析|职业|民族|工作|单位|籍贯|出生|婚姻|费别|医保"
)
NEXT = f"(?!{HEADING}|{OPENER})"
EDGE = r"[ \t]{0,3}\r?\n[ \t]*"
COUNTED = "年月日号时栋幢座室单楼弄组层床路街院区里巷村队社届"
BEFORE_DIGIT = "年月号字路街巷弄村院区苑园城厦楼栋幢座组元第加床里屯庄寨队段道家市县镇乡"
BROKEN = (
    rf"(?<=[{HAN}·•‧・∙(（.]){EDGE}{NEXT}(?=[{HAN}·•‧・∙)）])|(?<=[A-Za-z0-9\-–—./@:_?=&#*)(（]){EDGE}(?!{HEADING})(?=[A-Za-z0-9\-–—./@_?=&#*)）])"
    rf"|(?<=[0-9]){EDGE}(?=[{COUNTED}])|(?<=[{BEFORE_DIGIT}京沪粤浙苏鄂川陕鲁豫皖湘赣闽冀晋辽吉黑蒙桂琼渝贵云藏甘青宁新津]){EDGE}(?!{HEADING})(?=[0-9A-Za-z])"
)
STOPS = "-–—－./·、_年月日号时"
NUMERAL = "0-9一二三四五六七八九十〇零"
IN_NUMBER = (
    rf"(?<=[0-9])[ ]{{1,3}}(?=[{STOPS}][ ]{{0,3}}[0-9A-Za-z一-十初廿])|(?<=[-–—./·年月历])[ ]{{1,3}}(?=[{NUMERAL}廿初正腊冬闰])"
    rf"|(?<=[{NUMERAL}])[ ]{{1,3}}(?=[年月日号])"
)
MASKED = rf"(?<=[{HAN}])[ ]{{1,3}}(?=某)"
FIRST = "".join(
    sorted(
        characters("names", "common")
        | characters("names", "rare")
        | {word[0] for section in ("compound", "japanese", "minority") for word in words("names", section)}
    )
)
APART = (
    rf"(?P<word>[{FIRST}][ ]{{1,2}}(?![男女][^{HAN}])[{HAN}](?:(?:[ ]{{1,2}}[{HAN}])+|(?![{HAN}])|(?<=院)|(?<=[士师员者人生属子女妻夫][{HAN}] [{HAN}])"
    r"|(?=副?主任|主治|医[师生]|教授|护士|查房|先生|女士|签|打|在|帮|陪|代|来|[的已因于与])))"
)
LINES = re.compile(f"(?P<word>(?!))|{BROKEN}")
BLANKS = re.compile(f"{IN_NUMBER}|{MASKED}|{APART}")
REACH = 24
TOKEN_BEFORE = re.compile(r"[!-~]{0,90}\Z")
TOKEN_BEHIND = re.compile(r"[!-~]{0,90}")


def _gaps(text: str, kind: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Blanks and line ends that may stand inside a word or a number. A label (姓 名：) does not count."""
    for match in kind.finditer(text):
        if match["word"]:
            yield from (gap.span() for gap in SPACES.finditer(text, *match.span()))
        elif match.end() > match.start():
            yield match.span()


SPACES = re.compile(" +")


@dataclass(frozen=True, slots=True)
class Mended:
    """Windows around the gaps of a text, the gaps left out, one window a paragraph."""

    text: str
    origin: list[int]  # offset in the unmended text of each character
    seams: list[int]  # where a gap was

    def back(self, span: Span) -> Span | None:
        """The span in the unmended text; None for one that lies beside the seams and so is found there anyway."""
        place = bisect_right(self.seams, span.start)
        if place == len(self.seams) or self.seams[place] >= span.end:
            return None
        return Span(self.origin[span.start], self.origin[span.end - 1] + 1, span.kind, span.rule)


def mended(text: str, kind: re.Pattern[str]) -> Mended | None:
    pieces: list[str] = []
    origin: list[int] = []
    seams: list[int] = []
    end, stop = 0, 0  # of the piece copied last; of the window
    for start, after in _gaps(text, kind):
        token = TOKEN_BEFORE.search(text[max(0, start - 90) : start])
        left = max(end, 0, start - max(REACH, len(token.group()) if token else 0))
        if pieces and left >= stop:
            _copy(text, end, stop, pieces, origin)
            pieces.append("\n\n")
            origin += (stop, stop)
        else:
            left = end if pieces else left
        _copy(text, left, start, pieces, origin)
        seams.append(len(origin))
        token = TOKEN_BEHIND.match(text, after)
        end, stop = after, min(len(text), max(after + REACH, token.end() if token else 0))
    if not pieces:
        return None
    _copy(text, end, stop, pieces, origin)
    return Mended("".join(pieces), origin, seams)


def _copy(text: str, start: int, end: int, pieces: list[str], origin: list[int]) -> None:
    pieces.append(text[start:end])
    origin.extend(range(start, max(start, end)))


class View:
    """Text as the rules read it. A class because the map is needed only for texts with invisible characters."""

    __slots__ = ("text", "_kept", "_shift")

    def __init__(self, original: str) -> None:
        self._kept: list[int] = []
        self._shift: list[int] = []
        text = original.translate(_PLAIN) if _STRANGE.search(original) else original
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
