"""Dates move, intervals stay. Expected days were worked out by hand on a calendar."""

from __future__ import annotations

import datetime
import random

import pytest

from xinglin.data.deidentify.dates import cap_age, offset_days, shift, weekday, year_of

SECRET = bytes(range(32))


@pytest.mark.parametrize(
    ("text", "days", "new"),
    [
        ("2023-05-01", 40, "2023-06-10"),  # 30 days to the end of May and 10
        ("2023-12-31", 1, "2024-01-01"),
        ("2024-03-01", -1, "2024-02-29"),  # a leap year
        ("23.5.1", 31, "23.6.1"),
        ("99.12.31", 1, "00.01.01"),
        ("2023/5/1", -1, "2023/4/30"),
        ("2023/05/01", -1, "2023/04/30"),
        ("12/31/2023", 1, "01/01/2024"),
        ("31/12/2023", 1, "01/01/2024"),
        ("20230501", 365, "20240430"),  # 2024 has 29 February
        ("20230501083000", 1, "20230502083000"),
        ("2023年5月1日", 9, "2023年5月10日"),
        ("2023年05月01日", 8, "2023年05月09日"),
        ("2023 年 5 月 1 日", 9, "2023 年 5 月 10 日"),
        ("２０２３年５月１日", 9, "２０２３年５月１０日"),
        ("二〇二三年五月一日", 19, "二〇二三年五月二十日"),
        ("二零二三年十二月三十一日", 1, "二零二四年一月一日"),
        ("二○二三年五月十日", 1, "二○二三年五月十一日"),
        ("5月1日", 31, "6月1日"),
        ("5/1", 31, "6/1"),
        ("05-01", 31, "06-01"),
        ("2月28日", 1, "3月1日"),
        ("May 1, 2023", 31, "Jun 1, 2023"),
        ("1 Dec 2023", 31, "1 Jan 2024"),
        ("MAY 1st 2023", 1, "MAY 2nd 2023"),
        ("2023-05-01 08:30", 1, "2023-05-02 08:30"),
        ("2023-05-01T08:30:00", -1, "2023-04-30T08:30:00"),
        ("2023\u200b-05-01", 1, "2023-05-02"),
        ("202\U000e01003-0\ufe005-01", 1, "2023-05-02"),
        ("5月1日至7日", 1, "5月2日至8日"),
        ("5月28日-31日", 2, "5月30日-6月2日"),
        ("2023-05-01至2023-05-07", 30, "2023-05-31至2023-06-06"),
        ("2023年5月", 30, "2023年6月"),  # by its fifteenth: 14 June
        ("2023年", 300, "2024年"),  # by the first of July
    ],
)
def test_hand_worked(text: str, days: int, new: str) -> None:
    moved = shift(text, days, 2023)
    assert (moved.text, moved.problem) == (new, "")


@pytest.mark.parametrize(
    ("text", "problem", "mask"),
    [
        ("2023-02-30", "impossible", "[日期]"),
        ("2023年13月1日", "impossible", "[日期]"),
        ("13月", "impossible", "[日期]"),
        ("4月31日", "impossible", "[日期]"),
        ("20231301", "impossible", "[日期]"),
        ("0023-05-01", "impossible", "[日期]"),
        ("农历五月初五", "lunar", "[农历日期]"),
        ("二〇二三年腊月廿三", "lunar", "[农历日期]"),
        ("八月初五", "lunar", "[农历日期]"),
        ("端午前一周", "unread", "[日期]"),
        ("2023-05-01 及 77", "unread", "[日期]"),
    ],
)
def test_what_cannot_move_is_masked_and_named(text: str, problem: str, mask: str) -> None:
    assert (shift(text, 10, 2023).text, shift(text, 10, 2023).problem) == (mask, problem)


def test_lunar_by_the_words_in_front() -> None:
    assert shift("八月十五", 10, 2023, before="农历").problem == "lunar"
    assert shift("八月十五", 10, 2023, before="入院").text == "八月二十五"


def test_leap_day_without_a_year() -> None:
    assert shift("2月29日", 1, 2023).text == "3月1日"
    assert shift("2月29日", 1, 2024).text == "3月1日"


STYLES = {
    "%Y-%m-%d": "{0}-{1:02d}-{2:02d}",
    "%Y/%m/%d": "{0}/{1}/{2}",
    "%Y.%m.%d": "{0}.{1:02d}.{2:02d}",
    "%Y年%m月%d日": "{0}年{1}月{2}日",
    "%Y%m%d": "{0}{1:02d}{2:02d}",
}


def test_intervals_are_exact_in_every_pair() -> None:
    """10 000 pairs in mixed scripts; read back by strptime, which knows nothing of our parser."""
    rng = random.Random(1)
    for number in range(10_000):
        days = offset_days(SECRET, f"patient {number}")
        one, two = (datetime.date(1940, 1, 1) + datetime.timedelta(days=rng.randrange(33_000)) for _ in range(2))
        moved = []
        for day in (one, two):
            read, write = rng.choice(list(STYLES.items()))
            new = shift(write.format(day.year, day.month, day.day), days).text
            moved.append(datetime.datetime.strptime(new, read).date())
        assert moved[1] - moved[0] == two - one
        assert (moved[0] - one).days == days


def test_offset_is_never_zero_and_fills_its_range() -> None:
    found = [offset_days(SECRET, str(number)) for number in range(20_000)]
    assert {abs(days) for days in found} == set(range(1, 366))
    assert 9_500 < sum(days > 0 for days in found) < 10_500
    assert offset_days(SECRET, "7") == found[7] and offset_days(b"\1" * 32, "7") != found[7]


def test_the_weekday_behind_a_date_follows() -> None:
    """1 May 2023 was a Monday, 4 May a Thursday."""
    end, new = weekday("（星期一）查房", datetime.date(2023, 5, 4)) or (0, "")
    assert (end, new) == (4, "（星期四")
    assert weekday("周天", datetime.date(2023, 5, 1)) == (2, "周一")
    assert weekday("一周后复查", datetime.date(2023, 5, 1)) is None


def test_ages_are_capped() -> None:
    assert cap_age("93", "岁，男") == ("90岁以上", 1)
    assert cap_age("93岁") == ("90岁以上", 0)
    assert cap_age("93", "，男") == ("90+", 0)


def test_year_of() -> None:
    assert year_of("于5月1日复查，2022年3月起病") == 2022
    assert year_of("生于1950-02-03，二〇二三年五月一日来诊，２０２２年起病") == 2023
    assert year_of("患者5月1日来诊，血小板 2015 个") is None
