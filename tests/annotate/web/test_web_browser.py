"""Through the real page, in headless Chromium: keys, arbitration, a lost server, hostile texts (A1, A6, A9)."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys
from sqlalchemy import select
from ward_of_doctors import item, judge_all, project
from web_pages import Browser, Server, session

from xinglin.annotate import schema
from xinglin.annotate.audit import verify
from xinglin.annotate.exchange import export_project
from xinglin.annotate.people import add_rater
from xinglin.annotate.projects import Item, add_items
from xinglin.annotate.store import Store
from xinglin.records import Answer, Preference, read_records

DANGEROUS = "👍请吃\u202e阿司匹林30g\r\n每日三次。喝酒不影响。"


def votes(store: Store, status: str = "cast") -> list[dict[str, Any]]:
    """The bodies of the votes, in the answers' own order, the oldest first."""
    with store.read() as connection:
        chosen = select(schema.votes).where(schema.votes.c.status == status).order_by(schema.votes.c.id)
        return [{**json.loads(row["body"]), **row} for row in connection.execute(chosen).mappings()]


def _with(number: int, answers: tuple[Answer, ...]) -> Item:
    return replace(item(number), answers=answers)


def send(browser: Browser, *keys: str) -> None:
    before = browser.lease
    browser.press(*keys, Keys.ENTER)
    browser.judged(before)


def good_first(browser: Browser) -> bool:
    return browser.text("article[data-i='0'] .answer").startswith("好")


def test_twenty_items_by_keys_alone(store: Store, server: Server, browser: Browser) -> None:
    made = project(store, 20)
    add_rater(store, "one")
    browser.open(server, session(store, "one"), f"/p/{made}")
    browser.hosts()
    for number in range(20):
        before = browser.presses
        send(browser, "0" if number == 7 else "1" if good_first(browser) else "2")
        assert browser.presses - before <= 3
    assert "没有需要您评判的题目" in browser.text("h1")
    found = votes(store)
    assert [vote["ranks"] for vote in found].count([1, 2]) == 19 and found[7]["ranks"] == [1, 1]
    assert {json.dumps(vote["sides"]) for vote in found} == {'"[0, 1]"', '"[1, 0]"'}, "both sides were shown"
    assert all(vote["active_ms"] > 0 for vote in found)
    assert browser.hosts() == {server.address.removeprefix("http://")}
    assert verify(store).ok


def test_two_raters_an_expert_and_the_labels(store: Store, server: Server, browser: Browser, tmp_path: Path) -> None:
    made = project(store, 6, order="file")
    for name, role in (("one", "annotator"), ("two", "annotator"), ("chief", "expert")):
        add_rater(store, name, role)
    browser.open(server, session(store, "one"), f"/p/{made}")
    for _ in range(6):
        send(browser, "1" if good_first(browser) else "2")
    browser.open(server, session(store, "two"), f"/p/{made}")
    for number in range(6):
        wrong = number in (2, 4)
        send(browser, "1" if good_first(browser) != wrong else "2")
    browser.open(server, session(store, "chief"), f"/p/{made}/disputes")
    for reason in ("第一题的理由", "第二题的理由"):
        shown = browser.text(".opinions")
        assert "1 > 2" in shown and "2 > 1" in shown and "总体" in browser.text(".conflict")
        assert not any(name in browser.driver.page_source for name in ("one", "two") if f">{name}<" in shown)
        before = browser.lease
        browser.press("1" if good_first(browser) else "2", Keys.ENTER)
        assert browser.lease == before and browser.text("#status") == "请写仲裁理由"
        browser.type(reason)
        browser.press(Keys.ESCAPE, Keys.ENTER)
        browser.judged(before)
    assert "没有需要仲裁的题目" in browser.text("h1")
    export_project(store, made, tmp_path / "labels")
    records = list(read_records(tmp_path / "labels/preferences.jsonl", Preference))
    assert [record.ranks for record in records] == [(1, 2)] * 6
    methods = [record.meta["annotation"]["method"] for record in records]
    assert methods == ["unanimous", "unanimous", "arbiter", "unanimous", "arbiter", "unanimous"]
    assert records[2].meta["annotation"]["reason"] == "第一题的理由"
    assert len(list(read_records(tmp_path / "labels/pairs.jsonl", Preference))) == 6


