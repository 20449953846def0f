"""D5: the same original, the same surrogate, over restarts and in any order; two originals never share one."""

from __future__ import annotations

import random
import re
import sqlite3
import stat
from pathlib import Path

import pytest

from xinglin.data.deidentify import invented
from xinglin.data.deidentify.ledger import Ledger, load_key
from xinglin.data.deidentify.surrogates import Issuer, in_layout, luhn_valid, split_title, valid_id
from xinglin.records import InputError

SECRET = bytes(range(32))
WEIGHTS = [2 ** (17 - place) % 11 for place in range(17)]  # GB 11643's weights are powers of two modulo 11


def checksum_holds(card: str) -> bool:
    total = sum(int(digit) * weight for digit, weight in zip(card[:17], WEIGHTS, strict=True))
    return (total + (10 if card[17] == "X" else int(card[17]))) % 11 == 1


def issuer() -> Issuer:
    return Issuer(SECRET, Ledger())


def originals(count: int) -> list[tuple[str, str]]:
    """Of many kinds; a third of them from spaces so small that draws collide."""
    rng = random.Random(7)
    surnames, given = invented.SURNAMES[:80], "伟芳娜敏静丽强磊军洋"
    made: dict[tuple[str, str], None] = {}
    while len(made) < count:
        made["name", rng.choice(surnames) + rng.choice(given)] = None
        made["name", rng.choice(surnames) + rng.choice(given) + rng.choice(given)] = None
        made["mrn", f"{rng.randrange(10_000):04d}"] = None
        made["phone", f"13{rng.randrange(10**9):09d}"] = None
        made["bed", f"{rng.randrange(60)}床"] = None
        made["hospital", f"{rng.choice(surnames)}{rng.choice(given)}县人民医院"] = None
        made["address", f"{rng.choice(surnames)}{rng.choice(given)}市和平路{rng.randrange(99)}号"] = None
    return list(made)[:count]


def test_10000_repeats_over_a_restart_in_another_order(tmp_path: Path) -> None:
    todo = originals(10_000)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        first = {one: Issuer(SECRET, ledger).surrogate(*one) for one in todo}
    random.Random(3).shuffle(todo)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        again = {one: Issuer(SECRET, ledger).surrogate(*one) for one in todo}
    assert again == first and len(first) == 10_000


def test_different_originals_never_merge_and_none_is_itself() -> None:
    hand, todo = issuer(), originals(10_000)
    for one in todo:
        hand.collect(*one)
    hand.issue()
    found = {one: hand.surrogate(*one) for one in todo}
    for kind in {kind for kind, _ in todo}:
        mine = [made for (one, _), made in found.items() if one == kind]
        assert len(set(mine)) == len(mine) > 50, kind
    assert not {text for _, text in todo} & set(found.values())


def test_a_run_gives_the_same_whatever_the_order_of_its_originals() -> None:
    todo, found = originals(3_000), []
    for seed in (1, 2):
        random.Random(seed).shuffle(todo)
        hand = issuer()
        for one in todo:
            hand.collect(*one)
        hand.issue()
        found.append({one: hand.surrogate(*one) for one in todo})
    assert found[0] == found[1]


def test_another_key_gives_other_surrogates() -> None:
    todo = originals(500)
    one, two = issuer(), Issuer(b"\1" * 32, Ledger())
    assert sum(one.surrogate(*item) == two.surrogate(*item) for item in todo) < 25


def test_a_collision_is_drawn_again_and_stays(tmp_path: Path) -> None:
    taken = issuer().surrogate("name", "李丽华")
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert ledger.claim("name", b"somebody else", taken)
        moved = Issuer(SECRET, ledger).surrogate("name", "李丽华")
    assert moved != taken
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert Issuer(SECRET, ledger).surrogate("name", "李丽华") == moved


