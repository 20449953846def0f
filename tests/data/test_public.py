"""A run's data from public sets: the layout, disjoint splits, every record accounted for, equal bytes for a seed."""

import hashlib
import json
import time
from pathlib import Path

import pytest

from xinglin.config import PublicSizes
from xinglin.data.public import build_public
from xinglin.data.public_records import entity_task, exam_prompt, preference
from xinglin.evals import entities, exam
from xinglin.records import (
    Answer,
    Conversation,
    Document,
    Entity,
    EntityText,
    ExamQuestion,
    InputError,
    Message,
    Preference,
    Question,
    read_any,
    read_records,
)

PUBLIC = Path(__file__).resolve().parents[2] / "../shared/data/public"
SMALL = PublicSizes(
    documents=8, conversations=12, general=6, preferences=4, questions=3, test_questions=2, exam=4, entities=3, safety=3
)
DIGITS = "零一二三四五六七八九"


def spell(number):
    return "".join(DIGITS[int(digit)] for digit in str(number))


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    """Every kind, small: texts differ in one spelled number each."""
    root = tmp_path / "sets"
    n = [spell(i) for i in range(10, 40)]
    lines(root / "pages/pages.jsonl", [{"title": f"病{i}", "text": f"第{i}种病的说明，注意休息。"} for i in n])
    lines(root / "doctor/qa.jsonl", [{"question": f"第{i}种病怎么办？", "answer": f"看{i}号门诊。"} for i in n])
    lines(root / "alpaca/zh.jsonl", [{"instruction": f"写出数字{i}。", "input": "", "output": f"{i}。"} for i in n])
    talks = [{"conversations": [["我病了" + i, "怎么了？"], ["头痛第" + i, "休息" + i]]} for i in n]
    lines(root / "talks/multi.jsonl", talks)
    chosen = [{"prompt": f"比较第{i}种药哪个好？", "chosen": "问医生。", "rejected": "随便。"} for i in n]
    lines(root / "dpo/pairs.jsonl", chosen)
    exams = [{"question": f"第{i}题选什么？", "options": {"A": "甲", "B": "乙"}, "answer": "B"} for i in n]
    lines(root / "exams/items.jsonl", exams)
    spans = [{"text": f"患者头痛{i}天", "entities": [{"start": 2, "end": 4, "type": "symptom"}]} for i in n]
    lines(root / "ner/train.jsonl", spans[:20])
    lines(root / "ner/dev.jsonl", spans[20:])
    lines(root / "traps/safety.jsonl", [{"instruct": f"{i}种毒药能吃吗？", "output": "不能。"} for i in n[:9]])
    (root / "doctor/LICENSE").write_text("MIT, for research use only", encoding="utf-8")
    return root


def read(out, name):
    return list(read_any(out / f"{name}.jsonl"))


def hashes(out):
    return {path.relative_to(out): hashlib.sha256(path.read_bytes()).hexdigest() for path in out.rglob("*.jsonl")}


def texts_of(record):
    """What a record asks or tells, worked out here and not by the code under test."""
    if isinstance(record, Document):
        return [record.text]
    if isinstance(record, ExamQuestion):
        return [record.question]
    if isinstance(record, EntityText):
        return [record.text]
    said = [m.content for m in getattr(record, "messages", None) or record.prompt if m.role == "user"]
    task = record.meta.get("task_type")
    if task == "exam":
        return [said[0].split("\n\n", 1)[1].split("\nA. ")[0]]
    if task == "entities":
        return [said[0].split("\n", 1)[1]]
    return [said[0], *(text for text in said[1:] if sum(map(str.isalnum, text)) > 12)]


def assert_disjoint(out):
    """No text of one split stands in another, letter for letter."""
    holder = {}
    for path in sorted(out.rglob("*.jsonl")):
        for record in read_any(path):
            for text in texts_of(record):
                key = "".join(filter(str.isalnum, text))
                assert holder.setdefault(key, path.stem) == path.stem, f"{path.name} {record.id}"


