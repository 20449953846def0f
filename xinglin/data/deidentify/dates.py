"""Dates moved by one offset per patient, and ages capped: intervals stay, calendar days go.

    days = offset_days(secret, patient_id)             1..365 days back or forth, never 0
    shift("2023年5月1日", days)                          -> Shifted("2023年8月20日", ...), same script and width
    cap_age("93", "岁，")                               -> ("90岁以上", 1)

Read: 2023-05-01, 23.5.1, 2023/5/1, 5/1/2023, 20230501, 2023年5月1日, 二〇二三年五月一日, 5月1日, 5/1, 2023-05, 2023年,
English, in half and full width. A date without a year takes the note's year, so that it moves as the whole dates beside
it. A month moves by its fifteenth day, a year by the first of July. Impossible dates and 农历 are masked and named in
`problem`: a lunar day has no offset that keeps its interval without an almanac.
"""

from __future__ import annotations

import calendar
import datetime
import re
from dataclasses import dataclass

from xinglin.data.deidentify.ledger import keyed
from xinglin.data.deidentify.recognisers.view import INVISIBLE

MASK, LUNAR_MASK = "[日期]", "[农历日期]"
OLDEST = 90
FULL_WIDTH = str.maketrans("0123456789", "０１２３４５６７８９")
TO_ASCII = str.maketrans("０１２３４５６７８９", "0123456789")
ZEROS, DIGITS, FORMAL = "〇○零Ｏ", "〇一二三四五六七八九", "零壹贰叁肆伍陆柒捌玖"
VALUE = {char: number for row in (DIGITS, FORMAL) for number, char in enumerate(row)} | dict.fromkeys(ZEROS, 0)
VALUE |= {"两": 2, "贰": 2, "弍": 2}
MONTHS = [name.lower() for name in calendar.month_name]
WEEKDAYS = "一二三四五六日"

D = "[0-9０-９]"
C = "[〇○零一二三四五六七八九壹贰叁肆伍陆柒捌玖]"
CN = "[〇○零一二三四五六七八九十廿壹贰叁肆伍陆柒捌玖拾]{1,3}"
SEP = r"[-/.．－／—–‐_·、]"
EN = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
PATTERN = re.compile(
    "|".join(
        (
            rf"(?P<y1>{D}{{4}}|{D}{{2}}|{C}{{4}}|{C}{{2}})\s*年(?:\s*(?P<m1>{D}{{1,2}}|{CN})\s*月(?:份|\s*(?P<d1>{D}{{1,2}}|{CN})\s*[日号]?)?)?",
            rf"(?P<y2>{D}{{4}}|{D}{{2}})\s*(?P<s2>{SEP})\s*(?P<m2>{D}{{1,2}})\s*(?:{SEP})\s*(?P<d2>{D}{{1,2}})(?!{D})",
            rf"(?P<m3>{D}{{1,2}})\s*(?P<s3>[-/.])\s*(?P<d3>{D}{{1,2}})\s*[-/.]\s*(?P<y3>{D}{{4}})(?!{D})",
            rf"(?<!{D})(?P<y4>{D}{{4}})(?P<m4>{D}{{2}})(?P<d4>{D}{{2}})(?={D}{{6}}(?!{D})|{D}{{4}}(?!{D})|(?!{D}))",
            rf"(?P<m5>{D}{{1,2}}|{CN})\s*月(?:份|\s*(?P<d5>{D}{{1,2}}|{CN})\s*[日号]?)?",
            rf"(?P<y6>{D}{{4}})\s*(?P<s6>{SEP})\s*(?P<m6>{D}{{1,2}})(?!{D})",
            rf"(?P<m7>{D}{{1,2}})\s*(?P<s7>[-/.．／])\s*(?P<d7>{D}{{1,2}})(?!{D})",
            rf"(?P<m8>{EN})[\s.-]*(?:(?P<d8>\d{{1,2}})(?P<o8>st|nd|rd|th)?)?[\s,-]+(?P<y8>\d{{4}})",
            rf"(?P<d9>\d{{1,2}})(?P<o9>st|nd|rd|th)?[\s-]*(?:of\s+)?(?P<m9>{EN})[\s.,-]*(?P<y9>\d{{4}})?",
            rf"(?<=[至到~～—–-])\s*(?P<d10>{D}{{1,2}}|{CN})\s*[日号]",
            rf"(?<!{D})(?P<y11>(?:19|20|１９|２０){D}{{2}})(?!{D})",
        )
    ),
    re.I,
)
YEAR = re.compile(rf"(?<!{D})(?:19|20|１９|２０){D}{{2}}(?=\s*{SEP}\s*{D}|\s*年|{D}{{4}}(?!{D}))|[一二]{C}{{3}}(?=年)")
LUNAR = re.compile(r"[农陰阴旧]历|正月|冬月|腊月|闰|初[一二三四五六七八九十]|廿|除夕")
LUNAR_BEFORE = re.compile(r"(?:[农陰阴旧]历)\s*[:：]?\s*$")
TIME = re.compile(
    rf"[T\s]*(?:{D}{{1,2}}\s*[:：]\s*{D}{{2}}(?:\s*[:：]\s*{D}{{2}})?(?:\.\d+)?|{D}{{1,2}}\s*[时点](?:\s*{D}{{1,2}}\s*分?|半)?)Z?"
)
COMPACT_TIME = re.compile(rf"\0{D}{{4}}(?:{D}{{2}})?")
NUMERAL = re.compile(f"{D}|{C}|十")
WEEKDAY = re.compile(r"[\s，,]*[(（]?\s*(?:星期|周|礼拜)([一二三四五六日天])")


