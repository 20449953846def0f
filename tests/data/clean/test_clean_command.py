"""`xinglin data clean`: files, counts, refusals, and the model-checked pass against a stand-in server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chat_server import chat_server
from typer.testing import CliRunner

from xinglin.cli import app
from xinglin.data.clean.ask import Asker, Reply, Unreadable
from xinglin.data.clean.check import read_verdict
from xinglin.records import Conversation, InputError, Message, read_any, write_records

GOOD = "建议低盐饮食，按时服药，每周测量血压{}次。"


def talk(number: int, answer: str) -> Conversation:
    messages = (Message("user", f"高血压第{number}问，怎么办？"), Message("assistant", answer))
    return Conversation(f"c{number}", messages, "test")


def run(*args: object) -> dict[str, object]:
    result = CliRunner().invoke(app, ["data", "clean", *map(str, args), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


def refused(*args: object) -> str:
    with pytest.raises(InputError) as error:
        CliRunner().invoke(app, ["data", "clean", *map(str, args)], catch_exceptions=False)
    return str(error.value)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [talk(n, GOOD.format(n)) for n in range(8)]
    rows += [talk(8, "坚持治疗可以放慢康复速度。"), talk(9, GOOD.format(9) + "祝您早日康复！")]
    write_records(tmp_path / "in.jsonl", rows)
    return tmp_path / "in.jsonl"


def test_every_record_is_in_one_file_and_counted(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = run(source, "--out", out)
    assert (report["read"], report["accepted"], report["rejected"]) == (10, 9, {"reversed": 1})
    assert report["changed"] == {"tails": 1}
    assert json.loads((out / "report.json").read_text("utf-8")) == report
    kept, rejected = list(read_any(out / "records.jsonl")), list(read_any(out / "rejected.jsonl"))
    assert {record.id for record in kept + rejected} == {f"c{n}" for n in range(10)}
    (bad,) = rejected
    assert isinstance(bad, Conversation) and bad.messages == talk(8, "坚持治疗可以放慢康复速度。").messages
    assert bad.meta == {"rejected": "reversed"}
    assert "康复" not in (out / "report.json").read_text("utf-8")
    assert not list(out.glob("*.partial"))
    again = run(out / "records.jsonl", "--out", tmp_path / "again")
    assert (again["accepted"], again["changed"]) == (9, {})


def test_a_rule_can_be_switched_off(source: Path, tmp_path: Path) -> None:
    assert run(source, "--out", tmp_path / "out", "--off", "reversed")["accepted"] == 10


def test_mistakes_are_one_line(source: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    (tmp_path / "empty.jsonl").touch()
    assert "not empty" in refused(source, "--out", tmp_path / "full")
    assert "'nope'" in refused(source, "--out", tmp_path / "o", "--off", "nope")
    assert "0 records" in refused(tmp_path / "empty.jsonl", "--out", tmp_path / "o2")
    assert "name the model" in refused(source, "--out", tmp_path / "o3", "--check-url", "http://127.0.0.1:1/v1")


def verdict(material: dict[str, object]) -> str | int:
    text = json.dumps(material, ensure_ascii=False)
    if "第3问" in text:
        return '{"keep": false, "problems": ["grammar", "off_topic"]}'
    if "第4问" in text:
        return "我觉得还可以"
    return 500 if "第5问" in text else '```json\n{"keep": true, "problems": []}\n```'


def test_the_model_refuses_and_what_it_cannot_judge_is_kept(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    out = tmp_path / "out"
    with chat_server(verdict) as (url, asked):
        args = ("--check-url", url, "--check-model", "m", "--price-in", 2, "--price-out", 10)
        report = run(source, "--out", out, *args)
        first = len(asked)
        assert report["rejected"] == {"reversed": 1, "model_grammar": 1}
        check = report["check"]
        assert isinstance(check, dict) and (check["ungraded"], check["cached"]) == (2, 0)
        # 7 read at once, 3 tries of the unreadable one: 10 paid replies of 100 + 10 tokens; a failed one costs nothing
        assert (check["prompt_tokens"], check["completion_tokens"]) == (1000, 100)
        assert check["cost"] == pytest.approx((1000 * 2 + 100 * 10) / 1e6)
        cache = (out / "asked.jsonl").read_text("utf-8")
        assert cache.count("\n") == 7 and "血压" not in cache
        # A stop: the cache is left, its last line torn
        for path in out.iterdir():
            if path.name != "asked.jsonl":
                path.unlink()
        (out / "asked.jsonl").write_text(cache + '{"key": "tor', "utf-8")
        resumed = run(source, "--out", out, *args)
        assert resumed["accepted"] == report["accepted"] and resumed["check"]["cached"] == 7  # type: ignore[index]
        assert all(
            "第4问" in json.dumps(m, ensure_ascii=False) or "第5问" in json.dumps(m, ensure_ascii=False)
            for m in asked[first:]
        )


@pytest.mark.parametrize(
    "reply",
    ["", "[]", '{"keep": true}', '{"keep": true, "problems": ["grammar"]}', '{"keep": false, "problems": ["x"]}'],
)
def test_a_verdict_is_read_strictly(reply: str) -> None:
    with pytest.raises(Unreadable):
        read_verdict(reply)


def test_another_prompt_is_another_question(tmp_path: Path) -> None:
    calls: list[int] = []

    def chat(messages: list[dict[str, str]], attempt: int) -> Reply:
        calls.append(attempt)
        return Reply("ok", 1, 1)

    for prompt in ("one", "one", "two"):
        asker = Asker(chat, model="m", prompt=prompt, version="v", cache=tmp_path / "asked.jsonl")
        assert asker.ask({"text": "x"}, str) == "ok"
    assert calls == [0, 0]
