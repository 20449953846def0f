"""Names that no listed cue leads to: a small model weighs the characters of a candidate and the edges it stands between.

    slots(text)   spans over a normalised text

A candidate begins with a surname behind an edge: a mark, a line start, or the last character of a word for a person
(记录员, 其女, 陪人) or of a word that hands over to one (由, 请, 我是). Its worth is the log odds, set by hand, of surname,
given name and both edges against ordinary text; what lies above THRESHOLD is a name. Words of the lexicon are none.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator

from xinglin.data.deidentify.kinds import Span
from xinglin.data.deidentify.recognisers.lexicon import HAN, any_of, characters, protected, words
from xinglin.data.deidentify.recognisers.name_shapes import BAD_GIVEN, tables

THRESHOLD = 2.5
PERSON = frozenset("者人员师士生长属亲母父子女儿妻夫兄弟姐妹哥爸妈婿媳孙甥侄姨姑舅叔婶伯爷奶婆友邻伴医护姆工签任授")
HANDS_OVER = frozenset("由请与和及经找给叫是跟随邀谢写名核录班线检诊助刀验科院挂为让随示托对向联告审")
EDGE = re.compile(
    rf"(?:(?<![{HAN}0-9A-Za-z.·%])|(?<=[{''.join(sorted(PERSON | HANDS_OVER))}]))(?=[{''.join(sorted(characters('names', 'common') | characters('names', 'rare')))}]"
    rf"|{any_of(words('names', 'compound') | words('names', 'japanese'))})"
)
LINE = re.compile(r"(?:^|\n)[ \t]*(?:[\[【(（]?[0-9年月日号时分:：.\-/ ]{4,24}[\]】)）]?[ ]{0,3})?$")
FIELD = re.compile(rf"(?P<label>[{HAN}]{{1,10}}|[A-Za-z]{{2,12}})?(?:[（(][^（）()\n]{{1,10}}[）)])?[ ]{{0,3}}[:：][ _]{{0,8}}$|】[ ]{{0,3}}$")
SPACED_FIELD = re.compile(rf"(?P<label>[{HAN}]{{1,8}})[ ]{{1,4}}$")
HARD = re.compile(rf"[^{HAN}A-Za-z0-9·%]|[0-9]|$")
SURE_RIGHT = re.compile(
    r"[ ]{0,3}(?:[:：]|[0-9]{2,4}[-./年]|[（(](?:签|[男女]|[父母夫妻子女儿兄弟姐妹配]|之)|[男女][ ，,、]|[，,][ ]?[男女]|日期|时间|电话|联系)"
)
TURN = re.compile(r"[ ]?[:：]")
TITLE = re.compile(any_of(words("cues", "titles")))
SOFT = re.compile(any_of({word for word in words("cues", "after_name") if len(word) > 1} | words("cues", "acts")))
THIN = frozenset("因于在到来自至与和及同将已系为是以行经被今昨现患签等后阅诉述称说的")
NOT_FIELD = re.compile(r"(?:药|物|史|断|状|征|型|式|法|况|质|色|位|果|见|议|称|因|向|程|级|度|食|便|眠|神|志|苔|脉|象|方|剂|量|科|别|族|业|贯|历|血|史|类|日|期|间|址|号|话|项|目|案|部|病|症)$")


@functools.cache
def _weights() -> tuple[dict[str, float], dict[str, float]]:
    """Log odds of surnames and of given-name characters, in steps of a half."""
    surname = dict.fromkeys(characters("names", "rare"), 0.0)
    surname |= dict.fromkeys(characters("names", "common"), 0.6)
    surname |= dict.fromkeys(characters("names", "frequent"), 1.0)
    surname |= {char: surname.get(char, 0.0) - 0.6 for char in characters("names", "ambiguous")}
    given = dict.fromkeys(characters("names", "prose"), -1.5)
    given |= dict.fromkeys(characters("names", "given"), 1.0)
    given |= dict.fromkeys(BAD_GIVEN, -4.0)
    return surname, given


@functools.cache
def _ordinary() -> frozenset[str]:
    return words("names", "words") | words("protect", "ordinary") | words("protect", "drugs_and_herbs") | words(
        "protect", "eponyms"
    )


@functools.cache
def _double() -> re.Pattern[str]:
    return re.compile(any_of(words("names", "compound") | words("names", "japanese")))


def slots(text: str) -> Iterator[Span]:
    turns: Counter[str] | None = None
    for edge in EDGE.finditer(text):
        start = edge.start()
        double = _double().match(text, start)
        first = double.end() if double else start + 1
        for size in (2, 1):
            end = first + size
            if end > len(text) or not all("\u3400" <= char <= "\u9fff" for char in text[first:end]):
                continue
            right = _right(text, end)
            if right is None:
                continue
            worth = _worth(text, start, first, end, bool(double)) + right
            if worth < 0.4:
                continue
            worth += _left(text, start)
            if worth < THRESHOLD:
                continue
            if not double and protected().match(text, start) or text[start:end] in _ordinary():
                if turns is None:
                    turns = Counter(m["name"] for m in SPEAKER.finditer(text))
                if not _word_in_field(text, start, end) and turns[text[start:end]] < 2:
                    continue
            yield Span(start, end, "name", "slot")
            break


SPEAKER = re.compile(rf"(?:^|\n)[ \t]*(?:[\[(（]?[0-9年月日号:：.\-/ ]{{4,24}}[\])）]?[ ]{{0,3}})?(?P<name>[{HAN}]{{2,4}})[ ]?[:：]")
WHO = re.compile(r"(?:[者员师士长属亲签名母父妻夫兄弟姐妹]|(?<![病患])人|写|线|班|名)[ ]{0,3}[:：]?[ ]{0,3}$")


def _word_in_field(text: str, start: int, end: int) -> bool:
    """记录员：高原: a word that is a name too and fills the field of a person."""
    if text[start:end] not in words("names", "words") and protected().match(text, start) is not None:
        word = protected().match(text, start)
        if word and word.end() >= end and _weights()[1].get(text[end - 1], 0.3) < 0:
            return False
    return bool(WHO.search(text, max(0, start - 8), start)) and bool(FILLED.match(text, end))


FILLED = re.compile(r"[ ]{0,3}(?:[\n，,。；;、/（(:：]|[0-9]{2}|$|日期|时间|[ ]{2})")


def _worth(text: str, start: int, first: int, end: int, double: bool) -> float:
    surname, given = _weights()
    total = 1.5 if double else surname.get(text[start], 0.0)
    for char in text[first:end]:
        total += given.get(char, 0.3)
    return total + (0.2 if end - first == 2 else 0.0)


def _right(text: str, end: int) -> float | None:
    if HARD.match(text, end):
        return 1.0 if SURE_RIGHT.match(text, end) else 0.5
    if TITLE.match(text, end):
        return 1.2
    if SOFT.match(text, end):
        return 0.5
    return -0.3 if text[end] in THIN else None


def _left(text: str, start: int) -> float:
    if start == 0:
        return 0.5
    before = text[start - 1]
    if "\u3400" <= before <= "\u9fff":
        return 0.6 if before in PERSON else 0.1
    window = text[max(0, start - 26) : start]
    if field := FIELD.search(window):
        return -1.0 if field["label"] and NOT_FIELD.search(field["label"]) else 1.2
    if LINE.search(window):
        return 0.7
    if before == " " and (field := SPACED_FIELD.search(window)):
        return 0.8 if field["label"][-1] in PERSON or field["label"][-1] in HANDS_OVER else 0.2
    return 0.5 if before in "、/（(“\"[" else 0.3
