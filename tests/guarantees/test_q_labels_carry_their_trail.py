"""Guarantee q: a human label tells who judged, when, under which guideline, how far they agreed, who arbitrated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from xinglin.annotate.audit import verify
from xinglin.annotate.exchange import export_preferences
from xinglin.annotate.labels import next_dispute
from xinglin.annotate.people import add_rater
from xinglin.annotate.projects import Item, Settings, add_items, create_project
from xinglin.annotate.queue import next_item
from xinglin.annotate.rubric import Verdict
from xinglin.annotate.store import open_store
from xinglin.annotate.votes import submit
from xinglin.records import Answer, InputError, Message


def test_a_label_tells_how_it_came_about(tmp_path: Path) -> None:
    """Two raters disagree; an arbitration needs a reason; the exported label names all of it, and no person."""
    store = open_store(tmp_path / "annotate.db")
    project = create_project(
        store, "发热", "安全第一", Settings(form="pair", repeat_share=0.0, gold_share=0.0, votes=2)
    )
    answers = (Answer("甲：立即就医", "secret-model-a"), Answer("乙：不用管", "secret-model-b"))
    add_items(store, project, [Item("q0", (Message("user", "孩子发热抽搐怎么办？"),), answers)])
    for number, (name, prefers) in enumerate([("王医生", "甲"), ("李医生", "乙")]):
        rater = add_rater(store, name, "annotator", password="correct horse")[0]
        shown = next_item(store, rater, project)
        assert shown is not None
        ranks = tuple(1 if text.startswith(prefers) else 2 for text in shown.answers)
        submit(store, rater, shown.lease, f"client-{number:08d}", Verdict(ranks), [3000, 9000])
    chief = add_rater(store, "赵主任", "expert", password="correct horse")[0]
    dispute = next_dispute(store, chief, project)
    assert dispute is not None
    verdict = Verdict(tuple(1 if text.startswith("甲") else 2 for text in dispute.answers))
    with pytest.raises(InputError):
        submit(store, chief, dispute.lease, "client-00000008", verdict, [3000])  # no reason is given
    submit(store, chief, dispute.lease, "client-00000009", replace(verdict, comment="抽搐须就医"), [3000])

    (label,) = export_preferences(store, project)
    trail = label.meta["annotation"]
    assert label.answers[label.ranks.index(1)].source == "secret-model-a"
    assert label.meta["label_source"] == "human" and trail["method"] == "arbiter" and trail["reason"] == "抽搐须就医"
    assert trail["agreement"] == 0.0
    assert [vote["kind"] for vote in trail["votes"]] == ["vote", "vote", "arbitration"]
    assert len({vote["rater"] for vote in trail["votes"]}) == 3
    assert all(vote["guideline_version"] == 1 and vote["shown_at"] <= vote["submitted_at"] for vote in trail["votes"])
    assert not any(name in repr(label) for name in ("王医生", "李医生", "赵主任"))
    assert verify(store).problems == ()
