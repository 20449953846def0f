"""The whole way: D3, D4, D6, D8, D10, idempotence, order, workers, withdrawal. Notes are made up."""

from __future__ import annotations

import dataclasses
import datetime
import json
import random
import re
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xinglin.data.deidentify import scan
from xinglin.data.deidentify.pipeline import Leak, Settings
from xinglin.data.deidentify.publish import publish, withdraw
from xinglin.data.ward.notes import notes as ward_notes
from xinglin.data.ward.world import load_world
from xinglin.records import InputError, Note, read_records

FIELDS = {
    "姓名": "赵志强",
    "性别": "男",
    "年龄": "93",
    "电话": "13912345678",
    "身份证号": "11010519491231002X",
    "科室": "心内科",
}
TEXT = (
    "患者赵志强，男，93岁，于2023年5月1日（星期一）入院，5月3日行冠脉造影，2023-05-10出院。既往阿尔茨海默病。"
    "联系电话139 1234 "
    "5678。赵某某诉胸闷，孙主任查房，住院医师：孙晓东。入院第3天好转。阿司匹林 100mg qd，血压 120/80mmHg。"
)


def one(id: str = "1", patient: str = "p1", text: str = TEXT, **fields: str) -> Note:
    return Note(id, patient, "progress", text, FIELDS | fields, source="his")


def run(tmp_path: Path, notes: list[Note], name: str = "out", **settings: Any) -> tuple[list[Note], dict[str, Any]]:
    manifest = publish(lambda: iter(notes), tmp_path / name, tmp_path / "private/k.key", Settings(**settings))
    return list(read_records(tmp_path / name / "notes.jsonl", Note)), manifest


@pytest.fixture(scope="module")
def ward() -> list[Note]:
    return list(ward_notes(load_world(), 120, 5))


@pytest.fixture(autouse=True)
def key(tmp_path: Path) -> Path:
    """The same secret in every test run, so that a failure comes back."""
    path = tmp_path / "private/k.key"
    path.parent.mkdir()
    path.touch(0o600)
    path.write_bytes(bytes(range(32)))
    return path


def days(text: str) -> list[datetime.date]:
    return [datetime.date(*map(int, found)) for found in re.findall(r"(\d{4})[-年/](\d{1,2})[-月/](\d{1,2})", text)]


def test_one_note(tmp_path: Path) -> None:
    (new,), manifest = run(tmp_path, [one()])
    for gone in ("赵志强", "赵某某", "孙主任", "孙晓东", "1391234", "139 1234", "110105", "93岁", "2023年5月1日", "p1"):
        assert gone not in new.text + json.dumps(new.fields, ensure_ascii=False) + new.patient_id, gone
    for kept in ("阿尔茨海默病", "入院第3天", "阿司匹林 100mg qd", "120/80mmHg", "90岁以上", "心内科"):
        assert kept in new.text + new.fields["科室"], kept
    assert new.fields["姓名"] in new.text and new.fields["年龄"] == "90+" and new.fields["性别"] == "男"
    assert new.fields["电话"] == re.sub(" ", "", re.search(r"电话(12[\d ]+)", new.text)[1])
    surname = new.fields["姓名"][0]
    assert f"{surname}某某诉胸闷" in new.text
    staff = re.search(r"住院医师：(.)", new.text)[1]
    assert f"{staff}主任查房" in new.text
    assert set(new.meta) == {"deidentified"} and not new.entities
    assert manifest["read"] == manifest["accepted"] == 1 and manifest["rejected"] == {}


def test_dates_move_together_and_the_weekday_with_them(tmp_path: Path) -> None:
    (new,), manifest = run(tmp_path, [one()])
    first, last = days(new.text)
    assert last - first == datetime.timedelta(days=9) and first != datetime.date(2023, 5, 1)
    assert f"（星期{'一二三四五六日'[first.weekday()]}）" in new.text
    middle = first + datetime.timedelta(days=2)
    assert f"{middle.month}月{middle.day}日行冠脉造影" in new.text
    assert manifest["problems"] == {}


def test_impossible_and_lunar_dates_are_masked_and_listed(tmp_path: Path) -> None:
    text = "患者于2023-02-30入院，农历八月十五出院。"
    (new,), manifest = run(tmp_path, [one(text=text, 出院日期="2023-13-01")])
    assert "[日期]" in new.text and "02-30" not in new.text and "八月十五" not in new.text
    assert new.fields["出院日期"] == "[日期]" and manifest["problems"]["impossible date"] == 2
    listed = json.loads((Path(manifest["private"]) / "problems.json").read_text("utf-8"))
    assert {"note": new.id, "problem": "impossible date"} in listed


