"""Mixtures: shares and counts worked out by hand, splits by patient, provenance, and everything that is refused."""

import hashlib
import json
from collections import Counter

import pytest
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from typer.testing import CliRunner

from xinglin.cli.data import app
from xinglin.data.mix import mix
from xinglin.records import Conversation, Document, InputError, Message, read_any, write_records


def talk(name, question="问", answer="答", **meta):
    return Conversation(name, (Message("user", question), Message("assistant", answer)), "own", meta)


@pytest.fixture
def folder(tmp_path):
    """wards: 100 rows of 20 patients, 12 characters each; exams: 50 rows of 3; daily: 40 rows of 3."""
    patients = (talk(f"w{n}", f"病人第{n:03d}问", "答" * 5, patient_id=f"p{n % 20}") for n in range(100))
    write_records(tmp_path / "wards.jsonl", patients)
    write_records(tmp_path / "exams.jsonl", (talk(f"e{n}") for n in range(50)))
    write_records(tmp_path / "daily.jsonl", (talk(f"d{n}") for n in range(40)))
    return tmp_path


def mixture(folder, **changes):
    body = {
        "by": "rows",
        "general_share": 0.2,
        "valid_share": 0,
        "seed": 3,
        "sources": {
            "wards": {"files": ["wards.jsonl"], "ratio": 3},
            "exams": {"files": ["exams.jsonl"], "ratio": 1},
            "daily": {"files": ["daily.jsonl"], "general": True},
        },
        **changes,
    }
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in body.items() if v is not None}, sort_keys=False), "utf-8")
    return path


def ids(path):
    return [record.id for record in read_any(path)]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_shares_by_rows_upsampling_and_ids(folder):
    # 100 rows: general 20; medical 80 as 3 to 1 = 60 and 20.
    manifest = mix(mixture(folder, size=100), folder / "out")
    written = ids(folder / "out/train.jsonl")
    assert Counter(name[0] for name in written) == {"w": 60, "e": 20, "d": 20} and len(set(written)) == 100
    assert manifest["general_share"] == 0.2 and manifest["sources"]["wards"]["epochs"] == 0.6
    # 400 rows: wards 240 = 2.4 times its 100 rows, exams 80 = 1.6 of 50, daily 80 = 2 of 40.
    manifest = mix(mixture(folder, size=400), folder / "more")
    found = {name: (one["epochs"], one["rows_written"], one["upsampled"]) for name, one in manifest["sources"].items()}
    assert found == {"wards": (2.4, 240, True), "exams": (1.6, 80, True), "daily": (2.0, 80, True)}
    written = ids(folder / "more/train.jsonl")
    assert len(set(written)) == 400
    copies = Counter(name.split("#")[0] for name in written if name[0] == "w")
    assert Counter(copies.values()) == {2: 60, 3: 40} and "w0#2" in written
    third = next(record for record in read_any(folder / "more/train.jsonl") if record.id.endswith("#3"))
    assert third.meta["copy"] == 3
    assert [name[0] for name in written] != sorted(name[0] for name in written)  # shuffled


def test_shares_by_tokens(folder):
    # Text of a ward row: 7 + line break + 5 = 13 characters, 1,300 in all; of the others 3: exams 150, daily 120.
    manifest = mix(mixture(folder, by="tokens", size=520, general_share=0.2), folder / "out")
    found = {name: one["units_written"] for name, one in manifest["sources"].items()}
    assert (manifest["unit"], found) == ("characters", {"wards": 312, "exams": 105, "daily": 105})
    assert manifest["sources"]["wards"]["rows_written"] == 24
    histogram = manifest["histograms"]["train"]["characters"]
    assert histogram["rows"] == 24 + 35 + 35 == histogram["0-31"] and histogram["sum"] == 522


def test_tokens_are_counted_with_a_tokenizer(folder):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("问", "isolated")
    (folder / "model").mkdir()
    tokenizer.save(str(folder / "model/tokenizer.json"))
    # "病人第000问\n答答答答答": three pieces; "问\n答": two.
    manifest = mix(
        mixture(folder, by="tokens", size=100, general_share=0.2), folder / "out", tokenizer=folder / "model"
    )
    found = {name: one["units_written"] for name, one in manifest["sources"].items()}
    assert (manifest["unit"], found) == ("tokens", {"wards": 60, "exams": 20, "daily": 20})
    assert manifest["histograms"]["train"]["tokens"]["median"] == 2.5


def test_same_bytes_from_the_same_seed_and_others_from_another(folder):
    hashes = set()
    for name, seed, workers in (("a", 3, 1), ("b", 3, 2), ("c", 4, 1)):
        mix(mixture(folder, size=100, seed=seed, valid_share=0.1), folder / name, workers=workers)
        hashes.add(hashlib.sha256((folder / name / "train.jsonl").read_bytes()).hexdigest())
    assert len(hashes) == 2


