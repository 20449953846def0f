from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import user

from xinglin.config import Score as ScoreConfig
from xinglin.records import Answer, InputError, Preference, Question, Rollout, Score, read_records, write_records
from xinglin.rollout.score import overall, rank, ranks_with_ties, score


def rollout(name: str, question: str, text: str, value: float | None = None) -> Rollout:
    scores = () if value is None else (Score(value, "overall", "rule", "rule"),)
    return Rollout(name, question, user("头痛"), Answer(text, "sft"), scores, "ward", {"patient_id": question})


class FakeStage:
    """The two things a stage gives: a folder and progress."""

    def __init__(self, folder: Path) -> None:
        self.dir, self.name = folder, "score"

    def progress(self, label: str, total: int):
        import contextlib

        return contextlib.nullcontext(lambda *_: None)


def test_ranks_with_ties() -> None:
    assert ranks_with_ties([3.0, 2.0, 1.0], 0.5) == (1, 2, 3)
    assert ranks_with_ties([1.0, 1.0, 0.0], 0.0) == (1, 1, 2)
    assert ranks_with_ties([0.9, 0.86, 0.82, 0.78], 0.05) == (1, 1, 2, 2)  # against the first of the rank, no chain
    assert ranks_with_ties([0.9, 0.85], 0.05) == (1, 1)  # 0.9 - 0.85 is 0.05000000000000004
    assert ranks_with_ties([0.9], 0.05) == (1,)


def test_overall_is_given_or_the_mean() -> None:
    plain = rollout("r", "q", "x")
    parts = (Score(1.0, "safety", "rule"), Score(0.0, "fluency", "rule"))
    assert overall(replace(plain, scores=parts)) == 0.5
    assert overall(replace(plain, scores=(*parts, Score(0.9, "overall", "rule")))) == 0.9
    with pytest.raises(InputError, match="rollout 'r' has no score"):
        overall(plain)


def test_rank_counts_everything_it_leaves_out() -> None:
    counts: Counter[str] = Counter()
    rollouts = [
        rollout("1", "a", "差", 0.1), rollout("2", "a", "好", 0.9), rollout("3", "a", "好", 0.9),
        rollout("4", "b", "甲", 0.5), rollout("5", "b", "乙", 0.5),
        rollout("6", "c", "同", 0.3), rollout("7", "c", "同", 0.3),
    ]  # fmt: skip
    (made,) = rank(rollouts, 0.05, counts)
    assert [answer.text for answer in made.answers] == ["好", "差"]
    assert (made.id, made.ranks, made.source) == ("ranked-a", (1, 2), "ward")
    assert made.meta == {"patient_id": "a", "scores": [0.9, 0.1], "label_source": "rule"}
    assert counts == {"rollouts": 7, "answers said twice": 2, "questions": 3, "questions whose answers all tie": 2}


def run(folder: Path, rule, rollouts: list[Rollout], **config) -> dict:
    write_records(folder / "rollouts.jsonl", rollouts)
    asked = sorted({r.question_id for r in rollouts} - {"lost"})
    write_records(folder / "questions.jsonl", [Question(name, user("头痛")) for name in asked])
    stage = FakeStage(folder / "out")
    return score(ScoreConfig(**config), stage, folder / "rollouts.jsonl", folder / "questions.jsonl", rule)  # type: ignore


def test_every_score_says_where_it_is_from_and_no_preference_is_lost(tmp_path: Path) -> None:
    rollouts = [rollout(f"{q}-{i}", f"q{q}", "好" * (i + 1)) for q in range(60) for i in range(3)]
    facts = run(tmp_path, lambda question, text: {"safety": 1, "overall": len(text) / 10, "note": "x"}, rollouts)
    scored = list(read_records(tmp_path / "out/rollouts.jsonl", Rollout))
    assert [r.id for r in scored] == [r.id for r in rollouts]
    assert scored[2].scores == (Score(1.0, "safety", "rule", "rule"), Score(0.3, "overall", "rule", "rule"))
    parts = {
        name: list(read_records(tmp_path / f"out/preferences/{name}.jsonl", Preference)) for name in ("train", "valid")
    }
    assert len(parts["train"]) + len(parts["valid"]) == 60
    assert 0 < len(parts["valid"]) < 20
    patients = [{p.meta["patient_id"] for p in part} for part in parts.values()]
    assert not patients[0] & patients[1]
    assert all(p.ranks == (1, 2, 3) and p.answers[0].text == "好好好" for part in parts.values() for p in part)
    assert facts["counts"]["preferences/train"] == len(parts["train"])


