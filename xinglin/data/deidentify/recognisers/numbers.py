# ruff: noqa: E501 - a regular expression is easier to check in one piece
"""Identifiers that are numbers: ids, phones, cards, record numbers, plates, mail addresses.

    numbers(text)   spans over a normalised text

A value behind a label (住院号：…) is taken whatever it looks like. Without a label a run of digits is judged by its
length, its grouping and its checksum: GB 11643-1999 (ISO 7064 MOD 11-2) for ids, Luhn (ISO/IEC 7812-1) for bank
cards. A wrong check digit makes the span "like" an id (rule `id-like`), it does not free it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from xinglin.data.deidentify.kinds import Span
from xinglin.data.deidentify.recognisers.lexicon import any_of, words

WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
CHECK = "10X98765432"

LABELLED = (
    *(
        "id_card",
        "phone",
        "bank_card",
        "mrn",
        "specimen",
        "imaging",
        "insurance",
        "passport",
        "travel_permit",
        "military",
    ),
    *("foreign_permit", "wechat_qq", "plate", "licence", "email", "ip"),
)
KIND_OF_LABEL = {label.lower(): kind for kind in LABELLED for label in words("labels", kind)}
LABELS = [label for kind in LABELLED for label in words("labels", kind)]
SPELLINGS = {case for label in LABELS for case in (label, label.lower(), label.upper(), label.capitalize())}
LABEL = re.compile(any_of(SPELLINGS, "[ ]{0,4}"))
OPENING = re.compile(
    r"(?:[ ]{0,3}[（(][^）)\n]{1,12}[）)])?(?:号码|编号|账号|帐号|ID|id|号)?[ \t]{0,3}(?:(?:[:：=#】\]]|[Nn][Oo]\.?|是|为|：)["
    r" \t\r\n_]{0,6})?[（(【\[]?"
)
BRACKET = re.compile(
    r"[ ]{0,3}[（(\[【][ ]{0,2}(?:(?:[Nn][Oo]\.?|号码?|为|是)[ ]{0,2}[:：]?|[:：])?[ ]{0,2}(?=[A-Za-z0-9])"
)
CLOSING = frozenset("）)]】")
VALUE = re.compile(
    r"[A-Za-z0-9\u4e00-\u9fff]{0,4}?[A-Za-z]{0,6}[-_/.·]?[0-9](?:[ \t\-–—_/.·,]{0,2}(?:\r?\n["
    r" \t]*)?[A-Za-z0-9Ｘ*#]){2,34}|[A-Za-z]{1,6}[-_]?[0-9]{2,}|[0-9]{3,}"
)  # noqa: E501
ACCOUNT = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_\-.]{3,29}")
FILLER = re.compile(
    r"[\u4e00-\u9fff]{0,8}[ :：（(\[【“\"]{0,3}(?=[A-Za-z0-9_\-]{0,20}(?:[0-9][A-Za-z_]|[A-Za-z_][0-9]|_[a-z]|[0-9]{5}))"
)
TIGHT = re.compile(
    r"[A-Za-z\u4e00-\u9fff]{0,4}?[A-Za-z]{0,6}[-_/.·]?[0-9][A-Za-z0-9\-–_/*]{2,34}"
    r"|[A-Za-z]{1,6}[-_]?[0-9]{2,}|[0-9]{3,}"
)

SPREAD = re.compile(  # a record number in groups, letter by letter, or broken over two lines
    r"[A-Za-z]{0,4}[ -]?[0-9]{3,4}(?: [0-9]{3,4}){1,4}(?![0-9.\-/年月日:：岁])|[A-Za-z0-9](?:"
    r" [A-Za-z0-9]){4,15}(?![A-Za-z0-9])"
    r"|[A-Za-z]{0,4}[0-9]{1,10}[ ]?\r?\n[ ]*[0-9]{1,10}(?![0-9.\-/年月日:：岁、)）床])"
)
GAP = r"[ \t\-–—_.·/]{0,2}(?:\r?\n[ \t]*)?"
RUN = re.compile(rf"[0-9](?:[)）]?{GAP}[(（]?[0-9]){{6,}}(?:{GAP}[Xx](?![A-Za-z0-9]))?")
NUMBER = re.compile(r"[0-9]+")
CHINESE_DIGITS = {
    **dict(zip("零一二三四五六七八九", "0123456789", strict=True)),
    "〇": "0",
    "○": "0",
    "Ｏ": "0",
    "O": "0",
    "o": "0",
}
CHINESE_DIGITS |= {
    "幺": "1",
    "壹": "1",
    "贰": "2",
    "叁": "3",
    "肆": "4",
    "伍": "5",
    "陆": "6",
    "柒": "7",
    "捌": "8",
    "玖": "9",
    "两": "2",
}
SPELLED = re.compile(
    r"[零一二三四五六七八九〇○幺壹贰叁肆伍陆柒捌玖两](?:[ \-、]?[零一二三四五六七八九〇○幺壹贰叁肆伍陆柒捌"
    r"玖两0-9OoXx]){6,19}"
)

HANDLE = re.compile(  # wxid_ab12cd, lin_1988, lihua1990: no word of medicine looks like that
    r"(?<![A-Za-z0-9@./_\-])(?:wxid[_-][A-Za-z0-9]{4,}|[a-z][a-z0-9]*_[a-z0-9_]*[0-9][a-z0-9_]*|(?!covid|https?|www|sars|grade|stage|phase|lewis|child|delta)[a-z]{5,}[0-9]{2,}|[a-z]{2,8}-[a-z]{2,8}[0-9]{2,})(?![A-Za-z0-9@.%_-])"
)
PLATE = re.compile(
    r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][ ]?[A-Za-z][ ·•.\-—]{0,2}"
    r"(?=[A-Za-z]{0,5}[ ]?[0-9])[A-HJ-NP-Za-hj-np-z0-9](?:[ ]?[A-HJ-NP-Za-hj-np-z0-9]){3}[A-HJ-NP-Za-hj-np"
    r"-z0-9]{0,2}[挂学警港澳领]?"
)
MAIL = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._%+\-]{0,63}[ ]?(?:@|\[at\]|\(at\)|（at）)[ ]?[A-Za-z0-9\-]{1,63}(?:["
    r" ]?[.。][ ]?[A-Za-z0-9\-]{2,}){1,4}",
    re.I,
)
URL = re.compile(
    r"(?:https?|ftp)[:：]//[^\s\u4e00-\u9fff，。；）)】》\"']{3,}|www\.[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)+(?:/"
    r"[^\s\u4e00-\u9fff，。；）)]*)?",
    re.I,
)
IP = re.compile(r"[0-9][0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![0-9.])")
CODE = re.compile(r"[A-Za-z][A-Za-z]{0,3}[-_ ]?[0-9][0-9\-]{5,}")
CODED = re.compile(
    r"(?:(?P<mrn>(?:ZYH?|MZH?|BAH?|BLH?|JZH?|MRN|PID|HIS|EMR|TJ|JH|DJ)[-_ ]?[0-9][0-9\-]{4,16}[0-9])"
    r"|(?P<imaging>(?:CT|MRI?|DR|CR|DX|US|XR|RIS|PET|DSA|XX|ECG|NJ|WJ)[-_ ]?[0-9][0-9\-]{4,16}[0-9])"
    r"|(?P<specimen>(?:BL|LIS|BB|SP|BC|YB|BK|XB|PA)[-_ ]?[0-9][0-9\-]{5,16}[0-9])"
    r"|(?P<passport>[A-Z]{1,2}[0-9]{7,9})|(?P<travel_permit>[HMC][A-Z]?[0-9]{8}(?:[0-9]{2})?)"
    r"|(?P<foreign_permit>[A-Z]{3}[0-9]{12}))(?![A-Za-z0-9])",
    re.I,
)
MILITARY = re.compile(r"[军士文武警南北沈济兰成广空海政后参总火战联][字][ ]?第?[ ]?[0-9][0-9 ]{4,11}[0-9][ ]?号?")
BED = re.compile(
    r"(?:(?:[加特抢监临备新东西南北急婴重移]|\+|[A-Za-z]{1,4}-?)[ ]?)?[（(\[【]?(?:[加+A-Za-z]?[0-9]{1,4}|[〇零一二三四五六七八九十百]{1,5})(?:[-—/][0-9]{1,3})?[A-Za-z甲乙]?[）)\]】]?[ ]?[#号]?[ ]?病?床\Z"
    r"|加床\Z"
)
AT_BED = re.compile(r"床(?![旁边头单垫数前板榻沿]|[ ]{0,3}(?:号|位|别)|上(?:肢|下|排|坐|活|翻|休|大|小|运|锻|时))")
SHARP = re.compile(
    r"(?<![A-Za-z0-9.#/])[加+A-Za-z]?[0-9]{1,3}#(?![A-Za-z0-9])(?![ ]?(?:楼|栋|幢|牙|刀|线|丝|片|管|针|可吸收))"
)
BED_LABEL = re.compile(
    r"(?:床(?:(?:[ ]{0,3}号|[ ]{0,3}位号?|别|次)(?:[ \t]{0,3}[:：=#】\]是为\-—/]?)|(?<=病床)|(?<![\u4e00-\u9fff].)(?=[ ]?[0-9+加])|[ ]{0,3}[:：#=]|(?=[（(\[【]))|加床[ ]{0,2}[:：]?|\b[Bb](?:ed|ED)[ ]?(?:[Nn][Oo]\.?)?[ ]?[:：#]?)[ \t\n]{0,3}[（(\[【]?[ ]?"
    r"(?P<v>(?:[加特抢监临备新东西南北急婴重移]|\+|[A-Za-z]{1,4})?[ \-]?[0-9]{1,4}(?:[-—/][0-9]{1,3}(?![0-9]))?[A-Za-z]?(?:[ ]?[#号]?床|[#号])?|加床|[〇零一二三四五六七八九十百]{1,5}[号]?床?)"
    r"(?![0-9]{0,2}(?:[.年月日岁%]|mg|ml|cm|例|次|天|周))"
)
MOBILE = re.compile(r"[(（+]?(?:(?:00)?86[ )）\-]*)?1[ \-]?[3-9]")
UNIT = re.compile(r"[ ]?(?:IU|U/|copies|拷贝|个|cfu|/|ml|mL|×|x10|元|万|%|％|mmol|cells|步|次|kcal|mg|ng|pg|Hz)", re.I)


def id_checksum(number: str) -> bool:
    """GB 11643-1999: whether the eighteenth character fits the first seventeen."""
    first = number[:17]
    if len(number) != 18 or not first.isdecimal():
        return False
    total = sum(int(digit) * weight for digit, weight in zip(first, WEIGHTS, strict=True))
    return number[17].upper() == CHECK[total % 11]


def luhn(number: str) -> bool:
    """ISO/IEC 7812-1: every second digit from the right doubled, digit sum a multiple of ten."""
    digits = [int(char) for char in reversed(number)]
    return sum(digits[0::2]) % 10 == -sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2]) % 10


def numbers(text: str) -> Iterator[Span]:
    """Every identifier that is a number, overlapping ones included."""
    yield from _labelled(text)
    yield from _runs(text)
    yield from _spelled(text)
    if "@" in text or "at)" in text or "at]" in text or "at）" in text:
        yield from (Span(m.start(), m.end(), "email", "mail") for m in MAIL.finditer(text))
    yield from (Span(m.start(), m.end(), "wechat_qq", "shape") for m in HANDLE.finditer(text))
    if "//" in text or "www." in text or "WWW." in text:
        yield from (Span(m.start(), m.end(), "url", "shape") for m in URL.finditer(text))
    yield from (Span(m.start(), m.end(), "plate", "shape") for m in PLATE.finditer(text))
    yield from (Span(m.start(), m.end(), "military", "shape") for m in MILITARY.finditer(text))
    yield from _beds(text)
    yield from (Span(m.start("v"), m.end("v"), "bed", "label") for m in BED_LABEL.finditer(text))
    for trigger in CODE.finditer(text):
        match = CODED.match(text, trigger.start())
        before = text[max(0, trigger.start() - 2) : trigger.start()]
        if (
            match
            and not (before[-1:].isascii() and before[-1:].isalnum())
            and before not in ("准字", "健字")
            and not match.group()[0].islower()
        ):
            yield Span(match.start(), match.end(), str(match.lastgroup), "code")


def _beds(text: str) -> Iterator[Span]:
    """12床, 加3床, (12)床, 12#; not 3张床, 床旁, 起床."""
    for bed in AT_BED.finditer(text):
        base = max(0, bed.start() - 11)
        match = BED.search(text[base : bed.end()])
        if match and (base + match.start() == 0 or text[base + match.start() - 1] not in BEFORE_NO_BED):
            yield Span(base + match.start(), bed.end(), "bed", "shape")
    yield from (Span(m.start(), m.end(), "bed", "shape") for m in SHARP.finditer(text))


