"""Invented identifiers for notes: none of them can belong to a person.

ID cards carry a valid GB 11643 check digit (MOD 11-2) over an unassigned region code (99), mobile numbers an unassigned
prefix (154), hospitals and streets lie in a city that does not exist.
"""

from __future__ import annotations

import datetime
import random
from dataclasses import dataclass

SURNAMES = (
    "王 李 张 刘 陈 杨 黄 赵 吴 周 徐 孙 马 朱 胡 郭 何 林 高 罗 "
    "郑 梁 谢 宋 唐 许 邓 冯 韩 曹 曾 彭 欧阳 上官 司马 诸葛"
).split()
GIVEN = (
    "建国 秀英 伟 桂兰 志强 丽 海燕 玉梅 明 淑珍 晓东 婷婷 国华 雪 春生 "
    "美玲 浩然 子轩 雨桐 思远 文博 佳怡 红梅 德明 凤英 俊杰 欣妍 永福 小芳 立新"
).split()
CITY, DISTRICTS = "青禾市", ("杏花区", "柳荫区", "云溪县", "石桥区")
STREETS = ("春晖路", "橘井街", "董奉巷", "望江大道", "兰草路", "百草街")
HOSPITALS = ("青禾市第一示教医院", "青禾市中心示教医院", "青禾医学院附属示教医院")
WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
CHECK = "10X98765432"


@dataclass(frozen=True, slots=True)
class Identity:
    name: str
    id_card: str
    phone: str
    address: str
    mrn: str
    bed: str
    doctor: str
    hospital: str


def check_digit(first17: str) -> str:
    """GB 11643-1999: the weighted sum modulo 11 picks the eighteenth character."""
    return CHECK[sum(int(digit) * weight for digit, weight in zip(first17, WEIGHTS, strict=True)) % 11]


def id_card(birth: str, sex: str, rng: random.Random) -> str:
    """`birth` as YYYYMMDD. The seventeenth digit is odd for men."""
    serial = rng.randrange(0, 99) * 10 + rng.randrange(0, 10, 2) + (sex == "男")
    first17 = f"9901{rng.randint(1, 99):02d}{birth}{serial:03d}"
    return first17 + check_digit(first17)


def draw_identity(sex: str, age: int, day: datetime.date, rng: random.Random) -> Identity:
    """Born so that the patient is `age` years old on `day`."""
    birth = day - datetime.timedelta(days=age * 365 + age // 4 + rng.randint(15, 350))
    flat = f"{rng.randint(1, 20)}栋{rng.randint(1, 28)}0{rng.randint(1, 4)}室"
    address = f"{CITY}{rng.choice(DISTRICTS)}{rng.choice(STREETS)}{rng.randint(1, 199)}号{flat}"
    return Identity(
        name=person(rng),
        id_card=id_card(birth.strftime("%Y%m%d"), sex, rng),
        phone=f"154{rng.randrange(10**8):08d}",
        address=address,
        mrn=f"ZY{rng.randrange(10**8):08d}",
        bed=f"{rng.randint(1, 60):02d}床",
        doctor=person(rng),
        hospital=rng.choice(HOSPITALS),
    )


def person(rng: random.Random) -> str:
    return rng.choice(SURNAMES) + rng.choice(GIVEN)
