"""Contamination: planted items are found, others are not, and the truths of shared/data/README.md R10 where at hand."""

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from xinglin.cli.data import app
from xinglin.data.overlap import find_overlap
from xinglin.data.sources import import_file
from xinglin.records import Conversation, Document, ExamQuestion, InputError, Message, read_any, write_records

PUBLIC = Path(__file__).resolve().parents[2] / "../shared/data/public"
STEM = "上消化道出血患者出现呕血还是黑便主要取决于出血的部位和速度"
OTHER = "新生儿出生后二十四小时内出现的黄疸最应该考虑的疾病是什么呢"


def exam(number, stem):
    return ExamQuestion(f"e{number}", stem, {"A": "甲", "B": "乙"}, "A", source="exam")


def talk(number, question, answer="是这样的。"):
    return Conversation(f"c{number}", (Message("user", question), Message("assistant", answer)), "own")


def written(path, records):
    write_records(path, records)
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("row", "how", "share"),
    [
        (talk(1, STEM), "exact", 1.0),
        (talk(1, STEM[:6] + "，" + STEM[6:] + "（　）？"), "exact", 1.0),
        (talk(1, "请回答", STEM), "exact", 1.0),  # in the answer
        (Document("d", f"第一章\n{STEM}。\n第二章"), "exact", 1.0),  # a line of a book
        (Document("d", f"讲义里说{STEM}这一点很重要"), "ngram", 1.0),  # inside a line
        # 29 characters have 17 13-grams; changing character 0 spoils one of them, character 14 thirteen.
        (talk(1, "下" + STEM[1:]), "ngram", 16 / 17),
        (talk(1, STEM[:14] + "换" + STEM[15:]), None, None),  # 4 of 17 are left
        (talk(1, OTHER), None, None),
    ],
)
def test_how_an_item_is_found(tmp_path, row, how, share):
    assert len(STEM) == 29
    found = find_overlap([written(tmp_path / "train.jsonl", [row])], [written(tmp_path / "t.jsonl", [exam(1, STEM)])])
    assert [(hit.how, hit.share, hit.row) for hit in found.hits] == ([(how, round(share, 4), row.id)] if how else [])


def test_threshold_short_items_and_pieces(tmp_path):
    test = written(tmp_path / "t.jsonl", [exam(1, STEM), exam(2, "心脏在哪"), exam(3, "？")])
    spoiled = [talk(1, STEM[:14] + "换" + STEM[15:]), talk(2, "我的心脏在哪里")]
    train = written(tmp_path / "train.jsonl", spoiled)
    assert find_overlap([train], [test], threshold=4 / 17).hits[0].share == round(4 / 17, 4)
    # Two halves in two rows: 15 characters hold 3 of the 17, both together 6, which is over 0.3.
    halves = written(tmp_path / "halves.jsonl", [talk(1, STEM[:15]), talk(2, STEM[14:])])
    row = find_overlap([halves], [test]).table[0]
    assert (row["overlap"], row["piecewise"], row["items"], row["distinct"]) == (0, 1, 3, 2)
    assert find_overlap([written(tmp_path / "short.jsonl", [talk(1, "心脏在哪？")])], [test]).table[0]["exact"] == 1


def test_a_template_counts_for_no_item(tmp_path):
    template = "下列关于这种疾病的说法当中不正确的一项是"
    names = [f"{organ}炎" for organ in "肺肝肾胃肠脑鼻咽喉耳骨心胆胰阑膜髓舌唇牙颈眼"]
    test = written(tmp_path / "t.jsonl", [exam(n, template + name) for n, name in enumerate(names)])
    train = written(tmp_path / "train.jsonl", [talk(1, template + "哮喘")])
    assert len(names) > 20 and not find_overlap([train], [test]).hits


def test_fifty_planted_items_and_no_false_alarm(tmp_path):
    files = ("cmexam_val/val_0-3404.csv", "huatuo_bencao/llama_data.json")
    if not all((PUBLIC / file).is_file() for file in files):
        pytest.skip("shared/data/public is not beside the project")
    rng = random.Random(0)
    items = [record for record in import_file(PUBLIC / files[0]) if len(record.question) >= 15][:1000]
    rows = list(import_file(PUBLIC / files[1]))[:3000]
    chosen = rng.sample(items, 50)
    for number, item in enumerate(chosen):
        stem = item.question
        if number % 3 == 1:
            stem = f"老师问：{stem}请说明理由。"
        elif len(stem) >= 40:  # one character lost near the end, and full-width digits
            stem = stem[:-3] + stem[-2:]
            stem = stem.translate({ord(str(digit)): 0xFF10 + digit for digit in range(10)})
        rows.insert(rng.randrange(len(rows)), talk(number, stem))
    found = find_overlap([written(tmp_path / "r.jsonl", rows)], [written(tmp_path / "t.jsonl", items)])
    hits = {name for hit in found.hits for name in hit.ids}
    planted = {item.id for item in chosen}
    assert len(hits & planted) >= 49
    assert len(hits - planted) <= 0.01 * (len(items) - 50)


