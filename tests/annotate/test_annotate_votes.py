"""A5, A6, A8 and hostile inputs 55-61: one vote whatever a browser sends, nothing overwritten, nothing foreign."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select, text
from ward_of_doctors import by_content, client_id, judge, judge_all, project, rater

from xinglin.annotate import schema
from xinglin.annotate.audit import verify
from xinglin.annotate.labels import next_dispute
from xinglin.annotate.queue import next_item, view
from xinglin.annotate.rubric import SPF, Verdict, verdict_from_json
from xinglin.annotate.store import Refused, Store, Unavailable, open_store
from xinglin.annotate.votes import active_ms, history, skip, submit, undo


def rows(store: Store, table) -> list[dict]:
    with store.read() as connection:
        return [dict(row) for row in connection.execute(select(table)).mappings()]


def refusal(call, *values, **named) -> str:
    with pytest.raises(Refused) as refused:
        call(*values, **named)
    return refused.value.code


def test_a_replay_gives_the_same_acknowledgement_and_one_vote(store: Store) -> None:
    made = project(store, 2)
    who = rater(store, "one")
    shown = next_item(store, who, made)
    assert shown is not None
    first = submit(store, who, shown.lease, "client-000-a", by_content(shown), [100, 900])
    again = submit(store, who, shown.lease, "client-000-a", by_content(shown), [100, 900, 5000])
    assert (first.duplicate, again.duplicate) == (False, True) and first.vote_id == again.vote_id
    assert refusal(submit, store, who, shown.lease, "client-000-a", Verdict((1, 1))) == "replayed"
    assert refusal(submit, store, who, shown.lease, "client-000-b", by_content(shown)) == "done"  # a second tab
    following = next_item(store, who, made)
    assert following is not None
    assert refusal(submit, store, who, following.lease, "client-000-a", by_content(following)) == "replayed"
    assert len(rows(store, schema.votes)) == 1


def test_nobody_reaches_what_another_was_given(store: Store) -> None:
    made = project(store, 2)
    one, two, manager = rater(store, "one"), rater(store, "two"), rater(store, "boss", "manager")
    shown = next_item(store, one, made)
    assert shown is not None
    assert refusal(submit, store, two, shown.lease, client_id(), by_content(shown)) == "foreign"
    assert refusal(view, store, two, shown.lease) == "foreign"
    assert refusal(skip, store, two, "no-such-lease", client_id()) == "foreign"
    for lease in ("nul\0", "\ud800" * 9, "x" * 100_000, "' OR 1=1 --", 7, None):
        assert refusal(view, store, two, lease) == "foreign"
    assert refusal(next_item, store, manager, made) == "role"
    assert refusal(next_dispute, store, one, made) == "role"
    logged = [row for row in rows(store, schema.log) if row["kind"] == "refused"]
    assert [row["actor"] for row in logged] == [two.id] * 9 and logged[2]["subject"] == "no-such-lease"
    assert not rows(store, schema.votes)


@pytest.mark.parametrize(
    "body",
    [
        {"ranks": [1, 2, 3]},
        {"ranks": [0, 1]},
        {"ranks": [1, 3]},
        {"ranks": [True, 2]},
        {"ranks": [1.0, 2]},
        {"ranks": "12"},
        {},
        {"ranks": [1, 2], "scores": {"accuracy": [0, 3]}},
        {"ranks": [1, 2], "scores": {"accuracy": [3]}},
        {"ranks": [1, 2], "scores": {"beauty": [3, 3]}},
        {"ranks": [1, 2], "dimensions": {"speed": [1, 2]}},
        {"ranks": [1, 2], "dimensions": {"safety": [1, 9]}},
        {"ranks": [1, 2], "danger": [[2, 0, 1]]},
        {"ranks": [1, 2], "danger": [[0, 0, 10_000]]},
        {"ranks": [1, 2], "danger": [[0, 3, 3]]},
        {"ranks": [1, 2], "danger": [[0, 1]]},
        {"ranks": [1, 2], "danger": [[0, 0, 1]] * 201},
        {"ranks": [1, 2], "rewrites": {"7": "更好"}},
        {"ranks": [1, 2], "rewrites": {"x": "更好"}},
        {"ranks": [1, 2], "rewrites": {"0": "x" * 100_001}},
        {"ranks": [1, 2], "comment": "x" * 10_001},
        {"ranks": [1, 2], "comment": "nul\0"},
        {"ranks": [1, 2], "comment": "\ud800"},
        {"ranks": [1, 2], "source": "m"},
        [1, 2],
        None,
    ],
)
def test_what_does_not_fit_the_item_is_refused_and_nothing_written(sqlite_store: Store, body: object) -> None:
    made = project(sqlite_store, 1)
    who = rater(sqlite_store, "one")
    shown = next_item(sqlite_store, who, made)
    assert shown is not None

    def send() -> None:
        submit(sqlite_store, who, shown.lease, client_id(), verdict_from_json(body))

    assert refusal(send) == "invalid"
    assert not rows(sqlite_store, schema.votes)


def test_client_ids_and_events_are_checked(sqlite_store: Store) -> None:
    made = project(sqlite_store, 1)
    who = rater(sqlite_store, "one")
    shown = next_item(sqlite_store, who, made)
    assert shown is not None
    for bad in ("short", "x" * 65, "with space here", "'; DROP TABLE votes;--", "", None):
        assert refusal(submit, sqlite_store, who, shown.lease, bad, by_content(shown)) == "invalid"
    for events in ([-1], [1.5], ["2"], [1] * 20_001):
        assert refusal(submit, sqlite_store, who, shown.lease, client_id(), by_content(shown), events) == "invalid"


def test_a_vote_is_kept_in_the_answers_own_order(store: Store) -> None:
    """Two raters see the sides turned round and mark the same answer: the same is stored."""
    made = project(store, 1)
    for name in ("one", "two"):
        who = rater(store, name)
        shown = next_item(store, who, made)
        assert shown is not None
        bad = next(i for i, answer in enumerate(shown.answers) if answer.startswith("中"))
        ranks = by_content(shown).ranks
        body = {"ranks": list(ranks), "danger": [[bad, 0, 1]], "rewrites": {str(bad): "请立即就诊"}, "comment": "险"}
        judge(store, who, shown, verdict_from_json(body))
    bodies = [json.loads(row["body"]) for row in rows(store, schema.votes)]
    assert [row["sides"] for row in rows(store, schema.votes)] in (["[0, 1]", "[1, 0]"], ["[1, 0]", "[0, 1]"])
    assert bodies[0] == bodies[1]
    assert bodies[0]["ranks"] == [1, 2] and bodies[0]["danger"] == [[1, 0, 1]]
    assert bodies[0]["rewrites"] == {"1": "请立即就诊"}


def test_scores_give_the_lexicographic_order(store: Store) -> None:
    made = project(store, 1, form="scores", margin=0.5)
    who = rater(store, "one")
    shown = next_item(store, who, made)
    assert shown is not None
    good = [5 if answer.startswith("好") else 2 for answer in shown.answers]
    poor = [7 - value for value in good]
    dims = dict(zip(SPF.names, (SPF.abilities[:3], SPF.abilities[3:6], SPF.abilities[6:]), strict=True))
    scores = {one: good if name == "safety" else poor for name, members in dims.items() for one in members}
    assert refusal(submit, store, who, shown.lease, client_id(), Verdict(scores={"accuracy": (1, 1)})) == "invalid"
    judge(store, who, shown, verdict_from_json({"scores": scores}))
    body = json.loads(rows(store, schema.votes)[0]["body"])
    assert body["ranks"] == [1, 2]  # safety decides against the other two
    assert body["dimensions"] == {"safety": [1, 2], "professionalism": [2, 1], "fluency": [2, 1]}


def test_undo_brings_the_item_back_with_the_same_sides(store: Store) -> None:
    made = project(store, 3)
    who = rater(store, "one")
    first = next_item(store, who, made)
    assert first is not None
    judge(store, who, first)
    following = next_item(store, who, made)
    again = undo(store, who, made, "undo-00001")
    assert (again.lease, again.answers) == (first.lease, first.answers)
    assert again.previous == by_content(first)
    assert undo(store, who, made, "undo-00001") == again  # sent twice, done once
    assert refusal(undo, store, who, made, "undo-00002") == "nothing"
    judge(store, who, again, Verdict((1, 1)))
    assert following == next_item(store, who, made)
    kept = rows(store, schema.votes)
    assert [row["status"] for row in kept] == ["cast", "withdrawn", "cast"]
    assert [row["supersedes"] for row in kept] == [None, kept[0]["id"], kept[1]["id"]]
    assert json.loads(kept[0]["body"])["ranks"] == [1, 2]  # never overwritten
    assert [done.status for done in history(store, who, made)] == ["cast", "withdrawn", "cast"]
    assert verify(store).ok


def test_not_my_field_frees_the_place_and_does_not_come_back(store: Store) -> None:
    made = project(store, 1, votes=1)
    one, two = rater(store, "one"), rater(store, "two")
    shown = next_item(store, one, made)
    assert shown is not None
    skip(store, one, shown.lease, "skip-00001", "我是皮肤科")
    assert skip(store, one, shown.lease, "skip-00001", "我是皮肤科").duplicate
    assert next_item(store, one, made) is None
    back = undo(store, one, made, "undo-00001")
    assert back.lease == shown.lease and back.previous is None
    skip(store, one, back.lease, "skip-00002")
    assert judge_all(store, two, made) == 1
    assert refusal(undo, store, one, made, "undo-00002") == "expired"  # the place was given away
    assert verify(store).ok


def test_a_vote_an_expert_has_taken_up_stands(store: Store) -> None:
    made = project(store, 1)
    one, two, expert = rater(store, "one"), rater(store, "two"), rater(store, "chief", "expert")
    judge_all(store, one, made)
    judge_all(store, two, made, lambda shown: by_content(shown, "中好"))
    undo(store, two, made, "undo-00001")
    assert next_dispute(store, expert, made) is None  # open again
    judge_all(store, two, made, lambda shown: by_content(shown, "中好"))
    assert next_dispute(store, expert, made) is not None
    assert refusal(undo, store, two, made, "undo-00002") == "nothing"


@pytest.mark.parametrize(
    ("events", "expected"),
    [([], 0), ([1000], 1000), ([30_000, 70_000], 70_000), ([10_000, 600_000], 70_000), ([600_000, 1000], 61_000)],
)
def test_idle_time_beyond_a_minute_is_cut_out(events: list[int], expected: int) -> None:
    assert active_ms(events) == expected


def test_active_time_is_never_longer_than_the_item_was_open(store: Store, clock) -> None:
    made = project(store, 1)
    who = rater(store, "one")
    shown = next_item(store, who, made)
    assert shown is not None
    clock.now += 5_000
    judge(store, who, shown, events=[20_000, 40_000])
    assert 5_000 <= rows(store, schema.votes)[0]["active_ms"] < 5_100


def test_a_locked_database_says_not_saved(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("xinglin.annotate.store.BUSY_MS", 50)
    store = open_store(tmp_path / "store.db")
    made = project(store, 1)
    who = rater(store, "one")
    shown = next_item(store, who, made)
    assert shown is not None
    with store.write() as _, pytest.raises(Unavailable, match="locked"):
        judge(store, who, shown)
    assert not rows(store, schema.votes)
    judge(store, who, shown)
    assert len(rows(store, schema.votes)) == 1


def test_a_full_disk_says_not_saved_and_keeps_what_was_there(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    made = project(store, 3)
    who = rater(store, "one")
    judge_all(store, who, made, limit=1)
    shown = next_item(store, who, made)
    assert shown is not None
    store.engine.dispose()
    with store.engine.connect() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar()
        connection.execute(text(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(Unavailable, match="full"):
        for _ in range(400):
            with store.write() as connection:
                values = {"token": client_id() * 20, "rater_id": who.id, "expires_at": 0}
                connection.execute(schema.sessions.insert().values(**values))
    assert verify(store).ok and len(rows(store, schema.votes)) == 1


CLIENT = """
import sys
sys.path[:0] = {paths!r}
from ward_of_doctors import by_content
from xinglin.annotate.people import list_raters
from xinglin.annotate.queue import next_item
from xinglin.annotate.store import Unavailable, open_store
from xinglin.annotate.votes import submit

