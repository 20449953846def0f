"""`xinglin annotate VERB`: from records to a project, from votes to labels; one line for every mistake."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from ward_of_doctors import judge_all

from xinglin.annotate.people import list_raters
from xinglin.annotate.store import open_store
from xinglin.cli import main
from xinglin.records import Answer, Message, Preference, Question, Rollout, read_records, write_records

ASK = (Message("user", "发热三天怎么办？"),)


@pytest.fixture
def xinglin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the command line: (exit code, stdout, stderr)."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["xinglin", "annotate", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call


@pytest.fixture
def rollouts(tmp_path: Path) -> Path:
    path = tmp_path / "rollouts.jsonl"
    records = [
        Rollout(f"r{question}-{k}", f"q{question}", ASK, Answer(f"{'好中差'[k]}：第 {question} 题", f"model-{k}"))
        for question in range(4)
        for k in range(1 if question == 3 else 2)
    ]
    write_records(path, records)
    return path


@pytest.fixture
def made(tmp_path: Path, xinglin, rollouts: Path) -> Path:
    (tmp_path / "rules.md").write_text("安全第一", "utf-8")
    run = tmp_path / "run"
    settings = ["--set", "votes=2", "--set", "repeat_share=0", "--set", "gold_share=0"]
    found = xinglin("create", run, "首轮", "--guideline", tmp_path / "rules.md", "--form", "pair", *settings)
    assert found == (0, "project 1: 首轮\n", "") and (run / "annotate.db").is_file()
    return run


def test_from_rollouts_to_labels_and_back(tmp_path: Path, made: Path, rollouts: Path, xinglin) -> None:
    questions = tmp_path / "questions.jsonl"
    write_records(questions, [Question("q0", ASK, "多喝水")])
    code, out, _ = xinglin("import", made, rollouts, questions, "--json")
    assert code == 0 and json.loads(out) == {
        **{"read": 8, "accepted": 3},
        "rejected": {"questions with fewer than two different answers": 1},
    }
    tokens = [xinglin("rater", made, name)[1].strip() for name in ("王医生", "李医生")]
    assert all(len(token) == 32 for token in tokens)
    store = open_store(made / "annotate.db")
    for one in list_raters(store):
        assert judge_all(store, one, 1) == 3
    assert xinglin("verify", made)[0] == 0
    assert "overall          100.0% (n 3" in xinglin("agreement", made)[1]
    code, out, _ = xinglin("export", made, "--out", tmp_path / "labels", "--json")
    assert code == 0 and json.loads(out)["counts"] == {"preferences": 3, "pairs": 3, "ties": 0}
    records = list(read_records(tmp_path / "labels/preferences.jsonl", Preference))
    assert [record.ranks for record in records] == [(1, 2)] * 3
    assert records[0].meta["annotation"]["reference"] == "多喝水"
    code, out, _ = xinglin("import", made, rollouts, "--new-round", "--lineage", "model=runs/x", "--json")
    assert json.loads(out)["round"] == 2
    assert xinglin("backup", made, tmp_path / "backup.db")[0] == 0
    assert xinglin("restore", tmp_path / "backup.db", tmp_path / "again.db")[0] == 0
    other = open_store(tmp_path / "again.db")
    assert len(list_raters(other)) == 2
    xinglin("create", tmp_path / "third", "副本", "--guideline", tmp_path / "rules.md", "--form", "pair")
    code, out, _ = xinglin("import", tmp_path / "third", tmp_path / "labels/preferences.jsonl", "--votes", "--json")
    assert json.loads(out)["votes"] == 6
    xinglin("export", tmp_path / "third", "--out", tmp_path / "labels2")
    assert list(read_records(tmp_path / "labels2/preferences.jsonl", Preference))[0].ranks == (1, 2)


def test_label_studio_both_ways(tmp_path: Path, made: Path, rollouts: Path, xinglin) -> None:
    xinglin("import", made, rollouts)
    xinglin("rater", made, "王医生")
    store = open_store(made / "annotate.db")
    judge_all(store, list_raters(store)[0], 1)
    assert json.loads(xinglin("export", made, "--out", tmp_path / "tasks.json", "--json")[1]) == {"tasks": 3}
    xinglin("create", tmp_path / "other", "外来", "--guideline", tmp_path / "rules.md", "--form", "pair")
    code, out, _ = xinglin("import", tmp_path / "other", tmp_path / "tasks.json", "--json")
    assert (code, json.loads(out)) == (0, {"read": 3, "accepted": 3, "rejected": {}, "votes": 3})
    (tmp_path / "broken.json").write_text("{", "utf-8")
    code, _, err = xinglin("import", tmp_path / "other", tmp_path / "broken.json")
    assert code == 2 and "not JSON" in err


def test_a_changed_store_is_told_and_served_read_only(made: Path, rollouts: Path, xinglin) -> None:
    from starlette.testclient import TestClient
    from web_pages import Page, ballot, session

    from xinglin.annotate import schema
    from xinglin.annotate.audit import verify
    from xinglin.annotate.web.app import build_app

    xinglin("import", made, rollouts)
    xinglin("rater", made, "王医生")
    store = open_store(made / "annotate.db")
    with store.write() as connection:
        connection.execute(schema.contents.update().where(schema.contents.c.item_id == 2).values(reference="改过"))
    code, out, _ = xinglin("verify", made)
    assert code == 1 and "item 2/1 is not what the log says was written" in out
    client = TestClient(build_app(store, problems=verify(store).problems), base_url="http://ward.test")
    page = Page(client, "王医生").resume(session(store, "王医生"))
    assert client.get("/p/1").status_code == 503 and "只读" in client.get("/p/1").text
    assert page.post("/api/vote", ballot("x" * 16)).status_code == 503


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serve", "nowhere"], "no store; make one with"),
        (["export", "{run}", "--out", "{run}/out"], "nothing to export"),
        (["import", "{run}", "nothing.jsonl"], "no such file"),
        (["agreement", "{run}", "--project", "二轮"], "give one of: 1 首轮"),
        (["rater", "{run}", "名 字"], "a name is 1 to 64 letters"),
        (["rater", "{run}", "谁", "--remove"], "no rater"),
        (["create", "{run}", "首轮", "--guideline", "{run}/../rules.md"], "is there already"),
        (["create", "{run}", "二轮", "--guideline", "{run}/../rules.md", "--set", "vote=3"], "unknown project setting"),
        (["create", "{run}", "二轮", "--guideline", "nothing.md"], "cannot be read"),
        (["backup", "{run}", "{run}/annotate.db"], "already there"),
    ],
)
def test_mistakes_are_one_line(made: Path, xinglin, words: list[str], message: str) -> None:
    code, out, err = xinglin(*(word.replace("{run}", str(made)) for word in words))
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
