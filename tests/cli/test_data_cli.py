"""`xinglin data inspect` and `import`: records out, every row accounted for, nothing half-written."""

import json

import pytest
from typer.testing import CliRunner

from xinglin.cli.data import app
from xinglin.records import Conversation, InputError, read_any, read_records


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def public(tmp_path):
    """Two good files of two kinds, a licence, and one file that breaks in its second line."""
    folder = tmp_path / "public"
    folder.mkdir()
    rows = [{"instruction": "感冒怎么办？", "output": "多休息。"}, {"instruction": "咳嗽呢？", "output": ""}]
    (folder / "qa.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    exam = "Question,A,B,Answer\n心脏有几个腔？,四个,两个,A\n肺有几叶？,五叶,三叶,C\n"
    (folder / "exam.csv").write_text(exam, encoding="utf-8")
    (folder / "LICENSE").write_text("MIT License, free for research use only", encoding="utf-8")
    return folder


def break_a_file(folder):
    body = (
        '{"instruction": "头痛怎么办？", "output": "休息。"}\n{"instruction": \n{"instruction": "甲", "output": "乙"}\n'
    )
    (folder / "broken.jsonl").write_text(body, encoding="utf-8")


def test_import_folder_gives_one_file_for_each_kind(public, tmp_path):
    result = run("import", public, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.exception
    summary = json.loads(result.stdout)
    assert (summary["read"], summary["accepted"]) == (4, 2)
    assert summary["rejected"] == {"empty_answer": 1, "key_not_among_options": 1}
    assert summary["kinds"] == {"conversation": 1, "exam_question": 1}
    assert set(summary) >= {"read", "accepted", "rejected", "schemas", "kinds", "files", "licences"}
    assert summary["licences"]["public"]["licence"] == "MIT" and summary["licences"]["public"]["research_only"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["conversations.jsonl", "exam_questions.jsonl"]
    (talk,) = read_records(tmp_path / "out/conversations.jsonl", Conversation)
    assert talk.messages[1].content == "多休息。" and talk.meta["row"] == 1


def test_import_into_one_file_and_table_on_stderr(public, tmp_path):
    result = run("import", public / "qa.json", public / "exam.csv", "--out", tmp_path / "all.jsonl", "--source", "own")
    assert result.exit_code == 0 and result.stdout == "" and "empty_answer" in result.stderr
    assert [record.source for record in read_any(tmp_path / "all.jsonl")] == ["own", "own"]


def test_a_broken_file_is_named_after_the_others_are_done_and_leaves_nothing(public, tmp_path):
    break_a_file(public)
    result = run("import", public, "--out", tmp_path / "out", "--json")
    assert isinstance(result.exception, InputError)
    assert "broken.jsonl:2: not JSON" in str(result.exception) and "\n" not in str(result.exception)
    summary = json.loads(result.stdout)
    assert summary["accepted"] == 2 and "error" in summary["files"][str(public / "broken.jsonl")]
    assert [record.messages[0].content for record in read_any(tmp_path / "out/conversations.jsonl")] == ["感冒怎么办？"]
    assert not list((tmp_path / "out").glob("*.partial"))
    allowed = run("import", public, "--out", tmp_path / "more", "--max-bad", "1", "--json")
    assert allowed.exit_code == 0 and json.loads(allowed.stdout)["rejected"]["broken_json"] == 1


def test_only_a_broken_file_writes_nothing(public, tmp_path):
    break_a_file(public)
    result = run("import", public / "broken.jsonl", "--out", tmp_path / "b.jsonl")
    assert isinstance(result.exception, InputError) and "broken.jsonl:2" in str(result.exception)
    assert not list(tmp_path.glob("b.jsonl*"))


def test_out_that_is_not_empty_is_refused(public, tmp_path):
    (tmp_path / "all.jsonl").write_text("{}\n", encoding="utf-8")
    for out in (tmp_path / "all.jsonl", public):
        result = run("import", public / "qa.json", "--out", out)
        assert isinstance(result.exception, InputError) and "already there and not empty" in str(result.exception)
    assert (tmp_path / "all.jsonl").read_text(encoding="utf-8") == "{}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--schema", "alpace"), "--schema 'alpace' is not one of"),
        (("--encoding", "big5"), "--encoding 'big5' is not one of"),
    ],
)
def test_wrong_options_name_what_is_allowed(public, tmp_path, arguments, words):
    result = run("import", public, "--out", tmp_path / "out", *arguments)
    assert isinstance(result.exception, InputError) and words in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_schema_and_encoding_hold_for_folders_too(public, tmp_path):
    result = run(
        "import", public, "--out", tmp_path / "out", "--encoding", "utf-8", "--schema", "exam_columns", "--json"
    )
    assert json.loads(result.stdout)["schemas"] == {"exam_columns": 4}


def test_missing_path_and_no_records(public, tmp_path):
    result = run("import", tmp_path / "none", "--out", tmp_path / "out")
    assert isinstance(result.exception, InputError) and "no such file or folder" in str(result.exception)
    (public / "qa.json").write_text('[{"instruction": "甲？", "output": ""}]', encoding="utf-8")
    result = run("import", public / "qa.json", "--out", tmp_path / "x.jsonl")
    assert isinstance(result.exception, InputError) and "0 records from 1 rows" in str(result.exception)
    assert not list(tmp_path.glob("x.jsonl*"))


def test_inspect_says_what_a_file_is_without_its_text(public):
    result = run("inspect", public / "exam.csv", "--json")
    found = json.loads(result.stdout)
    assert (found["encoding"], found["container"], found["read"], found["accepted"]) == ("utf-8", "csv", 2, 1)
    assert found["bad_rows"] == [{"row": 3, "reason": "key_not_among_options"}]
    assert "心脏" not in result.stdout and "心脏" not in run("inspect", public / "exam.csv").stdout


def test_inspect_folder(public):
    assert len(json.loads(run("inspect", public, "--json").stdout)["files"]) == 2
    (public / "empty.csv").write_bytes(b"")
    result = run("inspect", public, "--json")
    assert isinstance(result.exception, InputError) and "the file is empty" in str(result.exception)
    assert len(json.loads(result.stdout)["files"]) == 3


@pytest.mark.parametrize("command", ["inspect", "import"])
def test_help_has_examples(command):
    assert "Examples" in run(command, "--help").stdout
