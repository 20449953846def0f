"""Bytes, line ends, containers: what is told from the content, and what is refused with one line."""

import gzip
import json
import zipfile

import pytest

from xinglin.data.sources import detect, import_file, import_folder, inspect
from xinglin.records import InputError

QA = [{"question": "头痛怎么办？", "answer": "请休息并多喝水。"}, {"question": "发热吃什么？", "answer": "先看医生。"}]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in QA)


def write(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def read_all(path, **options):
    job = import_file(path, **options)
    records = list(job)
    assert job.accepted + sum(job.rejected.values()) == job.read
    assert job.records == len(records)
    return job, records


@pytest.mark.parametrize(
    ("codec", "name"), [("utf-8", "utf-8"), ("utf-8-sig", "utf-8-sig"), ("gbk", "gb18030"), ("gb18030", "gb18030")]
)
def test_encodings_are_told_apart(tmp_path, codec, name):
    path = write(tmp_path, "a.jsonl", JSONL.encode(codec))
    assert detect(path).encoding == name
    _, records = read_all(path)
    assert records[0].messages[0].content == "头痛怎么办？"


def test_gb18030_proper_four_byte_characters(tmp_path):
    text = JSONL.replace("头痛", "㐀𠀀")  # neither is in GBK
    _, records = read_all(write(tmp_path, "a.jsonl", text.encode("gb18030")))
    assert records[0].messages[0].content == "㐀𠀀怎么办？"


def test_damaged_utf8_is_not_taken_for_gb18030(tmp_path):
    good = JSONL.encode()
    at = good.index("头".encode()) + 2
    path = write(tmp_path, "a.jsonl", good[:at] + b"\xff" + good[at + 1 :])
    with pytest.raises(InputError, match=rf"UTF-8, but byte {at - 2} is not"):
        detect(path)


def test_first_bad_byte_of_gb18030_is_named(tmp_path):
    data = JSONL.encode("gb18030")
    with pytest.raises(InputError, match=f"byte {len(data)} is not"):
        detect(write(tmp_path, "a.jsonl", data + b"\xff\n"))


def test_bad_bytes_are_found_across_chunks(tmp_path):
    data = ("x" * (2**20 - 1) + "好\n" * 10).encode() + b"\xe5\xa5"  # cut inside a character
    with pytest.raises(InputError, match=f"byte {len(data) - 2} is not"):
        detect(write(tmp_path, "a.txt", data))


def test_given_encoding_is_checked(tmp_path):
    path = write(tmp_path, "a.jsonl", JSONL.encode("gb18030"))
    with pytest.raises(InputError, match="is not utf-8"):
        detect(path, "utf-8")
    with pytest.raises(InputError, match="latin-1.*is not one of"):
        detect(path, "latin-1")


@pytest.mark.parametrize(("end", "name"), [("\n", "LF"), ("\r\n", "CRLF"), ("\r", "CR")])
def test_line_ends(tmp_path, end, name):
    path = write(tmp_path, "a.jsonl", JSONL.replace("\n", end))
    assert detect(path).line_ends == name
    assert len(read_all(path)[1]) == 2
    words = write(tmp_path, "w.txt", "\ufeff" + f"头痛\t10{end}发热\t 9{end}")
    job, records = read_all(words)
    assert (job.container.encoding, job.read, len(records)) == ("utf-8-sig", 2, 1)
    assert records[0].text == "头痛\t10\n发热\t9"


def test_nul_bytes_empty_and_header_only(tmp_path):
    with pytest.raises(InputError, match="NUL byte at offset 3"):
        detect(write(tmp_path, "a.txt", b"abc\0d"))
    for data in ("", " \n\n", "\ufeff"):
        with pytest.raises(InputError, match="0 records"):
            detect(write(tmp_path, "b.txt", data))
    with pytest.raises(InputError, match="0 records"):
        list(import_file(write(tmp_path, "c.csv", "question,answer\n")))
    with pytest.raises(InputError, match="0 records"):
        list(import_file(write(tmp_path, "d.json", "[]")))


def test_binaries_are_named_and_refused(tmp_path):
    for part, words in (
        ("word/document.xml", "docx.*data notes"),
        ("xl/workbook.bin", "xlsb"),
        ("a.jsonl", "zip.*unpack"),
    ):
        with zipfile.ZipFile(tmp_path / "a.csv", "w") as file:
            file.writestr(part, "<x/>")
        with pytest.raises(InputError, match=f"found {words}"):
            detect(tmp_path / "a.csv")
    with pytest.raises(InputError, match="zip container is cut"):
        detect(write(tmp_path, "b.csv", b"PK\x03\x04" + b"x" * 100))
    with pytest.raises(InputError, match="found pickle"):
        detect(write(tmp_path, "a.json", b"\x80\x04K\x01."))
    with pytest.raises(InputError, match="utf-16"):
        detect(write(tmp_path, "b.json", JSONL.encode("utf-16")))


def test_gzip_is_read_as_what_it_holds(tmp_path):
    for name, text in (
        ("a.jsonl.gz", JSONL),
        ("b", json.dumps(QA, ensure_ascii=False)),
        ("c.csv", "question,answer\n头痛怎么办？,休息\n呢？,好\n"),
    ):
        path = write(tmp_path, name, gzip.compress(text.encode("gb18030")))
        assert detect(path).encoding == "gb18030"
        _, records = read_all(path)
        assert len(records) == 2 and records[0].messages[0].content == "头痛怎么办？"
    two = write(tmp_path, "two.gz", gzip.compress(JSONL.encode()) + gzip.compress(JSONL.encode()))
    assert len(read_all(two)[1]) == 4


def test_every_cut_of_a_gzip_is_refused(tmp_path):
    packed = gzip.compress(JSONL.encode())
    for cut in range(2, len(packed)):
        with pytest.raises(InputError, match="file ends inside a record"):
            detect(write(tmp_path, "a.gz", packed[:cut]))


def test_a_table_has_its_names_in_the_first_line(tmp_path):
    path = write(tmp_path, "a.csv", "住院号,床位,床位\n1,2,3\n")
    assert detect(path).header is None
    assert detect(path, table=True).header == ("住院号", "床位", "床位_2")


def test_a_field_may_be_longer_than_the_default_of_csv(tmp_path):
    _, (record, _) = read_all(write(tmp_path, "a.csv", f"question,answer\n问,{'长' * 200_000}\n问二,答\n"))
    assert len(record.messages[1].content) == 200_000


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.json", JSONL, "json lines"),
        ("a.txt", json.dumps(QA), "json list"),
        ("b.txt", json.dumps(QA, indent=2), "json list"),
        ("c.txt", json.dumps({"x": QA[0], "y": QA[1]}), "json object"),
        ("d.txt", json.dumps({"version": 1, "data": QA}), "json object"),
        ("e.txt", json.dumps(QA[0], indent=1) + "\n" + json.dumps(QA[1], indent=1), "json object"),
        ("f.json", str(QA), "python literal"),
        ("g.json", f"{QA[0]}\n{QA[1]}\n", "python literal lines"),
        ("h.txt", "question,answer\n头痛怎么办？,请休息并多喝水。\n发热吃什么？,先看医生。\n", "csv"),
        ("i.csv", "question\tanswer\n头痛怎么办？\t请休息并多喝水。\n发热吃什么？\t先看医生。\n", "tsv"),
    ],
)
def test_content_decides_the_container(tmp_path, name, text, kind):
    path = write(tmp_path, name, text)
    assert detect(path).kind == kind
    job, records = read_all(path)
    assert job.read == 2
    assert [record.messages[0].content for record in records] == ["头痛怎么办？", "发热吃什么？"]