BEFORE_NO_BED = frozenset("0123456789.~～至〇零一二三四五六七八九十百")


def _labelled(text: str) -> Iterator[Span]:
    for match in LABEL.finditer(text):
        kind = KIND_OF_LABEL[match.group().replace(" ", "").lower()]
        if (
            match.group().isascii()
            and match.start()
            and text[match.start() - 1].isascii()
            and text[match.start() - 1].isalpha()
        ):
            continue
        bracket = BRACKET.match(text, match.end())
        opening = OPENING.match(text, match.end())
        start = opening.end() if opening else match.end()
        if (
            bracket
            and (value := _value(text, bracket.end(), kind, explicit=True))
            and text[value : value + 1] in CLOSING
        ):
            start = bracket.end()
        value = _value(text, start, kind, explicit=start > match.end())
        if not value and kind == "wechat_qq" and (filler := FILLER.match(text, match.end())):
            start = filler.end()
            value = _value(text, start, kind, explicit=True)
        if value and kind == "phone" and not MOBILE.match(text, start):
            kind = "landline"
        if value:
            yield Span(start, value, kind, "label")


def _value(text: str, start: int, kind: str, explicit: bool) -> int | None:
    """End of the value that begins at `start`; None when what stands there is no value of this kind."""
    if kind in ("wechat_qq", "email", "ip"):
        match = ACCOUNT.match(text, start)
        return match.end() if match and (explicit or any(c.isdigit() for c in match.group())) else None
    loose = kind in ("id_card", "phone", "bank_card", "passport", "travel_permit", "foreign_permit", "insurance")
    match = VALUE.match(text, start) if loose else SPREAD.match(text, start) or TIGHT.match(text, start)
    if not match or (not explicit and sum(c.isdigit() for c in match.group()) < 5):
        return None
    return _shortened(text, start, match.end(), kind)


