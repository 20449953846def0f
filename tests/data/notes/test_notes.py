"""Exports in, notes out: files, folders, mapping, kinds, dates, ids, every row accounted for."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import pytest
from exports import CSV, HEADER, ROWS, change_part, confirmed, paragraph, read, write_docx, write_xlsx

from xinglin.data.notes import load_columns, propose_columns, read_notes, write_columns
from xinglin.records import InputError, Note

TEXT = "主诉：头痛3天\n现病史：患者3天前无诱因头痛。"


@pytest.mark.parametrize("form", ["utf-8", "utf-8-sig", "gb18030", "crlf", "tsv", "jsonl", "json", "gz", "xlsx"])
def test_every_form_gives_the_same_notes(tmp_path: Path, form: str) -> None:
    objects = [dict(zip(HEADER, row, strict=True)) for row in ROWS]
    path = tmp_path / "门诊.dat"
    if form == "xlsx":
        write_xlsx(path, [HEADER, *ROWS])
    elif form in ("jsonl", "json"):
        lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects)
        path.write_text(lines if form == "jsonl" else json.dumps(objects), encoding="utf-8")
    else:
        text = {"crlf": CSV.replace("\n", "\r\n"), "tsv": CSV.replace(",", "\t")}.get(form, CSV)
        data = text.encode(form if form in ("utf-8-sig", "gb18030") else "utf-8")
        path.write_bytes(gzip.compress(data) if form == "gz" else data)
    job = read(path)
    first, second = job
    assert (job.read, job.accepted, job.rejected, job.kinds) == (2, 2, {}, {"outpatient": 2})
    assert (first.patient_id, first.kind, first.text, first.source) == ("0012345", "outpatient", TEXT, "门诊")
    assert first.fields == {
        **{"name": "王小明", "id_card": "11010519491231002X", "phone": "13800138000"},
        **{"mrn": "0012345", "visit_date": "2023-05-01"},
    }
    assert second.patient_id == "0054321" and first.id != second.id
    assert not any(value in first.id for value in ROWS[0])
    assert list(job) == [first, second]


def test_proposal_is_a_file_to_be_confirmed(tmp_path: Path) -> None:
    export, file = tmp_path / "出院.csv", tmp_path / "columns.yaml"
    export.write_text(CSV, encoding="utf-8")
    found = propose_columns(export)
    write_columns(file, found)
    assert load_columns(file) == found and not found.confirmed
    assert (found.default_kind, found.id_width, found.text) == ("discharge", 7, ("主诉", "现病史"))
    with pytest.raises(InputError, match="columns.yaml: confirmed is false.*confirmed: true"):
        read_notes(export, file)
    with pytest.raises(InputError, match="exists already"):
        write_columns(file, found)
    file.write_text(file.read_text("utf-8").replace("confirmed: false", "confirmed: true"), encoding="utf-8")
    assert [note.patient_id for note in read_notes(export, file)] == ["0012345", "0054321"]
    assert all(row[1] not in file.read_text("utf-8") for row in ROWS)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *(("患者姓名", "name"), ("联系人姓名", "relative"), ("联系人电话", "phone"), ("主管医生", "doctor")),
        *(("医保卡号", "insurance"), ("工作单位", "employer"), ("出生日期", "birth_date"), ("出院日期", "date")),
        *(("现住址", "address"), ("床号", "bed"), ("住院号", "mrn"), ("科室编码", "other"), ("医疗机构", "hospital")),
        *(("QQ号", "wechat_qq"), ("影像号", "imaging"), ("标本号", "specimen"), ("性别", "sex"), ("年龄", "age")),
    ],
)
def test_roles_from_names(tmp_path: Path, name: str, role: str) -> None:
    export = tmp_path / "a.csv"
    export.write_text(f"患者ID,{name},主诉\n1,甲,头痛\n", encoding="utf-8")
    assert propose_columns(export).fields == {name: role}


def test_roles_from_values_where_the_name_says_nothing(tmp_path: Path) -> None:
    export = tmp_path / "a.csv"
    export.write_text("患者ID,f1,f2,主诉\n1,11010519491231002X,13800138000,头痛\n", encoding="utf-8")
    assert propose_columns(export).fields == {"f1": "id_card", "f2": "phone"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("confirmed: true\npatient_id: a\ntext: b\nfeilds: {}\n", "unknown key 'feilds'; did you mean fields"),
        ("confirmed: 1\npatient_id: a\ntext: b\n", "confirmed is int; allowed: true or false"),
        ("confirmed: true\npatient_id: ''\ntext: b\n", "patient_id is empty"),
        ("confirmed: true\npatient_id: a\ntext: b\nfields: {c: nmae}\n", "fields: 'nmae' is no role; allowed"),
        ("confirmed: true\npatient_id: 12\ntext: b\n", "patient_id is int; allowed: text"),
        ("a: [\n", "not YAML"),
        ("!!python/object/apply:os.system [ls]\n", "not YAML"),
        ("", "holds no keys"),
    ],
)
def test_columns_file_is_checked(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        load_columns(path)
    assert "\n" not in str(caught.value)


def test_kind_column_and_columns_that_are_not_listed(tmp_path: Path) -> None:
    export = tmp_path / "a.csv"
    rows = [
        ("首次病程记录", "入院后"),
        ("出院小结", "好转"),
        ("长期医嘱", "二级护理"),
        ("CT检查报告", "正常"),
        ("会诊单", "已阅"),
        ("其他", "无殊"),
    ]
    export.write_text("患者ID,文书类型,内容,备用\n" + "".join(f"1,{k},{t},x\n" for k, t in rows), encoding="utf-8")
    columns = propose_columns(export)
    job = read_notes(export, confirmed(columns, fields={}))
    assert [note.kind for note in job] == ["progress", "discharge", "orders", "examination", "progress", "其他"]
    assert job.not_read == ["备用"] and all(note.fields == {"mrn": "1"} for note in job)


def test_rows_are_refused_with_a_reason(tmp_path: Path) -> None:
    export = tmp_path / "a.jsonl"
    rows = [
        *({"患者ID": "1", "文书编号": "n1", "内容": "甲"}, {"患者ID": "", "文书编号": "n2", "内容": "乙"}),
        *({"患者ID": "1", "文书编号": "n3", "内容": " "}, {"患者ID": "1", "文书编号": "n1", "内容": "丁"}),
        *({"患者ID": "1", "文书编号": "n4", "内容": "戊\ud800"}, {"患者ID": "1", "文书编号": "n5", "内容": "己\ue001"}),
        *(["x"], {"患者ID": "1", "文书编号": "n6", "内容": "庚\x01"}, {"患者ID": 2, "内容": ["辛", "壬"]}),
    ]
    export.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    job = read(export)
    assert [note.text for note in job] == ["甲", "辛\n壬"]
    assert job.read == 9 and job.accepted + sum(job.rejected.values()) == job.read
    assert job.rejected == {
        **{"no_patient_id": 1, "empty_text": 1, "duplicate_note_id": 1, "not_an_object": 1},
        **{"damaged_text_U+D800": 1, "damaged_text_U+E001": 1, "damaged_text_U+0001": 1},
    }
    assert [one.row for one in job.rejections] == [2, 3, 4, 5, 6, 7, 8]


def test_broken_lines_stop_or_are_counted(tmp_path: Path) -> None:
    export = tmp_path / "a.jsonl"
    good = json.dumps({"患者ID": "1", "内容": "甲"}) + "\n"
    export.write_text(good + "{broken\n" + good, encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.jsonl:2: not JSON.*allow 1 with --max-bad"):
        list(read(export))
    job = read(export, max_bad=1)
    assert len(list(job)) == 2 and job.rejected == {"broken_json": 1}


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    export = tmp_path / "a.csv"
    export.write_text(CSV, encoding="utf-8")
    columns = confirmed(propose_columns(export))
    export.write_text(CSV.replace("姓名", "患者姓名"), encoding="utf-8")
    with pytest.raises(InputError, match="no column '姓名' \\(fields\\); nearest: 患者姓名"):
        read_notes(export, columns)


# --- ids and dates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patient", "card", "words"),
    [
        ("0012345", "1.10105E+17", "column '身份证号', a number of over 15 digits"),
        ("1.2E+10", "11010519491231002X", "column '患者ID', a number of over 15 digits"),
        ("12345", "11010519491231002X", "5 digits where id_width says 7: leading zeros were lost"),
        ("0012345", "1101051949123100", "an id of 16 digits"),
    ],
)
def test_ids_damaged_by_excel_stop_the_import(tmp_path: Path, patient: str, card: str, words: str) -> None:
    export = tmp_path / "a.csv"
    head = [HEADER, *(ROWS * 4)]
    bad = [patient, ROWS[0][1], card, *ROWS[0][3:]]
    export.write_text("".join(",".join(row) + "\n" for row in [*head, bad]), encoding="utf-8")
    with pytest.raises(InputError, match=f"IDs were damaged by Excel.*{words}|IDs were damaged by Excel") as caught:
        list(read(export))
    assert words in str(caught.value) or "in place of digits" in str(caught.value)
    assert patient not in str(caught.value) and f"{export}:10" in str(caught.value)


def test_rounded_id_cards_are_told_by_their_zeros(tmp_path: Path) -> None:
    export = tmp_path / "a.csv"
    rows = [["0012345", "甲", "110105194912310000", "", "", "头痛", "无"]] * 3
    export.write_text("".join(",".join(row) + "\n" for row in [HEADER, *rows]), encoding="utf-8")
    with pytest.raises(InputError, match="damaged by Excel.*3 ids in a row end in 000"):
        list(read(export))


def test_patient_numbers_without_a_fixed_width_are_left_alone(tmp_path: Path) -> None:
    export = tmp_path / "a.csv"
    export.write_text("患者ID,内容\n" + "".join(f"{n},甲\n" for n in (1, 22, 333, 4444)), encoding="utf-8")
    assert propose_columns(export).id_width == 0
    assert len(list(read(export))) == 4


def test_date_serials_become_dates_and_are_counted(tmp_path: Path) -> None:
    export = tmp_path / "a.csv"
    export.write_text(
        "患者ID,就诊日期,出生日期,年龄,内容\n1,45047,18264,45047,甲\n1,2023年5月1日,1950-1-1,3,乙\n", encoding="utf-8"
    )
    job = read(export)
    first, second = job
    # 45047 - 25569 (the serial of 1970-01-01) = 19478 days after the epoch = 2023-05-01
    assert first.fields["visit_date"] == "2023-05-01" and first.fields["birth_date"] == "1950-01-01"
    assert first.fields["age"] == "45047" and second.fields["visit_date"] == "2023年5月1日"
    assert job.summary()["flags"] == {"date_serials": 2}


# --- folders ---------------------------------------------------------------------------------------------------------


def test_folder_of_txt_and_docx(tmp_path: Path) -> None:
    folder = tmp_path / "病历"
    (folder / "五病区").mkdir(parents=True)
    (folder / "0012345_出院小结.txt").write_bytes("姓名：王小明  性别：男\n出院诊断：偏头痛".encode("gb18030"))
    write_docx(folder / "五病区/0054321_入院记录.docx", paragraph("姓名：李建国") + paragraph("主诉：咳嗽2天"))
    (folder / "0099999_病程.txt").write_bytes(b"\xff\xfe\xff\xff")
    (folder / "说明.pdf").write_bytes(b"%PDF")
    (tmp_path / "outside.txt").write_text("甲", encoding="utf-8")
    (folder / "0000001_x.txt").symlink_to(tmp_path / "outside.txt")
    columns = propose_columns(folder, file_name="{住院号}_{文书类型}")
    assert (columns.patient_id, columns.kind, columns.text) == ("住院号", "文书类型", ("正文",))
    job = read_notes(folder, confirmed(columns, header_lines=("姓名",), fields={"姓名": "name"}))
    first, second = job
    assert (first.patient_id, first.kind, first.fields["name"]) == ("0012345", "discharge", "王小明")
    assert first.text == "姓名：王小明  性别：男\n出院诊断：偏头痛"
    assert (second.patient_id, second.kind, second.fields["name"]) == ("0054321", "admission", "李建国")
    assert second.text == "姓名：李建国\n主诉：咳嗽2天"
    assert job.rejected == {"file_cannot_be_read": 1}
    flags = job.summary()["flags"]
    assert flags == {"links_leaving_the_folder": 1, "files_of_another_kind": 1}


def test_folder_headers_are_found_without_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("出院记录\n住院号：0012345\t姓名：王小明\n经过：好转", encoding="utf-8")
    (tmp_path / "b.txt").write_text("经过：没有号码", encoding="utf-8")
    job = read(tmp_path)
    (note,) = job
    assert note.patient_id == "0012345" and note.fields["name"] == "王小明"
    assert job.rejected == {"no_patient_id": 1}


def test_docx_paragraphs_tables_and_tracked_changes_in_order(tmp_path: Path) -> None:
    from xinglin.data.notes.folders import docx_text

    cell = "<w:tc>{}</w:tc>".format
    table = f"<w:tbl><w:tr>{cell(paragraph('姓名'))}{cell(paragraph('王小明') + paragraph('男'))}</w:tr></w:tbl>"
    changed = "<w:p><w:del><w:r><w:delText>旧</w:delText></w:r></w:del><w:ins><w:r><w:t>新</w:t></w:r></w:ins></w:p>"
    tabs = "<w:p><w:r><w:t>甲</w:t><w:tab/><w:t>乙</w:t><w:br/><w:t>丙</w:t></w:r></w:p>"
    inside = f"<w:sdt><w:sdtContent>{paragraph('控件')}</w:sdtContent></w:sdt>"
    path = write_docx(tmp_path / "a.docx", paragraph("标题") + table + changed + tabs + inside)
    assert docx_text(path) == "标题\n姓名\t王小明 男\n新\n甲\t乙\n丙\n控件"


def test_docx_entities_are_refused_not_expanded(tmp_path: Path) -> None:
    from xinglin.data.notes.folders import docx_text

    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    with pytest.raises(InputError, match="declares XML entities"):
        docx_text(write_docx(tmp_path / "a.docx", paragraph("&b;"), bomb))
    broken = change_part(write_docx(tmp_path / "b.docx", paragraph("甲")), "word/document.xml", lambda data: data[:-9])
    with pytest.raises(InputError, match="not a sound Word document"):
        docx_text(broken)


def test_notes_are_records(tmp_path: Path) -> None:
    from xinglin.records import read_records, write_records

    export = tmp_path / "a.csv"
    export.write_text(CSV, encoding="utf-8")
    notes = list(read(export))
    write_records(tmp_path / "n.jsonl", notes)
    assert list(read_records(tmp_path / "n.jsonl", Note)) == notes
    assert dataclasses.asdict(notes[0])["meta"] == {"row": 2}