def test_mongo_shell_exports_are_parsed_not_evaluated(tmp_path):
    line = '{"_id": ObjectId("5bb57"), "n": NumberLong(3), "question": "问", "answer": "写 ISODate(1)"}\n'
    _, records = read_all(write(tmp_path, "a.json", line * 2))
    assert records[0].messages[1].content == "写 ISODate(1)"


def test_python_code_is_never_run(tmp_path):
    path = write(tmp_path, "a.json", f"{{'a': __import__('os').system('touch {tmp_path}/ran')}}\n")
    with pytest.raises(InputError, match=":1: not JSON"):
        list(import_file(path))
    assert not (tmp_path / "ran").exists()


def test_broken_lines(tmp_path):
    path = write(tmp_path, "a.jsonl", JSONL + "{broken}\n" + JSONL)
    with pytest.raises(InputError, match=r"a\.jsonl:3: not JSON.*--max-bad"):
        list(import_file(path))
    job, records = read_all(path, max_bad=1)
    assert (job.read, job.accepted, job.rejected) == (5, 4, {"broken_json": 1})
    assert job.rejections[0].row == 3
    first = write(tmp_path, "b.jsonl", "{broken}\n" + JSONL)
    with pytest.raises(InputError, match=r":1: not JSON"):
        list(import_file(first))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", JSONL[:-8]),
        ("b.json", json.dumps(QA)[:-8]),
        ("c.csv", "question,answer,x\na,b,c\na,b"),
        ("d.csv", 'question,answer\na,b\na,"b\n'),
        ("e.tsv", "1\t头痛\t休息\n1\t发热"),
    ],
)
def test_files_cut_inside_a_record_are_refused(tmp_path, name, text):
    path = write(tmp_path, name, text)
    with pytest.raises(InputError, match="file ends inside a record"):
        list(import_file(path, max_bad=9))


