"""Text to text: what is repaired in every text without asking what it says. Each function changes nothing where
nothing is wrong, and nothing more when it is run again.

    encoding      UTF-8 that was read as Latin-1, Windows-1252 or GBK, where the bytes prove it
    control       control characters, zero-width ones, BOM, line ends; canonical forms (NFC), Kangxi radicals
    width         full-width letters, digits and signs; Chinese punctuation stays
    script        traditional to simplified (OpenCC)
    html          tags and entities, never `<5cm`, `P<0.05` or a bare &
    markers       prompt markers: <s>, 问：…答：, [INST], <|im_start|>
    punctuation   runs of marks, of blanks and of empty lines
"""

from __future__ import annotations

import functools
import html as entities
import re
import unicodedata
from typing import Any

from xinglin.data.sources.fields import CODE, ENTITY, HTML_BREAK, HTML_TAG, LEADING, SPECIAL, TRAILING
from xinglin.records import InputError

HAN = "\u3400-\u9fff"
_WESTERN = re.compile("[\u0080-\u00ff\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a€™]{6,}")
_EASTERN = re.compile("[^\x00-\x7f]{4,}")
_CHINESE = re.compile(f"[{HAN}\u3000-\u303f\uff00-\uffef“”‘’…—·0-9A-Za-z]+")
_BROKEN = re.compile(
    "\ufffd|锟斤拷|烫烫烫|屯屯屯|&#?65533;|锛[^\x00-\x7f]|銆[^\x00-\x7f]|鐨勬|[ÃÂ][\x80-\xbf]|[äåæçèé][\x80-\xbf]{2}"
)
_REMOVED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]"
)
_NEW_LINE = re.compile("\r\n?|\u2028|\u2029")
_KANGXI = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0x2F00, 0x2FD6)}
_FULL = "０１２３４５６７８９％＋－／＝＜＞．＆＃＠＊" + "".join(
    map(chr, (*range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B)))
)
_WIDTH = {ord(char): chr(ord(char) - 0xFEE0) for char in _FULL} | {0x3000: " ", 0xA0: " "}
_HIDDEN = re.compile(r"<!--.*?-->|<(script|style)\b[^<>]*>.*?</\1\s*>", re.I | re.S)


def encoding(text: str) -> str:
    """Undo a decoding with the wrong code page. A stretch is replaced when its bytes are UTF-8 to the last one and
    spell Chinese: by chance, real text hardly ever does."""
    if text.isascii():
        return text
    text = _WESTERN.sub(lambda match: _decoded(match[0], _western_bytes(match[0])), text)
    return _EASTERN.sub(lambda match: _decoded(match[0], match[0].encode("gb18030", "replace")), text)


def _western_bytes(text: str) -> bytes:
    return b"".join(char.encode("latin-1" if ord(char) < 256 else "cp1252", "replace") for char in text)


def _decoded(text: str, raw: bytes) -> str:
    try:
        found = raw.decode("utf-8")
    except UnicodeDecodeError:
        return text
    return found if _CHINESE.fullmatch(found) else text


def is_broken(text: str) -> bool:
    """Whether characters were lost for good: replacement characters, and mojibake that `encoding` could not undo."""
    return _BROKEN.search(text) is not None


def control(text: str) -> str:
    text = _REMOVED.sub("", _NEW_LINE.sub("\n", text))
    return text if text.isascii() else unicodedata.normalize("NFC", text.translate(_KANGXI))


def width(text: str) -> str:
    return text if text.isascii() else text.translate(_WIDTH)


def script(text: str) -> str:
    return text if text.isascii() else str(_converter().convert(text))


@functools.cache
def _converter() -> Any:
    try:
        from opencc import OpenCC
    except ImportError:
        raise InputError(
            "rule script needs OpenCC; pip install 'xinglin[data]', or switch it off (--off script)"
        ) from None
    return OpenCC("t2s")  # characters and the phrases that tell them apart; no regional vocabulary


def html(text: str) -> str:
    """Tags and entities, until nothing changes: `&amp;lt;br&amp;gt;` was escaped twice. Text that speaks of code keeps
    them."""
    if not ("<" in text or "&" in text) or CODE.search(text):
        return text
    for _ in range(5):
        before = text
        text = HTML_TAG.sub("", HTML_BREAK.sub("\n", _HIDDEN.sub("", text)))
        text = ENTITY.sub(lambda match: entities.unescape(match[0]).replace("\xa0", " "), text)
        if text == before:
            break
    return text


def markers(text: str) -> str:
    """Markers of another project's prompt. A text that opens with 问： may close with a bare 答：."""
    if not any(sign in text for sign in "<[:："):
        return text
    before, text = text, SPECIAL.sub("", text)
    asked = re.match(r"\s*<?(?:问|提问|Human)>?\s*[:：]", text)
    text = LEADING.sub("", text.strip()) if asked or text != before or LEADING.match(text) else text
    if asked:
        text = re.sub(r"\s*<?(?:答|回答|Assistant)>?\s*[:：]\s*$", "", text)
    return TRAILING.sub("", text) if text.rstrip().endswith((":", "：")) else text


def punctuation(text: str) -> str:
    if CODE.search(text):
        return text
    text = re.sub(r"([。，、；：])(?:\s*\1)+", r"\1", text)
    text = re.sub(r"([！？!?~～])\1{2,}", r"\1", text)
    text = re.sub(r"…{3,}|\.{4,}|·{4,}", "……", text)
    text = re.sub(r"(?<=\d)-{2,}(?=\d)", "-", text)
    text = re.sub(r"(?<=\S)[ \t]{2,}(?=\S)", " ", text)
    return re.sub(r"[ \t]+(?=\n)|(?<=\n\n)\n+", "", text).strip()
