"""Hostile data files, one table: what a file does, the command, the exit code, and what the user must see.

The rule for each: one line, no traceback, no record text, exit 2 for the user's file; what can be read is read and
counted (exit 0); nothing is left half-written. Every file here is synthetic.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import re
import resource
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from xinglin.cli import main
from xinglin.cli.data import app
from xinglin.data.notes import propose_columns, write_columns
from xinglin.records import Conversation, Message, Note, read_records, write_records

SECRET = "绝密病历"  # stands in every record; no message may hold it
QA = [{"question": f"{SECRET}头痛怎么办{n}？", "answer": f"{SECRET}请休息{n}。"} for n in range(3)]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in QA)
NOTES = f"患者ID,姓名,身份证号,就诊日期,主诉\n0012345,甲某,11010519491231002X,45047,{SECRET}头痛\n"
GIB = 2**30


class Case(NamedTuple):
    """`build` writes the file, gives the command; `shown` is looked for in stderr at exit 2, in stdout at exit 0."""

    number: int
    what: str
    build: Callable[[Path], list[str]]
    code: int
    shown: str


def file(name: str, data: bytes | str, *more: str) -> Callable[[Path], list[str]]:
    """`xinglin data import` of a file with these bytes."""

    def build(folder: Path) -> list[str]:
        path = folder / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return ["data", "import", str(path), "--out", str(folder / "out.jsonl"), "--json", *more]

    return build


def notes(
    name: str, data: bytes | str, ready: str = NOTES, rows: list[list[Any]] | None = None
) -> Callable[[Path], list[str]]:
    """`xinglin data notes` of a file, through columns that were proposed for `ready` and confirmed."""

    def build(folder: Path) -> list[str]:
        sane, columns, path = folder / "sane.csv", folder / "columns.yaml", folder / name
        sane.write_text(ready, encoding="utf-8")
        write_columns(columns, dataclasses.replace(propose_columns(sane), confirmed=True))
        if rows is not None:
            excel(path, rows)
        else:
            path.write_bytes(data.encode() if isinstance(data, str) else data)
        return ["data", "notes", str(path), "--columns", str(columns), "--out", str(folder / "out.jsonl"), "--json"]

    return build


def excel(path: Path, rows: list[list[Any]]) -> None:
    """A workbook with a title merged over its first row, and a formula without a saved value in a column of no use."""
    import openpyxl

    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.active.merge_cells(start_row=1, end_row=1, start_column=1, end_column=len(rows[1]))
    with path.open("wb") as out:
        book.save(out)


def zipped(name: str, *, link: bool = False) -> bytes:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (0o120777 if link else 0o100644) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(entry, "/etc/passwd" if link else JSONL)
    return buffer.getvalue()


def tarred(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(JSONL.encode())
        archive.addfile(entry, io.BytesIO(JSONL.encode()))
    return buffer.getvalue()


def zip_bomb(folder: Path) -> list[str]:
    """A workbook of 200 KB with a sheet of 200 MB."""
    path = folder / "bomb.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
        with archive.open("xl/worksheets/sheet1.xml", "w") as sheet:
            for _ in range(200):
                sheet.write(b" " * 2**20)
    return ["data", "import", str(path), "--out", str(folder / "out.jsonl")]


def gzip_bomb(folder: Path) -> list[str]:
    path = folder / "bomb.jsonl.gz"
    with gzip.open(path, "wb") as out:
        for _ in range(100):
            out.write(b"a" * 2**20)
    return ["data", "import", str(path), "--out", str(folder / "out.jsonl")]


def long_line(folder: Path) -> list[str]:
    """One line of 80 MiB stands for one of 10 GB: the limit is met at 64 MiB."""
    path = folder / "long.jsonl"
    with path.open("wb") as out:
        out.write(b'{"question": "')
        for _ in range(80):
            out.write(b"a" * 2**20)
    return ["data", "import", str(path), "--out", str(folder / "out.jsonl")]


def million(folder: Path, *more: str) -> list[str]:
    path = folder / "million.jsonl"
    line = json.dumps(QA[0], ensure_ascii=False) + "\n"
    with path.open("w", encoding="utf-8") as out:
        for number in range(1_000_000 if more == ("--slow",) else 20_000):
            out.write("{broken\n" if number == 17_654 else line)
    allowed = [] if not more or more == ("--slow",) else list(more)
    return ["data", "import", str(path), "--out", str(folder / "out.jsonl"), "--json", *allowed]


def doubled(folder: Path) -> list[str]:
    rows = "".join(f"{patient},n{note},{SECRET}\n" for patient, note in ((1, 1), (1, 2), (2, 1)))
    return notes("a.csv", "患者ID,文书编号,内容\n" + rows, ready="患者ID,文书编号,内容\n1,1,甲\n")(folder)


def same_rows(folder: Path) -> list[str]:
    """Training and validation on the same patients' rows: told before any model is loaded."""
    rows = [Conversation(f"c{n}", (Message("user", SECRET), Message("assistant", f"答{n}"))) for n in range(3)]
    for name in ("train.jsonl", "valid.jsonl"):
        write_records(folder / name, rows)
    data = ["--data", str(folder / "train.jsonl"), "--valid", str(folder / "valid.jsonl")]
    return ["sft", "--model", str(tiny_model(folder)), *data, "--out", str(folder / "sft")]


