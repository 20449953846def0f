"""Doses in Chinese prescriptions: read amount, unit and times a day; compare with the true dose.

A dose far off is one that hurts: five times too much or a fifth, or over twice the daily maximum.
"""

from __future__ import annotations

import re

AMOUNT = r"(\d+(?:\.\d+)?)(?:/\d+(?:\.\d+)?)?(?:[～~\-－至到](\d+(?:\.\d+)?))?\s*"
UNIT = (
    r"(毫克|微克|千克|克|万单位|万国际单位|国际单位|单位|毫升|毫摩尔|mg|μg|ug|IU|BU|ml|mL|g|厘米"
    r"|片|粒|支|袋|滴|喷|揿|吸|丸|枚)"
)
DOSE = re.compile(AMOUNT + UNIT)
TIMES = re.compile(r"每(?:日|天)(\d+|[一二三四五六两])(?:[～~\-至](\d+))?次")
EVERY = re.compile(r"每(?:隔)?(\d+)小时")
DIGITS = {"一": 1, "二": 2, "两": 2, "三": 3, "四": 4, "五": 5, "六": 6}
# unit -> (dimension, factor)
SCALE = {
    "微克": ("mg", 0.001), "μg": ("mg", 0.001), "ug": ("mg", 0.001), "毫克": ("mg", 1.0), "mg": ("mg", 1.0),
    "克": ("mg", 1000.0), "g": ("mg", 1000.0), "千克": ("mg", 1e6),
    "单位": ("iu", 1.0), "国际单位": ("iu", 1.0), "IU": ("iu", 1.0), "万单位": ("iu", 1e4), "万国际单位": ("iu", 1e4),
    "毫升": ("ml", 1.0), "ml": ("ml", 1.0), "mL": ("ml", 1.0),
}  # fmt: skip
REACH = 24
FAR = 5.0


def doses_near(name: str, text: str) -> list[str]:
    """The clauses that follow a treatment's name and hold a dose, up to the end of its sentence."""
    found = []
    for mention in re.finditer(re.escape(name), text):
        rest = re.split(r"[。；;！？\n]", text[mention.end() : mention.end() + REACH + 16])[0]
        dose = DOSE.search(rest)
        if dose and dose.start() <= REACH:
            end = re.search(r"[，,]", rest[dose.end() :])
            found.append(rest[dose.start() : dose.end() + end.start() if end else None])
    return found


def amount(dose: str) -> tuple[str, float, float] | None:
    """(dimension, lowest, highest) in mg, IU or ml; other units stand for themselves."""
    read = DOSE.search(dose)
    if read is None:
        return None
    dimension, factor = SCALE.get(read.group(3), (read.group(3), 1.0))
    low = float(read.group(1)) * factor
    return dimension, low, float(read.group(2)) * factor if read.group(2) else low


def times_a_day(dose: str) -> int | None:
    """每日3次 -> 3, 每8小时 -> 3; None where the dose does not say."""
    read = TIMES.search(dose)
    if read:
        last = read.group(2) or read.group(1)
        return int(last) if last.isdigit() else DIGITS[last]
    hours = EVERY.search(dose)
    return max(1, 24 // int(hours.group(1))) if hours and int(hours.group(1)) else None


def same_dose(said: str, true: str) -> bool:
    """Same amount, and the same times a day where both say it."""
    if not true or amount(said) is None or amount(true) is None:
        return said == true
    times = times_a_day(said), times_a_day(true)
    return amount(said) == amount(true) and (None in times or times[0] == times[1])


def far_off(said: str, true: str, max_daily: str = "") -> bool:
    """Five times too much or too little, or more than twice the daily maximum."""
    one, other = amount(said), amount(true)
    if one is None or other is None:
        return False
    if one[0] == other[0] and (one[2] >= FAR * other[2] or one[1] <= other[1] / FAR):
        return True
    limit = amount(max_daily)
    return limit is not None and limit[0] == one[0] and one[2] * (times_a_day(said) or 1) > 2 * limit[2]