def test_ranking_with_ties_dimensions_and_the_last_by_itself(store: Store, server: Server, browser: Browser) -> None:
    made = project(store, 2, ("a", "b", "c", "d"), order="file")
    add_rater(store, "one")
    browser.open(server, session(store, "one"), f"/p/{made}")
    shown = [one.text[0] for one in browser.driver.find_elements("css selector", ".answer")]
    at = {letter: str(shown.index(letter) + 1) for letter in "好中差坏"}
    browser.press(at["好"], at["中"], "=", at["差"])
    browser.press("d", at["坏"], Keys.BACKSPACE, at["好"], at["差"], at["中"])
    send(browser)
    body = votes(store)[0]
    assert body["ranks"] == [1, 2, 2, 3]
    assert body["dimensions"] == {"safety": [1, 3, 2, 4]}
    browser.press("1", "2", Keys.ENTER)
    assert "还没排" in browser.text("#status") and len(votes(store)) == 1


def test_scores_by_digits(store: Store, server: Server, browser: Browser) -> None:
    made = project(store, 2, form="scores", order="file")
    add_rater(store, "one")
    browser.open(server, session(store, "one"), f"/p/{made}")
    good, poor = ("5", "2") if good_first(browser) else ("2", "5")
    browser.press(*[good, poor] * 8, good, Keys.ENTER)
    assert "还没打分：亲和" in browser.text("#status") and not votes(store)
    send(browser, poor)
    assert votes(store)[0]["scores"]["accuracy"] == [5, 2] and votes(store)[0]["ranks"] == [1, 2]


def test_danger_rewrite_comment_undo_and_skip(store: Store, server: Server, browser: Browser) -> None:
    made = project(store, 0, form="pair", order="file")
    for number in range(3):
        answers = (Answer("先查血常规，多喝水。", "a"), Answer(DANGEROUS, "b"))
        add_items(store, made, [_with(number, answers)])
    add_rater(store, "one")
    browser.open(server, session(store, "one"), f"/p/{made}")
    bad = browser.script(
        "return Array.from(document.querySelectorAll('.answer')).findIndex(e => e.textContent.includes('喝酒'))"
    )
    browser.script(
        "const text = Array.from(document.querySelectorAll('.answer')[arguments[0]].childNodes)"
        ".find(node => node.data && node.data.includes('喝酒'));"
        "const at = text.data.indexOf('喝酒');"
        "getSelection().setBaseAndExtent(text, at, text, at + 6)",
        bad,
    )
    browser.press("x")
    assert browser.text("mark") == "喝酒不影响。" and "共 1 处" in browser.text("#status")
    browser.press("x", str(bad + 1), Keys.ENTER, Keys.ESCAPE)  # the first sentence, chosen by keys
    browser.press("r", str(bad + 1))
    browser.script("document.activeElement.select()")
    browser.type("改写：请勿饮酒。")
    browser.press(Keys.ESCAPE, "c")
    browser.type("剂量错十倍 n u 1 2")
    browser.press(Keys.ESCAPE)
    send(browser, "2" if bad == 0 else "1")
    body = votes(store)[0]
    start = DANGEROUS.index("喝酒")
    assert sorted(body["danger"]) == [[1, 0, DANGEROUS.index("\n") + 1], [1, start, start + 6]]
    assert body["rewrites"] == {"1": "改写：请勿饮酒。"} and body["comment"] == "剂量错十倍 n u 1 2"
    first, second = body["lease_id"], browser.lease
    browser.press("u")
    browser.judged(second)
    assert browser.lease == first and len(votes(store, "withdrawn")) == 1
    assert browser.one("[aria-pressed=true][data-do=choose]") and browser.one("#comment textarea").get_attribute(
        "value"
    )
    assert len(browser.driver.find_elements("css selector", "mark")) >= 2
    send(browser)
    again = votes(store)[-1]
    assert {name: again[name] for name in ("ranks", "danger", "rewrites", "comment")} == {
        name: body[name] for name in ("ranks", "danger", "rewrites", "comment")
    }
    before = browser.lease
    browser.press("n", Keys.ESCAPE)
    assert browser.lease == before and not votes(store, "skipped")
    browser.press("n", Keys.ENTER)
    browser.judged(before)
    assert len(votes(store, "skipped")) == 1


