"""D8: one command takes notes to a trained model, and of 1,000 identifiers planted in them none is anywhere after it.

Searched are the run's folder, the home folder with its caches, the key's folder with the ledger, what was printed, and
every temporary file that was ever made: the command runs with `unlink`, `rmtree` and unnamed temporary files turned
into moves to a place that is searched too. The identifiers are invented (SYNTHETIC).
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from xinglin.data.canaries import draw
from xinglin.data.ward.notes import notes as ward_notes
from xinglin.data.ward.world import load_world
from xinglin.records import Note, write_records

KEEPING = """
import os, sys, uuid
grave = os.environ["GRAVE"]
def place(): return os.path.join(grave, uuid.uuid4().hex)
unlink = os.unlink
def keep(path, *args, dir_fd=None, **more):
    try:
        os.rename(path, place(), src_dir_fd=dir_fd)
    except OSError:
        unlink(path, *args, dir_fd=dir_fd, **more)
os.unlink = os.remove = keep
import shutil, tempfile  # only now: tempfile remembers the unlink that it found
def keep_tree(path, ignore_errors=False, *args, **more):
    try:
        os.rename(path, place())
    except OSError:
        if not ignore_errors: raise
shutil.rmtree = keep_tree
tempfile.TemporaryFile = lambda mode="w+b", *args, dir=None, **more: open(place(), mode, **more)
from xinglin.cli import main
main()
"""
FIELDS = {"name": "name", "id_card": "id_card", "phone": "phone", "address": "address", "mrn": "mrn"}
FIELDS |= {"contact": "name", "contact_phone": "phone", "visit_no": "mrn"}  # column -> kind
HEAD = (
    "姓名：{name}  联系人：{contact}（电话{contact_phone}）  门诊号：{visit_no}\n"
    "主治医师：{doctor}　责任护士：{nurse}\n现住址：{home}。外院住院号：{other_mrn}。\n"
)
HISTORY = "现病史：由其子{son}陪同来院（电话：{son_phone}，身份证号{son_card}），单位电话{office}。"
TEXT = {"doctor": "name", "nurse": "name", "son": "name", "son_phone": "phone", "son_card": "id_card"}
TEXT |= {"office": "phone", "home": "address", "other_mrn": "mrn"}
FORMS = re.compile(  # of every kind that is planted; overlapping, so that nothing before a canary hides it
    r"(?=(154\d{8}|99\d{15}[\dX]|ZY\d{8}|[郗郦晁逄蒯蔺]..|青禾市...\w{3,4}\d{3}号\d\d栋\d\d0\d室))"
)
TINY = {
    **{"data.ward.num_diseases": 6, "data.ward.num_heldout_diseases": 1, "data.ward.num_facts": 30},
    **{"data.ward.num_page_renderings": 1, "data.ward.num_fact_renderings": 1, "data.ward.num_consultations": 40},
    **{"data.ward.num_dialogues": 4, "data.ward.num_preferences": 16, "data.ward.num_valid_preferences": 4},
    **{"data.ward.num_questions": 8, "data.ward.num_test_questions": 4, "data.ward.num_heldout_questions": 2},
    **{"data.ward.num_exam_test": 8, "data.ward.num_entity_tasks": 4, "data.ward.num_entity_test": 4},
    **{"base.tiny.hidden_size": 24, "base.tiny.num_layers": 1, "base.tiny.num_heads": 2, "base.tiny.vocab_size": 900},
    **{"base.tiny.pretrain.max_steps": 2, "sft.max_steps": 2, "sft-medical-only.max_steps": 2, "dpo.max_steps": 2},
    **{"evaluate.limit": 2, "evaluate.decoding.max_new_tokens": 4, "evaluate.checkpoints": "[base, sft, dpo]"},
    **{"evaluate.evaluations": "[documents, dialogue, memorisation]", "evaluate.compare": "[[sft, base], [dpo, sft]]"},
    **{"data.notes.canaries": 20, "data.notes.size": 100},
}


@dataclass(frozen=True)
class Ran:
    """What one command left: its folders, what it printed, and what was planted."""

    root: Path
    output: str
    canaries: frozenset[str]


def planted_notes(count: int, seed: int = 0) -> tuple[list[Note], frozenset[str]]:
    """Ward notes, each of its own patient, with 16 fresh identifiers each: 8 in fields (and the text), 8 in text."""
    rng = random.Random(seed)
    used: set[str] = set()

    def fresh(kind: str) -> str:
        value = draw(kind, rng)
        while value in used:
            value = draw(kind, rng)
        used.add(value)
        return value

    made = []
    for number, note in enumerate(ward_notes(load_world(), count, seed)):
        fields = {column: fresh(kind) for column, kind in FIELDS.items()}
        told = {**fields, **{word: fresh(kind) for word, kind in TEXT.items()}}
        text = note.text
        for column in ("name", "id_card", "phone", "mrn"):
            text = text.replace(note.fields[column], fields[column])
        sentence = HISTORY.format(**told)
        text = text.replace("现病史：", sentence, 1) if "现病史：" in text else f"{text}\n{sentence}"
        fields = {**note.fields, **fields}
        text = HEAD.format(**told) + text
        made.append(replace(note, patient_id=f"P{number}", text=text, fields=fields, entities=(), source="hospital"))
    return made, frozenset(used)


def run_command(root: Path, notes: list[Note], canaries: frozenset[str], settings: dict[str, object]) -> Ran:
    for name in ("tmp", "grave", "home", "private"):
        (root / name).mkdir()
    write_records(root / "in/notes.jsonl", notes)
    words = ["run", "iimedgpt", "--scale", "tiny", "--data", "notes", "--data-dir", root / "in/notes.jsonl"]
    words += ["--out", root / "run", "--key", root / "private/key", "--quiet"]
    words += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    own = {"HOME": root / "home", "TMPDIR": root / "tmp", "GRAVE": root / "grave"}
    environment = {**os.environ, **{name: str(path) for name, path in own.items()}, "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("XDG_CACHE_HOME", None)
    command = [sys.executable, "-c", KEEPING, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return Ran(root, done.stdout + done.stderr, canaries)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    notes, canaries = planted_notes(64)
    assert len(canaries) == 64 * 16 >= 1000
    return run_command(tmp_path_factory.mktemp("road"), notes, canaries, TINY)


def files(ran: Ran) -> Iterator[Path]:
    """Everything but the input, and the list of the run's own canaries, which belongs to the private side."""
    for path in ran.root.rglob("*"):
        if path.is_file() and ran.root / "in" not in path.parents and path.name != "canaries.jsonl":
            yield path