@dataclass(frozen=True, slots=True)
class Shifted:
    """`last` is the new calendar day of the last whole date, for the weekday behind it; `problem` is "", "impossible",
    "lunar" or "unread", and then `text` is a mask."""

    text: str
    problem: str = ""
    last: datetime.date | None = None


def offset_days(secret: bytes, patient_id: str) -> int:
    """The patient's own offset in days: -365..-1 or 1..365, from HMAC-SHA256 of the patient id."""
    number = int.from_bytes(keyed(secret, "offset", patient_id))
    size, sign = 1 + number % 365, (number >> 64) & 1
    return size if sign else -size


def shift(text: str, days: int, year: int | None = None, before: str = "") -> Shifted:
    """`text` (one found date, or a range) with every date in it moved by `days`. `year`: the note's; `before`: a few
    characters of text in front, where 农历 may stand."""
    text = INVISIBLE.sub("", text)
    if LUNAR.search(text) or LUNAR_BEFORE.search(before):
        return Shifted(LUNAR_MASK, "lunar")
    mover = _Mover(days, year)
    moved = PATTERN.sub(mover.move, text)
    rest = COMPACT_TIME.sub("", TIME.sub("", PATTERN.sub("\0", text)))
    if mover.impossible:
        return Shifted(MASK, "impossible")
    if mover.count == 0 or NUMERAL.search(rest):
        return Shifted(MASK, "unread")
    return Shifted(moved, "", mover.last)


def year_of(text: str) -> int | None:
    """The newest year of four digits that begins a date in `text`; a note is younger than what it tells of."""
    return max((_read(match[0]) for match in YEAR.finditer(text)), default=None)


def weekday(text: str, day: datetime.date) -> tuple[int, str] | None:
    """For text that goes on with "（星期三）": how far to replace it and by what. A kept weekday would betray the
    offset modulo seven."""
    match = WEEKDAY.match(text)
    return (match.end(), match[0][:-1] + WEEKDAYS[day.weekday()]) if match else None


def cap_age(text: str, after: str = "") -> tuple[str, int]:
    """For an age of 90 or more (HIPAA 45 CFR 164.514(b)(2)(i)(C)): what stands for it, and how much of `after` goes
    too. "93" before "岁" becomes "90岁以上"."""
    if "岁" in text or "歲" in text:
        return f"{OLDEST}岁以上", 0
    behind = re.match(r"\s*[岁歲]", after)
    return (f"{OLDEST}岁以上", behind.end()) if behind else (f"{OLDEST}+", 0)


class _Mover:
    """Moves one match after another; a range's second half ("5月1日至7日") leans on the date before it."""

    def __init__(self, days: int, year: int | None) -> None:
        self.days, self.year = datetime.timedelta(days=days), year
        self.count, self.impossible = 0, False
        self.last: datetime.date | None = None
        self.read: datetime.date | None = None
        self.like = ""

    def move(self, match: re.Match[str]) -> str:
        self.count += 1
        parts = _parts(match)
        day = self._day(parts)
        if day is None:
            self.impossible = True
            return MASK
        if "d" in parts:
            self.read, self.last = day, day + self.days
        new = day + self.days
        if parts.keys() == {"d"}:
            return self._end_of_range(match, new)
        self.like = match[0]
        return _write(match, parts, new)

    def _day(self, parts: dict[str, str]) -> datetime.date | None:
        """The calendar day, or None where the calendar has none."""
        try:
            year = self._year(parts.get("y"))
            month = _read(parts["m"]) if "m" in parts else None
            day = _read(parts["d"]) if "d" in parts else None
            if parts.keys() == {"d"}:
                return self.read.replace(day=day or 0) if self.read else None
            if "y" not in parts and (month, day) == (2, 29):
                year -= year % 4
            if not 1850 <= year <= 2150:
                return None
            return datetime.date(year, month or 7, day or (15 if month else 1))
        except (ValueError, KeyError):
            return None

    def _year(self, text: str | None) -> int:
        if text is None:
            return self.year or (self.read.year if self.read else 2001)
        year = _read(text)
        if len(text) == 4:
            return year
        newest = (self.year or 2035) % 100 + 1
        return 2000 + year if year <= newest else 1900 + year

    def _end_of_range(self, match: re.Match[str], new: datetime.date) -> str:
        """ "至7日" of 5月1日至7日; the month is written where the range now crosses one."""
        numeral = match["d10"]
        if self.read and (self.read.replace(day=1) + self.days).month == new.month == (self.last or new).month:
            return match[0].replace(numeral, _number(new.day, numeral))
        return match[0].replace(numeral, f"{_number(new.month, numeral)}月{_number(new.day, numeral)}", 1)


