"""What a name looks like: surname, given name, and where it ends.

    name_end(text, start, strength, kind)   end of the name that begins at `start`, or None
    tables()                                surnames, given-name characters, minority names, compiled once

Strength 3 (behind 姓名：) takes any name shape, 2 (a role) asks for a surname, 1 (a relative, 患者) asks besides for a
given name of common characters that is no ordinary word.
"""

from __future__ import annotations

import functools
import re

from xinglin.data.deidentify.recognisers.lexicon import HAN, any_of, characters, word_end, words

TITLES = words("cues", "titles")
NEVER_ALONE = frozenset("车师但查向从都能有应请和成全连平步别居时汤俞相后明问")
NOT_NAME = "".join(
    "的了是在于因至与及将已系被由诉述称说等并或且但而其他她它者也都又就还对向从把让给到去着过吗呢吧啊无未"
    "否不请您你我该此每各某性岁年月日时分号床病症炎痛科院室区药术后前中上下左右内外间第仍需需可查体检治疗"
    "入出住"
)
BAD_GIVEN = frozenset(NOT_NAME) - frozenset("中可时月日前左治年分性")
STEALING = frozenset("以和为从来可因")
HARD = re.compile(rf"[^{HAN}A-Za-z0-9·•‧・]|$")
SOFT = re.compile(any_of(words("cues", "after_name")))
LATIN = re.compile(
    r"(?:(?:Mr|Mrs|Ms|Miss|Dr|Prof)\.?[ ]?)?[A-Z][A-Za-z'’\-]*\.?(?:["
    r" ·][A-Z][A-Za-z'’\-]*\.?){0,3}(?![A-Za-z0-9])"
)
LATIN_FULL = re.compile(
    r"[A-Z][a-z'’\-]+(?: [A-Z]\.)?(?: [A-Z][a-z'’\-]+){1,3}(?![A-Za-z0-9])|[A-Z]{2,}(?:"
    r" [A-Z]{2,}){1,2}(?![A-Za-z0-9])"
)
LATIN_ANY = re.compile(r"[A-Za-z][A-Za-z'’\-]+\.?(?:[ ·][A-Za-z][A-Za-z'’\-]*\.?){0,3}(?![A-Za-z0-9])")
DOTTED = re.compile(
    rf"[{HAN}]{{1,8}}(?:[ ]?[·•‧・∙][ ]?[{HAN}A-Z]{{1,8}}){{1,4}}|[A-Z][a-z]+(?:[·•‧・][A-Z][a-z]+){{1,3}}"
)
HIDDEN = re.compile(r"(?:某{1,3}|[xX×＊*＿○〇△▲]{1,3})(?![A-Za-z0-9])")
NOT_PERSON_AFTER_DOT = re.compile(r"综合征|病|征|氏|试验|分级|分类|评分|手术|法|现象|反射|淋巴瘤|肉瘤|疝")


@functools.cache
def tables() -> tuple[frozenset[str], frozenset[str], frozenset[str], frozenset[str], re.Pattern[str], re.Pattern[str]]:
    common = characters("names", "common") | characters("names", "traditional")
    known = common | characters("names", "rare")
    compound = re.compile(any_of(words("names", "compound")))
    part = any_of(words("names", "minority"))
    minority = re.compile(f"{part}(?:{part}){{0,4}}")
    return common, known, characters("names", "ambiguous"), characters("names", "prose"), compound, minority


@functools.cache
def starters() -> frozenset[str]:
    """First characters of surnames and of names; for anything else there is no need to look further."""
    first = {word[0] for section in ("compound", "minority", "japanese") for word in words("names", section)}
    return tables()[1] | first | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def name_end(text: str, start: int, strength: int, kind: str) -> int | None:
    """Where the name that begins at `start` ends; None when there is none."""
    char = text[start : start + 1]
    if not char or strength < 3 and char not in starters() and "·" not in text[start : start + 9]:
        return None
    if char.isascii():
        pattern = LATIN if kind != "label" else LATIN_ANY
        match = LATIN_FULL.match(text, start) or (pattern.match(text, start) if strength == 3 else None)
        return match.end() if match and len(match.group()) > 1 else None
    dotted = DOTTED.match(text, start)
    if dotted and not (NOT_PERSON_AFTER_DOT.match(text, dotted.end()) or NOT_PERSON_AFTER_DOT.search(dotted.group())):
        return dotted.end()
    if strength < 3 and is_word(text, start) and not (strength == 2 and kind == "role" and _name_word(text, start)):
        return None
    if strength == 3 and (word := word_end(text, start)) and HARD.match(text, word) and text[start:word] in ordinary():
        return None
    return _chinese_end(text, start, strength, kind)