def test_drop_writes_clean_rows_and_the_others_aside(tmp_path):
    train = written(tmp_path / "train.jsonl", [talk(1, STEM), talk(2, "别的问题"), talk(3, f"问：{OTHER}？谢谢")])
    exams, valid = (written(tmp_path / f"{n}.jsonl", [exam(n, s)]) for n, s in (("exam", STEM), ("valid", OTHER)))
    out = tmp_path / "clean.jsonl"
    result = run("overlap", train, "--tests", exams, valid, "--drop", "--out", out, "--json")
    assert result.exit_code == 0, result.exception
    summary = json.loads(result.stdout)
    assert (summary["read"], summary["accepted"]) == (3, 1)
    assert summary["rejected"] == {"overlap with exam.jsonl (exact)": 1, "overlap with valid.jsonl (ngram)": 1}
    assert [(row["data"], row["test"], row["overlap"]) for row in summary["table"]] == [
        ("train.jsonl", "exam.jsonl", 1),
        ("train.jsonl", "valid.jsonl", 1),
        ("exam.jsonl", "valid.jsonl", 0),
    ]
    assert [record.id for record in read_any(out)] == ["c2"]
    aside = [json.loads(line) for line in (tmp_path / "clean-overlap.jsonl").read_text("utf-8").splitlines()]
    assert [(row["reason"], row["test"], row["item"], row["record"]["id"]) for row in aside] == [
        ("exact", "exam.jsonl", "eexam", "c1"),
        ("ngram", "valid.jsonl", "evalid", "c3"),
    ]
    again = json.loads(run("overlap", out, "--tests", exams, valid, "--json").stdout)
    assert again["rejected"] == {} and all(row["overlap"] == 0 for row in again["table"])
    assert "exam.jsonl" in run("overlap", train, "--tests", exams).stderr


def test_overlap_between_splits(tmp_path):
    valid = written(tmp_path / "valid.jsonl", [exam(1, STEM), exam(2, STEM), exam(3, OTHER)])
    test = written(tmp_path / "test.jsonl", [exam(4, STEM), exam(5, STEM + "。"), exam(6, "没有人问过的一个问题")])
    train = written(tmp_path / "train.jsonl", [talk(1, "别的")])
    between = find_overlap([train], [valid, test]).table[2]
    assert (between["data"], between["test"], between["exact"], between["overlap"]) == (
        "valid.jsonl",
        "test.jsonl",
        1,
        2,
    )


def test_input_errors(tmp_path):
    train = written(tmp_path / "train.jsonl", [talk(1, STEM)])
    test = written(tmp_path / "test.jsonl", [exam(1, STEM)])
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(train.read_bytes())
    empty = written(tmp_path / "empty.jsonl", [])
    cases = [
        ((train, "--tests", copy), "holds the same rows"),
        ((train, "--tests", empty), "no item"),
        ((train, "--tests", tmp_path / "none.jsonl"), "no such file"),
        ((train, "--tests", test, "--drop"), "go together"),
        ((train, "--tests", test, "--out", tmp_path / "x.jsonl"), "go together"),
        ((train, "--tests", test, "--drop", "--out", train), "exists already"),
    ]
    for arguments, words in cases:
        result = run("overlap", *arguments)
        assert isinstance(result.exception, InputError) and words in str(result.exception), (words, result.exception)
        assert "\n" not in str(result.exception)
    assert run("overlap", "--tests", test, train).exit_code == 2  # everything after --tests is a test


@pytest.mark.parametrize(
    ("first", "second", "rows", "shared"),
    [
        ("chineseblue/cMedQA/dev.txt", "chineseblue/cMedQA/test.txt", (5475, 6149), 892),
        ("chineseblue/cMedIR/dev.json", "chineseblue/cMedIR/test.json", (10_000, 10_000), 1093),
    ],
)
def test_known_truths_of_whole_sets(tmp_path, first, second, rows, shared):
    """R10. The sets at hand may be parts; CMDD, CMExam-CMMLU, CMB-Clin-DISC and HuatuoGPT need files that are not."""
    found = []
    for name in (first, second):
        if not (PUBLIC / name).is_file():
            pytest.skip(f"{name} is not among the public sets at hand")
        found.append((PUBLIC / name).read_text("utf-8").count("\n"))
    if tuple(found) != rows:
        pytest.skip(f"the files at hand are parts: {found} of {rows} lines")
    paths = [written(tmp_path / f"{n}.jsonl", import_file(PUBLIC / name)) for n, name in enumerate((first, second))]
    row = find_overlap(paths[:1], paths[1:]).table[0]
    assert row["exact"] == shared


def test_cmexam_and_cmmlu_share_the_stems_that_a_dictionary_finds(tmp_path):
    exam_file, folder = PUBLIC / "cmexam_val/val_0-3404.csv", PUBLIC / "cmmlu/test"
    if not exam_file.is_file():
        pytest.skip("shared/data/public is not beside the project")
    theirs = [record for file in sorted(folder.glob("*.csv")) for record in import_file(file)]
    ours = list(import_file(exam_file))
    letters = lambda text: "".join(char for char in text if char.isalnum())  # noqa: E731
    stems = {letters(record.question) for record in ours}
    equal = {record.id for record in theirs if letters(record.question) in stems}
    test = written(tmp_path / "cmmlu.jsonl", theirs)
    found = find_overlap([written(tmp_path / "cmexam.jsonl", ours)], [test])
    exact = {name for hit in found.hits if hit.how == "exact" for name in hit.ids}
    assert exact == equal and len(found.hits) < 0.01 * len(theirs)