def test_help_and_guideline_are_one_key_away(store: Store, server: Server, browser: Browser) -> None:
    made = project(store, 2)
    add_rater(store, "one")
    browser.open(server, session(store, "one"), f"/p/{made}")
    for key, selector in (("g", "#guide"), ("?", "#help")):
        assert not browser.one(selector).is_displayed()
        browser.press(key)
        assert browser.one(selector).is_displayed()
        browser.press("1", Keys.ESCAPE)
        assert not browser.one(selector).is_displayed()
    assert not browser.driver.find_elements("css selector", "[aria-pressed=true][data-do=choose]")


def test_the_server_dies_and_nothing_is_lost(store: Store, server: Server, browser: Browser) -> None:
    made = project(store, 3)
    add_rater(store, "one")
    browser.open(server, session(store, "one"), f"/p/{made}")
    before = browser.lease
    server.kill()
    browser.press("c")
    browser.type("断网时写的意见")
    browser.press(Keys.ESCAPE, "1", Keys.ENTER, Keys.ENTER)
    browser.wait(lambda: "尚未保存" in browser.text("#banner"))
    assert not votes(store)
    server.start()
    browser.judged(before)
    found = votes(store)
    assert [vote["comment"] for vote in found] == ["断网时写的意见"]
    assert not browser.script("return Object.keys(localStorage).filter(name => name.includes('pending')).length")


def test_a_closed_page_sends_later(store: Store, server: Server, browser: Browser) -> None:
    made = project(store, 3)
    add_rater(store, "one")
    browser.open(server, session(store, "one"), f"/p/{made}")
    before = browser.lease
    server.kill()
    browser.press("1", Keys.ENTER)
    browser.wait(lambda: "尚未保存" in browser.text("#banner"))
    server.start()
    browser.script("history.pushState(null, '', '/')")  # whatever page is opened next
    browser.go(f"{server.address}/p/{made}")
    browser.judged(before)
    assert len(votes(store)) == 1


def test_an_ended_session_keeps_the_text(store: Store, server: Server, browser: Browser) -> None:
    made = project(store, 3)
    add_rater(store, "one")
    browser.open(server, session(store, "one"), f"/p/{made}")
    before = browser.lease
    with store.write() as connection:
        connection.execute(schema.sessions.delete())
    browser.press("c")
    browser.type("还在")
    browser.press(Keys.ESCAPE, "2", Keys.ENTER)
    browser.wait(lambda: "登录已过期" in browser.text("#banner"))
    assert not votes(store)
    cookie = {"name": "xinglin_session", "value": session(store, "one"), "httpOnly": True, "sameSite": "Strict"}
    browser.driver.add_cookie(cookie)  # signed in again, in another tab
    browser.judged(before)
    assert [vote["comment"] for vote in votes(store)] == ["还在"]


def test_a_draft_survives_a_reload_and_two_tabs_vote_once(store: Store, server: Server, browser: Browser) -> None:
    made = project(store, 3)
    add_rater(store, "one")
    browser.open(server, session(store, "one"), f"/p/{made}")
    browser.press("c")
    browser.type("写到一半")
    browser.press(Keys.ESCAPE, "1")
    browser.go(f"{server.address}/p/{made}")
    assert browser.one("#comment textarea").get_attribute("value") == "写到一半"
    assert browser.one("[data-do=choose][data-v='1']").get_attribute("aria-pressed") == "true"
    lease, first = browser.lease, browser.driver.current_window_handle
    browser.driver.switch_to.new_window("tab")
    browser.go(f"{server.address}/p/{made}")
    assert browser.lease == lease
    send(browser)
    browser.driver.close()
    browser.driver.switch_to.window(first)
    assert browser.lease == lease
    browser.press("2", Keys.ENTER)
    browser.judged(lease)
    assert browser.text("#status") == "这题已有您的判断，没有重复计票。"
    assert len(votes(store)) == 1