def test_human_scores_come_from_their_file(tmp_path: Path) -> None:
    judged = [rollout("1", "a", "好", 0.9), rollout("2", "a", "差", 0.1)]
    judged = [replace(r, scores=(replace(r.scores[0], source="human", scorer="dr-1"),)) for r in judged]
    write_records(tmp_path / "human.jsonl", judged)
    facts = run(tmp_path, None, [rollout("1", "a", "好")], scorer="human", file=str(tmp_path / "human.jsonl"))
    assert facts["counts"]["questions"] == 1
    assert list(read_records(tmp_path / "out/rollouts.jsonl", Rollout)) == judged


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="scorer human needs `file:`"):
        run(tmp_path, None, [], scorer="human")
    with pytest.raises(InputError, match="scorer llm needs `url:`"):
        run(tmp_path, None, [], scorer="llm")
    with pytest.raises(
        InputError, match="questions.jsonl: 1 rollouts answer questions that are not in it, the first is '1'"
    ):
        run(tmp_path, lambda *_: {}, [rollout("1", "lost", "x")])


def human(made: Rollout, value: float) -> Rollout:
    return replace(made, scores=(Score(value, "overall", "human", "dr-1"),))


def test_a_mixture_keeps_the_source_of_each_label(tmp_path: Path) -> None:
    """a: ranked by doctors. b: two of three answers scored by doctors. c: one of two, so the rule ranks. d: rule."""
    given = [
        rollout(f"{q}{i}", q, "好" * (i + 1)) for q, n in (("a", 2), ("b", 3), ("c", 2), ("d", 2)) for i in range(n)
    ]
    theirs = Preference("a", user("头痛"), (Answer("好"), Answer("好好")), (1, 2), "ward", {"patient_id": "a"})
    path = tmp_path / "human.jsonl"
    by_id = {r.id: r for r in given}
    write_records(path, [theirs, human(by_id["b0"], 0.9), human(by_id["b2"], 0.2), human(by_id["c0"], 0.9)])
    facts = run(tmp_path, lambda question, text: {"overall": len(text) / 10}, given, file=str(path))
    made = {}
    for name in ("train", "valid"):
        made |= {p.id: p for p in read_records(tmp_path / f"out/preferences/{name}.jsonl", Preference)}
    sources = {name: p.meta["label_source"] for name, p in made.items()}
    assert sources == {"a": "human", "ranked-b": "human", "ranked-c": "rule", "ranked-d": "rule"}
    assert made["a"].ranks == (1, 2) and made["a"].answers == theirs.answers
    assert [answer.text for answer in made["ranked-b"].answers] == ["好", "好好好"]  # doctors' order, and theirs alone
    assert made["ranked-c"].answers[0].text == "好好"
    counts = facts["counts"]
    assert counts["rankings by human"] == counts["rankings by rule"] == 2
    assert counts["answers of questions that doctors ranked"] == 2
    assert counts["answers without a doctor's score beside answers that have one"] == 1


def test_a_score_that_is_not_human_is_no_label_of_a_doctor(tmp_path: Path) -> None:
    given = [rollout("1", "a", "好", 0.9)]
    write_records(tmp_path / "human.jsonl", given)
    with pytest.raises(InputError, match="rollout '1' has a score that is not human"):
        run(tmp_path, lambda *_: {}, given, file=str(tmp_path / "human.jsonl"))


def test_a_local_judge_needs_its_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="scorer local needs `model:`, a model folder; given 'nowhere'"):
        run(tmp_path, None, [], scorer="local", model="nowhere")