def test_patients_stand_on_one_side(folder):
    manifest = mix(mixture(folder, valid_share=0.3), folder / "out")
    sides = {
        split: {record.meta.get("patient_id") for record in read_any(folder / f"out/{split}.jsonl")} - {None}
        for split in ("train", "valid")
    }
    assert sides["train"] and sides["valid"] and not sides["train"] & sides["valid"]
    assert manifest["split"]["patients"] == 20 and manifest["split"]["rows_without_patient"] == 90
    assert manifest["rows"]["valid"] == sum(one["rows"] for one in manifest["histograms"]["valid"].values())


def test_questions_may_be_the_key_of_the_split(folder):
    write_records(folder / "wards.jsonl", (talk(f"w{n}", f"第{n % 10}个问题", f"答{n}") for n in range(100)))
    by_record = mix(mixture(folder, valid_share=0.3), folder / "record")
    by_question = mix(mixture(folder, valid_share=0.3, split_by="question"), folder / "question")
    assert by_record["split"]["questions_in_both"] > 0 == by_question["split"]["questions_in_both"]


def test_licences_and_research_only(folder):
    (folder / "bought").mkdir()
    (folder / "daily.jsonl").replace(folder / "bought/daily.jsonl")
    (folder / "bought/LICENSE").write_text("MIT License. For research use only.", "utf-8")
    write_records(folder / "exams.jsonl", (talk(f"e{n}", research_only=True, licence="CC0-1.0") for n in range(50)))
    sources = {
        "wards": {"files": ["wards.jsonl"], "licence": "hospital"},
        "exams": {"files": ["exams.jsonl"]},
        "daily": {"files": ["bought/daily.jsonl"], "general": True, "research_only": False},
    }
    result = run("mix", mixture(folder, sources=sources), "--out", folder / "out", "--json")
    assert result.exit_code == 0, result.exception
    manifest = json.loads((folder / "out/manifest.json").read_text("utf-8"))
    assert manifest["research_only"] == ["daily", "exams"] and manifest["acknowledge_research_only"] is False
    assert {name: words["licence"] for name, words in manifest["provenance"].items()} == {
        **{"wards": "hospital", "exams": "CC0-1.0", "daily": "MIT"}
    }
    digest = hashlib.sha256((folder / "wards.jsonl").read_bytes()).hexdigest()
    assert manifest["provenance"]["wards"]["files"] == {"wards.jsonl": digest}
    summary = json.loads(result.stdout)
    assert (summary["read"], summary["rejected"]) == (190, {})
    run("mix", folder / "mix.yaml", "--out", folder / "two", "--acknowledge-research-only")
    assert json.loads((folder / "two/manifest.json").read_text("utf-8"))["acknowledge_research_only"] is True
    assert "research only: daily, exams" in run("mix", folder / "mix.yaml", "--out", folder / "three").stderr


WARDS = {"files": ["wards.jsonl"]}
DAILY = {"files": ["daily.jsonl"], "general": True}
SPLIT = {"old": {**WARDS, "split": "train"}, "new": {"files": ["copy.jsonl"], "split": "valid"}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"general_share": None}, "general_share is missing; it must be written"),
        ({"general_share": 0}, "general_share is 0, but the general sources are daily"),
        ({"sources": {"wards": WARDS}}, "general_share is 0.2, but no source has"),
        ({"general_share": 1}, "leaves nothing to the other sources"),
        ({"general_share": 1.2}, "general_share is 1.2"),
        ({"seeed": 1}, "did you mean 'seed'"),
        ({"sources": {"wards": {**WARDS, "ration": 1}, "daily": DAILY}}, "did you mean 'ratio'"),
        ({"sources": {"wards": {"files": []}, "daily": DAILY}}, "wards.files"),
        ({"sources": {"wards": {"files": ["none.jsonl"]}, "daily": DAILY}}, "none.jsonl: no such file"),
        ({"size": 2000}, "source wards would be read 12.0 times; allowed by max_epochs: 4"),
        ({"general_share": 0, "sources": SPLIT}, "20 patients would stand in train and valid"),
        ({"split_by": "record", "valid_share": 0.3}, "patients would stand in train and valid"),
        ({"sources": {"wards": {"files": ["books.jsonl"]}, "daily": DAILY}}, "records of several kinds"),
        ({"sources": {"wards": {"files": ["empty.jsonl"]}, "daily": DAILY}}, "source wards has no records"),
    ],
)
def test_what_is_refused(folder, changes, words):
    write_records(folder / "books.jsonl", [Document("b1", "书")])
    write_records(folder / "empty.jsonl", [])
    (folder / "copy.jsonl").write_bytes((folder / "wards.jsonl").read_bytes())
    result = run("mix", mixture(folder, **changes), "--out", folder / "out")
    assert isinstance(result.exception, InputError) and words in str(result.exception), result.exception
    assert "\n" not in str(result.exception) and not list((folder / "out").glob("*"))


def test_a_bad_tokenizer_folder_and_a_full_output(folder):
    result = run("mix", mixture(folder), "--out", folder / "out", "--tokenizer", folder)
    assert isinstance(result.exception, InputError) and "tokenizer.json: no such file" in str(result.exception)
    assert "not empty" in str(run("mix", folder / "mix.yaml", "--out", folder).exception)