def test_known_values_are_gone_in_every_spelling(tmp_path: Path) -> None:
    """D3 with 2 000 placements: the fields' values, split, widened or broken, in free text of other wording."""
    rng, notes, seeds = random.Random(4), [], []
    wide = str.maketrans("0123456789X", "０１２３４５６７８９Ｘ")
    for number in range(500):
        name = rng.choice("赵孙周吴郑冯陈褚") + rng.choice("志建晓文") + rng.choice("强国东丽")
        values = {
            "姓名": name, "电话": f"139{rng.randrange(10**8):08d}", "病历号": f"MZ{rng.randrange(10**8):08d}",
            "身份证号": f"110105{rng.randint(1940, 2010)}0101{rng.randrange(10**4):04d}",
        }  # fmt: skip
        seeds.append(set(values.values()))
        spelled = [
            rng.choice([str, lambda v: v.translate(wide), lambda v: " ".join(v), lambda v: v[:2] + "\n" + v[2:]])(value)
            for value in values.values()
        ]
        text = "。".join(f"随访记录{piece}已核对" for piece in spelled)
        notes.append(Note(f"n{number}", f"p{number}", "progress", text, values))
    found, _ = run(tmp_path, notes)
    left = 0
    for note, values in zip(found, seeds, strict=True):
        flat = re.sub(r"\s", "", note.text).translate({0xFF10 + i: 0x30 + i for i in range(10)} | {0xFF38: "X"})
        left += sum(value in flat for value in values)
    assert left <= 2_000 * 0.001, f"{left} of 2000 known values left"


def test_running_twice_changes_nothing_more(tmp_path: Path, ward: list[Note]) -> None:
    first, _ = run(tmp_path, ward)
    again, manifest = run(tmp_path, first, "out2")
    assert (tmp_path / "out/notes.jsonl").read_bytes() == (tmp_path / "out2/notes.jsonl").read_bytes()
    assert manifest["already_deidentified"] == len(again) == len(ward)


def test_a_changed_note_loses_its_seal(tmp_path: Path) -> None:
    (first,), _ = run(tmp_path, [one()])
    touched = dataclasses.replace(first, text=first.text + "患者钱建华，电话13812345678。")
    (second,), manifest = run(tmp_path, [touched], "out2")
    assert manifest["already_deidentified"] == 0 and "钱建华" not in second.text and "13812345678" not in second.text


def test_order_and_workers_change_nothing(tmp_path: Path, ward: list[Note]) -> None:
    first, _ = run(tmp_path, ward)
    mixed = list(ward)
    random.Random(1).shuffle(mixed)
    (tmp_path / "private/k.key.issued.sqlite").unlink()  # no ledger to lean on
    second, _ = run(tmp_path, mixed, "mixed", workers=2)
    assert {note.id: note for note in first} == {note.id: note for note in second}


def test_same_person_over_files_and_different_persons_apart(tmp_path: Path) -> None:
    notes = [one("1"), one("2"), one("3", "p2", 身份证号="440524188001010014", 电话="13700000001"), one("4", "p3")]
    (a, b, c, d), manifest = run(tmp_path, notes)
    assert a.fields["姓名"] == b.fields["姓名"] and a.patient_id == b.patient_id
    assert len({note.fields["姓名"] for note in (a, c, d)}) == 3 and len({note.patient_id for note in (a, c, d)}) == 3
    links = json.loads((Path(manifest["private"]) / "links.json").read_text("utf-8"))
    assert links["same_document"] == [sorted([a.patient_id, d.patient_id])]
    assert manifest["possible_links"] == {"two_spellings": 0, "same_document": 1, "names_shared_by_patients": 1}
    (later,), _ = run(tmp_path, [one("9")], "later")
    assert later.fields["姓名"] == a.fields["姓名"] and later.patient_id == a.patient_id


def test_two_spellings_are_listed(tmp_path: Path) -> None:
    found, manifest = run(tmp_path, [one("1"), one("2", 姓名="赵志刚")])
    links = json.loads((Path(manifest["private"]) / "links.json").read_text("utf-8"))
    assert links["two_spellings"] == [found[0].patient_id] and found[0].fields["姓名"] != found[1].fields["姓名"]


