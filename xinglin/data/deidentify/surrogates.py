"""Invented stand-ins: the same original gives the same one over all files and restarts, two originals never the same.

    issuer = Issuer(secret, ledger)
    issuer.collect("name", "王建国", scope=patient_id, sex="男")     first all originals of a run ...
    issuer.issue()                                                 ... then their surrogates, in an order of its own
    issuer.surrogate("name", "王 建国", scope=patient_id)            -> the same as that of "王建国"

A surrogate is drawn from HMAC-SHA256(secret, kind, scope, normalised original, attempt). Where the draw is the
surrogate of another, is an original of this run, or is a number that its checksum makes valid, the next attempt is
drawn; the ledger keeps the outcome. `issue` goes through the originals in the order of their HMACs, so that neither the
order of files nor the number of workers matters. Small spaces (a bed of two digits, a name of two characters) fill up;
then the surrogate grows by a character.

Form kept: names their length, surname class and sex; ID cards sex and five-year age band, with region 99xxxx
(unassigned in GB/T 2260) and a false GB 11643 check digit; phones begin with 12 (no mobile prefix); bank cards fail
Luhn; the letters, digits and separators of other numbers stay letters, digits and separators.
"""

from __future__ import annotations

import calendar
import datetime
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xinglin.data.deidentify import invented
from xinglin.data.deidentify.ledger import Ledger, keyed
from xinglin.data.deidentify.recognisers.view import INVISIBLE
from xinglin.records import InputError

OLDEST_BIRTH = 1930  # who was born earlier is past 90: no finer band is told
GROW_AFTER, GIVE_UP = 64, 512
DROPPED = re.compile(rf"\s+|{INVISIBLE.pattern}")
SHARED = frozenset(
    "mrn specimen imaging insurance passport travel_permit military foreign_permit licence number".split()
)
NUMBERS = SHARED | {"id_card", "phone", "landline", "bank_card", "bed", "plate"}
ID_SHAPE, CARD_SHAPE, MOBILE_SHAPE = re.compile(r"\d{17}[\dX]"), re.compile(r"\d{16,19}"), re.compile(r"1[3-9]\d{9}")
WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
CHECK = "10X98765432"
TITLE = re.compile(
    r"(?:[某*＊×xXＸ○〇]{1,3}|先生|女士|小姐|太太|老师|同志|师傅|阿姨|叔叔|大爷|大妈|奶奶|爷爷|老|姓"
    r"|[副正]?主任(?:医师|护师|技师)?|主治(?:医师)?|住院(?:医师|总)|医师|医生|大夫|护师|护士长?|[副正]?教授|院长|书记|博士)+$"
)
PLACE = re.compile(
    r"(?P<name>[^\d\s,，。;；]{1,12}?)(?P<mark>特别行政区|自治区|自治州|自治县|自治旗|地区|街道|社区|小区|大道|大街|胡同|花园|家园|公寓|广场"
    r"|[省市区县旗盟镇乡村屯庄寨路街巷道弄])"
)
NUMBER = re.compile(r"\d+|[a-zA-Z]+|[一二三四五六七八九十百]+(?=[号组队栋幢单楼层室户])")
HAN = re.compile(r"[\u3400-\u9fff]")
WORD = re.compile(r"[\u3400-\u9fff]+")
UNITS = frozenset("号栋幢楼单元层室户组队座附弄之门房区期段排第东西南北一二三四五六七八九十百内外")


def id_check(first17: str) -> str:
    """The eighteenth character (GB 11643-1999, MOD 11-2)."""
    return CHECK[sum(int(digit) * weight for digit, weight in zip(first17, WEIGHTS, strict=True)) % 11]


def valid_id(text: str) -> bool:
    """Eighteen characters whose check digit is right and whose birth date exists."""
    if not re.fullmatch(r"[0-9]{17}[0-9X]", text) or id_check(text[:17]) != text[17]:
        return False
    year, month, day = int(text[6:10]), int(text[10:12]), int(text[12:14])
    return 1850 <= year <= 2150 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]


