import pytest

from xinglin.data.ward.answers import tenfold
from xinglin.data.ward.doses import amount, doses_near, far_off, same_dose, times_a_day


@pytest.mark.parametrize(
    ("dose", "expected"),
    [
        ("5毫克每日1次口服", ("mg", 5, 5)),
        ("0.5克每日3次", ("mg", 500, 500)),
        ("500微克肌内注射", ("mg", 0.5, 0.5)),
        ("2.5～5毫克", ("mg", 2.5, 5)),
        ("10单位睡前皮下注射", ("iu", 10, 10)),
        ("80万单位", ("iu", 800_000, 800_000)),
        ("10 mg", ("mg", 10, 10)),
        ("160/4.5微克每日2次吸入", ("mg", 0.16, 0.16)),
        ("2片每日2次", ("片", 2, 2)),
        ("薄涂每日2次", None),
    ],
)
def test_amount_reads_number_and_unit(dose: str, expected: tuple[str, float, float] | None) -> None:
    assert amount(dose) == (expected and (expected[0], pytest.approx(expected[1]), pytest.approx(expected[2])))


def test_times_a_day() -> None:
    assert times_a_day("5毫克每日1次口服") == 1
    assert times_a_day("0.5克每日三次") == 3
    assert times_a_day("1克每8小时静脉滴注") == 3
    assert times_a_day("300毫克嚼服") is None


def test_same_dose_reads_units_and_frequency() -> None:
    assert same_dose("0.5克每日3次口服", "500毫克每日3次口服")
    assert not same_dose("0.5克每日1次口服", "0.5克每日3次口服")
    assert same_dose("0.5克口服", "0.5克每日3次口服")
    assert not same_dose("5毫克每日1次", "10毫克每日1次")


def test_far_off_is_five_times_or_twice_the_daily_maximum() -> None:
    assert far_off("50毫克每日1次", "5毫克每日1次")
    assert far_off("25毫克", "5毫克")
    assert not far_off("24毫克", "5毫克")
    assert far_off("1毫克", "5毫克")
    assert not far_off("10毫克每日2次", "5毫克每日1次", "10 mg")  # 20 mg is twice the maximum, not more
    assert far_off("10毫克每日3次", "5毫克每日1次", "10 mg")
    assert not far_off("2片", "5毫克")


def test_doses_near_stay_in_the_sentence_of_the_drug() -> None:
    assert doses_near("氨氯地平", "首选氨氯地平，5毫克每日1次口服，低血压者禁用。") == ["5毫克每日1次口服"]
    assert doses_near("氨氯地平", "首选氨氯地平。阿司匹林100毫克。") == []


def test_tenfold_multiplies_the_amount_and_not_the_times() -> None:
    assert tenfold("0.5克每日3次口服") == "5克每日3次口服"
    assert tenfold("2.5毫克每日1次") == "25毫克每日1次"
