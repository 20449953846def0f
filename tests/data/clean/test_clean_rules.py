"""The rules on records: each reason, what is left alone, and that every record is accounted for."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from xinglin.data.clean import RULES, CleanSettings, Dropped, Kept, Known, Tally, clean, read_settings, survey_records
from xinglin.data.clean.rules import reversed_wordings
from xinglin.data.clean.survey import Survey
from xinglin.records import (
    Answer,
    Conversation,
    Document,
    ExamQuestion,
    InputError,
    Message,
    Preference,
    Question,
    Record,
    record_id,
)

PUBLIC = Path(__file__).resolve().parents[3] / "../shared/data/public"
PLAIN = Known(CleanSettings(), Survey())
GOOD = "建议低盐饮食，按时服药，每周测量血压两次。"


def talk(*turns: str, source: str = "test", **meta: object) -> Conversation:
    messages = tuple(Message("assistant" if n % 2 else "user", turn) for n, turn in enumerate(turns))
    return Conversation(record_id("c", *turns), messages, source, dict(meta))


def one(record: Record, known: Known = PLAIN) -> Kept | Dropped:
    (outcome,) = clean([record], known)
    return outcome


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("坚持治疗可以放慢康复速度，早日痊愈。", "reversed"),
        ("注意饮食，以免放柔病情。", "reversed"),
        ("新生儿要麻醉乙肝疫苗三次。", "reversed"),
        ("病毒通过母婴横向散播。", "reversed"),
        ("更多问题请点击左侧专家咨询图标与我交流。", "advert"),
        ("我的电话是13812345678，详情面谈。", "advert"),
        ("加我微信：zhongyi8888了解秘方。", "advert"),
        ("我院采用专利技术治疗此病。", "advert"),
        ("狗狗呕吐可以喂些益生菌，不行就去宠物医院。", "animal"),
        ("可以打pp##y针，一周一次。", "masked"),
        ("好的", "short"),
        ("  ", "empty"),
        ("This is an answer in English only, which nobody asked for here.", "foreign"),
        ("哈哈哈哈哈哈哈哈哈哈哈哈，没事的。", "looping"),
        ("注意休息多喝水。" * 5, "looping"),
        ("老年痴呆可分为三个阶段：", "cut"),
        ("母乳糖分多会胀气吗\ufffd\ufffd，注意观察。", "broken"),
    ],
)
def test_bad_answers_are_set_aside_with_their_reason(answer: str, reason: str) -> None:
    record = talk("高血压怎么办？", answer)
    outcome = one(record)
    assert isinstance(outcome, Dropped)
    assert (outcome.reason, outcome.record) == (reason, record)
    off = Known(CleanSettings(skip=(reason,)), Survey())
    assert not isinstance(found := one(record, off), Dropped) or found.reason != reason


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        "被狗咬伤后应立即接种狂犬疫苗。",
        "远离宠物毛发，以免过敏。",
        "肿瘤直径<5cm，P<0.05，HBV-DNA<1.0E+3拷贝/ml。",
        "血压160/100mmHg，硝苯地平30mg qd。",
        "手术前要麻醉，术后注意伤口。",
        "请放柔声音，慢慢呼吸；语气放柔。",
        "请拨打全国心理援助热线400-161-9995，或立即就医。",
        "熬夜会降低免疫力，不利于康复；走路时放慢脚步，恢复后再跑。",
        "点击“注册”按钮，然后点击“联系人”图标。",
        "我们医院没有这种药，去上级医院看看吧。",
        "1. **休息**\n2. **多喝水**",
        "```python\nprint(1)\n```\n这段代码打印一。",
    ],
)
def test_good_answers_pass_unchanged(answer: str) -> None:
    record = talk("怎么办？", answer)
    assert one(record) == Kept(record, (), record)


@pytest.mark.parametrize(
    ("answer", "after", "changes"),
    [
        (GOOD + "祝您早日康复！", GOOD, ("tails",)),
        (GOOD + "希望我的回答对您有帮助，祝您健康！", GOOD, ("tails",)),
        (GOOD + "医生询问：", GOOD, ("tails",)),
        ("可以手术，注意卫生,祝你健康", "可以手术，注意卫生。", ("tails",)),
        ("注意休息。建议平时多", "注意休息。建议平时多", ()),  # no end mark: many people write so
        ("注意休息，清淡饮食，", "注意休息，清淡饮食。", ("cut",)),
        ("注意休息，清淡饮食。此外还要注意，例如", "注意休息，清淡饮食。", ("cut",)),
        ("祝您早日康复！", "祝您早日康复！", ()),  # nothing else would be left
    ],
)
def test_tails_and_cut_ends(answer: str, after: str, changes: tuple[str, ...]) -> None:
    outcome = one(talk("怎么办？", answer))
    assert isinstance(outcome, Kept) and isinstance(outcome.record, Conversation)
    assert (outcome.record.messages[-1].content, outcome.changes) == (after, changes)
    again = one(outcome.record)
    assert isinstance(again, Kept) and again.changes == ()


def test_thanks_only_final_turns_are_taken_off() -> None:
    outcome = one(talk("头痛怎么办？", GOOD, "好的，谢谢医生！", "不客气，祝您早日康复！"))
    assert isinstance(outcome, Kept) and len(outcome.record.messages) == 2  # type: ignore[union-attr]
    asked = talk("头痛怎么办？", GOOD, "谢谢，还有点发烧怎么办？", "不客气，发烧超过38.5度请吃布洛芬。")
    assert one(asked) == Kept(asked, (), asked)
    assert isinstance(found := one(talk("谢谢医生！", "不客气，祝您早日康复！")), Dropped) and found.reason == "thanks"


def test_a_losing_answer_may_be_bad_and_an_equal_one_may_not() -> None:
    prompt = (Message("user", "高血压怎么办？"),)
    bad = Answer("加我微信：zhongyi8888了解秘方。")
    assert isinstance(one(Preference("p", prompt, (Answer(GOOD), bad), (1, 2))), Kept)
    assert isinstance(found := one(Preference("p", prompt, (Answer(GOOD), bad), (2, 1))), Dropped)
    assert found.reason == "advert"
    same = Preference("p", prompt, (Answer(GOOD), Answer(GOOD + "  ")), (1, 2))
    assert isinstance(found := one(same), Dropped) and found.reason == "equal"


def test_tasks_keep_short_answers_and_questions_need_no_reference() -> None:
    assert isinstance(one(talk("下列哪项正确？A.对 B.错", "A", task_type="exam")), Kept)
    assert isinstance(one(Question("q", (Message("user", "高血压怎么办？"),))), Kept)
    assert isinstance(found := one(Document("d", "太短")), Dropped) and found.reason == "short"


def test_other_kinds_are_refused_by_name() -> None:
    exam = ExamQuestion("e", "题", {"A": "甲", "B": "乙"}, "A")
    with pytest.raises(InputError, match="exam_question"):
        list(clean([exam], PLAIN))


def spread(count: int, ending: str, source: str = "s") -> list[Record]:
    """Answers with one ending behind `count` different sentences."""
    return [talk("怎么办？", f"第{n}种情况要分别处理{n * 7}。{ending}", source=source) for n in range(count)]


def test_boilerplate_is_counted_over_different_contexts() -> None:
    settings = CleanSettings(tail_contexts=30)
    ending = "调节身心健康保持自身卫生。"
    assert survey_records(spread(30, ending), settings).tails == {ending}
    assert survey_records(spread(29, ending), settings).tails == frozenset()
    assert survey_records([talk("怎么办？", f"同一句话。{ending}")] * 500, settings).tails == frozenset()
    assert survey_records(spread(60, "胸痛请立即就医。"), settings).tails == frozenset()  # a warning stays


def test_cut_lengths_pile_up() -> None:
    rows: list[Record] = [talk("怎么办？", "药" + chr(0x4E00 + n) * 6 + "服" * 93) for n in range(40)]
    rows += [talk("怎么办？", "药" * n + "要按时吃") for n in range(60, 110)]
    found = survey_records(rows, CleanSettings())
    assert found.pile_ups == {100}
    outcome = one(rows[0], Known(CleanSettings(skip=("looping", "gibberish")), found))
    assert isinstance(outcome, Dropped) and outcome.reason == "cut"


def test_a_poisoned_source_is_quarantined_and_no_other() -> None:
    rows = [*spread(94, GOOD, "bad"), *[talk(f"问{n}怎么办", "可以放慢康复速度的。", source="bad") for n in range(6)]]
    rows += spread(200, GOOD, "good")
    known = Known(CleanSettings(), survey_records(rows, CleanSettings()))
    assert known.survey.quarantined == {"bad"}
    assert known.survey.sources["bad"]["share"] == pytest.approx(0.06)
    tally = Tally()
    for outcome in clean(rows, known):
        tally.add(outcome)
    assert tally.rejected == {"quarantine": 100} and tally.accepted == 200
    assert tally.read == tally.accepted + tally.rejected.total()
    off = CleanSettings(skip=("quarantine",))
    assert survey_records(rows, off).quarantined == frozenset()


def test_settings_are_checked(tmp_path: Path) -> None:
    good = tmp_path / "rules.yaml"
    good.write_text("min_answer: 20\nskip: [script]\n", "utf-8")
    assert read_settings(good, ("tails",), tuple(RULES)).skip == ("script", "tails")
    wrong = {"min_anser: 2": "min_anser", "min_answer: -1": "min_answer", "- a": "mapping", "a: [": "rules.yaml:1"}
    for text, word in wrong.items():
        good.write_text(text, "utf-8")
        with pytest.raises(InputError, match=word):
            read_settings(good, (), tuple(RULES))
    with pytest.raises(InputError, match="'hmtl' cannot"):
        read_settings(None, ("hmtl",), tuple(RULES))


# --- the known truths of a public set --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toyhom() -> list[str]:
    files = list((PUBLIC / "toyhom_neike").glob("*.csv"))
    if not files:
        pytest.skip("the public sets are not beside the project")

    def rows() -> Iterator[str]:
        with files[0].open(encoding="gb18030", newline="") as file:
            yield from (row["answer"] for row in csv.DictReader(file))

    return list(rows())


def test_meaning_reversals_of_toyhom(toyhom: list[str]) -> None:
    """R12: 184, 432 and 196 answers, counted by plain search; each of them must be caught, under its own name."""
    plain = {"放慢康复": "放慢康复速度", "放柔病情": "放柔", "麻醉疫苗": "麻醉乙肝", "横向散播": "横向散播"}
    counts = Counter(name for answer in toyhom for name, words in plain.items() if words in answer)
    assert counts == {"放慢康复": 184, "放柔病情": 432, "麻醉疫苗": 196, "横向散播": 54}
    for answer in toyhom:
        assert {name for name, words in plain.items() if words in answer} <= set(reversed_wordings(answer))


def test_toyhom_is_quarantined_even_after_its_worst_rows_are_gone(toyhom: list[str]) -> None:
    rest = [talk("问题", answer, source="toyhom") for answer in toyhom if not reversed_wordings(answer)]
    assert survey_records(rest, CleanSettings(skip=tuple(RULES))).sources["toyhom"]["share"] > 0.2


def test_huatuo_is_not() -> None:
    files = list((PUBLIC / "zhongjing").glob("huatuo26M*.json"))
    if not files:
        pytest.skip("the public sets are not beside the project")
    rows = [json.loads(line) for line in files[0].read_text("utf-8").splitlines()]
    talks = [talk(row["instruction"][0], row["output"][0], source="huatuo") for row in rows if row["output"][0]]
    found = survey_records(talks, CleanSettings(skip=tuple(RULES))).sources["huatuo"]
    assert found["answers"] > 3900 and found["share"] < 0.01
