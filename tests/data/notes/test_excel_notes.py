"""Excel: merged cells, formulas, title rows, sheets, typed dates, padded ids, and workbooks made to do harm."""

from __future__ import annotations

import datetime
from collections import Counter
from pathlib import Path

import openpyxl
import pytest
from exports import HEADER, ROWS, change_part, read, write_xlsx

from xinglin.data.sources import excel, import_file
from xinglin.records import InputError

SHEET = "xl/worksheets/sheet1.xml"


def test_merged_cells_get_the_value_shown_over_them(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    book = openpyxl.Workbook()
    sheet = book.active
    for row in (
        ["某医院住院病历", None, None],
        ["患者ID", "姓名", "内容"],
        ["0001", "甲", "一"],
        [None, None, "二"],
        ["2", "乙", "三"],
    ):
        sheet.append(row)
    for area in ("A1:C1", "A3:A4", "B3:B4"):
        sheet.merge_cells(area)
    book.save(path)
    job = read(path)
    assert [(note.patient_id, note.fields["name"], note.text) for note in job] == [
        ("0001", "甲", "一"),
        ("0001", "甲", "二"),
        ("2", "乙", "三"),
    ]
    assert job.summary()["flags"] == {"merged_cells_filled": 2, "title_rows": 1}
    assert [note.meta["row"] for note in job] == [3, 4, 5]


def test_formulas_give_the_saved_value_or_are_counted(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [["患者ID", "内容"], ["1", '="头"&"痛"'], ["2", '="咳"&"嗽"'], ["3", "无"]])

    def save_one_value(xml: bytes) -> bytes:
        # Excel saves the value of a formula beside it; openpyxl, which computes nothing, leaves it out.
        return (
            xml.replace(b'<c r="B2"', b'<c t="str" r="B2"', 1)
            .replace(b"<v></v>", b"<v>AA</v>", 1)
            .replace(b"<v />", b"<v>AA</v>", 1)
        )

    job = read(change_part(path, SHEET, save_one_value))
    assert [note.text for note in job] == ["AA", "无"]
    assert job.rejected == {"empty_text": 1}
    assert job.summary()["flags"] == {"formulas": 2, "formulas_without_value": 1}


def test_dates_typed_and_as_serials(tmp_path: Path) -> None:
    rows = [
        ["患者ID", "就诊日期", "内容"],
        *(
            ["1", datetime.datetime(2023, 5, 1), "甲"],
            ["2", 45047, "乙"],
            ["3", datetime.datetime(2023, 5, 1, 8, 30), "丙"],
        ),
    ]
    job = read(write_xlsx(tmp_path / "a.xlsx", rows))
    assert [note.fields["visit_date"] for note in job] == ["2023-05-01", "2023-05-01", "2023-05-01 08:30"]
    assert job.flags["date_serials"] == 1


def test_padded_ids_are_what_excel_shows_and_others_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    book = openpyxl.Workbook()
    for row in (["住院号", "内容"], [12345, "甲"], [123456, "乙"]):
        book.active.append(row)
    for cell in ("A2", "A3"):
        book.active[cell].number_format = "00000000"
    book.save(path)
    assert [note.patient_id for note in read(path)] == ["00012345", "00123456"]
    book.active["C1"], book.active["C2"] = "身份证号", 110105194912310021
    book.save(path)
    with pytest.raises(InputError, match=r"a\.xlsx:2: IDs were damaged by Excel: column '身份证号'"):
        list(read(path))


def test_sheets_are_chosen_and_the_others_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    book = openpyxl.Workbook()
    book.active.title = "说明"
    book.active.append(["由信息科导出"])
    for title in ("入院", "出院"):
        sheet = book.create_sheet(title)
        for row in (["患者ID", "内容"], ["1", title]):
            sheet.append(row)
    book.create_sheet("隐藏").sheet_state = "hidden"
    book["隐藏"].append(["患者ID", "内容"])
    book.save(path)
    assert [sheet.title for sheet in excel.sheets(path)] == ["入院", "出院"]
    job = read(path, sheet="出院")
    assert [note.text for note in job] == ["出院"] and job.flags["sheets_not_read"] == 1
    with pytest.raises(InputError, match="no sheet '门诊'; found: 入院, 出院"):
        read(path, sheet="门诊")


def test_a_wrong_dimension_hides_nothing(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [HEADER, *ROWS])
    change_part(path, SHEET, lambda xml: xml.replace(b'ref="A1:G3"', b'ref="A1"'))
    assert len(list(read(path))) == 2


def test_column_names_are_their_own() -> None:
    assert excel.column_names(["诊断", "", "诊断", " 主 \n诉", "诊断"]) == (
        "诊断",
        "column_2",
        "诊断_2",
        "主 诉",
        "诊断_3",
    )


def test_public_sets_come_in_excel_too(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "val.csv", [["Question", "Options", "Answer"], ["上消化道出血？", "A 是\nB 否", "A"]])
    (question,) = import_file(path)
    assert question.options == {"A": "是", "B": "否"}


# --- made to do harm -------------------------------------------------------------------------------------------------


def laughs(xml: bytes) -> bytes:
    entities = b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 9))
    head, _, rest = xml.partition(b"<worksheet")
    return (
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "ha">'
        + entities
        + b"]><worksheet"
        + rest.replace(b"</t>", b"&l8;</t>")
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (laughs, "declares XML entities"),
        (lambda xml: xml[: len(xml) // 2], "not a sound Excel workbook"),
        (lambda xml: xml.replace(b't="inlineStr"><is>', b't="s"><v>99</v><is>'), "not a sound Excel workbook"),
        (lambda xml: b"<worksheet>" + b" " * (65 * 2**20) + b"</worksheet>", "size limit"),
        (lambda xml: xml.decode().encode("utf-16"), "is no UTF-8"),
        (lambda xml: xml.replace(b'r="2"', b'r="99999999999"'), "0 records|not a sound|beyond"),
    ],
    ids=["laughs", "cut", "string", "bomb", "utf-16", "row"],
)
def test_harmful_workbooks_are_one_line(tmp_path: Path, change: object, message: str) -> None:
    path = change_part(write_xlsx(tmp_path / "a.xlsx", [HEADER, *ROWS]), SHEET, change)
    with pytest.raises(InputError, match=message) as caught:
        for sheet in excel.sheets(path):
            for _ in excel.sheet_rows(path, sheet, Counter()):
                pass
    assert "\n" not in str(caught.value) and "王小明" not in str(caught.value)


def test_absurd_merged_ranges_cost_nothing(tmp_path: Path) -> None:
    merge = b'</sheetData><mergeCells count="1"><mergeCell ref="A2:XFD1048576"/></mergeCells>'
    path = write_xlsx(tmp_path / "a.xlsx", [["患者ID", "内容"], ["1", "甲"]])
    job = read(change_part(path, SHEET, lambda xml: xml.replace(b"</sheetData>", merge)))
    assert [note.text for note in job] == ["甲"]