def test_csv_quotes_newlines_and_ragged_rows(tmp_path):
    text = 'question,answer\r\n"头痛，\r\n怎么办？","他说""休息"""\r\na,b,c\r\n发热,看医生\r\n'
    job, records = read_all(write(tmp_path, "a.csv", text))
    assert records[0].messages[0].content == "头痛，\n怎么办？"
    assert records[0].messages[1].content == '他说"休息"'
    assert job.rejected == {"columns_found_3_expected_2": 1}
    assert [rejection.row for rejection in job.rejections] == [4]
    assert records[1].meta["row"] == 5


def test_ids_damaged_by_excel_are_refused(tmp_path):
    job, _ = read_all(write(tmp_path, "a.csv", "id,question,answer\n1.10105E+17,a,b\n7,c,d\n"))
    assert job.rejected == {"id_damaged_by_excel": 1}


def test_deep_nesting_is_an_input_error(tmp_path):
    with pytest.raises(InputError):
        list(import_file(write(tmp_path, "a.json", "[" * 100_000)))


def test_tagged_characters(tmp_path):
    text = "患 O\n者 O\n头 B_symptom\n痛 I_symptom\n\n肝 disease-B\n炎 disease-I\n。 O\n"
    path = write(tmp_path, "a.txt", text)
    assert detect(path).kind == "tagged characters"
    job, records = read_all(path)
    assert job.read == 2
    assert [(e.start, e.end, e.type, e.text) for e in records[0].entities] == [(2, 4, "symptom", "头痛")]
    assert [(e.start, e.end, e.type, e.text) for e in records[1].entities] == [(0, 2, "disease", "肝炎")]
    assert [record.meta["row"] for record in records] == [1, 6]


def test_plain_text_is_unwrapped_by_blocks(tmp_path):
    text = "高血压是常见的慢性病，\n需要长期管理。\n\n糖尿病也是。\n"
    job, records = read_all(write(tmp_path, "a.txt", text))
    assert [record.text for record in records] == ["高血压是常见的慢性病，需要长期管理。", "糖尿病也是。"]


def test_folder_skips_notices_and_keeps_going(tmp_path):
    (tmp_path / "set").mkdir()
    write(tmp_path, "set/LICENSE.txt", "MIT License")
    write(tmp_path, "set/a.jsonl", JSONL)
    write(tmp_path, "set/b.jsonl", "")
    write(tmp_path, "set/run.py", "print()")
    write(tmp_path, "outside.jsonl", JSONL)
    (tmp_path / "set" / "link.jsonl").symlink_to(tmp_path / "outside.jsonl")
    jobs = {path.name: job for path, job in import_folder(tmp_path / "set").items()}
    assert jobs["LICENSE.txt"].skipped == "not data: licence or note"
    assert jobs["run.py"].skipped == "not data: .py file"
    assert "link" in jobs["link.jsonl"].skipped
    assert "0 records" in jobs["b.jsonl"].error
    assert len(list(jobs["a.jsonl"])) == 2 and list(jobs["b.jsonl"]) == []
    with pytest.raises(InputError, match="no such folder"):
        import_folder(tmp_path / "none")


def test_inspect_is_json_and_holds_no_text(tmp_path):
    path = write(tmp_path, "a.json", JSONL + '{"question": "秘密", "answer": ""}\n{"foo": "秘密", "bar": 1}\n')
    summary = inspect(path)
    assert (summary["encoding"], summary["container"], summary["read"]) == ("utf-8", "json lines", 4)
    assert summary["schemas"] == {"qa": 3, "unknown": 1}
    assert summary["rejected"] == {"empty_answer": 1, "unknown_schema: keys foo, bar": 1}
    assert summary["bad_rows"][0] == {"row": 3, "reason": "empty_answer"}
    assert "秘密" not in json.dumps(summary, ensure_ascii=False)


def test_two_imports_give_the_same_ids(tmp_path):
    path = write(tmp_path, "a.jsonl", JSONL + JSONL)
    job = import_file(path, source="门诊")
    first, second = [record.id for record in job], [record.id for record in job]
    assert first == second and len(set(first)) == 4 and first[0].startswith("门诊-")
    assert job.read == 4
    with pytest.raises(InputError, match="schema 'nope' is not one of"):
        import_file(path, schema="nope")