def tiny_model(folder: Path) -> Path:
    from tiny_models import save

    return save(folder / "model")


def masked(folder: Path, sound: int) -> list[str]:
    """Ten conversations whose question alone fills the row, and `sound` that fit."""
    long = [Conversation(f"l{n}", (Message("user", "头痛" * 40), Message("assistant", SECRET))) for n in range(10)]
    short = [Conversation(f"s{n}", (Message("user", "头痛"), Message("assistant", f"休息{n}"))) for n in range(sound)]
    write_records(folder / "train.jsonl", [*long, *short])
    words = ["--data", str(folder / "train.jsonl"), "--out", str(folder / "sft")]
    settings = ["max_seq_len=24", "on_long=truncate", "max_steps=1", "method=full"]
    return ["sft", "--model", str(tiny_model(folder)), *words, *[w for s in settings for w in ("--set", s)]]


def cmeee(mixed: bool) -> str:
    """Ends are inclusive, but in every other row where `mixed`."""
    rows = []
    for number in range(20):
        end = 5 if not (mixed and number % 2) else 6
        span = {"start_idx": 4, "end_idx": end, "type": "sym", "entity": "头痛"}
        rows.append({"text": f"{SECRET}头痛三天", "entities": [span]})
    return json.dumps(rows, ensure_ascii=False)


def deidentify(folder: Path, texts: list[str], names: list[str]) -> list[str]:
    """`xinglin data deidentify` of one note a patient, whose name stands in a field."""
    rows = [
        Note(f"n{number}", f"p{number}", "outpatient", text, {"name": name} if name else {})
        for number, (text, name) in enumerate(zip(texts, names, strict=True))
    ]
    write_records(folder / "notes.jsonl", rows)
    (folder / "keys").mkdir(mode=0o700)
    words = ["--out", str(folder / "out"), "--key", str(folder / "keys/key"), "--json"]
    return ["data", "deidentify", str(folder / "notes.jsonl"), *words]


def overlapping(folder: Path) -> list[str]:
    """One of the two test questions stands in the training set."""
    body = f"{SECRET}患者反复上腹痛三年，加重一周，夜间明显，进食后缓解，最可能的诊断是什么？"
    other = f"{SECRET}儿童发热五日，皮疹，结膜充血，杨梅舌，颈部淋巴结肿大，应当首先考虑何病？"
    for name, questions in (("train.jsonl", [body, "甲" * 30, "乙" * 30]), ("test.jsonl", [body, other])):
        turns = [(Message("user", text), Message("assistant", "见教材")) for text in questions]
        write_records(folder / name, [Conversation(f"{name}{n}", pair) for n, pair in enumerate(turns)])
    return ["data", "overlap", str(folder / "train.jsonl"), "--tests", str(folder / "test.jsonl"), "--json"]


