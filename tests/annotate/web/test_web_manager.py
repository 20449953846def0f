"""The manager's pages: figures and flags as they are, nothing deleted (59, 60, 62), labels to download."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from ward_of_doctors import judge, judge_all, project
from web_pages import Page

from xinglin.annotate import schema
from xinglin.annotate.people import add_rater, list_raters
from xinglin.annotate.projects import guideline
from xinglin.annotate.queue import next_item
from xinglin.annotate.rubric import Verdict
from xinglin.annotate.store import Store, count_rows
from xinglin.records import Preference, from_json

Browse = Callable[[str], Page]


@pytest.fixture
def made(store: Store) -> int:
    add_rater(store, "boss", "manager")
    return project(store, 12, order="file")


def text_of(page: Page, path: str) -> str:
    found = page.client.get(path)
    assert found.status_code == 200, path
    return re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", found.text))


def test_a_hasty_one_sided_rater_is_flagged_and_kept(store: Store, browse: Browse, made: int) -> None:
    hasty, _ = add_rater(store, "hasty")
    for _ in range(12):
        shown = next_item(store, hasty, made)
        assert shown is not None
        judge(store, hasty, shown, Verdict((1, 2)), [500])
    text = text_of(browse("boss"), f"/p/{made}/manage")
    assert "总选一边" in text and "过快" in text and "100% (12; 76–100%)" in text
    with store.read() as connection:
        assert count_rows(connection, schema.votes) == 12


def test_one_rater_alone_has_no_agreement(store: Store, browse: Browse, made: int) -> None:
    one, _ = add_rater(store, "one")
    judge_all(store, one, made)
    boss = browse("boss")
    assert text_of(boss, f"/p/{made}/manage").count("无法计算") == 4
    page = text_of(boss, f"/p/{made}/agreement")
    assert "无法计算" in page and "1.000" not in page


def test_two_raters_agree_with_figures_and_names(store: Store, browse: Browse, made: int) -> None:
    for name in ("赵医生", "钱医生"):
        judge_all(store, add_rater(store, name)[0], made)
    boss = browse("boss")
    assert "100% (12; 76–100%)" in text_of(boss, f"/p/{made}/manage")
    page = text_of(boss, f"/p/{made}/agreement")
    assert "赵医生 · 钱医生" in page or "钱医生 · 赵医生" in page
    lines = boss.client.get(f"/p/{made}/preferences.jsonl").text.splitlines()
    records = [from_json(line) for line in lines]
    assert len(records) == 12 and all(isinstance(one, Preference) and one.ranks == (1, 2) for one in records)
    assert len(json.loads(lines[0])["meta"]["annotation"]["votes"]) == 2


def test_rules_and_people_change_and_votes_stay(store: Store, browse: Browse, made: int) -> None:
    one, _ = add_rater(store, "one")
    judge_all(store, one, made, limit=3)
    boss, doctor = browse("boss"), browse("one")
    fields = {"csrf": boss.token, "text": "第二版\r\n安全第一", "requeue": "yes"}
    assert boss.client.post(f"/p/{made}/guideline", data=fields).status_code == 303
    assert guideline(store, made) == (2, "第二版\n安全第一")
    assert doctor.lease(made)
    path = f"/p/{made}/raters/{one.id}"
    assert boss.client.post(path, data={"csrf": boss.token, "do": "remove"}).status_code == 303
    assert doctor.client.get(f"/p/{made}").status_code == 303, "signed out"
    assert [rater.active for rater in list_raters(store)] == [True, False]
    with store.read() as connection:
        assert count_rows(connection, schema.votes) == 3
    own = f"/p/{made}/raters/{list_raters(store)[0].id}"
    assert boss.client.post(own, data={"csrf": boss.token, "do": "remove"}).status_code == 422, "not oneself"
    again = boss.client.post(path, data={"csrf": boss.token, "do": "invite"})
    assert again.status_code == 200 and 'data-token="' in again.text


def test_the_store_is_verified_on_demand(store: Store, browse: Browse, made: int) -> None:
    boss = browse("boss")
    assert "记录完好" in text_of(boss, f"/p/{made}/manage?check=true")
    with store.write() as connection:
        connection.execute(schema.guidelines.update().values(text="改过"))
    assert f"guideline {made}/1 is not what the log says" in text_of(boss, f"/p/{made}/manage?check=true")
