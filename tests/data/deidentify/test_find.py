"""The finder on hand-written sentences: what must be marked, what must stay, what fields give away.

In finder_cases.yaml a marked sentence carries its identifiers in 【】;
every character inside must be covered, nothing outside may be.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

from xinglin.data.deidentify.find import Span, find, known_from
from xinglin.data.deidentify.kinds import KIND, KINDS
from xinglin.data.deidentify.recognisers.numbers import id_checksum, luhn
from xinglin.records import InputError

CASES = yaml.safe_load(Path(__file__).with_name("finder_cases.yaml").read_text("utf-8"))
MARKED = CASES["marked"].splitlines()

KEPT_SENTENCES = CASES["kept"].splitlines()

CARRIERS = ("患者{0}。", "考虑{0}，予对症处理。", "诊断：{0}", "既往{0}病史", "{0}，请会诊。")
CLINICAL = CASES["clinical"].split()


def split_marks(marked: str) -> tuple[str, list[tuple[int, int]]]:
    text, spans, start = "", [], 0
    for char in marked:
        if char == "【":
            start = len(text)
        elif char == "】":
            spans.append((start, len(text)))
        else:
            text += char
    return text, [span for span in spans if span[1] > span[0]]


def sentences() -> list[str]:
    """The table, with the phone that is broken over two lines put together."""
    rows, open_row = [], ""
    for line in MARKED:
        row = f"{open_row}\n{line}" if open_row else line
        open_row = row if row.count("【") > row.count("】") else ""
        if not open_row:
            rows.append(row)
    return rows


@pytest.mark.parametrize("marked", sentences())
def test_every_identifier_is_covered_and_nothing_else(marked: str) -> None:
    text, gold = split_marks(marked)
    spans = find(text)
    covered = {i for span in spans for i in range(span.start, span.end) if text[i].isalnum() or text[i] in "*·"}
    wanted = {i for start, end in gold for i in range(start, end) if text[i].isalnum() or text[i] in "*·"}
    optional = {i for i in covered - wanted if text[i] in "岁床"}
    assert covered - optional == wanted, [(text[s.start : s.end], s.kind, s.rule) for s in spans]


@pytest.mark.parametrize("sentence", KEPT_SENTENCES)
def test_clinical_sentences_are_left_alone(sentence: str) -> None:
    assert [(sentence[s.start : s.end], s.kind, s.rule) for s in find(sentence)] == []


def test_clinical_words_survive_in_every_carrier() -> None:
    words = [word for word in CLINICAL if len(word) > 1]
    assert len(words) >= 500
    changed = [
        (c.format(w), [(s.kind, s.rule) for s in found])
        for w in words
        for c in CARRIERS
        if (found := find(c.format(w)))
    ]
    assert changed == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("身份证号11010519491231002X", "id_card"),
        ("手机13800138000", "phone"),
        ("座机010-65123456", "landline"),
        ("邮箱a.b@c.com", "email"),
        ("卡号6222021234567890128", "bank_card"),
        ("住院号：0012345", "mrn"),
        ("床号：12", "bed"),
        ("标本号：2023001234", "specimen"),
        ("影像号：X123456", "imaging"),
        ("医保号：A1234567", "insurance"),
        ("护照号：E12345678", "passport"),
        ("居住证830000199201300022", "travel_permit"),
        ("军官证号：南字第0123456号", "military"),
        ("永久居留证：CAN110105670101", "foreign_permit"),
        ("微信：abc_1234", "wechat_qq"),
        ("苏E12345", "plate"),
        ("住址：江苏省苏州市姑苏区平江路1号", "address"),
        ("工作单位：苏州市轧钢厂", "employer"),
        ("在苏州大学附属第一医院就诊", "hospital"),
        ("于2023年5月1日入院", "date"),
        ("患者91岁", "age_over_89"),
        ("https://a.example.org/x", "url"),
        ("IP：10.0.0.1", "ip"),
        ("工号：10234", "licence"),
        ("编号8812345678901", "number"),
        ("姓名：张建国", "name"),
    ],
)
def test_the_kind_is_named(text: str, kind: str) -> None:
    assert [span.kind for span in find(text)] == [kind]


def test_all_kinds_are_described() -> None:
    assert len(KINDS) == len(set(KINDS)) >= 23
    assert all(KIND[kind].description and KIND[kind].group for kind in KINDS)


def test_checksums_against_the_published_fixtures() -> None:
    assert id_checksum("11010519491231002X") and id_checksum("440524188001010014")
    assert id_checksum("11010519491231002x") and not id_checksum("110105194912310021")
    assert luhn("79927398713") and not luhn("79927398710")


INVISIBLE = ("\u200b", "\u200d", "\ufe0f", "\ufeff", "\u2060")


@pytest.mark.parametrize("value", ["11010519491231002X", "13800138000", "6222021234567890128", "13912345678"])
def test_adversarial_spellings_of_numbers(value: str) -> None:
    wide = "".join(chr(ord(c) + 0xFEE0) for c in value)
    hidden = "".join(c + INVISIBLE[i % 5] for i, c in enumerate(value))
    by_three = " ".join(value[i : i + 3] for i in range(0, len(value), 3))
    by_four = " ".join(value[i : i + 4] for i in range(0, len(value), 4))
    broken = value[:7] + "\n" + value[7:]
    apart = " ".join(value)
    for form in (wide, hidden, by_three, by_four, broken, apart, value.lower(), value.replace("X", "Ｘ")):
        text = f"患者自诉，{form}，无不适"
        marks = [i for span in find(text) for i in range(span.start, span.end)]
        missing = [i for i in range(5, 5 + len(form)) if text[i].isalnum() and i not in marks]
        assert not missing, ascii(form)


def test_offsets_are_those_of_the_original() -> None:
    text = "\u200b电话：138\u200b0013\u200b8000。"
    (span,) = find(text)
    assert text[span.start : span.end] == "138\u200b0013\u200b8000"
    assert span == Span(span.start, span.end, "phone", span.rule)


FIELDS = {
    "姓名": "张建国",
    "身份证号": "11010519491231002X",
    "联系电话": "13800138000",
    "现住址": "浙江省杭州市西湖区文三路123号阳光小区5栋",
    "住院号": "ZY0012345",
    "工作单位": "大华科技",
    "诊断": "高血压",
}


def test_known_values_are_found_however_they_are_split() -> None:
    known, rng = known_from(FIELDS), random.Random(7)
    values = [FIELDS[f] for f in ("姓名", "身份证号", "联系电话", "现住址", "住院号", "工作单位")]
    missed, total = [], 0
    for value in values:
        for _ in range(60):
            gap = rng.choice(["", " ", "\n", "　", "-", "\u200b", "  "])
            form = "".join(c + (gap if rng.random() < 0.3 else "") for c in value[:-1]) + value[-1]
            form = rng.choice(
                [form, form.lower(), "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in form)]
            )
            text = f"今日情况良好{form}继续观察"
            marks = {i for span in find(text, known) for i in range(span.start, span.end)}
            total += 1
            missed += (
                [ascii(form)] if any(text[i].isalnum() and i not in marks for i in range(6, 6 + len(form))) else []
            )
    assert total == 360 and missed == []


def test_the_diagnosis_is_no_seed_and_roles_are_checked() -> None:
    assert find("高血压病史", known_from(FIELDS)) == []
    known = known_from({"a": "张建国", "b": "无"}, roles={"a": "name"})
    assert [s.kind for s in find("今日张建国好转", known)] == ["name"]
    assert "张建国" not in repr(known)
    with pytest.raises(InputError, match="no kind of identifier"):
        known_from({"a": "x"}, roles={"a": "surname"})


def test_a_known_name_that_is_a_word() -> None:
    known = known_from({"姓名": "高兴"})
    text = "高兴今日诉心情高兴，高兴奋性"
    assert [(s.start, s.end) for s in find(text, known)][:1] == [(0, 2)]
    assert (7, 9) not in [(s.start, s.end) for s in find(text, known)]


def test_names_found_once_are_found_again() -> None:
    text = "姓名：张建国，男。入院后张建国一般情况可，予张建国吸氧。"
    assert [text[s.start : s.end] for s in find(text)] == ["张建国"] * 3


def test_a_tagger_adds_spans() -> None:
    spans = find("今日葛优良好", tagger=lambda text: [Span(2, 4, "name", "tagger")])
    assert Span(2, 4, "name", "tagger") in spans


def test_spans_are_sorted_and_apart() -> None:
    text = "\n".join(split_marks(row)[0] for row in sentences())
    spans = find(text)
    assert all(a.end <= b.start for a, b in zip(spans, spans[1:], strict=False))
    assert all(0 <= s.start < s.end <= len(text) and s.kind in KINDS for s in spans)


@pytest.mark.parametrize("text", ["", " ", "\n", "1", "·", "男", "床", "：", "\u200b", "某", "\ud83d\ude00"])
def test_crumbs_are_no_trouble(text: str) -> None:
    assert find(text) == []
