"""Synthetic projects, items and raters for the tests of annotation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from xinglin.annotate.people import Rater, add_rater
from xinglin.annotate.projects import Item, Settings, add_items, create_project
from xinglin.annotate.queue import View, next_item
from xinglin.annotate.rubric import Verdict
from xinglin.annotate.store import Store
from xinglin.annotate.votes import Ack, submit
from xinglin.records import Answer, Message

PASSWORD = "correct horse"
MODELS = ("secret-model-a", "secret-model-b")
IDS = itertools.count()


def item(number: int, sources: Sequence[str] = MODELS, **more: object) -> Item:
    """`好`, `中`, ... say which answer is which, so that a test can judge by content whatever the sides."""
    names = "好中差坏"
    answers = tuple(Answer(f"{names[i]}：第{number}题的回答", source) for i, source in enumerate(sources))
    return Item(f"q{number}", (Message("user", f"问题{number}：发热三天怎么办？"),), answers, **more)  # type: ignore[arg-type]


def project(store: Store, count: int = 10, sources: Sequence[str] = MODELS, **settings: object) -> int:
    """A project of `count` items, without repeats and gold unless asked."""
    chosen = {"form": "pair" if len(sources) == 2 else "rank", "repeat_share": 0.0, "gold_share": 0.0} | settings
    made = create_project(store, f"project {next(IDS)}", "安全第一", Settings(**chosen))  # type: ignore[arg-type]
    if count:
        add_items(store, made, [item(n, sources) for n in range(count)])
    return made


def rater(store: Store, name: str, role: str = "annotator", **more: str) -> Rater:
    return add_rater(store, name, role, password=PASSWORD, **more)[0]  # type: ignore[arg-type]


def client_id() -> str:
    return f"client-{next(IDS):08d}"


def by_content(shown: View, order: str = "好中差坏") -> Verdict:
    """Ranks the answers in the order of their first characters."""
    present = [one for one in order if one in {answer[0] for answer in shown.answers}]
    return Verdict(tuple(present.index(answer[0]) + 1 for answer in shown.answers))


def judge(store: Store, who: Rater, shown: View, verdict: Verdict | None = None, events: Sequence[int] = ()) -> Ack:
    return submit(store, who, shown.lease, client_id(), verdict or by_content(shown), events)


def judge_all(
    store: Store, who: Rater, project_id: int, choose: Callable[[View], Verdict] = by_content, limit: int = 10_000
) -> int:
    """Judge until nothing is left, or `limit`; how many."""
    for done in range(limit):
        shown = next_item(store, who, project_id)
        if shown is None:
            return done
        judge(store, who, shown, choose(shown), [3000, 9000])
    return limit