def _name_word(text: str, start: int) -> bool:
    """麻醉医师：周密: a word that fills the whole field of a member of staff, and could be a name."""
    word = text[start : word_end(text, start)]
    common, _, _, prose, _, _ = tables()
    if not 0 < len(word) <= 3 or word in ordinary() or not HARD.match(text, start + len(word)):
        return False
    return word[0] in common and not any(char in prose for char in word[1:])


@functools.cache
def ordinary() -> frozenset[str]:
    return words("protect", "ordinary")


def is_word(text: str, start: int) -> bool:
    return word_end(text, start) > 0


def _chinese_end(text: str, start: int, strength: int, kind: str) -> int | None:
    common, known, ambiguous, _, compound, minority = tables()
    double = compound.match(text, start)
    if double and (end := _given_end(text, double.end(), strength, False, kind)):
        return end
    native = minority.match(text, start)
    if native and len(native.group()) >= 2 and _ends(text, native.end()):
        return native.end()
    if text[start] in (known if strength > 1 and kind in ("role", "label") else common):
        weak = strength == 1 and text[start] in ambiguous and text[start] in NEVER_ALONE | {"于", "常", "关"}
        if end := _given_end(text, start + 1, strength, weak, kind):
            return end
    if strength == 3:
        match = re.compile(rf"[{HAN}]{{2,6}}(?=[^{HAN}]|$)").match(text, start)
        if match and not SOFT.match(text, start) and match.group() not in ordinary():
            return match.end()
    return None


def _ends(text: str, place: int) -> bool:
    return bool(HARD.match(text, place) or SOFT.match(text, place)) or text[place : place + 1].isdigit()


def _given_end(text: str, place: int, strength: int, weak: bool, kind: str) -> int | None:
    """End of a given name of one or two characters (or 某某, **). `weak`: the surname is an ordinary word as well."""
    prose = tables()[3]
    if hidden := HIDDEN.match(text, place):
        return hidden.end()
    for size in (2, 1):
        end = place + size
        piece = text[place:end]
        if len(piece) < size or any(char in BAD_GIVEN or not "\u3400" <= char <= "\u9fff" for char in piece):
            continue
        if piece in TITLES:
            continue
        hard = bool(HARD.match(text, end))
        if not hard and (text[end].isdigit() or text[end].isascii() or text[end] in "·"):
            hard = strength > 1
        familiar = not any(char in prose for char in piece)
        if (
            hard
            and (strength > 1 and kind != "speaker" or familiar and not (weak and size == 1))
            and not (size == 2 and piece[1] in "男女")
        ):
            return end
        if (
            not hard
            and familiar
            and size == 2
            and not weak
            and kind in ("kin", "role")
            and not _steals(piece, text, place)
        ):
            return end
        if (
            not hard
            and familiar
            and (not weak or size == 2)
            and (strength == 1 or FIELD_SOFT.match(text, end))
            and SOFT.match(text, end)
            and not _steals(piece, text, place)
        ):
            return end
    return _spaced(text, place, strength)


def _steals(piece: str, text: str, place: int) -> bool:
    """Whether the second given character more likely opens what follows (张伟来院, 赵敏代述)."""
    word = SOFT.match(text, place + 1) if len(piece) == 2 else None
    return bool(word and len(word.group()) > 1) or piece[1:] in STEALING


FIELD_SOFT = re.compile(any_of(words("cues", "titles") | words("cues", "after_field_name")))
TITLE_AHEAD = re.compile(rf"[ \t]*(?:$|[\n，。；、,;/）)]|{any_of(TITLES)})")


def _spaced(text: str, place: int, strength: int) -> int | None:
    """张 建 国: one blank or line break between the characters, behind a label only."""
    if strength < 2:
        return None
    if (
        HARD.match(text, place)
        and TITLE_AHEAD.match(text, place)
        and text[place - 1 : place] not in NEVER_ALONE | {"谢"}
    ):
        return place
    if not set(text[place : place + 2]) & set(" \r\n"):
        return None
    match = re.compile(rf"[ ]?\r?\n?[ ]?(?P<a>[{HAN}])(?:[ ]?\r?\n?[ ]?(?P<b>[{HAN}]))?(?=[^{HAN}]|$)").match(
        text, place
    )
    if not match or match["a"] in BAD_GIVEN or (match["b"] or "") in set("男女汉"):
        match = re.compile(rf"[ ](?P<a>[{HAN}])(?=[^{HAN}]|$)").match(text, place)
    return match.end("a") if match and match["a"] in BAD_GIVEN | set("男女") else match.end() if match else None
