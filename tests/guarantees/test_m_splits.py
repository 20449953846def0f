"""Guarantee m: splits are by patient; training and validation on the same rows is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_stages import questions, run_stage

from xinglin.config import Score
from xinglin.data.ward.build import WardConfig, build_ward
from xinglin.records import Answer, InputError, Preference, Rollout, read_any, read_records, write_records
from xinglin.rollout.score import score
from xinglin.run import Stage


@pytest.mark.parametrize("kind", ["pretrain", "sft", "reward", "dpo"])
@pytest.mark.parametrize("how", ["link", "copy"])
def test_validation_on_the_training_rows_is_refused(
    tmp_path: Path, data: Path, model: Path, kind: str, how: str
) -> None:
    family = {"pretrain": "documents", "sft": "conversations"}.get(kind, "preferences")
    place = tmp_path / "data"
    shutil.copytree(data, place)
    train, valid = place / family / "train.jsonl", place / family / "valid.jsonl"
    valid.unlink()
    if how == "link":
        valid.symlink_to(train)
    else:
        shutil.copy(train, valid)
    with pytest.raises(InputError, match="holds the same rows as .*train.jsonl, .*split by patient first"):
        run_stage(kind, tmp_path / "out", place, model)
    assert not (tmp_path / "out/metrics.jsonl").exists()  # told before work


def patients(path: Path) -> set[str]:
    return {record.meta["patient_id"] for record in read_any(path) if "patient_id" in getattr(record, "meta", {})}


def test_no_patient_of_the_ward_is_on_both_sides(tmp_path: Path) -> None:
    small = {"num_page_renderings": 1, "num_facts": 20, "num_consultations": 200, "num_dialogues": 40}
    small |= {"num_preferences": 60, "num_questions": 60, "num_test_questions": 40, "num_heldout_questions": 20}
    build_ward(tmp_path, WardConfig(**small), seed=0)
    held = ("valid.jsonl", "test.jsonl", "heldout_diseases.jsonl")
    trained = {path: patients(path) for path in tmp_path.rglob("train.jsonl")}
    unseen = {path: patients(path) for name in held for path in tmp_path.rglob(name)}
    for side, family in ((trained, "conversations"), (trained, "preferences"), (trained, "questions")):
        assert any(found for path, found in side.items() if path.parent.name == family), family
    assert all(any(found for path, found in unseen.items() if path.name == name) for name in held)
    for left, seen in trained.items():
        for right, others in unseen.items():
            assert not seen & others, (left.relative_to(tmp_path), right.relative_to(tmp_path))


def test_rankings_made_from_samples_are_split_by_patient(tmp_path: Path) -> None:
    """40 questions of 12 patients, two answers each: no patient's rankings on both sides."""
    items = [item for item in questions(40)]
    rollouts = [
        Rollout(f"{q.id}-{n}", q.id, q.prompt, Answer("头痛" * (n + 1)), meta={"patient_id": f"patient-{i % 12}"})
        for i, q in enumerate(items)
        for n in range(2)
    ]
    write_records(tmp_path / "rollouts.jsonl", rollouts)
    write_records(tmp_path / "questions.jsonl", items)
    stage = Stage(tmp_path / "score", "score", quiet=True)
    rule = lambda question, text: {"overall": len(text) / 10}  # noqa: E731
    for seed in range(20):
        score(Score(seed=seed), stage, tmp_path / "rollouts.jsonl", tmp_path / "questions.jsonl", rule)
        parts = [list(read_records(stage.dir / f"preferences/{n}.jsonl", Preference)) for n in ("train", "valid")]
        assert sum(map(len, parts)) == 40
        seen, held = ({p.meta["patient_id"] for p in part} for part in parts)
        assert not seen & held and len(seen | held) == 12