def _parts(match: re.Match[str]) -> dict[str, str]:
    """y, m, d as written; "5/1/2023" is month first, unless that is no month."""
    found = {name[0]: value for name, value in match.groupdict().items() if value is not None and name[0] in "ymd"}
    if match["y3"] and _read(found["m"]) > 12:
        found["m"], found["d"] = found["d"], found["m"]
    return found


def _read(numeral: str) -> int:
    """A number in digits of any width, in Chinese digits (二〇二三) or Chinese counting (二十一), or a month's name."""
    plain = numeral.translate(TO_ASCII)
    if plain.isdecimal():
        return int(plain)
    if plain[0].isascii():
        return next(number for number, name in enumerate(MONTHS) if name[:3] == plain[:3].lower())
    plain = plain.replace("廿", "二十").replace("拾", "十")
    if "十" in plain:
        tens, _, ones = plain.partition("十")
        return 10 * (VALUE[tens[-1]] if tens else 1) + (VALUE[ones] if ones else 0)
    return int("".join(str(VALUE[char]) for char in plain))


def _write(match: re.Match[str], parts: dict[str, str], new: datetime.date) -> str:
    """The match with its numerals replaced, everything between them as it was."""
    values = {"y": new.year, "m": new.month, "d": new.day}
    swap = match["y3"] is not None and match["m3"] != parts["m"]
    month, day = parts.get("m", ""), parts.get("d", "")
    padded = any(_read_zero(one) for one in (month, day)) or (
        "月" not in match[0] and len(month) == len(day) == 2 and not month.isalpha()
    )
    out, done = "", match.start()
    for name in sorted((n for n, v in match.groupdict().items() if v is not None and n[0] in "ymdo"), key=match.start):
        kind = {"m": "d", "d": "m"}.get(name[0], name[0]) if swap else name[0]
        old = match[name]
        text = _ordinal(new.day) if kind == "o" else _number(values[kind], old, padded and kind != "y")
        out += match.string[done : match.start(name)] + text
        done = match.end(name)
    return out + match.string[done : match.end()]


def _read_zero(numeral: str) -> bool:
    return len(numeral) > 1 and numeral[0] in "0０" + ZEROS


def _number(value: int, like: str, padded: bool = False) -> str:
    """`value` in the script of `like`."""
    first = like[0]
    if first in "0123456789０１２３４５６７８９":
        text = f"{value % 10 ** len(like):0{len(like)}d}" if len(like) in (2, 4) and value > 99 else str(value)
        text = text.zfill(2) if padded else text
        return text.translate(FULL_WIDTH) if first in "０１２３４５６７８９" else text
    if first.isascii():
        return _month_name(value, like)
    digits = FORMAL if any(char in FORMAL[1:] + "拾" for char in like) else DIGITS
    zero = next((char for char in like if char in ZEROS), digits[0])
    if value > 99:
        return "".join(zero if char == "0" else digits[int(char)] for char in str(value)[-len(like) :])
    return (zero if padded and value < 10 else "") + _counted(value, digits, "拾" if digits is FORMAL else "十")


def _counted(value: int, digits: str, ten: str) -> str:
    tens, ones = divmod(value, 10)
    return (digits[tens] if tens > 1 else "") + (ten if tens else "") + (digits[ones] if ones else "")


def _month_name(month: int, like: str) -> str:
    name = calendar.month_name[month] if len(like) > 4 or like.lower() == "june" else calendar.month_abbr[month]
    return name.upper() if like.isupper() else name.lower() if like.islower() else name


def _ordinal(day: int) -> str:
    return "th" if 10 < day % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
