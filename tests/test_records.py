import json
from pathlib import Path

import pytest

from xinglin.records import (
    Answer,
    Conversation,
    Document,
    Entity,
    EntityText,
    ExamQuestion,
    InputError,
    Message,
    Note,
    Preference,
    Question,
    Record,
    Rollout,
    Score,
    from_json,
    read_any,
    read_records,
    record_id,
    to_json,
    write_records,
)

ASK = (Message("user", "头痛怎么办？"),)
ONE_OF_EACH: list[Record] = [
    Document("d", "高血压\u2028病", "book", {"page": 3}),
    Conversation("c", (*ASK, Message("assistant", "多休息😷"))),
    Preference("p", ASK, (Answer("好", "doctor"), Answer("差", "m", {"temperature": 0.5})), (1, 2)),
    Rollout("r", "q", ASK, Answer("好"), (Score(0.5, "safety", "rule", "v1"),)),
    Question("q", ASK, "多休息", "consult"),
    ExamQuestion("e", "下列哪项？", {"A": "甲", "B": "乙"}, "AB"),
    EntityText("t", "头痛三天", (Entity(0, 2, "symptom", "头痛"),)),
    Note("n", "p1", "outpatient", "头痛\n三天", {"sex": "女"}, (Entity(0, 2, "x", "头痛"),)),
]


@pytest.mark.parametrize("record", ONE_OF_EACH, ids=lambda record: type(record).__name__)
def test_json_and_back(record: Record) -> None:
    line = to_json(record)
    assert "\n" not in line
    assert from_json(line) == record


def test_write_and_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "all.jsonl"
    assert write_records(path, ONE_OF_EACH) == 8
    assert list(read_any(path)) == ONE_OF_EACH
    assert [p.name for p in path.parent.iterdir()] == ["all.jsonl"]


def test_what_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_records(path, [Document("old", "x")])

    def broken():
        yield Document("new", "y")
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError):
        write_records(path, broken())
    assert [record.id for record in read_records(path, Document)] == ["old"]


def test_not_a_number_is_never_written() -> None:
    with pytest.raises(ValueError):
        to_json(Rollout("r", "q", ASK, Answer("x"), (Score(float("nan"), "safety", "llm"),)))


DOCUMENT = {"type": "document", "id": "d", "text": "x"}
BAD_LINES = [
    ("{", "not JSON"),
    ("[1]", "type is 'list'"),
    ('{"type": "novel"}', "allowed: document, conversation"),
    ('{"type": []}', "type is []"),
    ('{"type": "document", "id": "d"}', "field text is missing"),
    (json.dumps({**DOCUMENT, "txet": "x"}), "unknown field txet; allowed: id, text"),
    (json.dumps({**DOCUMENT, "text": 3}), "field text is int, expected str"),
    (json.dumps({**DOCUMENT, "meta": []}), "field meta is list, expected an object"),
    (json.dumps({**DOCUMENT, "meta": {"a": float("nan")}}), "NaN is no JSON number"),
    (json.dumps({**DOCUMENT, "text": "\ud83d"}), "U+D83D is half of a character"),
    ("[" * 100_000, "nested too deep"),
    ('{"type": "conversation", "id": "c", "messages": "hi"}', "field messages is str, expected a list"),
    (
        '{"type": "conversation", "id": "c", "messages": [{"role": "nurse", "content": ""}]}',
        "field messages[0].role is 'nurse', allowed: system, user, assistant",
    ),
    ('{"type": "conversation", "id": "c", "messages": [{"role": "user"}]}', "field messages[0].content is missing"),
    (
        '{"type": "exam_question", "id": "e", "question": "", "options": {"A": "x", "B": 5}, "answer": "A"}',
        "field options.B is int, expected str",
    ),
    (
        '{"type": "preference", "id": "p", "prompt": [], "answers": [{"text": "a"}], "ranks": [true]}',
        "field ranks[0] is bool, expected int",
    ),
]


@pytest.mark.parametrize(("line", "says"), BAD_LINES, ids=[says for _, says in BAD_LINES])
def test_a_bad_line_is_named_by_file_line_and_field(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(DOCUMENT) + "\n\n" + line + "\n", "utf-8")
    with pytest.raises(InputError) as error:
        list(read_any(path))
    message = str(error.value)
    assert message.startswith(f"{path}:3: ")
    assert says in message
    assert "\n" not in message


def test_a_proper_escaped_pair_is_one_character() -> None:
    record = from_json(json.dumps({**DOCUMENT, "text": "😷"}))  # json.dumps writes 😷 as two escapes
    assert isinstance(record, Document)
    assert record.text == "😷"


def test_a_whole_number_is_a_score_too() -> None:
    line = to_json(Rollout("r", "q", ASK, Answer("x"), (Score(1.0, "safety", "human"),))).replace("1.0", "1")
    record = from_json(line)
    assert isinstance(record, Rollout)
    assert isinstance(record.scores[0].value, float)


def test_byte_order_mark_and_windows_line_ends_are_no_error(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(DOCUMENT).encode() + b"\r\n\r\n")
    assert len(list(read_any(path))) == 1


def test_bytes_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(json.dumps(DOCUMENT).encode() + b"\n\xff\xfe")
    with pytest.raises(InputError, match="x.jsonl:2: byte 0 is not UTF-8"):
        list(read_any(path))


def test_another_kind_and_no_file(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    write_records(path, [Document("d", "x")])
    with pytest.raises(InputError, match="found a document record 'd'; this step reads note records"):
        list(read_records(path, Note))
    with pytest.raises(InputError, match="no such file"):
        list(read_any(tmp_path / "none.jsonl"))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Message("doctor", "x"), "role 'doctor'"),  # type: ignore[arg-type]
        (lambda: Conversation("c", ASK), "no assistant turn"),
        (lambda: Preference("p", ASK, (Answer("a"),), (1,)), "at least two answers"),
        (lambda: Preference("p", ASK, (Answer("a"), Answer("b")), (1,)), "2 answers and 1 ranks"),
        (lambda: Preference("p", ASK, (Answer("a"), Answer("b")), (0, 1)), "the best is 1"),
        (lambda: ExamQuestion("e", "", {"A": "x", "B": "y"}, "C"), "key 'C'"),
        (lambda: ExamQuestion("e", "", {"A": "x"}, "A"), "at least two options"),
        (lambda: EntityText("t", "头痛", (Entity(0, 2, "x", "发热"),)), "entity 0:2 (x) of 't'"),
    ],
)
def test_what_a_record_refuses(build, says: str) -> None:
    with pytest.raises(InputError) as error:
        build()
    assert says in str(error.value)


def test_ids_are_stable_and_parts_do_not_run_together() -> None:
    assert record_id("ward", "a", 1) == record_id("ward", "a", 1) == "ward-" + record_id("ward", "a", 1)[5:]
    assert record_id("ward", "ab", "c") != record_id("ward", "a", "bc")
    assert len(record_id("ward", "a")) == len("ward-") + 12