def _shortened(text: str, start: int, end: int, kind: str) -> int | None:
    """A phone has at most 14 digits, an id 18 characters: what follows (the next column) is cut off."""
    if kind == "phone" and (run := RUN.match(text, start)):
        spans = list(_judge(text, run.start(), run.end(), labelled=True))
        return max((span.end for span in spans), default=min(end, run.end()))
    limit = {"id_card": 18, "bank_card": 19, "travel_permit": 18, "foreign_permit": 18}.get(kind)
    if limit:
        seen = 0
        for place in range(start, end):
            seen += text[place].isalnum()
            if seen == limit:
                end = place + 1
                break
    tail = text[start:end]
    return end if sum(c.isdigit() for c in tail) >= 3 else None


def _runs(text: str) -> Iterator[Span]:
    for match in RUN.finditer(text):
        start, end = match.span()
        if start and text[start - 1] in "+(（":
            start -= 1
        yield from _judge(text, start, end)
    for match in IP.finditer(text):
        if _outside(text, match.start()) and all(int(part) < 256 for part in match.group().split(".")):
            yield Span(match.start(), match.end(), "ip", "shape")


def _outside(text: str, start: int) -> bool:
    return start == 0 or text[start - 1] not in "0123456789."


BOUND = r"(?<![0-9A-Za-z.])"
S = r"[ \t\-–—_.·/]{0,2}(?:\r?\n[ \t]*)?"
T = r"[ \t\-–—_.·]?(?:\r?\n[ \t]*)?"


