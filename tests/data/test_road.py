"""From notes to a run's data folder: every step counted, tests kept out, patients kept apart, mistakes told early."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xinglin import stages
from xinglin.config import Data, HospitalNotes
from xinglin.data.deidentify.pipeline import Leak
from xinglin.data.road import build_road, check_road, note_source, training_overlap
from xinglin.data.ward.notes import notes as ward_notes
from xinglin.data.ward.world import load_world
from xinglin.recipe import load_recipe
from xinglin.records import Conversation, InputError, Message, Note, Question, read_records, write_records
from xinglin.stages import RunOptions, run_recipe

RECIPE = Path(__file__).parents[1] / "tiny_recipe.yaml"
HALF = HospitalNotes(general_share=0.2, dialogue_share=0.25, valid_share=0.3, size=60)


def talks(count: int, word: str) -> Iterator[Conversation]:
    for n in range(count):
        messages = (Message("user", f"{word}{n}怎么办？"), Message("assistant", f"第{n}种{word}要就诊。"))
        yield Conversation(f"{word}-{n}", messages, "ward")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """What notes cannot give, made by hand."""
    folder = tmp_path / "run/00-data"
    write_records(folder / "conversations/train.jsonl", talks(300, "头痛"))
    write_records(folder / "conversations/valid.jsonl", talks(5, "腹泻"))
    write_records(folder / "general/train.jsonl", talks(90, "天气"))
    return folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "in/notes.jsonl"
    write_records(path, ward_notes(load_world(), 40, 0))
    return path


def build(out: Path, raw: Path, settings: HospitalNotes = HALF) -> dict[str, Any]:
    return build_road(out, note_source(raw), settings, seed=0, key=fixed_key(out.parents[1]))


def fixed_key(root: Path) -> Path:
    """The same key for every run of the tests: patients, and so the split, follow from it."""
    path = root / "private/key"
    if not path.exists():
        path.parent.mkdir()
        path.write_bytes(bytes(range(32)))
        path.chmod(0o600)
    return path


def rows(path: Path) -> list[Conversation]:
    return list(read_records(path, Conversation))


def test_every_row_is_accounted_for_and_in_its_place(out: Path, raw: Path) -> None:
    facts = build(out, raw)
    for name, step in facts["road"].items():
        assert step["read"] == step["accepted"] + sum(step["rejected"].values()), name
    assert facts["road"]["deidentify"]["read"] == 40 and facts["road"]["instruct"]["read"] == 240
    train, valid, general = (
        rows(out / f"{name}.jsonl") for name in ("conversations/train", "conversations/valid", "general/train")
    )
    origins = [row.meta["origin"] for row in train]
    whole = len(train) + len(general)
    assert {row.meta["origin"] for row in general} == {"general"} and set(origins) == {"notes", "dialogues"}
    assert len(general) == pytest.approx(0.2 * whole, abs=1)
    assert origins.count("dialogues") == pytest.approx(0.25 * 0.8 * whole, abs=1)
    assert facts["origins"]["conversations/train"] == {name: origins.count(name) for name in set(origins)}
    assert sum(row.source == "ward" and row.id.startswith("腹泻") for row in valid) == 5
    assert not (out / ".road").exists() and (out / "deidentified/report.html").is_file()
    aside = sum(1 for line in (out / "aside/duplicates.jsonl").open(encoding="utf-8") if line)
    assert aside == sum(facts["road"]["duplicates"]["rejected"].values()) > 0


def test_no_patient_is_on_both_sides(out: Path, raw: Path) -> None:
    build(out, raw)
    train, valid = (
        {row.meta["patient_id"] for row in rows(out / f"conversations/{split}.jsonl") if "patient_id" in row.meta}
        for split in ("train", "valid")
    )
    assert train and valid and not train & valid


def test_the_same_key_gives_the_same_bytes(out: Path, raw: Path, tmp_path: Path) -> None:
    names = ("conversations/train", "conversations/valid", "general/train", "aside/duplicates")
    before = {path: path.read_bytes() for path in out.rglob("*.jsonl")}
    build(out, raw)
    first = [(out / f"{name}.jsonl").read_bytes() for name in names]
    for path, data in before.items():
        path.write_bytes(data)
    build(out, raw)
    assert [(out / f"{name}.jsonl").read_bytes() for name in names] == first


def test_what_a_test_holds_is_dropped_and_counted(out: Path, raw: Path) -> None:
    build(out, raw)
    asked = next(row for row in rows(out / "conversations/train.jsonl") if row.meta["origin"] == "notes")
    write_records(out / "questions/test.jsonl", [Question("q", asked.messages[:1], "", "consult", "test")])
    write_records(out / "conversations/train.jsonl", talks(300, "头痛"))
    write_records(out / "general/train.jsonl", talks(90, "天气"))
    facts = build(out, raw)
    dropped = facts["road"]["overlap"]["rejected"]
    assert dropped.keys() >= {"overlap with test.jsonl (exact)"} and sum(dropped.values()) >= 1
    assert asked.messages not in [row.messages for row in rows(out / "conversations/train.jsonl")]
    aside = [json.loads(line) for line in (out / "aside/overlap.jsonl").read_text("utf-8").splitlines()]
    assert asked.id in {line["record"]["id"] for line in aside} and len(aside) == sum(dropped.values())
    table = {(row["data"], row["test"]): row["overlap"] for row in training_overlap(out)["table"]}
    assert table["conversations/train", "questions/test"] == 0


def test_a_share_of_nothing_may_be_written(out: Path, raw: Path) -> None:
    build(out, raw, HospitalNotes(general_share=0, dialogue_share=0))
    assert not rows(out / "general/train.jsonl")
    assert {row.meta["origin"] for row in rows(out / "conversations/train.jsonl")} == {"notes"}


def test_a_share_that_needs_too_many_readings_is_an_error(out: Path, raw: Path) -> None:
    write_records(out / "general/train.jsonl", talks(2, "天气"))
    with pytest.raises(InputError, match=r"source general would be read .* times; allowed by max_epochs: 4"):
        build(out, raw)


def test_an_export_goes_the_same_road(out: Path, tmp_path: Path) -> None:
    """A CSV with a confirmed mapping: its rows without a patient are refused and counted."""
    path = tmp_path / "in/门诊.csv"
    path.parent.mkdir()
    notes = list(ward_notes(load_world(), 24, 3))
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["病历号", "患者姓名", "病历内容"])
        table.writerows([f"P{n}", note.fields["name"], note.text] for n, note in enumerate(notes))
        table.writerow(["", "无名", "主诉：咳嗽。"])
    columns = tmp_path / "columns.yaml"
    columns.write_text("confirmed: true\npatient_id: 病历号\ntext: [病历内容]\nfields: {患者姓名: name}\n", "utf-8")
    facts = build_road(out, note_source(path, columns), HALF, seed=0, key=fixed_key(tmp_path))
    step = facts["road"]["deidentify"]
    assert (step["read"], step["accepted"], step["rejected"]) == (25, 24, {"no_patient_id": 1})
    published = (out / "deidentified/notes.jsonl").read_text("utf-8")
    assert not [note.fields["phone"] for note in notes if note.fields["phone"] in published]


# --- what is refused, before anything is written ---------------------------------------------------------------------


def test_mistakes_are_told_before_work(tmp_path: Path, raw: Path) -> None:
    key, out = tmp_path / "private/key", tmp_path / "run"
    export = tmp_path / "a.csv"
    export.write_text("a,b\n1,2\n", "utf-8")
    for settings, place, columns, words in (
        (HALF, tmp_path / "absent", None, "no such file or folder"),
        (HALF, export, None, "for an export give --columns"),
        (HALF, raw, tmp_path / "absent.yaml", "no such file"),
        (HALF, None, tmp_path / "absent.yaml", "goes with --data-dir"),
        (HALF.model_copy(update={"public_dir": "absent"}), raw, None, "data.notes.public_dir is absent"),
    ):
        with pytest.raises(InputError, match=words) as told:
            check_road(settings, place, columns, key, out)
        assert "\n" not in str(told.value)
    with pytest.raises(InputError, match="lies under the output"):
        check_road(HALF, raw, None, out / "key", out)
    assert not out.exists()


def test_a_recipe_that_says_nothing_of_notes_says_what_to_write(tmp_path: Path) -> None:
    options = RunOptions(tmp_path / "run", "notes", quiet=True, key=tmp_path / "private/key")
    with pytest.raises(InputError, match=r"--set data.notes.general_share=0.2"):
        run_recipe(load_recipe(str(RECIPE)), options)
    assert not (tmp_path / "run").exists()


def test_what_the_gate_refuses_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def leak(*args: Any, **more: Any) -> None:
        raise Leak("note 3, text: a phone survived (digits); nothing was published")

    monkeypatch.setattr("xinglin.data.road.publish", leak)
    recipe = load_recipe(str(RECIPE), settings=["data.notes.general_share=0", "data.notes.count=4"])
    options = RunOptions(tmp_path / "run", "notes", quiet=True, key=tmp_path / "private/key", only="data")
    with pytest.raises(SystemExit) as ended:
        run_recipe(recipe, options)
    assert ended.value.code == 1 and "a phone survived" in capfd.readouterr().err
    assert not (tmp_path / "run/00-data/manifest.json").exists()


def test_other_notes_or_another_key_make_the_stage_anew(tmp_path: Path, raw: Path) -> None:
    def inputs(**changes: Any) -> dict[str, str]:
        given = {"data": "notes", "data_dir": raw, "key": tmp_path / "private/key"}
        return stages._data_inputs(RunOptions(tmp_path / "run", **{**given, **changes}), Data(notes=HALF))

    first = inputs()
    assert inputs() == first and inputs(key=tmp_path / "private/other") != first
    write_records(raw, [Note("n", "p", "outpatient", "主诉：咳嗽。")])
    assert inputs() != first
