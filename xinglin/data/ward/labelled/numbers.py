"""Random numbers of every kind that a hospital keeps, in real forms and with valid check digits. Synthetic."""

from __future__ import annotations

import datetime
import random

from xinglin.data.ward.identifiers import check_digit
from xinglin.data.ward.labelled.language import Language

CAPITALS, SMALL = "ABCDEFGHJKLMNPQRSTUVWXYZ", "abcdefghijkmnpqrstuvwxyz"


def by_format(form: str, rng: random.Random) -> str:
    """`0` a digit, `1` a digit from 1 to 9, `A` a capital, `a` a small letter; after a backslash: the sign itself."""
    text, signs = "", iter(form)
    for sign in signs:
        if sign == "\\":
            text += next(signs)
        elif sign == "0":
            text += str(rng.randrange(10))
        elif sign == "1":
            text += str(rng.randint(1, 9))
        else:
            text += rng.choice(CAPITALS) if sign == "A" else rng.choice(SMALL) if sign == "a" else sign
    return text


def digits(count: int, rng: random.Random) -> str:
    return "".join(str(rng.randrange(10)) for _ in range(count))


def id_card(region: str, birth: datetime.date, sex: str, rng: random.Random) -> str:
    """GB 11643: region, birth, serial (odd for men), check digit."""
    serial = rng.randrange(100) * 10 + rng.randrange(0, 10, 2) + (sex == "男")
    first17 = f"{region}{birth:%Y%m%d}{serial:03d}"
    return first17 + check_digit(first17)


def foreign_permit(birth: datetime.date, rng: random.Random) -> str:
    """Permanent residence of foreigners: the form of 2017 (three letters, 12 digits) or of 2023 (9 and 18 in all)."""
    if rng.random() < 0.5:
        return "".join(rng.choice(CAPITALS) for _ in range(3)) + digits(2, rng) + f"00{birth:%y%m%d}" + digits(2, rng)
    first17 = f"9{digits(2, rng)}156{birth:%Y%m%d}{digits(3, rng)}"
    return first17 + check_digit(first17)


def bank_card(prefix: str, rng: random.Random) -> str:
    """16 or 19 digits, the last after Luhn (ISO/IEC 7812-1)."""
    body = prefix + digits(rng.choice((16, 19)) - 1 - len(prefix), rng)
    total = sum(sum(divmod(int(digit) * (2 - place % 2), 10)) for place, digit in enumerate(reversed(body)))
    return body + str(-total % 10)


def plate(province: str, rng: random.Random) -> str:
    """Five signs, or six on a green plate of an electric car."""
    letter = rng.choice("ABCDEFG")
    if rng.random() < 0.2:
        return f"{province}{letter}{rng.choice('DF')}{digits(5, rng)}"
    dot = "·" if rng.random() < 0.3 else ""
    return f"{province}{letter}{dot}{rng.choice(CAPITALS)}{digits(4, rng)}"


def mobile(language: Language, rng: random.Random) -> str:
    return rng.choice(language.formats["mobile"]) + digits(8, rng)


def landline(language: Language, rng: random.Random) -> str:
    form = by_format(rng.choice(language.formats["landline"]).replace("{area}", "@"), rng)
    return form.replace("@", rng.choice(language.formats["area_codes"]))


def ip(rng: random.Random) -> str:
    return ".".join(map(str, (rng.choice((10, 172, 192)), *(rng.randint(1, 254) for _ in range(3)))))