def assert_accounted(facts):
    for file, account in facts["files"].items():
        if "records" in account:
            used, left = account.get("used", {}), account.get("left", {})
            assert sum(used.values()) + sum(left.values()) == account["records"], file


def test_layout_counts_and_splits(folder, tmp_path):
    facts = build_public(tmp_path / "out", folder, SMALL, 7)
    counts = facts["counts"]
    assert counts["questions/test"] == 2 and counts["questions/train"] == 3
    assert counts["conversations/train"] == 12 and counts["conversations/valid"] == 1
    assert counts["documents/train"] == 8 and counts["exam/test"] == 4 and counts["safety/test"] == 3
    assert counts == {path.relative_to(tmp_path / "out").with_suffix("").as_posix(): sum(1 for _ in path.open("rb"))
                      for path in (tmp_path / "out").rglob("*.jsonl")}  # fmt: skip
    assert facts["not_built"].keys() == {"general_exam/test", "safety_exam/test"}
    assert_disjoint(tmp_path / "out")
    assert_accounted(facts)
    assert facts["files"]["doctor/qa.jsonl"]["research_only"] and facts["research_only"] == ["doctor"]


def test_forms_and_lineage(folder, tmp_path):
    out = tmp_path / "out"
    build_public(out, folder, SMALL, 0)
    for item in read_records(out / "questions/test.jsonl", Question):
        assert item.reference.endswith("号门诊。") and item.prompt[-1].role == "user"
        assert item.meta["file"] == "qa.jsonl" and item.meta["row"] > 0 and item.meta["research_only"] is True
        assert item.meta["licence"] == "MIT" and item.meta["split"] == "test" and item.source == "doctor"
    domains = [item.meta["domain"] for item in read_records(out / "documents/train.jsonl", Document)]
    assert set(domains) == {"medical", "general"} and domains.count("general") == 2  # a quarter of 8
    for item in read_records(out / "safety/test.jsonl", Question):
        assert item.kind == "safety" and item.meta["must"] == item.meta["never"] == [] and "harmful" not in item.meta
    assert all(item.meta["file"] == "dev.jsonl" for item in read(out, "entities/test"))
    assert all(item.meta["file"] == "train.jsonl" for item in read(out, "entities/train"))
    kinds = {item.meta.get("task_type") for item in read_records(out / "conversations/train.jsonl", Conversation)}
    assert kinds == {None, "exam", "entities"}