GB = JSONL.encode("gb18030")
SHEET = [["某医院门诊", None, None, None, None], ["患者ID", "姓名", "身份证号", "就诊日期", "主诉"]]
TURNS = [
    [{"role": "user", "content": SECRET}],
    [{"role": "user", "content": SECRET}, {"role": "assistant", "content": ""}],
    [{"role": "wizard", "content": SECRET}, {"role": "assistant", "content": SECRET}],
]
DIALOGUES = "".join(json.dumps({"messages": turns}, ensure_ascii=False) + "\n" for turns in TURNS)
PAIRS = [
    {"prompt": SECRET, "chosen": a, "rejected": b} for a, b in (("好", "好"), ("", ""), ("好", "坏"), ("是", "否"))
]
CASES = [
    Case(1, "GB18030 is detected", file("a.csv", GB), 0, r'"accepted": 3'),
    Case(1, "GB18030 under --encoding utf-8", file("a.csv", GB, "--encoding", "utf-8"), 2, r"byte \d+ is not utf-8"),
    Case(1, "GB18030 with a bad byte", file("a.csv", GB + b"\xff\n"), 2, r"looks like GB18030, but byte \d+ is not"),
    Case(2, "BOM and CRLF", file("a.jsonl", "\ufeff" + JSONL.replace("\n", "\r\n")), 0, r'"accepted": 3'),
    Case(2, "NUL", file("a.jsonl", "abc\0" + JSONL), 2, r"a\.jsonl: NUL byte at offset 3"),
    Case(3, "a broken line", million, 2, r"million\.jsonl:17655: not JSON.*--max-bad"),
    Case(3, "allowed", lambda folder: million(folder, "--max-bad", "1"), 0, r'"broken_json": 1'),
    Case(4, "cut gzip", file("a.jsonl.gz", gzip.compress(JSONL.encode())[:-20]), 2, r"file ends inside a record"),
    Case(4, "cut line", file("a.jsonl", JSONL[:-9]), 2, r"a\.jsonl:3: file ends inside a record"),
    Case(4, "cut CSV", notes("a.csv", NOTES + "0012346,乙某"), 2, r"a\.csv:3: file ends inside a record"),
    Case(4, "damaged gzip", file("a.gz", gzip.compress(JSONL.encode())[:-8] + b"12345678"), 2, r"gzip is damaged"),
    Case(5, "empty", file("a.jsonl", ""), 2, r"a\.jsonl: 0 records"),
    Case(5, "header only", notes("a.csv", NOTES.split("\n")[0] + "\n"), 2, r"a\.csv: 0 records"),
    Case(5, "header only, Excel", notes("a.xlsx", "", rows=SHEET), 2, r"a\.xlsx: 0 records"),
    Case(5, "header only, import", file("a.csv", "question,answer\n"), 2, r"a\.csv: 0 records"),
    Case(6, "zip bomb", zip_bomb, 2, r"bomb\.xlsx: \d+ bytes unpack to over 200 times.*size limit"),
    Case(6, "gzip bomb", gzip_bomb, 2, r"bomb\.jsonl\.gz: \d+ bytes unpack to over 200 times.*size limit"),
    Case(6, "one long line", long_line, 2, r"long\.jsonl:1: a line of over 64 MiB; allowed is less"),
    Case(7, "path", file("a.zip", zipped("../../etc/x")), 2, r"entry '\.\./\.\./etc/x' leaves the folder"),
    Case(7, "absolute path", file("a.zip", zipped("/etc/x")), 2, r"entry '/etc/x' leaves the folder"),
    Case(7, "link", file("a.zip", zipped("data.jsonl", link=True)), 2, r"entry 'data\.jsonl' is a link"),
    Case(7, "line break", file("a.zip", zipped("a\nb.jsonl")), 2, r"entry 'a\\nb\.jsonl' has a line break"),
    Case(7, "tar.gz", file("a.tar.gz", tarred("../x")), 2, r"entry '\.\./x' leaves the folder"),
    Case(7, "a plain zip", file("a.zip", zipped("data.jsonl")), 2, r"found zip.*unpack it and import the folder"),
    Case(
        *(8, "Excel named .csv, title merged, serial date"),
        notes("a.csv", "", rows=[*SHEET, ["0012345", "甲某", "11010519491231002X", 45047, SECRET]]),
        *(0, r'"xlsx_with_another_suffix": 1, "title_rows": 1, "date_serials": 1.*"container": "xlsx"'),
    ),
    Case(9, "1.1E+17", notes("a.csv", NOTES.replace("11010519491231002X", "1.10105E+17")), 2, r"damaged by Excel"),
    Case(9, "zeros lost", notes("a.csv", NOTES.replace("0012345", "12345")), 2, r"a\.csv:2: IDs were damaged by Excel"),
    Case(
        *(9, "a number in Excel"),
        notes("a.xlsx", "", rows=[*SHEET, ["0012345", "甲某", 110105194912310021, "", SECRET]]),
        *(2, r"a\.xlsx:3: IDs were damaged by Excel: column '身份证号'"),
    ),
    Case(10, "double ids", doubled, 0, r'"duplicate_note_id": 1.*"rejected_rows": \[\[4, "duplicate_note_id"\]\]'),
    Case(10, "train = valid", same_rows, 2, r"holds the same rows as .*split by patient first"),
    Case(11, "renamed", notes("a.csv", NOTES.replace("姓名", "患者姓名")), 2, r"no column '姓名'.*nearest: 患者姓名"),
    Case(11, "missing", notes("a.csv", NOTES.replace("主诉", "备注")), 2, r"no column '主诉'.*found: 患者ID"),
    Case(17, "half a character", file("a.jsonl", '{"ask": "\\ud800", "answer": "b"}\n'), 2, r"lone_surrogate_U\+D800"),
    Case(17, "private use", file("a.jsonl", '{"question": "\\ue001", "answer": "b"}\n'), 2, r"private_use_U\+E001"),
    Case(17, "in a note", notes("a.csv", NOTES.replace("头痛", "\ue001")), 2, r"damaged_text_U\+E001"),
    Case(18, "no answer, empty, role", file("a.jsonl", DIALOGUES), 2, r"no_assistant_turn \(1\), empty_\w+ \(1\), unk"),
    Case(19, "equal and empty", file("a.json", json.dumps(PAIRS)), 0, r'"read": 4, "accepted": 2.*"equal_answers": 1'),
    Case(19, "nothing else", file("a.json", json.dumps(PAIRS[:1])), 2, r"0 records from 1 rows.*equal_answers \(1\)"),
    Case(20, "all masked", lambda folder: masked(folder, 0), 2, r"0 rows to train on"),
    Case(21, "mixed ends", file("a.json", cmeee(True)), 2, r"exclusive in rows \[2, 4, 6\] and inclusive in"),
    Case(21, "one convention", file("a.json", cmeee(False)), 0, r'"accepted": 20'),
    Case(22, "test in training", overlapping, 0, r'"items": 2, "distinct": 2, "exact": 1'),
]  # fmt: skip