def patiently(call, *values):
    while True:
        try:
            return call(*values)
        except Unavailable:  # not saved yet: a page sends it again
            continue

store = open_store({where!r})
who = next(one for one in list_raters(store) if one.name == sys.argv[1])
while (shown := patiently(next_item, store, who, {project})) is not None:
    name = f"client-{{shown.lease}}"
    for _ in range(2):  # every vote is sent twice, as a browser does that lost the answer
        ack = patiently(submit, store, who, shown.lease, name, by_content(shown), [2500])
        print(name, ack.vote_id, flush=True)
"""


def kill_clients(where: str, made: int, names: list[str], kills: int, seconds: float) -> list[str]:
    """Run clients that vote without end and SIGKILL each again and again; the lines they acknowledged."""
    code = CLIENT.format(paths=[str(Path(__file__).parent)], where=where, project=made)
    lines: list[str] = []
    for round_ in range(kills):
        running = [
            subprocess.Popen([sys.executable, "-c", code, name], stdout=subprocess.PIPE, text=True) for name in names
        ]
        for one in running:
            assert one.stdout is not None
            first = one.stdout.readline()  # it is at work
            lines.append(first)
        time.sleep(seconds * (1 + round_ % 5) / 5)
        for one in running:
            os.kill(one.pid, signal.SIGKILL)
            out, _ = one.communicate()
            lines += [line for line in out.splitlines(keepends=True) if line.endswith("\n")]
    return [line.strip() for line in lines if line.strip()]


def check_acknowledged(store: Store, lines: list[str]) -> None:
    kept = {row["client_id"]: row["id"] for row in rows(store, schema.votes)}
    acknowledged = {line.split()[0]: int(line.split()[1]) for line in lines}
    assert len(acknowledged) > 20
    assert {name: kept.get(name) for name in acknowledged} == acknowledged
    per_item = Counter((row["item_id"], row["rater_id"]) for row in rows(store, schema.votes) if row["kind"] == "vote")
    assert max(per_item.values()) == 1
    assert verify(store).problems == ()


def test_twenty_kills_lose_and_double_no_acknowledged_vote(sqlite_store: Store) -> None:
    made = project(sqlite_store, 400)
    rater(sqlite_store, "one")
    lines = kill_clients(str(sqlite_store.engine.url.database), made, ["one"], 20, 0.3)
    check_acknowledged(sqlite_store, lines)


@pytest.mark.slow
def test_twenty_clients_killed_five_times_each_lose_nothing(store: Store) -> None:
    """100 kills in all, on both databases."""
    made = project(store, 2000)
    names = [f"r{n}" for n in range(20)]
    for name in names:
        rater(store, name)
    url = store.engine.url
    where = str(url.database) if url.drivername == "sqlite" else url.render_as_string(hide_password=False)
    check_acknowledged(store, kill_clients(where, made, names, 5, 2.0))