def _digits(count: int, gap: str = T) -> str:
    return rf"(?:{gap}[0-9]){{{count}}}"


SHAPES = re.compile(
    rf"(?P<permit>8[123]0000{_digits(11)}{T}[0-9Xx](?![0-9]))"
    
        rf"|(?P<id18>[1-9]{_digits(5)}{T}(?:1{T}[89]|2{T}0){_digits(2)}{T}[01]{T}[0-9]{T}[0-3]{T}[0-9]"
        rf"{_digits(3)}{T}[0-9Xx](?![0-9]))"

    rf"|(?P<card>[3-6]{_digits(14)}(?:{T}[0-9]){{0,4}}(?![0-9Xx]))"
    rf"|(?P<long18>[1-9]{_digits(16)}{T}[0-9Xx](?![0-9]))"
    rf"|(?P<id15>[1-9]{_digits(5)}{T}[0-9]{T}[0-9]{T}[01]{T}[0-9]{T}[0-3]{T}[0-9]{_digits(3)}(?![0-9]))"
    rf"|(?P<phone>(?:\+?(?:0{T}0{T})?8{T}6{T}[(（]?{T})?1{T}[3-9][)）]?{_digits(9)}(?![0-9]))"
    
        r"|(?P<land>(?:\+?86[ \-]?)?[(（]?0?[1-9][0-9]{1,2}[)）][ \-–—]?[1-9][0-9]{2,3}[ \-]?[0-9]{4}(?:["
        r" ]?[\-–—转][ ]?[0-9]{1,6})?(?![0-9])"

    
        r"|(?:\+?86[ \-]?)?0(?:10|2[0-9]|[3-9][0-9]{2})[ ]?[\-–—/ ]?[ ]?[1-9][0-9]{2,3}["
        r" \-]?[0-9]{4}(?:[\-–—][0-9]{1,6})?(?![0-9])"

    
        r"|[48]00[ \-–—]?[0-9]{3,4}[ \-–—]?[0-9]{3,4}(?![0-9])|\+(?:852|853|886|1|44|81|82|65|61|7)["
        r" \-]?[0-9][0-9 \-]{6,12}[0-9](?![0-9]))"

)  # fmt: skip
PLAIN = re.compile(r"[0-9]{9,}")
SPLIT = re.compile(r"[^0-9Xx]+")


