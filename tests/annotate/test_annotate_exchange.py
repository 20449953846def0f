"""A10: what goes out comes back the same; chosen and rejected differ; ties apart; rounds in the lineage."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from ward_of_doctors import by_content, item, judge, judge_all, project, rater

from xinglin.annotate.audit import verify
from xinglin.annotate.exchange import (
    add_judged,
    add_round,
    export_preferences,
    export_project,
    items_from_preferences,
    items_from_rollouts,
    judged_items,
    judged_preferences,
    llama_factory_row,
    pairs,
    trl_row,
)
from xinglin.annotate.label_studio import config, judged_of, task
from xinglin.annotate.labels import labels, next_dispute
from xinglin.annotate.projects import add_items, edit_item
from xinglin.annotate.rubric import SPF
from xinglin.annotate.store import Store
from xinglin.data.sources import import_file
from xinglin.records import Answer, InputError, Message, Preference, Question, Rollout, Score, from_json, to_json

FOUR = ("doctor", "gpt-4", "gpt-3.5", "rejected")


def judged_project(store: Store) -> int:
    """Four answers an item: unanimous, a tie, an edit, an arbitration, and one that waits for its second vote."""
    made = project(store, 0, FOUR, order="file", conflict="reversal")
    scores = tuple((Score(float(n), "overall", "reward", "rm"),) for n in range(4))
    more = {"reference": "医生：多饮水", "context": "体温 38.5", "field": "内科", "domain": "out", "scores": scores}
    meta = {"patient_id": "p1", "source": "ward"}
    add_items(store, made, [item(n, FOUR, meta=meta, **(more if n % 2 else {})) for n in range(5)])
    one, two = rater(store, "one"), rater(store, "two")
    edit_item(store, 3, reference="医生：复诊")

    def first(shown):
        full = by_content(shown)
        spans = ((full.ranks.index(4), 0, 1),) if "问题2" in str(shown.prompt) else ()
        scored = {"accuracy": tuple(5 - rank for rank in full.ranks)}
        return replace(full, danger=spans, scores=scored, dimensions={"safety": full.ranks}, comment="同意")

    def second(shown):
        full = by_content(shown, "坏差中好" if "问题1" in str(shown.prompt) else "好中差坏")
        spans = ((full.ranks.index(4), 1, 3),) if "问题2" in str(shown.prompt) else ()
        tied = tuple(min(rank, 3) for rank in full.ranks) if "问题2" in str(shown.prompt) else full.ranks
        return replace(full, ranks=tied, danger=spans, rewrites={full.ranks.index(4): "建议就诊"})

    judge_all(store, one, made, first)
    judge_all(store, two, made, second, limit=4)
    chief = rater(store, "chief", "expert")
    dispute = next_dispute(store, chief, made)
    assert dispute is not None
    judge(store, chief, dispute, replace(by_content(dispute), comment="按安全性"))
    return made


def test_preferences_carry_the_whole_trail_and_no_name(store: Store) -> None:
    made = judged_project(store)
    found = list(export_preferences(store, made))
    assert [one.id for one in found] == ["q0", "q1", "q2", "q3"]  # q4 has one vote
    methods = [one.meta["annotation"]["method"] for one in found]
    assert methods == ["unanimous", "arbiter", "majority", "unanimous"]
    assert [one.ranks for one in found] == [(1, 2, 3, 4)] * 4
    assert [one.answers[0].source for one in found] == ["doctor"] * 4 and found[0].source == "ward"
    arbitrated = found[1].meta
    assert arbitrated["patient_id"] == "p1" and arbitrated["label_source"] == "human"
    trail = arbitrated["annotation"]
    assert trail["reason"] == "按安全性" and [one["kind"] for one in trail["votes"]] == ["vote", "vote", "arbitration"]
    assert trail["agreement"] == 0.0 and found[2].meta["annotation"]["agreement"] == 5 / 6
    for vote in trail["votes"]:
        assert vote["rater"].startswith("rater-") and vote["guideline_version"] == 1
        assert vote["shown_at"] < vote["submitted_at"] and sorted(vote["sides"]) == [0, 1, 2, 3]
    assert "chief" not in "".join(map(to_json, found))


def test_import_of_an_export_is_the_same_export(store: Store, tmp_path: Path) -> None:
    made = judged_project(store)
    found = list(export_preferences(store, made))
    read = [from_json(to_json(one)) for one in found]
    again = project(store, 0, FOUR, conflict="reversal")
    counts = add_judged(store, again, judged_preferences(read))  # type: ignore[arg-type]
    assert counts["accepted"] == 4 and counts["votes"] == 9
    exported = list(export_preferences(store, again))
    for one, other in zip(exported, found, strict=True):
        one.meta["annotation"]["project"] = other.meta["annotation"]["project"]
    assert exported == found and verify(store).ok
    assert judge_all(store, rater(store, "new"), again) == 0


def test_label_studio_both_ways(sqlite_store: Store) -> None:
    made = judged_project(sqlite_store)
    tasks = [task(one) for one in judged_items(sqlite_store, made)]
    assert len(tasks) == 5 and [len(one["annotations"]) for one in tasks] == [2, 3, 2, 2, 1]
    shown = json.dumps([one["data"] for one in tasks], ensure_ascii=False)
    assert not any(model in shown for model in FOUR)
    again = project(sqlite_store, 0, FOUR, conflict="reversal")
    counts = add_judged(sqlite_store, again, judged_of(json.loads(json.dumps(tasks))))
    assert counts["accepted"] == 5 and counts["votes"] == 10
    assert [task(one) for one in judged_items(sqlite_store, again)] == tasks
    assert [one.ranks for one in labels(sqlite_store, again)] == [one.ranks for one in labels(sqlite_store, made)]
    names = {result["from_name"] for one in tasks for note in one["annotations"] for result in note["result"]}
    assert names and all(f'name="{name}"' in config(4, SPF) for name in names)


def test_votes_made_in_label_studio_come_in(sqlite_store: Store) -> None:
    """Its own pairwise and ranker results, as its JSON export writes them."""
    base = {"created_at": "2025-03-01T08:00:00.000000Z", "lead_time": 12.5, "completed_by": 7}
    left = {"from_name": "pw", "to_name": "a,b", "type": "pairwise", "value": {"selected": "right"}}
    ranked = {"from_name": "r", "to_name": "l", "type": "ranker", "value": {"ranker": {"rank": ["b", "a"]}}}
    data = {"prompt": "头痛怎么办？", "a": "吃药", "b": "先测血压"}
    body = {
        "id": 31,
        "data": data,
        "annotations": [{**base, "result": [left]}, {**base, "completed_by": {"email": "x@y"}}],
    }
    body["annotations"][1]["result"] = [ranked]  # type: ignore[index]
    found = list(judged_of([body], answers=["a", "b"]))
    assert [vote.verdict.ranks for vote in found[0].votes] == [(2, 1), (2, 1)]
    assert found[0].votes[0].active_ms == 12_500 and found[0].votes[0].rater != found[0].votes[1].rater
    made = project(sqlite_store, 0)
    add_judged(sqlite_store, made, found)
    (label,) = labels(sqlite_store, made)
    assert (label.method, label.ranks, label.item.external_id) == ("unanimous", (2, 1), "31")
    for broken, message in (
        ({"annotations": []}, "task 1: KeyError 'data'"),
        ({"data": data}, "name the answers' fields"),
        ({**body, "annotations": [{**base, "result": []}]}, "ranks for 0 of 2"),
    ):
        with pytest.raises(InputError, match=message):
            list(judged_of([broken], answers=["a", "b"] if "annotations" in broken else ()))


PREFERENCE = Preference(
    "p",
    (Message("system", "你是医生"), Message("user", "咳嗽"), Message("assistant", "多久了？"), Message("user", "三天")),
    (Answer("甲", "m"), Answer("乙", "n"), Answer("丙", "o")),
    (2, 1, 2),
)


def test_pairs_hold_the_better_first_and_ties_stand_apart() -> None:
    ordered, ties = pairs(PREFERENCE)
    assert [tuple(answer.text for answer in one.answers) for one in ordered] == [("乙", "甲"), ("乙", "丙")]
    assert [one.ranks for one in ordered] == [(1, 2), (1, 2)]
    assert [(tuple(answer.text for answer in one.answers), one.ranks) for one in ties] == [(("甲", "丙"), (1, 1))]
    double = replace(PREFERENCE, answers=(Answer("甲"), Answer("甲"), Answer("丙")))
    with pytest.raises(InputError, match="answers 1 and 2 are equal"):
        pairs(double)
    with pytest.raises(InputError, match="no pair"):
        trl_row(ties[0])
    with pytest.raises(InputError, match="no pair"):
        llama_factory_row(replace(ordered[0], answers=(Answer("甲"), Answer("甲"))))


@pytest.mark.parametrize("shape", [trl_row, llama_factory_row])
def test_trl_and_llama_factory_rows_read_back_the_same(shape, tmp_path: Path) -> None:
    """Read by the importer of public formats, which knows nothing of this module."""
    ordered, _ = pairs(PREFERENCE)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(shape(one), ensure_ascii=False) + "\n" for one in ordered), "utf-8")
    read = list(import_file(path))
    assert all(isinstance(one, Preference) for one in read)
    for one, pair in zip(read, ordered, strict=True):
        assert isinstance(one, Preference)
        best = one.answers[one.ranks.index(1)].text, one.answers[one.ranks.index(2)].text
        assert best == tuple(answer.text for answer in pair.answers)
        assert [m for m in one.prompt if m.role != "system"] == [m for m in pair.prompt if m.role != "system"]


def test_a_folder_of_all_shapes_with_its_manifest(sqlite_store: Store, tmp_path: Path) -> None:
    made = judged_project(sqlite_store)
    manifest = export_project(sqlite_store, made, tmp_path / "out")
    assert manifest["counts"] == {"preferences": 4, "pairs": 24, "ties": 0}
    assert manifest["methods"] == {"unanimous": 2, "arbiter": 1, "majority": 1}
    assert set(manifest["outputs"]) == {
        *("preferences.jsonl", "pairs.jsonl", "ties.jsonl", "trl.jsonl", "llama_factory.json", "dataset_info.json")
    }
    assert len((tmp_path / "out/trl.jsonl").read_text("utf-8").splitlines()) == 24
    with pytest.raises(InputError, match="not empty"):
        export_project(sqlite_store, made, tmp_path / "out")
    with pytest.raises(InputError, match="nothing to export"):
        export_project(sqlite_store, project(sqlite_store, 1), tmp_path / "none")


def rollout(question: int, n: int, text: str, **meta: object) -> Rollout:
    prompt = (Message("user", f"问题{question}"),)
    return Rollout(f"r{question}-{n}", f"q{question}", prompt, Answer(text, "model-1"), source="ward", meta=dict(meta))


def test_rollouts_become_items_and_what_is_left_out_is_counted() -> None:
    counts: Counter[str] = Counter()
    given = [rollout(1, 0, "甲", department="儿科", domain="out"), rollout(1, 1, "乙"), rollout(1, 2, "甲")]
    given += [rollout(2, 0, "同"), rollout(2, 1, "同"), rollout(3, 0, " ")]
    questions = [Question("q1", given[0].prompt, "医生说")]
    (made,) = items_from_rollouts(given, questions, counts)
    assert [answer.text for answer in made.answers] == ["甲", "乙"]
    assert (made.reference, made.field, made.domain, made.meta["source"]) == ("医生说", "儿科", "out", "ward")
    assert counts == {
        "read": 6,
        "answers empty or said twice": 3,
        "questions with fewer than two different answers": 1,
    }


def test_preferences_become_items_or_gold(sqlite_store: Store) -> None:
    (plain,) = items_from_preferences([PREFERENCE])
    (gold,) = items_from_preferences([PREFERENCE], gold=True)
    assert plain.gold is None and gold.gold == (2, 1, 2)
    made = project(sqlite_store, 0, FOUR)
    assert add_items(sqlite_store, made, [gold, gold]) == {"read": 2, "already there": 1, "accepted": 1}
    with pytest.raises(InputError, match="equal or empty"):
        add_items(sqlite_store, made, [replace(plain, external_id="x", answers=(Answer("甲"), Answer("甲")))])
    with pytest.raises(InputError, match="carries no votes"):
        list(judged_preferences([PREFERENCE]))


def test_the_next_round_stands_beside_the_first_with_its_lineage(store: Store) -> None:
    made = project(store, 2, votes=1)
    who = rater(store, "one")
    judge_all(store, who, made)
    lineage = {"model": "run/05-dpo", "manifest": "ab12"}
    fresh = [item(n, ("secret-model-b", "aligned")) for n in range(2)]
    assert add_round(store, made, fresh, lineage) == 2
    assert judge_all(store, who, made) == 2
    first, second = list(export_preferences(store, made, 1)), list(export_preferences(store, made, 2))
    assert [one.id for one in first + second] == ["q0", "q1", "q0.r2", "q1.r2"]
    assert second[0].meta["lineage"] == {**lineage, "round": 2} and "lineage" not in first[0].meta
    again = project(store, 0, votes=1)
    add_judged(store, again, judged_preferences(first + second))
    assert [one.id for one in export_preferences(store, again)] == ["q0", "q1", "q0.r2", "q1.r2"]
    with pytest.raises(InputError, match="no item could be added"):
        add_round(store, made, [], lineage)