def found_in(data: bytes, canaries: frozenset[str]) -> list[str]:
    """Canaries in some bytes, as UTF-8, escaped as JSON may do, or as code points of four bytes."""
    texts = [data.decode("utf-8", "ignore")]
    if "\\u" in texts[0]:
        texts.append(re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), texts[0]))
    if b"\0\0" in data:
        texts.append(data.decode("utf-32-le", "ignore"))
    return sorted({found[1] for text in texts for found in FORMS.finditer(text)} & canaries)


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    value = frozenset({"郗赟翀"})
    for data in ("x郗赟翀y".encode(), b'{"a": "\\u90d7\\u8d5f\\u7fc0"}', "郗赟翀".encode("utf-32-le")):
        assert found_in(data, value) == ["郗赟翀"]
    assert not found_in("郗赟".encode(), value)
    every = planted_notes(20, seed=9)  # each form is one that the search knows
    assert found_in("\n".join(f"{note.text}{note.fields}" for note in every[0]).encode(), every[1]) == sorted(every[1])


def test_no_canary_is_in_any_file_or_line(ran: Ran) -> None:
    seen = list(files(ran))
    folders = {path.relative_to(ran.root).parts[0] for path in seen}
    assert {"run", "grave", "private"} <= folders and len(seen) > 60
    assert {path.suffix for path in seen} >= {".safetensors", ".jsonl", ".json", ".html", ".sqlite"}
    hits = {str(path.relative_to(ran.root)): len(found_in(path.read_bytes(), ran.canaries)) for path in seen}
    assert {name: count for name, count in hits.items() if count} == {}
    assert found_in(ran.output.encode(), ran.canaries) == []


def test_the_road_is_whole_and_every_row_accounted_for(ran: Ran) -> None:
    manifest = json.loads((ran.root / "run/00-data/manifest.json").read_text("utf-8"))
    steps = manifest["road"]
    assert list(steps) == ["deidentify", "instruct", "clean", "duplicates", "overlap", "mixture"]
    for name, step in steps.items():
        assert step["read"] == step["accepted"] + sum(step["rejected"].values()), name
    assert steps["deidentify"]["read"] == 64 and steps["instruct"]["read"] == 64 * 6 == 384
    for before, after in zip(list(steps.values())[1:4], list(steps.values())[2:5], strict=True):
        assert after["read"] == before["accepted"]
    assert manifest["origins"]["conversations/train"].keys() == {"notes", "dialogues, ward (synthetic)"}
    assert manifest["origins"]["preferences/train"].keys() == {"ward (synthetic)"}
    assert manifest["mixture"]["general_share"] == pytest.approx(0.2, abs=0.01)
    assert manifest["research_only"] == [] and manifest["licences"].keys() == {"ward", "hospital notes"}


def test_models_are_trained_measured_and_reported(ran: Ran) -> None:
    stages = {path.name for path in (ran.root / "run").iterdir() if (path / "manifest.json").is_file()}
    assert {"00-data", "01-base", "02-sft", "03-dpo", "04-sft-medical-only", "05-evaluate"} == stages
    lines = [json.loads(line) for line in (ran.root / "run/scores.jsonl").read_text("utf-8").splitlines()]
    found = {(line["checkpoint"], line["metric"]): line for line in lines if line["evaluation"] == "memorisation"}
    assert found["sft", "returned"]["value"] == found["dpo", "returned"]["value"] == 0
    assert found["sft", "exposure"]["value"] < 6 and found["sft", "exposure"]["n"] == 2
    page = (ran.root / "run/report.html").read_text("utf-8")
    for words in (
        "训练数据与测试集的重叠",
        "road.deidentify",
        "road.mixture",
        "记忆泄露",
        "问诊、偏好、考题与安全题由程序生成",
    ):
        assert words in page, words
    assert (ran.root / "run/00-data/deidentified/report.html").is_file()


@pytest.mark.slow
def test_five_thousand_notes(tmp_path: Path) -> None:
    """The size of the issue: 5,000 notes, of which 64 carry the canaries, in the recipe's own mixture."""
    notes, canaries = planted_notes(64)
    rest = [replace(note, patient_id=f"R{note.patient_id}") for note in ward_notes(load_world(), 4936, 1)]
    settings = {**TINY, "data.notes.size": 2400, "data.ward.num_consultations": 600, "data.ward.num_facts": 100}
    done = run_command(tmp_path, [*notes, *rest], canaries, settings)
    hits = {path.name: len(found_in(path.read_bytes(), canaries)) for path in files(done)}
    assert {name: count for name, count in hits.items() if count} == {}