def test_same_seed_same_bytes_other_seed_other_draw(folder, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build_public(tmp_path / name, folder, SMALL, seed)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b") != hashes(tmp_path / "c")


def test_overlap_with_a_test_is_dropped_and_counted(folder, tmp_path):
    """The doctor's questions again as preference prompts: those of the test must not come back."""
    asked = [json.loads(line)["question"] for line in (folder / "doctor/qa.jsonl").open(encoding="utf-8")]
    lines(folder / "dpo/pairs.jsonl", [{"prompt": q + "！", "chosen": "问医生。", "rejected": "随便。"} for q in asked])
    facts = build_public(tmp_path / "out", folder, PublicSizes(), 0)
    tests = facts["counts"]["questions/test"]
    assert tests == 6  # a fifth of 30
    assert facts["files"]["dpo/pairs.jsonl"]["left"]["overlap with test"] == tests
    assert sum(sum(row.values()) for name, row in facts["overlap"].items() if name.startswith("preferences")) >= tests
    assert_disjoint(tmp_path / "out")
    assert_accounted(facts)


def test_twenty_characters_of_a_test_in_a_row_are_an_overlap(folder, tmp_path):
    dev = [{"text": "甲乙丙丁戊己庚辛壬癸子丑寅卯辰巳午未申酉戌亥", "entities": []}]
    lines(folder / "ner/dev.jsonl", dev)
    lines(folder / "pages/copy.jsonl", [{"text": "前言。甲乙丙丁，戊己庚辛壬癸子丑寅卯辰巳午未申酉。后记。"}])
    facts = build_public(tmp_path / "out", folder, PublicSizes(), 0)
    assert facts["files"]["pages/copy.jsonl"]["left"] == {"overlap with test (20 characters in a row)": 1}


def test_long_and_broken_things_are_counted(folder, tmp_path):
    lines(
        folder / "long/qa.jsonl",
        [{"question": "怎么办？", "answer": "好" * 201}, {"question": "问" * 301, "answer": "好"}],
    )
    (folder / "long/cut.jsonl").write_text('{"question": "怎么办", "answer": "好"}\n{"question"\n{"a": 1}\n', "utf-8")
    facts = build_public(tmp_path / "out", folder, SMALL, 0)
    assert facts["files"]["long/qa.jsonl"]["left"] == {"longer than 200 characters": 1, "longer than 300 characters": 1}
    assert facts["files"]["long/cut.jsonl"] == {
        "error": "long/cut.jsonl:2: not JSON; repair the line, or allow 1 with --max-bad"
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [("pages", "documents/"), ("alpaca", "general/"), ("dpo", "preferences/"), ("doctor", "questions/")],
)
def test_a_needed_kind_that_is_missing_is_named(folder, tmp_path, name, words):
    for path in (folder / name).iterdir():
        path.unlink()
    with pytest.raises(InputError) as error:
        build_public(tmp_path / "out", folder, SMALL, 0)
    assert "nothing for " + words in str(error.value)
    assert "found records: " in str(error.value) and "30 exam_question" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_what_a_recipe_does_not_need_may_be_missing(folder, tmp_path):
    (folder / "dpo/pairs.jsonl").unlink()
    facts = build_public(tmp_path / "out", folder, SMALL, 0, needed=("documents", "conversations", "general"))
    assert "preferences/train" not in facts["counts"]


def test_tasks_are_asked_as_the_evaluation_asks():
    single = ExamQuestion("1", "心脏有几个腔？", {"A": "四个", "B": "两个"}, "A", subject="anatomy")
    several = ExamQuestion("2", "哪些是器官？", {"A": "心", "B": "肝", "C": "石"}, "AB")
    for item in (single, several):
        assert exam_prompt(item) == exam.prompt_text(item, item.options, (), 0, "")
    text = EntityText("3", "头痛查CT", (Entity(0, 2, "symptom", "头痛"), Entity(3, 5, "test", "CT")))
    task = entity_task(text, ["symptom", "test"])
    assert task.messages[:1] == entities.prompt_messages(text, ["symptom", "test"])
    assert task.messages[1].content == entities.gold_lines(text)


def test_long_rankings_keep_their_best_and_a_worse_answer():
    answers = tuple(Answer(str(i)) for i in range(6))
    kept = preference(Preference("p", (Message("user", "问"),), answers, (2, 2, 1, 1, 1, 1)))
    assert [a.text for a in kept.answers] == ["0", "2", "3", "4"] and kept.ranks == (2, 1, 1, 1)
    assert kept.meta["answers_left_out"] == 2


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="shared/data/public is not beside the project")
def test_the_public_sets_at_hand(tmp_path):
    start = time.perf_counter()
    facts = build_public(tmp_path, PUBLIC, PublicSizes(), 0)
    assert time.perf_counter() - start < 60
    counts = facts["counts"]
    assert counts["documents/train"] == 2000 and counts["conversations/train"] == 3000
    assert counts["questions/test"] == 100 and counts["questions/train"] == 200 and counts["exam/test"] == 300
    assert counts["safety/test"] == counts["safety_exam/test"] == 200 and counts["preferences/train"] > 100
    assert all(item.meta["file"] == "cMedQANER/dev.json" for item in read(tmp_path, "entities/test"))
    assert {item.source for item in read(tmp_path, "exam/test")} == {"cmexam_val", "cmmlu"}
    assert not any("test/" in item.meta["file"] for item in read(tmp_path, "conversations/train"))
    assert set(facts["research_only"]) >= {"cmmlu", "cmexam_val", "huatuo_bencao", "chineseblue"}
    assert_disjoint(tmp_path)
    assert_accounted(facts)
