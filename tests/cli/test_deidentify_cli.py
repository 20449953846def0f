"""`xinglin data deidentify`: the folder, the summary, the refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from xinglin.cli.data import app
from xinglin.data.deidentify import scan
from xinglin.data.ward.notes import notes as ward_notes
from xinglin.data.ward.world import load_world
from xinglin.records import InputError, Note, read_records, write_records


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["deidentify", *map(str, arguments)])


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ward") / "notes.jsonl"
    write_records(path, ward_notes(load_world(), 24, 2))
    return path


def test_folder_summary_and_second_run(notes: Path, tmp_path: Path) -> None:
    key = tmp_path / "private/k.key"
    done = run(notes, "--out", tmp_path / "out", "--key", key, "--measure", notes, "--sample", 5, "--json")
    assert done.exit_code == 0, done.exception
    summary = json.loads(done.stdout)
    assert (summary["read"], summary["accepted"], summary["rejected"]) == (24, 24, {})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", "notes.jsonl", "report.html"]
    assert summary["measurement"]["synthetic"] and summary["measurement"]["kinds"]["id_card"]["recall"]["n"] == 12
    assert summary["sample"]["notes"] == 5 and "SYNTHETIC" in (tmp_path / "out/report.html").read_text("utf-8")
    assert run(tmp_path / "out/notes.jsonl", "--out", tmp_path / "again", "--key", key).exit_code == 0
    assert (tmp_path / "out/notes.jsonl").read_bytes() == (tmp_path / "again/notes.jsonl").read_bytes()


def test_measure_alone(notes: Path) -> None:
    done = run("--measure", notes, "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["total"]["labelled"] > 150
    table = run("--measure", notes)
    assert table.exit_code == 0 and "SYNTHETIC" in table.stderr and table.stdout == ""


def test_withdraw(notes: Path, tmp_path: Path) -> None:
    key, out = tmp_path / "k.key", tmp_path / "out"
    assert run(notes, "--out", out, "--key", key).exit_code == 0
    patient = next(iter(read_records(notes, Note))).patient_id
    done = run("--withdraw", patient, "--out", out, "--key", key, "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["accepted"] == 20
    assert len(list(read_records(out / "notes.jsonl", Note))) == 20
    assert "holds no note" in run("--withdraw", "nobody", "--out", out, "--key", key).stdout


def test_an_export_through_its_confirmed_columns(tmp_path: Path) -> None:
    table = tmp_path / "门诊.csv"
    table.write_text(
        "患者编号,姓名,性别,联系电话,就诊日期,病历内容\n"
        "0012345,赵志强,男,13912345678,2023-05-01,患者赵志强因胸闷来诊，5月1日行心电图\n",
        "utf-8",
    )
    columns = tmp_path / "columns.yaml"
    proposed = CliRunner().invoke(app, ["notes", str(table), "--propose", str(columns)])
    assert proposed.exit_code == 0, proposed.exception
    columns.write_text(columns.read_text("utf-8").replace("confirmed: false", "confirmed: true"), "utf-8")
    done = run(table, "--columns", columns, "--out", tmp_path / "out", "--key", tmp_path / "k.key", "--json")
    assert done.exit_code == 0, done.exception
    text = (tmp_path / "out/notes.jsonl").read_text("utf-8")
    assert "心电图" in text
    for gone in ("赵志强", "13912345678", "0012345", "2023-05-01", "门诊.csv"):
        assert gone not in text


def test_a_leak_is_one_line_and_exit_1(notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "find", lambda text, known: [])
    monkeypatch.setattr(scan, "with_seeds", lambda text, spans, seeds: spans)
    done = run(notes, "--out", tmp_path / "out", "--key", tmp_path / "k.key")
    assert done.exit_code == 1 and not (tmp_path / "out").exists()
    assert "note 1, text: a " in done.stderr and "nothing was published" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give files of notes and --out"),
        (["{notes}"], "--out is missing"),
        (["{notes}", "--out", "{tmp}/o", "--key", "{tmp}/o/k.key"], "lies under the output"),
        (["{tmp}/none.jsonl", "--out", "{tmp}/o"], "no such file"),
        (["{tmp}/门诊.xlsx", "--out", "{tmp}/o"], "give --columns FILE"),
        (["{notes}", "--out", "{tmp}/o", "--columns", "{tmp}/roles.yaml"], "did you mean 'phone'"),
        (["{notes}", "--out", "{tmp}/full"], "already there and not empty"),
        (["{notes}", "--out", "{tmp}/o", "--quasi", "科别", "--key", "{tmp}/k.key"], "no note has this field"),
        (["--withdraw", "1"], "--withdraw takes --out"),
        (["--withdraw", "1", "--out", "{tmp}/full"], "no folder of ours"),
    ],
)
def test_mistakes_are_one_line(notes: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    (tmp_path / "roles.yaml").write_text("roles: {备用: phonee}\n", "utf-8")
    done = run(*(part.format(notes=notes, tmp=tmp_path) for part in arguments))
    assert isinstance(done.exception, InputError) and message in str(done.exception)
    assert "\n" not in str(done.exception) and not (tmp_path / "o").exists()
