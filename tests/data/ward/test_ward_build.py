import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from xinglin.data.ward.build import WardConfig, build_ward, heldout_diseases
from xinglin.data.ward.world import World, load_world
from xinglin.records import (
    Conversation,
    Document,
    EntityText,
    ExamQuestion,
    InputError,
    Note,
    Preference,
    Question,
    read_any,
    read_records,
)

FILES = {
    "documents": ("train", "valid"),
    "conversations": ("train", "valid"),
    "general": ("train", "valid"),
    "preferences": ("train", "valid", "danger"),
    "questions": ("train", "test", "heldout_diseases"),
    "general_questions": ("test",),
    "general_exam": ("test",),
    "exam": ("dev", "test"),
    "entities": ("train", "test"),
    "safety": ("test",),
    "notes": ("train",),
}
SMALL = WardConfig(num_consultations=200, num_dialogues=60, num_preferences=80, num_questions=60, num_test_questions=50)


def digest(folder: Path) -> str:
    joined = hashlib.sha256()
    for file in sorted(folder.rglob("*.jsonl")):
        joined.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return joined.hexdigest()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ward")
    build_ward(out, SMALL, seed=0)
    return out


def test_the_layout_and_the_counts(tmp_path: Path) -> None:
    counts = build_ward(tmp_path, SMALL, seed=0)
    assert set(counts) == {f"{folder}/{part}" for folder, parts in FILES.items() for part in parts}
    for name, count in counts.items():
        assert count == len(list(read_any(tmp_path / f"{name}.jsonl"))) > 0
    assert counts["questions/test"] == 50 and counts["preferences/train"] == 80


def test_same_seed_same_bytes_and_another_seed_other_patients(built: Path, tmp_path: Path) -> None:
    build_ward(tmp_path / "a", SMALL, seed=0)
    build_ward(tmp_path / "b", SMALL, seed=1)
    assert digest(built) == digest(tmp_path / "a")
    assert digest(built) != digest(tmp_path / "b")
    assert not set(patients(built)) & set(patients(tmp_path / "b"))


def patients(folder: Path) -> dict[str, set[str]]:
    """patient id -> the files in which it occurs."""
    seen: dict[str, set[str]] = defaultdict(set)
    for file in folder.rglob("*.jsonl"):
        for record in read_any(file):
            id = record.patient_id if isinstance(record, Note) else record.meta.get("patient_id")
            if id:
                seen[id].add(file.relative_to(folder).as_posix())
    return seen


def test_no_patient_is_in_two_files(built: Path) -> None:
    assert all(len(files) == 1 for files in patients(built).values())


def first_turns(path: Path) -> set[str]:
    prompts = set()
    for record in read_any(path):
        assert isinstance(record, (Conversation, Preference, Question))
        messages = record.messages if isinstance(record, Conversation) else record.prompt
        prompts.add(messages[0].content)
    return prompts


def test_no_test_prompt_was_trained_on(built: Path) -> None:
    trained = first_turns(built / "conversations/train.jsonl") | first_turns(built / "preferences/train.jsonl")
    trained |= first_turns(built / "general/train.jsonl") | first_turns(built / "questions/train.jsonl")
    for name in ("questions/test", "questions/heldout_diseases", "general_questions/test", "safety/test"):
        assert not trained & first_turns(built / f"{name}.jsonl")
    assert not trained & first_turns(built / "preferences/valid.jsonl")
    asked = {
        c.messages[0].content.split("（")[0] for c in read_records(built / "conversations/train.jsonl", Conversation)
    }
    for item in read_records(built / "exam/test.jsonl", ExamQuestion):
        assert item.question.split("（")[0] not in asked


def test_heldout_diseases_stand_in_documents_and_tests_only(built: Path) -> None:
    world = load_world()
    unseen = set(heldout_diseases(world, SMALL.num_heldout_diseases))
    assert len(unseen) == 8
    names = [name for id in unseen for name in world.by_id[id].names if len(name) > 3]
    allowed = ("documents/", "questions/heldout", "exam/", "entities/test", "general", "safety")
    for file in built.rglob("*.jsonl"):
        name = file.relative_to(built).as_posix()
        if not name.startswith(allowed):
            for record in read_any(file):
                assert record.meta.get("disease") not in unseen
    told = {r.meta["about"] for r in read_records(built / "documents/train.jsonl", Document)}
    assert unseen <= told
    asked = {r.meta["disease"] for r in read_records(built / "questions/heldout_diseases.jsonl", Question)}
    assert asked == unseen
    for item in read_records(built / "preferences/train.jsonl", Preference):
        assert not any(f"考虑{name}，" in answer.text for answer in item.answers for name in names)


def test_preferences_carry_four_answers_in_every_order_with_some_ties(built: Path) -> None:
    found = list(read_records(built / "preferences/train.jsonl", Preference))
    assert all(sorted(p.ranks) in ([1, 2, 3, 4], [1, 2, 2, 4]) for p in found)
    assert 0 < sum(sorted(p.ranks) == [1, 2, 2, 4] for p in found) < len(found) / 2
    assert {p.ranks.index(1) for p in found} == {0, 1, 2, 3}
    for p in found:
        best = p.answers[p.ranks.index(1)]
        worst = p.answers[p.ranks.index(4)]
        assert (best.source, worst.source) == ("doctor", "rejected")
        assert p.meta["qualities"][p.ranks.index(1)] == "complete"


def test_exam_keys_are_balanced_and_options_differ(built: Path) -> None:
    for name in ("exam/test", "general_exam/test"):
        found = list(read_records(built / f"{name}.jsonl", ExamQuestion))
        keys = Counter(item.answer for item in found)
        assert max(keys.values()) - min(keys.values()) <= 1 and set(keys) == set("ABCD")
        assert all(len(set(item.options.values())) == 4 for item in found)


def test_the_mixture_of_qualities_is_a_knob(tmp_path: Path) -> None:
    config = WardConfig(complete_share=0.0, good_share=0.0, poor_share=1.0, dangerous_share=0.0, num_consultations=60)
    build_ward(tmp_path, config, seed=0)
    found = read_records(tmp_path / "conversations/train.jsonl", Conversation)
    assert {c.meta["quality"] for c in found if c.meta["task_type"] in ("consult", "dialogue")} == {"poor"}


def test_bad_shares_and_counts_are_refused() -> None:
    with pytest.raises(InputError, match="sum to 1"):
        WardConfig(complete_share=0.9)
    with pytest.raises(InputError, match="num_questions"):
        WardConfig(num_questions=-1)


def test_a_small_world_builds_too(tmp_path: Path, world: World) -> None:
    counts = build_ward(tmp_path, SMALL, seed=0, world=world)
    assert counts["questions/heldout_diseases"] > 0
    assert list(read_records(tmp_path / "entities/test.jsonl", EntityText))
