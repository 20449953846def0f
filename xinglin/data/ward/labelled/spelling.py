"""Adversarial spellings: the ways in which typing, scanning and chat programs disfigure an identifier.

`respell(kind, text, rng)` gives the class and the new text, which still is the identifier to a human eye.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

COMMON = ("full_width", "zero_width", "variation_selector", "line_break")
Speller = Callable[[str, random.Random], str]

HAN_NAME = re.compile("[\u3400-\u9fff]{2,4}")
CHINESE_DIGITS = str.maketrans("0123456789", "零一二三四五六七八九")
FULL_WIDTH = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(ord("!"), ord("~") + 1)})
INVISIBLE = ("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff")
VARIATION = ("\ufe0f", "\ufe00", "\U000e0100")
DOTS = ("•", "・", "‧", ".", "．", " ")
SIMPLIFIED = (
    "张刘陈杨黄赵吴孙马罗郑谢韩许邓冯萧钱贺龙万汤阳诸东长轩辕伟敏静军艳杰涛国华志强兰晓红凤丽芳刚辉宾飞鑫斌鹏兴玛达"
    "区县镇乡号楼门单图苏广云无庆贵济齐龙双桥银铁宁纺织厂业医妇产科学团实验园级众乐农场"
)
TRADITIONAL = (
    "張劉陳楊黃趙吳孫馬羅鄭謝韓許鄧馮蕭錢賀龍萬湯陽諸東長軒轅偉敏靜軍艷傑濤國華誌強蘭曉紅鳳麗芳剛輝賓飛鑫斌鵬興瑪達"
    "區縣鎮鄉號樓門單圖蘇廣雲無慶貴濟齊龍雙橋銀鐵寧紡織廠業醫婦產科學團實驗園級眾樂農場"
)
TO_TRADITIONAL = str.maketrans(SIMPLIFIED, TRADITIONAL)
LONG_NUMBERS = ("id_card", "phone", "bank_card", "landline", "insurance", "foreign_permit")
PLACES = ("address", "hospital", "employer", "name")


def respell(kind: str, text: str, rng: random.Random) -> tuple[str, str]:
    """A class that fits the identifier; ("plain", text) where none fits, as for a lone surname.

    What one kind alone suffers (check digits, dots, gaps) is thrice as likely as what every text suffers.
    """
    names = [name for name, fits in FITS.items() if fits(kind, text)]
    if not names:
        return "plain", text
    chosen = rng.choices(names, [1 if name in COMMON else 3 for name in names])[0]
    return chosen, SPELLERS[chosen](text, rng)


def _grouped(text: str, rng: random.Random) -> str:
    """3-4-4 for a mobile, 6-8-4 or fours for the rest, as people type them."""
    sizes = (3, 4, 4) if len(text) == 11 else (6, 8, 4) if len(text) == 18 and rng.random() < 0.5 else (4,) * 5
    parts, at = [], 0
    for size in sizes:
        parts.append(text[at : at + size])
        at += size
    return " ".join(part for part in [*parts, text[at:]] if part)


def _hyphens(text: str, rng: random.Random) -> str:
    return _grouped(text, rng).replace(" ", rng.choice("-–—"))


def _sown(signs: tuple[str, ...]) -> Speller:
    """One to three of the signs, the same one, at places inside the text."""

    def sow(text: str, rng: random.Random) -> str:
        sign = rng.choice(signs)
        places = rng.sample(range(1, len(text)), min(rng.randint(1, 3), len(text) - 1))
        return "".join(sign + char if index in places else char for index, char in enumerate(text))

    return sow


def _broken(text: str, rng: random.Random) -> str:
    place = rng.randint(2, len(text) - 2)
    return text[:place] + "\n" + text[place:]


def _wrong_check(text: str, rng: random.Random) -> str:
    """The last digit is another one."""
    return text[:-1] + rng.choice([digit for digit in "0123456789" if digit != text[-1]])


def _fifteen(text: str, rng: random.Random) -> str:
    """The card as it was before 1999: two digits of the year, no check digit."""
    return text[:6] + text[8:17]


def _spaced(text: str, rng: random.Random) -> str:
    gap = rng.choice((" ", "\u3000"))
    return gap.join(text)


def _somebody(text: str, rng: random.Random) -> str:
    return text[0] + rng.choice(("某某", "某", " 某 某", "××", "XX"))


def _spaced_date(text: str, rng: random.Random) -> str:
    return re.sub(r"([年月./-])", r"\1 " if rng.random() < 0.5 else r" \1 ", text)


SPELLERS: dict[str, Speller] = {
    "full_width": lambda text, rng: text.translate(FULL_WIDTH),
    "spaces": _grouped,
    "zero_width": _sown(INVISIBLE),
    "variation_selector": _sown(VARIATION),
    "line_break": _broken,
    "lower_x": lambda text, rng: text.lower(),
    "chinese_digits": lambda text, rng: text.translate(CHINESE_DIGITS),
    "wrong_checksum": _wrong_check,
    "fifteen_digits": _fifteen,
    "spaced_name": _spaced,
    "somebody": _somebody,
    "dotted_name": lambda text, rng: text.replace("·", rng.choice(DOTS)),
    "hyphens": _hyphens,
    "traditional": lambda text, rng: text.translate(TO_TRADITIONAL),
    "spaced_date": _spaced_date,
}
FITS: dict[str, Callable[[str, str], bool]] = {
    "full_width": lambda kind, text: bool(re.search("[0-9A-Za-z]", text)),
    "spaces": lambda kind, text: kind in LONG_NUMBERS and text.isalnum(),
    "zero_width": lambda kind, text: len(text) > 1,
    "variation_selector": lambda kind, text: len(text) > 1 and bool(re.search("[0-9]", text)),
    "line_break": lambda kind, text: len(text) > 5,
    "lower_x": lambda kind, text: kind == "id_card" and text.endswith("X"),
    "chinese_digits": lambda kind, text: kind in ("phone", "id_card", "mrn", "bed") and text.isdigit(),
    "wrong_checksum": lambda kind, text: kind in ("id_card", "bank_card"),
    "fifteen_digits": lambda kind, text: kind == "id_card" and len(text) == 18,
    "spaced_name": lambda kind, text: kind == "name" and bool(HAN_NAME.fullmatch(text)),
    "somebody": lambda kind, text: kind == "name" and bool(HAN_NAME.fullmatch(text)),
    "dotted_name": lambda kind, text: kind == "name" and "·" in text,
    "hyphens": lambda kind, text: kind in ("phone", "id_card", "bank_card") and text.isalnum(),
    "traditional": lambda kind, text: kind in PLACES and text.translate(TO_TRADITIONAL) != text,
    "spaced_date": lambda kind, text: kind == "date" and bool(re.search("[年月./-]", text)),
}