def luhn_valid(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    doubled = [int(d) * 2 if place % 2 else int(d) for place, d in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def normal(kind: str, text: str) -> str:
    """What makes two spellings the same original: width, spaces, case, hyphens; +86 and punctuation of numbers."""
    text = DROPPED.sub("", unicodedata.normalize("NFKC", text)).upper()
    if kind in NUMBERS:
        text = re.sub(r"[^0-9A-Z\u3400-\u9fff]", "", text)
    if kind in NUMBERS:
        text = re.sub(r"^(?:0{0,2}86)(?=1\d{10}$)", "", text)
    return re.sub("[•・･‧∙．.]", "·", text) if kind == "name" else text


def family(kind: str, plain: str) -> str:
    """Kinds that draw from one pot: a number keeps its surrogate where it is found as a record number, an id or just a
    long number."""
    if kind not in NUMBERS or kind == "plate":
        return kind
    for name, shape in (("id_card", ID_SHAPE), ("bank_card", CARD_SHAPE), ("phone", MOBILE_SHAPE)):
        if shape.fullmatch(plain):
            return name
    return "number" if kind in SHARED else kind


class Draw:
    """A keyed number that is used up by choices: the same choices in the same order give the same surrogate."""

    def __init__(self, secret: bytes, *parts: str) -> None:
        block = keyed(secret, *parts)
        self._left = int.from_bytes(block + hmac.digest(block, b"more", hashlib.sha512))

    def below(self, size: int) -> int:
        self._left, number = divmod(self._left, size)
        return number

    def pick(self, items: Sequence[str]) -> str:
        return items[self.below(len(items))]

    def digits(self, count: int) -> str:
        return "".join(str(self.below(10)) for _ in range(count))


@dataclass(frozen=True, slots=True)
class Original:
    kind: str
    scope: str
    text: str
    sex: str = ""


def _original(kind: str, text: str, scope: str, sex: str) -> Original:
    plain = normal(kind, text)
    return Original(family(kind, plain), scope, plain, sex)


class Issuer:
    """Hands out surrogates for the originals of one run. Holds originals in memory only."""

    def __init__(self, secret: bytes, ledger: Ledger) -> None:
        self.secret, self.ledger = secret, ledger
        self._waiting: dict[bytes, Original] = {}
        self._originals: set[bytes] = set()
        self._issued: dict[bytes, str] = {}

    def collect(self, kind: str, text: str, scope: str = "", sex: str = "") -> None:
        """Note an original that will need a surrogate. `scope` sets apart what is spelled alike (names)."""
        original = _original(kind, text, scope, sex)
        self._originals.add(keyed(self.secret, "original", original.text)[:12])
        self._waiting.setdefault(self._owner(original), original)

    def issue(self) -> None:
        for owner in sorted(self._waiting):
            if owner not in self._issued:
                self._issue(owner, self._waiting[owner])
        self._waiting.clear()

    def surrogate(self, kind: str, text: str, scope: str = "", sex: str = "") -> str:
        """The surrogate of an original, in normal form."""
        original = _original(kind, text, scope, sex)
        owner = self._owner(original)
        if owner not in self._issued:
            self._originals.add(keyed(self.secret, "original", original.text)[:12])
            self._issue(owner, original)
        return self._issued[owner]

    def _owner(self, original: Original) -> bytes:
        return keyed(self.secret, "owner", original.kind, original.scope, original.text)[:16]

    def _issue(self, owner: bytes, original: Original) -> None:
        found = self.ledger.issued(original.kind, owner)
        for attempt in range(GIVE_UP):
            if found is not None:
                break
            made = make(self.secret, original, attempt)
            if self._free(made, original) and self.ledger.claim(original.kind, owner, made):
                found = made
        if found is None:
            raise InputError(f"no free surrogate left for a {original.kind} of {len(original.text)} characters")
        self._issued[owner] = found

    def _free(self, made: str, original: Original) -> bool:
        plain = normal(original.kind, made)
        if plain == original.text or valid_id(plain) or (plain.isdecimal() and len(plain) > 14 and luhn_valid(plain)):
            return False
        parts = _pieces(plain) if original.kind == "name" else [plain]
        return not any(keyed(self.secret, "original", part)[:12] in self._originals for part in parts)


def _pieces(name: str) -> Iterator[str]:
    """A name and the shorter names inside it: a surrogate that holds another's real name would look like a leak."""
    for start in range(len(name) - 1):
        for end in range(start + 2, len(name) + 1):
            yield name[start:end]


def make(secret: bytes, original: Original, attempt: int) -> str:
    """The `attempt`-th draw for an original."""
    draw = Draw(secret, "draw", original.kind, original.scope, original.text, str(attempt))
    grow = attempt // GROW_AFTER
    text = original.text
    match original.kind:
        case "name":
            return _name(draw, text, original.sex, grow)
        case "surname":
            return draw.pick(invented.COMPOUND) if len(text) > 1 else draw.pick(invented.SURNAMES)
        case "id_card":
            return _id_card(draw, text)
        case "phone":
            return "12" + draw.digits(max(9, len(text) - 2) + grow)
        case "landline":
            return _landline(draw, text, grow)
        case "bank_card":
            return "99" + draw.digits(max(13, len(text) - 2) + grow)
        case "email":
            return f"x{draw.below(16**12):012x}@example.invalid"
        case "url":
            return f"https://example.invalid/{draw.below(16**12):012x}"
        case "ip":
            return _ip(draw, text)
        case "address":
            return _address(secret, draw, text, grow)
        case "hospital":
            return _institution(draw, text, invented.HOSPITAL_TAIL, invented.HOSPITAL_WORDS, "市", grow)
        case "employer":
            return _institution(draw, text, invented.EMPLOYER_TAIL, invented.FIRM_WORDS, "", grow)
    return _same_shape(draw, text, grow)


def _name(draw: Draw, text: str, sex: str, grow: int) -> str:
    if not HAN.search(text):
        return _latin_name(draw, text, grow)
    if "·" in text or len(text) > 4:
        return "·".join(_syllables(draw, len(part) + grow) for part in text.split("·"))
    women = sum(char in invented.FEMALE_SIGNS for char in text[1:])
    men = sum(char in invented.MALE_SIGNS for char in text[1:])
    female = sex == "女" if sex in ("男", "女") else women > men or (women == men and draw.below(2) == 1)
    compound = text[:2] in invented.COMPOUND and len(text) > 2 or len(text) == 4
    surname = draw.pick(invented.COMPOUND) if compound else draw.pick(invented.SURNAMES)
    given = max(len(text) - len(surname), 1) + grow
    return surname + "".join(draw.pick(invented.FEMALE if female else invented.MALE) for _ in range(given))


def _syllables(draw: Draw, length: int) -> str:
    return "".join(draw.pick(invented.MINORITY) for _ in range(max(2, length)))


def _latin_name(draw: Draw, text: str, grow: int) -> str:
    words = [draw.pick(invented.LATIN) for _ in range(max(2, min(4, len(text) // 3)) + grow)]
    return f"{words[0].title()} {''.join(words[1:]).title()}"


def _id_card(draw: Draw, text: str) -> str:
    digits = re.sub(r"\D", "0", text[:17]).ljust(17, "0")
    old = len(text) == 15
    year = 1900 + int(digits[6:8]) if old else int(digits[6:10])
    year = max(year, OLDEST_BIRTH) if 1850 <= year <= 2099 else 1950 + draw.below(50)
    first = datetime.date(year - year % 5, 1, 1)
    birth = first + datetime.timedelta(days=draw.below(1826))
    parity = int(digits[14] if old else digits[16]) % 2
    region, serial = "99" + draw.digits(4), f"{draw.below(500) * 2 + parity:03d}"
    if old:
        return region + birth.strftime("%y%m%d") + serial
    first17 = f"{region}{birth:%Y%m%d}{serial}"
    return first17 + draw.pick(CHECK.replace(id_check(first17), ""))


def _landline(draw: Draw, text: str, grow: int) -> str:
    """Area code 026 or 0400 (not in use), or a local number that begins with 0 (none does)."""
    area = ("026" if text[1:2] in ("1", "2") else "0400") if text.startswith("0") and len(text) > 9 else "0"
    return area + draw.digits(max(1, len(text) - len(area)) + grow)


def _ip(draw: Draw, text: str) -> str:
    """240.0.0.0/4 is reserved (RFC 1112), 2001:db8::/32 is for documentation (RFC 3849)."""
    if ":" in text:
        return "2001:db8::" + ":".join(f"{draw.below(65536):x}" for _ in range(3))
    return ".".join(str(part) for part in (240 + draw.below(15), *(draw.below(256) for _ in range(3))))


def _same_shape(draw: Draw, text: str, grow: int) -> str:
    """Letters for letters, digits for digits; a plate's 京 becomes 示, other Chinese characters (床, 字第) stay."""
    made = "".join(_same_character(draw, char) for char in text)
    if text[1:2].isascii() and text[1:2].isalpha() and HAN.match(text):
        made = "示" + made[1:]
    return made + draw.digits(grow) if made[-1:].isascii() else f"{made[:-1]}{draw.digits(grow)}{made[-1]}"


def _same_character(draw: Draw, char: str) -> str:
    if char.isdecimal():
        return str(draw.below(10))
    if char.isascii() and char.isalpha():
        picked = chr(ord("A") + draw.below(26))
        return picked if char.isupper() else picked.lower()
    return char


def _place(draw: Draw) -> str:
    return draw.pick(invented.HERBS) + draw.pick(invented.LAND)


def _address(secret: bytes, draw: Draw, text: str, grow: int) -> str:
    """Each named part becomes an invented part of its kind, each number another; 市 stays 市 and 村 stays 村."""
    out, done = "", 0
    for match in PLACE.finditer(text):
        out += _rest(draw, text[done : match.start()]) + _place(Draw(secret, "place", match[0])) + match["mark"]
        done = match.end()
    out += _rest(draw, text[done:])
    return out + (f"{1 + draw.below(9 * 10**grow)}号" if grow else "")


def _rest(draw: Draw, text: str) -> str:
    """Numbers and units stay numbers and units; any other word may name a place and is replaced."""
    renamed = WORD.sub(lambda match: match[0] if UNITS.issuperset(match[0]) else _place(draw), text)
    return NUMBER.sub(lambda match: _other_number(draw, match[0]), renamed)


def _other_number(draw: Draw, number: str) -> str:
    if number.isdecimal():
        return str(1 + draw.below(9)) + draw.digits(len(number) - 1)
    if number.isascii():
        return "".join(_same_character(draw, char) for char in number)
    return draw.pick("一二三四五六七八九")


def _institution(draw: Draw, text: str, tails: Sequence[str], words: Sequence[str], mark: str, grow: int) -> str:
    """A made-up front and the original's kind: 第二人民医院 stays a numbered 人民医院, 机械厂 a 厂."""
    tail = next((tail for tail in tails if text.endswith(tail)), "")
    front = text.removesuffix(tail)
    known = re.compile("|".join(sorted(words, key=len, reverse=True)))
    kept = "".join(known.findall(front)) if mark else draw.pick(words)
    number = f"第{draw.pick('一二三四五六七八九十')}" if grow or re.search("第[一二三四五六七八九十]+", front) else ""
    return f"{_place(draw)}{mark}{number}{kept}{tail}" if tail or not mark else _place(draw) + number


def split_title(name: str) -> tuple[str, str]:
    """("王建国", "主任") of 王建国主任, ("王", "某某") of 王某某. The name is bare when nothing follows it."""
    match = TITLE.search(name)
    return (name[: match.start()], match[0]) if match and match.start() else (name, "")


def only_surname(name: str) -> bool:
    return len(name) == 1 or name in invented.COMPOUND


def in_layout(kind: str, surrogate: str, written: str) -> str:
    """The surrogate with the blanks, hyphens and +86 of the original, where they are plain ones."""
    if kind == "name":
        return surrogate.upper() if written.isupper() and surrogate.isascii() else surrogate
    if kind not in NUMBERS:
        return surrogate
    prefix = re.match(r"\+?0{0,2}86[\s-]?(?=1)", written) if kind == "phone" else None
    head = prefix[0] if prefix else ""
    body = written[len(head) :]
    places = [place for place, char in enumerate(body) if char.isalnum()]
    separators = {char for char in body if not char.isalnum()}
    if len(places) != len(surrogate) or not separators <= set(" -"):
        return head + surrogate
    out = list(body)
    for place, char in zip(places, surrogate, strict=True):
        out[place] = char
    return head + "".join(out)