def test_spellings_of_one_original_are_one() -> None:
    hand = issuer()
    for kind, *spellings in [
        ("name", "王建国", "王 建 国", "王\u200b建国", "王　建国"),
        (
            "id_card",
            "11010519491231002X",
            "11010519491231002x",
            "１１０１０５１９４９１２３１００２Ｘ",
            "110105 19491231 002X",
        ),
        ("phone", "13812345678", "138-1234-5678", "+86 138 1234 5678", "１３８１２３４５６７８"),
    ]:
        assert len({hand.surrogate(kind, text) for text in spellings}) == 1
    assert hand.surrogate("number", "13812345678") == hand.surrogate("phone", "13812345678")
    assert hand.surrogate("mrn", "ZY-001234") == hand.surrogate("specimen", "ZY001234")


def test_one_name_of_two_patients_has_two_surrogates() -> None:
    hand = issuer()
    assert hand.surrogate("name", "王建国", scope="A") != hand.surrogate("name", "王建国", scope="B")


def test_id_cards_keep_sex_and_age_band_and_fail_their_checksum() -> None:
    assert checksum_holds("11010519491231002X") and checksum_holds("440524188001010014")
    rng, hand = random.Random(2), issuer()
    for _ in range(2_000):
        birth = f"{rng.randint(1930, 2020)}{rng.randint(1, 12):02d}{rng.randint(1, 28):02d}"
        region, serial = f"{rng.randint(11, 65)}{rng.randrange(10**4):04d}", f"{rng.randrange(1000):03d}"
        card = region + birth + serial + rng.choice("0123456789X")
        made = hand.surrogate("id_card", card)
        assert re.fullmatch(r"99\d{15}[\dX]", made) and not checksum_holds(made) and not valid_id(made)
        assert int(made[16]) % 2 == int(card[16]) % 2
        assert int(made[6:10]) // 5 == int(card[6:10]) // 5
        assert 1 <= int(made[10:12]) <= 12 and 1 <= int(made[12:14]) <= 31
    old = hand.surrogate("id_card", "440524800101001")
    assert re.fullmatch(r"99\d{13}", old) and int(old[14]) % 2 == 1 and int(old[6:8]) // 5 == 16


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("王伟", rf"[{invented.SURNAMES}][一-龥]"),
        ("王建国", rf"[{invented.SURNAMES}][一-龥]{{2}}"),
        ("欧阳修", rf"(?:{'|'.join(invented.COMPOUND)})[一-龥]"),
        ("司马相如", rf"(?:{'|'.join(invented.COMPOUND)})[一-龥]{{2}}"),
        ("买买提·吐尔逊", r"[一-龥]{3}·[一-龥]{3}"),
        ("卓玛央金拉姆", r"[一-龥]{6}"),
        ("Li Ming", r"[A-Z][a-z]+ [A-Z][a-z]+"),
    ],
)
def test_names_keep_class_and_length(name: str, shape: str) -> None:
    assert re.fullmatch(shape, issuer().surrogate("name", name))


def test_names_keep_the_sex_they_look_like() -> None:
    hand, only_women, only_men = issuer(), set(invented.FEMALE), set(invented.MALE)
    women = [hand.surrogate("name", f"王{a}{b}") for a in "芳娟丽艳" for b in "娜霞玲兰"]
    men = [hand.surrogate("name", f"王{a}{b}") for a in "伟强磊军" for b in "刚辉鹏飞"]
    assert all(set(name[1:]) <= only_women for name in women) and all(set(name[1:]) <= only_men for name in men)
    given = [hand.surrogate("name", f"王{a}", sex="女") for a in "伟强磊军"]
    assert all(set(name[1:]) <= only_women for name in given)


