"""Guarantee n: the overlap of training data with each test set is reported before training, for every kind of data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xinglin.data.road import TESTS, TRAINING, training_overlap
from xinglin.recipe import load_recipe
from xinglin.records import Conversation, ExamQuestion, Message, Question, write_records
from xinglin.stages import RunOptions, run_recipe

RECIPE = Path(__file__).parents[1] / "tiny_recipe.yaml"
SMALL = {"documents": 8, "conversations": 12, "general": 6, "preferences": 4, "questions": 3, "test_questions": 2}
DIGITS = "零一二三四五六七八九"


def talk(name: str, asked: str, answer: str = "请到医院就诊。") -> Conversation:
    return Conversation(name, (Message("user", asked), Message("assistant", answer)), "test")


def question(name: str, asked: str) -> Question:
    return Question(name, (Message("user", asked),), "", "consult", "test")


def test_the_table_counts_what_was_planted(tmp_path: Path) -> None:
    """Of ten questions two stand in training word for word (one in full-width letters), one within a longer text."""
    stems = ["".join(chr(0x4E00 + 400 * n + 7 * k) for k in range(30)) for n in range(10)]  # nothing in common
    stems[1] = "ＣＴ检查提示右肺上叶结节，下一步应当做什么检查"
    write_records(tmp_path / "questions/test.jsonl", [question(f"q{n}", stem) for n, stem in enumerate(stems)])
    exam = ExamQuestion("e", "高血压急症首选的静脉用药是哪一种药物", {"A": "甲药", "B": "乙药"}, "A")
    write_records(tmp_path / "exam/test.jsonl", [exam])
    rows = [talk("a", stems[0] + "？"), talk("b", "CT检查提示右肺上叶结节,下一步应当做什么检查")]
    rows += [talk("c", f"您好医生，我想问一个问题。{stems[2]}，谢谢您的回答"), talk("d", "感冒了怎么办")]
    write_records(tmp_path / "conversations/train.jsonl", rows)
    write_records(tmp_path / "general/train.jsonl", [talk("g", "一年有几个月")])
    found = training_overlap(tmp_path)
    table = {(row["data"], row["test"]): row for row in found["table"]}
    assert len(table) == 4
    row = table["conversations/train", "questions/test"]
    assert (row["items"], row["exact"], row["ngram"], row["overlap"], row["share"]) == (10, 2, 1, 3, 0.3)
    assert all(
        row["overlap"] == 0 for place, row in table.items() if place != ("conversations/train", "questions/test")
    )
    assert set(found["not_compared"]) == set(TESTS) - {"questions/test", "exam/test"}


def public_sets(root: Path) -> Path:
    """Every kind that a run on public data needs; the texts differ in a number."""
    n = [DIGITS[i // 10] + DIGITS[i % 10] for i in range(10, 40)]
    rows = {
        "pages": [{"title": f"病{i}", "text": f"第{i}种病的说明，注意休息。"} for i in n],
        "doctor": [{"question": f"第{i}种病怎么办？", "answer": f"看{i}号门诊。"} for i in n],
        "alpaca": [{"instruction": f"写出数字{i}。", "input": "", "output": f"{i}。"} for i in n],
        "dpo": [{"prompt": f"比较第{i}种药哪个好？", "chosen": "问医生。", "rejected": "随便。"} for i in n],
    }
    for name, body in rows.items():
        (root / name).mkdir(parents=True)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in body)
        (root / name / f"{name}.jsonl").write_text(text, "utf-8")
    return root


@pytest.mark.parametrize("kind", ["ward", "public", "notes"])
def test_the_data_stage_reports_it(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    settings = [f"data.public.{name}={count}" for name, count in SMALL.items()]
    settings += ["data.notes.general_share=0.2", "data.notes.count=24", "data.notes.size=60"]
    place = public_sets(tmp_path / "sets") if kind == "public" else None
    options = RunOptions(tmp_path / "run", kind, place, only="data", quiet=True, key=tmp_path / "private/key")
    run_recipe(load_recipe(str(RECIPE), settings=settings), options)
    (folder,) = (path for path in (tmp_path / "run").iterdir() if path.is_dir())  # nothing has been trained
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    there = {name for name in (*TRAINING, *TESTS) if (folder / f"{name}.jsonl").is_file()}
    pairs = {(row["data"], row["test"]) for row in manifest["training_overlap"]["table"]}
    assert pairs == {(train, test) for train in there & set(TRAINING) for test in there & set(TESTS)}
    assert len(pairs) >= 4 and all(row["items"] > 0 for row in manifest["training_overlap"]["table"])
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("overlap: ")]
    assert len(said) == sum(row["overlap"] > 0 for row in manifest["training_overlap"]["table"])
    page = (tmp_path / "run/report.html").read_text("utf-8")
    matrix = page.partition("训练数据与测试集的重叠")[2].partition("</table>")[0]
    items = {row["test"]: row["items"] for row in manifest["training_overlap"]["table"]}
    for name, count in items.items():
        assert f">{name}<br>共 {count} 题</th>" in matrix
    for row in manifest["training_overlap"]["table"]:
        line = matrix.partition(f">{row['data']}</td>")[2].partition("</tr>")[0]
        cell = line.split("</td>")[list(items).index(row["test"])].rpartition('"r">')[2]
        assert cell == "0" if not row["overlap"] else cell.startswith(f"<b>{row['overlap']}</b>")
