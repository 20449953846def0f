"""Days as Chinese notes write them: digits with every separator, Chinese numerals, the lunar calendar."""

from __future__ import annotations

import datetime
import random

DIGITS = "〇一二三四五六七八九"
LUNAR_MONTHS = "正月 二月 三月 四月 五月 六月 七月 八月 九月 十月 冬月 腊月".split()
LUNAR_DAYS = "初一 初二 初五 初八 初十 十一 十三 十五 十六 十八 二十 廿一 廿三 廿六 廿九 三十".split()


def numeral(number: int) -> str:
    """1 to 99 as it is said: 12 is 十二, 31 is 三十一."""
    tens, ones = divmod(number, 10)
    head = "" if tens == 0 else "十" if tens == 1 else DIGITS[tens] + "十"
    return head + (DIGITS[ones] if ones else "")


def day_text(day: datetime.date, rng: random.Random) -> str:
    """A full date. ISO and 年月日 are the commonest, as in real exports."""
    zero = rng.choice(("〇", "〇", "零"))
    year = "".join(DIGITS[int(digit)] for digit in str(day.year)).replace("〇", zero)
    forms = (
        (30, day.isoformat()),
        (20, f"{day.year}年{day.month}月{day.day}日"),
        (8, f"{day.year}年{day.month:02d}月{day.day:02d}日"),
        (8, f"{day.year}/{day.month}/{day.day}"),
        (6, f"{day.year}/{day.month:02d}/{day.day:02d}"),
        (8, f"{day.year}.{day.month}.{day.day}"),
        (5, f"{day.year}.{day.month:02d}.{day.day:02d}"),
        (5, f"{day.year}-{day.month}-{day.day}"),
        (4, f"{day.year % 100:02d}.{day.month}.{day.day}"),
        (3, f"{day.year % 100:02d}年{day.month}月{day.day}日"),
        (4, f"{day:%Y%m%d}"),
        (5, f"{year}年{numeral(day.month)}月{numeral(day.day)}日"),
        (2, f"{day.year}年{day.month}月{day.day}号"),
    )
    return rng.choices([text for _, text in forms], [weight for weight, _ in forms])[0]


def month_day_text(day: datetime.date, rng: random.Random) -> str:
    forms = (
        f"{day.month}月{day.day}日",
        f"{day.month}月{day.day}号",
        f"{day.month:02d}月{day.day:02d}日",
        f"{day.month}/{day.day}",
        f"{day.month:02d}-{day.day:02d}",
        f"{numeral(day.month)}月{numeral(day.day)}日",
    )
    return rng.choice(forms)


def month_text(day: datetime.date, rng: random.Random) -> str:
    return rng.choice((f"{day.year}年{day.month}月", f"{day.year}-{day.month:02d}", f"{day.year}.{day.month:02d}"))


def lunar_text(day: datetime.date, rng: random.Random) -> str:
    """Any lunar day of about that time: the calendar itself is not computed."""
    month, lunar_day = rng.choice(LUNAR_MONTHS), rng.choice(LUNAR_DAYS)
    return rng.choice((f"农历{day.year}年{month}{lunar_day}", f"农历{month}{lunar_day}", f"阴历{month}{lunar_day}"))


def impossible_text(day: datetime.date, rng: random.Random) -> str:
    """A date no calendar has, as typing errors make them."""
    return rng.choice(
        (f"{day.year}-02-30", f"{day.year}年13月{day.day}日", f"{day.year}.11.31", f"{day.year}年2月30日")
    )