def verbs() -> set[str]:
    return {command.name or "" for command in app.registered_commands}


@pytest.mark.parametrize("case", CASES, ids=[f"{case.number}-{case.what}" for case in CASES])
def test_hostile_file(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = case.build(tmp_path)
    if words[0] == "data" and words[1] not in verbs():
        pytest.skip(f"xinglin data {words[1]} is not there yet")
    monkeypatch.setattr(sys, "argv", ["xinglin", *words])
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main()
    shown = capsys.readouterr()
    assert (left.value.code or 0) == case.code, shown.err
    assert SECRET not in shown.out + shown.err and "Traceback" not in shown.err
    assert not list(tmp_path.rglob("*.partial"))
    if case.code == 2:
        (line,) = [line for line in shown.err.splitlines() if line.startswith("xinglin: ")]
        assert re.search(case.shown, line), line
        assert not (tmp_path / "out.jsonl").exists()
    else:
        assert re.search(case.shown, shown.out), shown.out


class Masked(NamedTuple):
    """Notes, one a patient; what must not stand in the published texts, and what must."""

    number: int
    what: str
    texts: list[str]
    names: list[str]
    gone: str
    kept: str


MASKED = [
    Masked(
        *(12, "full width, zero width, variation selector"),
        ["身份证１１０１０５\u200b19491231\ufe0f002Ｘ，头痛"],
        *([""], r"１１０１０５|110105|19491231|002Ｘ", "头痛"),
    ),
    Masked(
        *(13, "wrong checksum, spaces, lower-case x, 15 digits"),
        ["证件110105 1949 1231 0021、11010519491231002x、110105491231002，头痛"],
        *([""], r"110105|19491231|1949 1231|491231", "头痛"),
    ),
    Masked(14, "a name that is a word", ["患者高兴，诊断帕金森病。高兴诉头痛。"], ["高兴"], "高兴", "帕金森病.*头痛"),
    Masked(14, "a name of one character", ["患者白某，诊断白血病，住血液科病房。"], ["白某"], "白某", "白血病"),
    Masked(15, "two patients of one name", ["患者王伟，发热。", "患者王伟，咳嗽。"], ["王伟", "王伟"], "王伟", "发热"),
    Masked(
        16, "impossible and lunar dates", ["2023-02-30入院，农历八月十五复诊，头痛。"], [""], "02-30|八月十五", "头痛"
    ),
]


@pytest.mark.parametrize("case", MASKED, ids=[f"{case.number}-{case.what}" for case in MASKED])
def test_hostile_identifiers_are_masked(
    case: Masked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "deidentify" not in verbs():
        pytest.skip("xinglin data deidentify is not there yet")
    monkeypatch.setattr(sys, "argv", ["xinglin", *deidentify(tmp_path, case.texts, case.names)])
    with pytest.raises(SystemExit) as left:
        main()
    shown = capsys.readouterr()
    assert not left.value.code and json.loads(shown.out)
    published = list(read_records(tmp_path / "out/notes.jsonl", Note))
    assert len(published) == len(case.texts)
    for note in published:
        assert not re.search(case.gone, note.text + json.dumps(note.fields, ensure_ascii=False))
        assert not re.search(case.gone, shown.out + shown.err)
    assert re.search(case.kept, "".join(note.text for note in published))
    assert len({note.fields.get("name", note.id) for note in published}) == len(published)  # no two patients merged


def test_all_numbers_are_there() -> None:
    assert {case.number for case in [*CASES, *MASKED]} == set(range(1, 23))


def test_masked_rows_above_one_per_cent_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["xinglin", *masked(tmp_path, 90)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "10 of 100 conversations have no token of an answer within max_seq_len 24" in capsys.readouterr().err


@pytest.mark.parametrize("build", [zip_bomb, gzip_bomb, long_line])
def test_bombs_stay_below_one_gigabyte(tmp_path: Path, build: Callable[[Path], list[str]]) -> None:
    """In a process of its own, whose address space is the limit."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (GIB, GIB))

    command = [sys.executable, "-m", "xinglin", *build(tmp_path)]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.search("size limit|a line of over 64 MiB", done.stderr)


@pytest.mark.slow
def test_one_broken_line_in_a_million(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["xinglin", *million(tmp_path, "--slow"), "--max-bad", "1"])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    summary = json.loads(capsys.readouterr().out)
    assert (summary["read"], summary["accepted"], summary["rejected"]) == (1_000_000, 999_999, {"broken_json": 1})
