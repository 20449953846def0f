"""What structured fields tell of one patient and the hospital, and where it stands in free text.

known_from(fields, roles=None)   Known; `roles` maps a field to a kind, else usual column names are guessed
occurrences(text, known)         spans, also where the value is split by blanks, hyphens, line breaks or lower-cased
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from xinglin.data.deidentify.kinds import KIND, Span
from xinglin.data.deidentify.recognisers.lexicon import HAN, protected, words
from xinglin.data.deidentify.recognisers.view import View
from xinglin.records import InputError


@dataclass(frozen=True, slots=True)
class Known:
    """Values of one patient and the hospital as (compact value, kind): letters, digits and Chinese only, lower case."""

    values: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return f"Known({len(self.values)} values)"


COLUMNS = (
    ("hospital", r"医院|院名|机构名称|hospital|clinic|外院"),
    ("employer", r"工作单位|单位|公司|学校|employer|company|school"),
    ("id_card", r"身份证|身份号|证件号|id_?card|id_?no|identity|national_?id|sfz"),
    ("phone", r"手机|电话|联系方式|phone|mobile|tel|contact_number"),
    ("email", r"邮箱|邮件|e-?mail"),
    ("address", r"地址|住址|籍贯|户籍|户口|住所|出生地|address|home"),
    ("bank_card", r"银行卡|卡号|账号|bank"),
    ("insurance", r"医保|社保|参保|农合|insurance"),
    ("passport", r"护照|passport"),
    ("travel_permit", r"通行证|居住证|permit"),
    ("military", r"军官证|士兵证|军人证"),
    ("wechat_qq", r"微信|qq|wechat"),
    ("plate", r"车牌"),
    ("specimen", r"标本号|样本号|条码|病理号|检验号|specimen|barcode"),
    ("imaging", r"影像号|检查号|放射号|超声号|片号|accession"),
    ("bed", r"床号|床位|^bed"),
    ("mrn", 
        r"病历号|住院号|门诊号|病案号|就诊号|就诊卡|登记号|患者编号|患者id|病人id|档案号|流水号|mrn"
        r"|patient_?(?:id|no)|record_?no|visit_?(?:id|no)|admission_?no|chart"
),
    ("name", 
        r"姓名|名字|联系人|家属|监护人|医师|医生|护士|签名|书写者|记录者|术者|助手|父亲|母亲|配偶"
        r"|^(?:patient_?|full_?|doctor_?|nurse_?|contact_?|physician_?)?name$|name$|doctor|physician|surgeon"
        r"|nurse"
),
    ("date", r"出生日期|生日|birth|dob"),
)  # fmt: skip
TITLE = re.compile(r"(?:副?主任医师|主治医师|住院医师|副?主任护?师?|主管护师|护师|护士长?|医师|医生|教授|大夫)$")
SHORTEST = {"name": 2, "bed": 3, "address": 4, "hospital": 4, "employer": 4, "date": 6, "mrn": 4}
EMPTY = frozenset(
    "无 不详 未知 未提供 同上 本人 none null nan na 暂无 保密 否 家属 农民 退休 个体 自由职业 无业 学生".split()
)
APART = re.compile(r"[\W_]+")
REGION_HEAD = re.compile(rf"^.*?(?:自治区|自治州|省|市|区|县|旗)(?=[{HAN}0-9]{{5,}})")
GAP = re.compile(r"[\s\-–—_.·•‧・*/\\|'\"()（）,，]*")
NAME_GAP = re.compile(r"[\s\-–—_.·•‧・*/\\|'\"]{0,12}")
MOOD = re.compile(r"(?:很|不|未|非常|较|太|更|感|心情|情绪|特别|十分|略|极|甚|欠|保持|环境)$")


def known_from(fields: Mapping[str, str], roles: Mapping[str, str] | None = None) -> Known:
    """The identifiers among `fields`. Raises InputError for a role that is no kind."""
    values: dict[tuple[str, str], None] = {}
    for field, value in fields.items():
        kind = (roles.get(field) if roles is not None else None) or (None if roles is not None else _guess(field))
        if kind is None:
            continue
        if kind not in KIND:
            raise InputError(f"field {field!r}: {kind!r} is no kind of identifier; allowed are {', '.join(KIND)}")
        for piece in _pieces(str(value or ""), kind):
            values[piece, kind] = None
    return Known(tuple(values))


def _guess(field: str) -> str | None:
    return next((kind for kind, pattern in COLUMNS if re.search(pattern, field.strip(), re.I)), None)


def _pieces(value: str, kind: str) -> Iterator[str]:
    """The value itself, and what people shorten it to: an address without its region, one name of a list."""
    value = View(value).text.strip()
    parts = [value]
    if kind == "name":
        parts += [TITLE.sub("", part) for part in re.split(r"[、,，;；/\s]+", value)]
    if kind in ("phone", "email", "mrn", "id_card"):
        parts += re.split(r"[、,，;；/]+", value)
    if kind == "address" and (head := REGION_HEAD.match(value)):
        parts.append(value[head.end() :])
        while head := REGION_HEAD.match(parts[-1]):
            parts.append(parts[-1][head.end() :])
    for part in dict.fromkeys(parts):
        compact = APART.sub("", part).lower()
        if (
            len(compact) >= SHORTEST.get(kind, 5)
            and compact not in EMPTY
            and not (kind == "name" and len(compact) > 40)
        ):
            yield compact


def occurrences(text: str, known: Known) -> Iterator[Span]:
    """Every place of a known value. Text and value are compared without blanks and marks."""
    folded = text.lower() if len(text.lower()) == len(text) else text
    compact, places = APART.sub("", folded), None
    for value, kind in known.values:
        if value not in compact:
            continue
        if folded.count(value) == compact.count(value):
            yield from _whole(text, folded, value, kind)
            continue
        if places is None:
            places = [i for i, char in enumerate(folded) if char.isalnum()]
        at = compact.find(value)
        while at >= 0:
            start, end = places[at], places[at + len(value) - 1] + 1
            if _acceptable(text, start, end, value, kind):
                yield Span(start, end, kind, "known")
            at = compact.find(value, at + 1)


def _whole(text: str, folded: str, value: str, kind: str) -> Iterator[Span]:
    """The places of a value that is written without gaps."""
    at = folded.find(value)
    while at >= 0:
        if _acceptable(text, at, at + len(value), value, kind):
            yield Span(at, at + len(value), kind, "known")
        at = folded.find(value, at + 1)


def _acceptable(text: str, start: int, end: int, value: str, kind: str) -> bool:
    """Digits must not be part of a longer number; a name must not reach over a sentence mark or lie in a word."""
    if value[0].isascii() and start and text[start - 1].isascii() and text[start - 1].isalnum() and value[0].isalnum():
        return len(value) >= 9
    if value[-1].isascii() and text[end : end + 1].isascii() and text[end : end + 1].isalnum():
        return len(value) >= 9
    if kind != "name" or value.isascii():
        return True
    between = APART.findall(text[start:end])
    if any(not NAME_GAP.fullmatch(gap) for gap in between):
        return False
    if len(value) <= 2 and (word := protected().match(text, start)) and word.end() > end:
        return False
    ordinary = value in words("names", "words") or bool(protected().fullmatch(value))
    return not (ordinary and MOOD.search(text[max(0, start - 4) : start]))