HOSTILE = [
    "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>",
    "</textarea></div><svg onload=\"document.title='pwned'\"><iframe src=//evil.example></iframe>",
    "![x](http://evil.example/x.png) <style>body{display:none}</style> <a href=javascript:alert(1)>x</a>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_do_nothing(store: Store, server: Server, browser: Browser, text: str) -> None:
    made = project(store, 0, form="pair")
    add_items(store, made, [_with(0, (Answer(text, "a"), Answer("好", "b")))])
    add_rater(store, "one")
    browser.open(server, session(store, "one"), f"/p/{made}")
    browser.hosts()
    shown = [one.text for one in browser.driver.find_elements("css selector", ".answer")]
    assert text in shown
    browser.press("x", "1", Keys.ENTER, Keys.ESCAPE, "r", "1", Keys.ESCAPE, "r", "2", Keys.ESCAPE)
    time.sleep(0.2)
    assert browser.driver.title.startswith("杏林") and browser.hosts() <= {server.address.removeprefix("http://")}
    inside = "return document.querySelectorAll('.text img, .text script, .text svg, .text iframe, .text style').length"
    assert browser.script(inside) == 0


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (1024, 768)])
def test_long_answers_keep_the_layout(store: Store, server: Server, browser: Browser, width: int, height: int) -> None:
    made = project(store, 0, form="pair")
    long = "胸痛时应立即就诊。" * 600
    add_items(store, made, [_with(0, (Answer("x" * 100_000, "a"), Answer(long, "b")))])
    add_rater(store, "one")
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.open(server, session(store, "one"), f"/p/{made}")
    assert browser.script("return document.documentElement.scrollWidth <= innerWidth")
    boxes = browser.script(
        "return Array.from(document.querySelectorAll('article[data-i]')).map(e => e.getBoundingClientRect().toJSON())"
    )
    assert boxes[0]["top"] == boxes[1]["top"] and boxes[0]["width"] == pytest.approx(boxes[1]["width"], abs=1)
    assert max(box["height"] for box in boxes) < 800, "folded"
    bar = browser.script("return document.querySelector('#bar').getBoundingClientRect().toJSON()")
    assert bar["bottom"] <= height + 1 and bar["height"] < 200
    scrolling = (
        "return Array.from(document.querySelectorAll('main *')).filter(e => e.tagName !== 'TEXTAREA'"
        " && e.scrollHeight > e.clientHeight + 4 && /auto|scroll/.test(getComputedStyle(e).overflowY)).length"
    )
    assert browser.script(scrolling) == 0, "no box that scrolls by itself"
    small = (
        "return Array.from(document.querySelectorAll('button'))"
        ".filter(e => e.offsetParent && e.offsetHeight < 44).length"
    )
    assert browser.script(small) == 0, "fingers need 44 px"
    browser.press("e")
    assert browser.script("return document.querySelectorAll('.folded').length") == 0
    assert browser.script("return document.querySelector('#bar').getBoundingClientRect().bottom <= innerHeight + 1")
    browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_english_by_a_switch(store: Store, server: Server, browser: Browser) -> None:
    made = project(store, 2)
    one, _ = add_rater(store, "one")
    browser.open(server, session(store, "one"), f"/p/{made}")
    browser.one("button[name=locale]").click()
    browser.wait(lambda: "Send" in browser.text("[data-do=send]"))
    assert browser.script("return document.documentElement.lang") == "en"
    judge_all(store, one, made)
    assert "nothing left" in browser.go(f"{server.address}/p/{made}").text("h1")