def _judge(text: str, start: int, end: int, labelled: bool = False) -> Iterator[Span]:
    """The identifiers in one run of digits and small gaps. A match must begin and end where a group of digits does."""
    place = start
    if start and text[start - 1] in ".0123456789":
        return
    while place < end:
        match = SHAPES.match(text, place)
        if match and (match.end() <= end + 8) and (labelled or _regular(match.group())):
            yield Span(match.start(), match.end(), *_verdict(match))
            place = match.end()
            continue
        plain = PLAIN.match(text, place)
        if (
            plain
            and not (place and text[place - 1].isascii() and text[place - 1].isalpha())
            and not UNIT.match(text, plain.end())
            and plain.group().strip("0")
            and not plain.group().endswith("00000")
        ):
            yield Span(plain.start(), plain.end(), "number", "long")
        step = NUMBER.match(text, place)
        place = _next_group(text, step.end() if step else place + 1, end)
    if labelled:
        yield from _local_number(text, start)


def _next_group(text: str, place: int, end: int) -> int:
    while place < end and not (text[place].isdigit() or text[place] in "+(（"):
        place += 1
    return place


def _local_number(text: str, start: int) -> Iterator[Span]:
    match = re.compile(r"[1-9][0-9]{2,3}[ \-]?[0-9]{4}(?![0-9])").match(text, start)
    if match:
        yield Span(match.start(), match.end(), "landline", "label")


def _regular(run: str) -> bool:
    """Whether the gaps of a digit run look like one number written in groups, not like columns of a table: no gap,
    one broken line, every digit apart, or groups that are all (but first and last) of one size of two or more."""
    if run.isalnum():
        return True
    groups = [len(group) for group in SPLIT.split(run.strip("+()（）")) if group]
    if len(groups) == 1 or set(groups) == {1}:
        return True
    if "\n" in run and len(groups) <= 2:
        return True
    if len(groups) == 2:
        return min(groups) >= 2
    middle = set(groups[1:-1])
    if (
        sum(groups) in (15, 16, 17, 18, 19)
        and set(groups) <= {3, 4, 6, 8, 2, 1, 7}
        and len(groups) <= 7
        and min(groups[:-1]) >= 3
    ):
        return True
    return len(middle) == 1 and middle <= {3, 4} and groups[0] <= 4 and groups[-1] <= 5


def _verdict(match: re.Match[str]) -> tuple[str, str]:
    shape, compact = str(match.lastgroup), re.sub(r"[^0-9Xx]", "", match.group())
    if shape == "permit":
        return "travel_permit", "checksum" if id_checksum(compact) else "id-like"
    if shape in ("id18", "long18"):
        if id_checksum(compact):
            return ("foreign_permit" if compact[0] == "9" and shape == "long18" else "id_card"), "checksum"
        if shape == "long18" and compact.isdecimal() and luhn(compact):
            return "bank_card", "checksum"
        return ("id_card", "id-like") if shape == "id18" else ("number", "long")
    if shape == "card":
        return (
            ("bank_card", "checksum")
            if luhn(compact)
            else ("bank_card", "card-like")
            if len(compact) > 15
            else ("id_card", "id15")
        )
    return {"id15": ("id_card", "id15"), "phone": ("phone", "shape"), "land": ("landline", "shape")}[shape]


def _spelled(text: str) -> Iterator[Span]:
    """Numbers spelled with Chinese digits: 一三八零零…; eleven or eighteen of them, or landlines behind their zero."""
    for match in SPELLED.finditer(text):
        digits = "".join(CHINESE_DIGITS.get(char, char) for char in match.group() if char.isalnum())
        if len(digits) == 11 and digits[0] == "1" and digits[1] in "3456789":
            yield Span(match.start(), match.end(), "phone", "spelled")
        elif len(digits) >= 15:
            yield Span(match.start(), match.end(), "id_card" if len(digits) in (15, 18) else "bank_card", "spelled")
        elif len(digits) >= 7:
            yield Span(match.start(), match.end(), "landline" if digits[0] == "0" else "number", "spelled")