# --- D4: the gate ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["家属称赵志强不适", "号码 139 1234\n5678", "证件１１０１０５１９４９１２３１００２ｘ", "另有440524188001010014"],
)
def test_nothing_is_published_when_a_known_value_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """The finder is struck blind; the gate stands on its own."""
    monkeypatch.setattr(scan, "find", lambda text, known: [])
    monkeypatch.setattr(scan, "with_seeds", lambda text, spans, seeds: spans)
    with pytest.raises(Leak, match="note 2, text: a .* survived") as error:
        run(tmp_path, [one("0", text="平稳。"), one("1", text=text)])
    assert "赵志强" not in str(error.value) and text not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["private"]
    assert not list((tmp_path / "private").glob("out*"))


def test_what_the_finder_sees_only_afterwards_is_masked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Callable[..., Any] = scan.find

    def late(text: str, known: Any) -> Any:
        return [span for span in seen(text, known) if "2023" not in text or span.kind != "email"]

    monkeypatch.setattr(scan, "find", late)
    note = one(text="2023-05-01来诊，邮箱zhao@example.com。")
    for attempt in range(20):  # the year leaves the text for one patient in two
        (new,), manifest = run(tmp_path, [dataclasses.replace(note, patient_id=f"q{attempt}")], f"out{attempt}")
        if "2023" not in new.text:
            assert "zhao@" not in new.text and manifest["repaired_by_gate"] == 1
            return
    pytest.fail("no patient's date left the year")


def test_a_failing_finder_tells_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(text: str, known: Any) -> Any:
        raise KeyError(text)

    monkeypatch.setattr(scan, "find", broken)
    with pytest.raises(RuntimeError, match="note 1: the finder failed with KeyError") as error:
        run(tmp_path, [one()])
    assert "赵志强" not in "".join(traceback.format_exception(error.value))
    assert [path.name for path in tmp_path.iterdir()] == ["private"]


# --- D8, D10 ---------------------------------------------------------------------------------------------------------