@pytest.mark.parametrize(
    ("kind", "text", "shape"),
    [
        ("phone", "13812345678", r"12\d{9}"),
        ("landline", "010-62345678", r"026\d{8}"),
        ("landline", "05328888123", r"0400\d{7}"),
        ("landline", "62345678", r"0\d{7}"),
        ("mrn", "ZY00123456", r"[A-Z]{2}\d{8}"),
        ("bed", "12床", r"\d{2,3}床"),
        ("plate", "鲁B12345", r"示[A-Z]\d{5}"),
        ("email", "zhang@hospital.cn", r"x[0-9a-f]{12}@example\.invalid"),
        ("url", "http://a.cn/zhang", r"https://example\.invalid/[0-9a-f]{12}"),
        ("ip", "10.1.2.3", r"2[45]\d\.\d+\.\d+\.\d+"),
        ("hospital", "北京市第二人民医院", r"[一-龥]{2}市第.人民医院"),
        ("hospital", "协和医院", r"[一-龥]{2}市协和医院"),
        ("employer", "青岛海尔股份有限公司", r"[一-龥]{4}股份有限公司"),
        ("address", "山东省青岛市市北区春晖路12号3栋1204室", r"..省..市..区..路\d{2}号\d栋\d{4}室"),
        ("address", "甘肃省兰州市城关区", r"..省..市..区"),
        ("address", "云溪县石桥镇李家村三组", r"..县..镇..村[一-九]组"),
    ],
)
def test_form_is_kept(kind: str, text: str, shape: str) -> None:
    made = issuer().surrogate(kind, text)
    assert re.fullmatch(shape.replace("[一-九]", "[一二三四五六七八九]"), made), made


def test_no_word_of_an_address_stays() -> None:
    made = issuer().surrogate("address", "山东省青岛市市北区恒大绿洲3栋")
    assert not re.search("山东|青岛|市北|恒大|绿洲", made) and re.search(r"省.*市.*区.*\d栋$", made)


def test_bank_cards_fail_luhn() -> None:
    assert luhn_valid("4539578763621486") and not luhn_valid("4539578763621487")
    made = [issuer().surrogate("bank_card", f"62220212345678{number:05d}") for number in range(300)]
    assert all(re.fullmatch(r"99\d{17}", card) and not luhn_valid(card) for card in made)


def test_layout_follows_the_original() -> None:
    assert in_layout("phone", "12000001111", "138 1234 5678") == "120 0000 1111"
    assert in_layout("phone", "12000001111", "+86-13812345678") == "+86-12000001111"
    assert in_layout("id_card", "990000199001010011", "110105\n199001010011") == "990000199001010011"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("王某某", ("王", "某某")),
        ("王主任", ("王", "主任")),
        ("王建国副主任医师", ("王建国", "副主任医师")),
        ("欧阳医生", ("欧阳", "医生")),
        ("张X", ("张", "X")),
        ("王建国", ("王建国", "")),
    ],
)
def test_titles(name: str, parts: tuple[str, str]) -> None:
    assert split_title(name) == parts


# --- key and ledger --------------------------------------------------------------------------------------------------


def test_the_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "deep/k.key"
    secret = load_key(path, tmp_path / "out")
    assert len(secret) == 32 and load_key(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [one.name for one in path.parent.iterdir()] == ["k.key"]


def test_bad_keys_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lies under the output"):
        load_key(tmp_path / "out/private/k.key", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "inside").symlink_to(tmp_path / "out")
    with pytest.raises(InputError, match="lies under the output"):
        load_key(tmp_path / "inside/k.key", tmp_path / "out")
    load_key(tmp_path / "k.key")
    (tmp_path / "k.key").chmod(0o644)
    with pytest.raises(InputError, match="mode is 644"):
        load_key(tmp_path / "k.key")
    short = tmp_path / "short.key"
    short.write_bytes(b"secret")
    short.chmod(0o600)
    with pytest.raises(InputError, match="6 bytes"):
        load_key(short)


def test_the_ledger_is_private_and_holds_no_original(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    todo = originals(300)
    with Ledger(path) as ledger:
        hand = Issuer(SECRET, ledger)
        made = {hand.surrogate(*one) for one in todo}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    raw = path.read_bytes()
    assert not [text for _, text in todo if len(text.encode()) > 5 and text.encode() in raw]
    rows = sqlite3.connect(path).execute("SELECT surrogate FROM issued").fetchall()
    assert {row[0] for row in rows} == made


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "l.sqlite").write_text("no database, but long enough to be read as one" * 50, "utf-8")
    with pytest.raises(InputError, match="no ledger of ours"):
        Ledger(tmp_path / "l.sqlite")