def test_1000_canaries_are_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In no output, log, key-side list, ledger or temp folder; and no socket is opened meanwhile."""
    temp = tmp_path / "temp"
    temp.mkdir()
    monkeypatch.setenv("TMPDIR", str(temp))
    monkeypatch.setattr("tempfile.tempdir", None)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    canaries, notes = [], []
    rng = random.Random(6)
    for _ in range(250):
        name = rng.choice("赵钱孙李周吴郑冯") + rng.choice("鸿煜睿栩") + rng.choice("婧钰珩晗")
        phone, mrn = f"139{rng.randrange(10**8):08d}", f"MZ{rng.randrange(10**8):08d}"
        card = f"110105{rng.randint(1940, 2010)}0101{rng.randrange(10**4):04d}"
        canaries += [name, phone, mrn, card]
        text = f"患者{name}，门诊号{mrn}，身份证{card}，电话{phone}。{name}今日好转。"
        notes.append(
            Note(mrn, mrn, "progress", text, {"姓名": name, "备注": f"致电{phone}", "住院号": mrn}, source="his")
        )
    publish(
        lambda: iter(notes), tmp_path / "out", tmp_path / "private/k.key", Settings(quasi=("姓名",), k=2), sample=100
    )
    publish(lambda: iter(notes), tmp_path / "plain", tmp_path / "private/k.key", Settings(), sample=300)
    shown = capfd.readouterr()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    everything = "\n".join([shown.out, shown.err, *(str(path) for path in files)]).encode()
    everything += b"\n".join(path.read_bytes() for path in files)
    assert len(set(canaries)) > 800 and len(files) > 10 and not list(temp.iterdir())
    found = [canary for canary in canaries if canary.encode() in everything]
    found += [canary for canary in canaries if json.dumps(canary)[1:-1].encode() in everything]
    assert found == []


def test_errors_about_input_come_before_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="notes 1 and 2 have the same id"):
        run(tmp_path, [one("1"), one("1", "p2")])
    with pytest.raises(InputError, match="0 notes"):
        run(tmp_path, [])
    with pytest.raises(InputError, match="--quasi 科别: no note has this field; there are: 姓名"):
        run(tmp_path, [one()], quasi=("科别",), k=5)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    with pytest.raises(InputError, match="already there and not empty"):
        run(tmp_path, [one()])


# --- k-anonymity, withdrawal, report ---------------------------------------------------------------------------------


def test_k_and_withdrawal(tmp_path: Path, ward: list[Note]) -> None:
    found, manifest = run(tmp_path, ward, quasi=("sex", "age", "department"), k=5)
    assert manifest["accepted"] + sum(manifest["rejected"].values()) == manifest["read"] == len(ward)
    assert groups(found) >= 5 and manifest["kanonymity"]["smallest_group"] == groups(found)
    gone = ward[0]
    after = withdraw(tmp_path / "out", gone.patient_id, tmp_path / "private/k.key")
    left = list(read_records(tmp_path / "out/notes.jsonl", Note))
    (stone,) = after["withdrawn"]
    assert stone["patient"] not in {note.patient_id for note in left} and stone["notes"] == 4
    assert groups(left) >= 5 and after["accepted"] == len(left)
    assert after["accepted"] + sum(after["rejected"].values()) == len(ward)
    assert json.loads((tmp_path / "out/manifest.json").read_text("utf-8")) == after
    assert stone["patient"] in (tmp_path / "out/report.html").read_text("utf-8")
    _, later = run(tmp_path, ward, "later")
    assert later["rejected"] == {"withdrawn": 4}


def groups(notes: list[Note]) -> int:
    members: dict[tuple[str, ...], set[str]] = {}
    for note in notes:
        row = tuple(note.fields[name] for name in ("sex", "age", "department"))
        members.setdefault(row, set()).add(note.patient_id)
    return min(map(len, members.values()))


def test_withdrawal_from_the_wrong_place_is_refused(tmp_path: Path) -> None:
    run(tmp_path, [one()])
    with pytest.raises(InputError, match="no such file"):
        withdraw(tmp_path / "out", "p1", tmp_path / "other.key")
    publish(lambda: iter([one()]), tmp_path / "two", tmp_path / "other.key", Settings())
    with pytest.raises(InputError, match="made under another key"):
        withdraw(tmp_path / "out", "p1", tmp_path / "other.key")
    with pytest.raises(InputError, match="no folder of ours"):
        withdraw(tmp_path, "p1", tmp_path / "other.key")


def test_the_report_is_offline_and_holds_no_text(tmp_path: Path, key: Path) -> None:
    publish(lambda: iter([one()]), tmp_path / "out", key, Settings(roles={"科室": "keep"}), sample=5)
    page = (tmp_path / "out/report.html").read_text("utf-8")
    for asks in ("http://", "https://", "url(", "@import", "<link", "<script", "src="):
        assert asks not in page
    for wanted in ("GB/T 39725", "GB/T 42460", "k-匿名", "记忆测试", "撤回", "密钥", "签字", "95.00 %", str(key)):
        assert wanted in page, wanted
    for gone in ("赵志强", "孙晓东", "冠脉造影"):
        assert gone not in page
    sheet = next((tmp_path / "private").glob("out-*/sheet.html")).read_text("utf-8")
    assert "冠脉造影" in sheet and "赵志强" not in sheet


def test_columns_by_role(tmp_path: Path) -> None:
    note = one(
        姓名="赵志强", 备用="13712345678", 主治="孙晓东", 密码="abc", 出生日期="1950-02-03", 备注="电话13612345678"
    )
    roles = {"备用": "phone", "主治": "doctor", "密码": "drop"}
    (new,), manifest = run(tmp_path, [note], roles=roles)
    assert re.fullmatch(r"12\d{9}", new.fields["备用"]) and new.fields["密码"] == ""
    assert new.fields["主治"] != "孙晓东" and new.fields["主治"] in new.text
    assert new.fields["出生日期"] != "1950-02-03" and days(new.fields["出生日期"])
    assert "13612345678" not in new.fields["备注"] and new.fields["备注"].startswith("电话")
    assert manifest["columns"]["备注"]["role"] == "text"


def test_notes_without_a_patient_id(tmp_path: Path) -> None:
    """By id card where there is one; else the name is replaced alike wherever it is spelled alike."""
    (a, b), _ = run(tmp_path, [one("1", ""), one("2", "")])
    assert a.patient_id == b.patient_id and a.fields["姓名"] == b.fields["姓名"]
    bare = [Note(str(number), "", "progress", "患者赵志强，平稳。", {"姓名": "赵志强"}) for number in (1, 2)]
    (c, d), _ = run(tmp_path, bare, "bare")
    assert c.patient_id != d.patient_id and c.fields["姓名"] == d.fields["姓名"]


def test_nobody_past_90_is_told_by_a_birth_date(tmp_path: Path) -> None:
    text = "出生于1930年2月3日，2023年5月1日入院。"
    (new,), _ = run(tmp_path, [one(text=text, 出生日期="1930-02-03", 身份证号="110105191001010019")])
    assert "[90年以前]" in new.text and new.fields["出生日期"] == "[90年以前]"
    assert not re.search("19[23]", new.text)
    assert 1930 <= int(new.fields["身份证号"][6:10]) <= 1934
