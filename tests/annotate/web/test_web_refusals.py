"""What an annotator's browser may send, and what comes back: hostile inputs 55 to 62, A2, A9. In one process."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from sqlalchemy import select
from ward_of_doctors import MODELS, PASSWORD, client_id, item, project, rater
from web_pages import LEASE, TOKEN, Page, ballot, session

from xinglin.annotate import schema
from xinglin.annotate.people import add_rater, remove_rater
from xinglin.annotate.projects import add_items, edit_item, revise_guideline
from xinglin.annotate.store import Store, count_rows
from xinglin.annotate.web import entrance, judging, manager
from xinglin.annotate.web.app import build_app
from xinglin.records import Answer

Browse = Callable[[str], Page]


def num_votes(store: Store) -> int:
    with store.read() as connection:
        return count_rows(connection, schema.votes)


def refusals(store: Store) -> list[str]:
    with store.read() as connection:
        chosen = select(schema.log.c.body).where(schema.log.c.kind == "refused").order_by(schema.log.c.seq)
        return [json.loads(body)["why"] for body in connection.scalars(chosen)]


@pytest.fixture
def made(store: Store) -> int:
    for name, role in (("one", "annotator"), ("two", "annotator"), ("chief", "expert"), ("boss", "manager")):
        add_rater(store, name, role)
    return project(store, 6, order="file")


# --- 55, 56: the same vote again -------------------------------------------------------------------------------------


def test_a_vote_sent_twice_counts_once(store: Store, browse: Browse, made: int) -> None:
    page = browse("one")
    body = ballot(page.lease(made) or "")
    first, again = page.post("/api/vote", body), page.post("/api/vote", body)
    assert first.json() == {"saved": True, "duplicate": False, "note": ""}
    assert again.json() == {"saved": True, "duplicate": True, "note": ""}
    assert num_votes(store) == 1


def test_two_tabs_and_the_back_button(store: Store, browse: Browse, made: int) -> None:
    page = browse("one")
    lease = page.lease(made) or ""
    assert page.lease(made) == lease, "a second tab shows the same item"
    assert page.vote(lease, (1, 2)).status_code == 200
    late = page.vote(lease, (2, 1))
    assert (late.status_code, late.json()["error"]) == (409, "done")
    assert "没有重复计票" in late.json()["message"]
    assert num_votes(store) == 1


def test_a_client_id_for_another_vote_is_refused(browse: Browse, made: int) -> None:
    page, key = browse("one"), client_id()
    assert page.vote(page.lease(made) or "", key=key).status_code == 200
    other = page.vote(page.lease(made) or "", key=key)
    assert (other.status_code, other.json()["error"]) == (409, "replayed")


# --- 58: what is another's -------------------------------------------------------------------------------------------


def test_another_raters_item_is_403_and_logged(store: Store, browse: Browse, made: int) -> None:
    one, two = browse("one"), browse("two")
    lease = one.lease(made) or ""
    assert one.client.get(f"/item/{lease}").status_code == 200
    assert two.client.get(f"/item/{lease}").status_code == 403
    assert two.vote(lease).status_code == 403
    assert two.post("/api/renew", {"lease": lease}).status_code == 403
    assert two.post("/api/skip", {"lease": lease, "client_id": client_id(), "comment": ""}).status_code == 403
    assert refusals(store) == ["foreign"] * 4
    assert num_votes(store) == 0


@pytest.mark.parametrize("lease", ["' OR 1=1 --", "x" * 5000, "../../etc/passwd", "abc\0def", "ééé", "1"])
def test_an_item_that_is_none_is_403_or_404(browse: Browse, made: int, lease: str) -> None:
    page = browse("one")
    assert page.vote(lease).status_code == 403
    if "\0" not in lease:
        assert page.client.get(f"/item/{lease}").status_code in (403, 404)


@pytest.mark.parametrize(
    ("who", "path"),
    [
        ("one", "/p/{}/preferences.jsonl"),
        ("one", "/p/{}/manage"),
        ("one", "/p/{}/disputes"),
        ("chief", "/p/{}/manage"),
        ("chief", "/p/{}/agreement"),
        ("chief", "/p/{}/preferences.jsonl"),
        ("boss", "/p/{}"),
        ("boss", "/p/{}/disputes"),
    ],
)
def test_roles(store: Store, browse: Browse, made: int, who: str, path: str) -> None:
    assert browse(who).client.get(path.format(made)).status_code == 403
    assert refusals(store) == ["role"]


@pytest.mark.parametrize("path", ["raters", "raters/1", "guideline"])
def test_only_a_manager_changes_people_and_rules(store: Store, browse: Browse, made: int, path: str) -> None:
    page = browse("chief")
    fields = {"csrf": page.token, "name": "new", "role": "manager", "text": "x", "do": "remove"}
    assert page.client.post(f"/p/{made}/{path}", data=fields).status_code == 403
    assert refusals(store) == ["role"]


# --- forged and broken requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"x-csrf-token": "0" * 64}, {"origin": "http://evil.example"}])
def test_a_forged_request_is_refused(store: Store, browse: Browse, made: int, headers: dict[str, str]) -> None:
    page = browse("one")
    body = ballot(page.lease(made) or "")
    if "origin" in headers:
        headers = {**headers, "x-csrf-token": page.token}
    found = page.client.post("/api/vote", json=body, headers=headers)
    assert (found.status_code, found.json()["error"]) == (403, "csrf")
    assert num_votes(store) == 0 and refusals(store) == ["csrf"]


def test_every_post_wants_the_token(store: Store, browse: Browse, made: int) -> None:
    page = browse("boss")
    posts = [one.path for part in (entrance, judging, manager) for one in part.router.routes if "POST" in one.methods]
    assert len(posts) == 11
    for path in posts:
        path = path.replace("{project_id}", str(made)).replace("{rater_id}", "1")
        assert page.client.post(path, data={"name": "x"}).status_code == 403, path


def test_a_session_that_ended(store: Store, browse: Browse, made: int) -> None:
    page = browse("one")
    body = ballot(page.lease(made) or "")
    with store.write() as connection:
        connection.execute(schema.sessions.delete())
    found = page.post("/api/vote", body)
    assert (found.status_code, found.json()["error"]) == (401, "gone")
    answer = page.client.get(f"/p/{made}")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next=/p/{made}")
    page.resume(session(store, "one"))
    assert page.post("/api/vote", body).json()["saved"], "the same vote, sent after signing in again"


def test_a_removed_rater_is_out(store: Store, browse: Browse, made: int) -> None:
    page = browse("one")
    lease = page.lease(made) or ""
    assert page.vote(lease).status_code == 200
    remove_rater(store, 1)
    assert page.vote(lease).status_code == 401
    assert num_votes(store) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'"text"', 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (b'{"lease": NaN}', 400),
        (b"[" * 200_000, 400),
        (b'{"lease": ' + b"9" * 5000 + b"}", 400),
        (b"{}", 422),
        (b'{"lease": 7, "client_id": "a", "verdict": {}, "events": []}', 422),
        (b"x" * (1 << 20) + b"x", 413),
    ],
)
def test_bodies_that_cannot_be_read(browse: Browse, made: int, body: bytes, status: int) -> None:
    page = browse("one")
    found = page.client.post("/api/vote", content=body, headers={"x-csrf-token": page.token})
    assert found.status_code == status and found.json()["message"]


def test_a_body_in_pieces_is_counted(browse: Browse, made: int) -> None:
    page = browse("one")
    pieces = (b"x" * 65_536 for _ in range(100))
    found = page.client.post("/api/vote", content=pieces, headers={"x-csrf-token": page.token})
    assert found.status_code == 413


@pytest.mark.parametrize(
    "verdict",
    [
        {"ranks": [1]},
        {"ranks": [1, 3]},
        {"ranks": [1, 2, 3]},
        {"ranks": [True, 2]},
        {"ranks": ["1", "2"]},
        {"ranks": [1, 10**30]},
        {"ranks": [1, 2], "winner": "left"},
        {"ranks": [1, 2], "dimensions": {"beauty": [1, 2]}},
        {"ranks": [1, 2], "danger": [[0, 5, 5]]},
        {"ranks": [1, 2], "danger": [[0, 0, 10**9]]},
        {"ranks": [1, 2], "danger": [[7, 0, 1]]},
        {"ranks": [1, 2], "danger": [[0, 0, 1]] * 201},
        {"ranks": [1, 2], "rewrites": {"9": "x"}},
        {"ranks": [1, 2], "rewrites": {"__proto__": "x"}},
        {"ranks": [1, 2], "comment": "x" * 10_001},
        {"ranks": [1, 2], "comment": "a\0b"},
        {"ranks": [1, 2], "comment": "\ud800"},
    ],
)
def test_verdicts_that_do_not_fit_are_422(store: Store, browse: Browse, made: int, verdict: dict[str, object]) -> None:
    page = browse("one")
    body = {**ballot(page.lease(made) or ""), "verdict": verdict}
    found = page.client.post("/api/vote", content=json.dumps(body), headers={"x-csrf-token": page.token})
    assert (found.status_code, found.json()["error"]) == (422, "invalid")
    assert found.json()["detail"] and num_votes(store) == 0


@pytest.mark.parametrize("events", [[-1], [1.5], ["1"], [0] * 20_001])
def test_events_that_are_none(browse: Browse, made: int, events: list[object]) -> None:
    page = browse("one")
    found = page.post("/api/vote", {**ballot(page.lease(made) or ""), "events": events})
    assert found.status_code == 422


@pytest.mark.parametrize(
    "path", ["/p/0", "/p/99", "/p/99999999999999999999", "/p/abc", "/static/app.py", "/static/..%2fapp.py", "/docs"]
)
def test_addresses_that_are_none(browse: Browse, made: int, path: str) -> None:
    assert browse("one").client.get(path).status_code == 404


def test_hosts(store: Store) -> None:
    from starlette.testclient import TestClient

    app = build_app(store, hosts=["localhost"])
    assert TestClient(app, base_url="http://localhost").get("/login").status_code == 200
    assert TestClient(app, base_url="http://evil.example").get("/login").status_code == 400


# --- signing in ------------------------------------------------------------------------------------------------------


def test_login_is_throttled_and_says_nothing(store: Store, browse: Browse) -> None:
    rater(store, "one")
    page = browse("")
    token = TOKEN.search(page.client.get("/login").text)[1]  # type: ignore[index]
    tries = [("one", 6, [401] * 5 + [429]), ("nobody", 3, [401] * 3), ("' OR 1=1 --", 1, [401]), ("\0", 1, [401])]
    shown = set()
    for name, times, wanted in tries:
        found = [
            page.client.post("/login", data={"csrf": token, "name": name, "password": "wrong"}) for _ in range(times)
        ]
        assert [one.status_code for one in found] == wanted
        shown |= {re.sub("[0-9a-f]{64}", "", one.text) for one in found if one.status_code == 401}
    assert len(shown) == 1, "a name that is there looks like one that is not"


def test_an_address_is_throttled_whatever_the_names(browse: Browse) -> None:
    page = browse("")
    page.client.app.state.attempts.most = 4  # type: ignore[attr-defined]
    token = TOKEN.search(page.client.get("/login").text)[1]  # type: ignore[index]
    found = [
        page.client.post("/login", data={"csrf": token, "name": f"n{n}", "password": "wrong"}).status_code
        for n in range(6)
    ]
    assert found == [401] * 4 + [429] * 2


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_signing_in_never_leads_elsewhere(store: Store, browse: Browse, to: str) -> None:
    rater(store, "one")
    page = browse("")
    token = TOKEN.search(page.client.get("/login").text)[1]  # type: ignore[index]
    fields = {"csrf": token, "name": "one", "password": PASSWORD}
    found = page.client.post("/login", params={"next": to}, data=fields)
    assert (found.status_code, found.headers["location"]) == (303, "/")


def test_cookies_and_headers(store: Store, browse: Browse) -> None:
    rater(store, "one")
    page = browse("")
    token = TOKEN.search(page.client.get("/login").text)[1]  # type: ignore[index]
    found = page.client.post("/login", data={"csrf": token, "name": "one", "password": PASSWORD})
    cookie = found.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "xinglin_session" in cookie
    for answer in (found, page.client.get("/login"), page.client.get("/nowhere"), page.client.post("/api/vote")):
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_an_invitation_works_once(store: Store, browse: Browse, made: int) -> None:
    boss = browse("boss")
    fields = {"csrf": boss.token, "name": "new", "role": "annotator", "field": "心内科"}
    shown = boss.client.post(f"/p/{made}/raters", data=fields)
    invitation = re.search(r'data-token="([\w-]+)"', shown.text)[1]  # type: ignore[index]
    assert invitation not in boss.client.get(f"/p/{made}/manage").text
    page = browse("")
    token = TOKEN.search(page.client.get("/invitation").text)[1]  # type: ignore[index]
    fields = {"csrf": token, "invitation": invitation, "password": "a long password", "again": "another one"}
    assert page.client.post("/invitation", data=fields).status_code == 422
    assert page.client.post("/invitation", data={**fields, "again": "a long password"}).status_code == 303
    assert page.lease(made)
    assert browse("").client.get("/login").status_code == 200
    again = browse("")
    token = TOKEN.search(again.client.get("/invitation").text)[1]  # type: ignore[index]
    fields = {**fields, "csrf": token, "again": "a long password"}
    assert again.client.post("/invitation", data=fields).status_code == 401


# --- A2: who wrote an answer stands nowhere --------------------------------------------------------------------------


def test_no_models_name_on_any_page(store: Store, browse: Browse, made: int) -> None:
    def checked(found: object) -> None:
        text = f"{found.url} {found.headers} {found.text}"  # type: ignore[attr-defined]
        assert not any(name in text for name in (*MODELS, "secret", "temperature-7"))
        assert "reward-" not in text and "q0" not in text, "neither a scorer nor an item's own id"

    for name, ranks in (("one", (1, 2)), ("two", (2, 1)), ("one", (1, 2)), ("two", (1, 2))):
        page = browse(name)
        shown = page.client.get(f"/p/{made}")
        checked(shown)
        lease = LEASE.search(shown.text)[1]  # type: ignore[index]
        checked(page.vote(lease, ranks, danger=[[0, 0, 2]], comment="意见"))
        for path in (
            f"/item/{lease}",
            f"/p/{made}/history",
            f"/p/{made}/guideline",
            "/",
            "/static/page.js",
            "/api/token",
        ):
            checked(page.client.get(path))
    checked(browse("two").post("/api/undo", {"project": made, "client_id": client_id()}))
    chief = browse("chief")
    checked(chief.client.get(f"/p/{made}/disputes"))
    checked(browse("boss").client.get(f"/p/{made}/manage"))


# --- 60: the item or the rules change --------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["edit", "guideline"])
def test_a_vote_for_what_has_changed_is_kept_with_its_version(
    store: Store, browse: Browse, made: int, change: str
) -> None:
    page = browse("one")
    lease = page.lease(made) or ""
    if change == "edit":
        edit_item(store, 1, answers=(Answer("新的甲", "a"), Answer("新的乙", "b")))
    else:
        revise_guideline(store, made, "第二版")
    found = page.vote(lease)
    assert found.json() == {"saved": True, "duplicate": False, "note": "outdated"}
    assert page.lease(made) != lease


# --- 57: texts -------------------------------------------------------------------------------------------------------


HOSTILE = [
    "<script>document.title='x'</script><img src=x onerror=alert(1)>",
    "</div></article></textarea><textarea autofocus onfocus=alert(1)>",
    "{{ 7 * 7 }} {% include '/etc/passwd' %} ${7*7}",
    "'\"><svg/onload=alert(1)> javascript:alert(1) <style>*{display:none}</style>",
    "$" + "\\frac{1}{" * 5000 + "}" * 5000 + "$",
    "x" * 200_000,
    "\u202e" * 50_000 + "药" + "\u0301" * 50_000,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_are_inert_in_every_place(store: Store, browse: Browse, made: int, text: str) -> None:
    hostile = project(store, 0, order="file")
    add_items(store, hostile, [item(0, ("a", "b"), reference=text, context=text)])
    add_items(store, hostile, [item(1, ("a", "b"))])
    with store.write() as connection:  # add_items would refuse none of these; the answer itself is hostile too
        connection.execute(schema.answers.update().where(schema.answers.c.item_id == 7).values(text=text))
    page = browse("one")
    shown = page.client.get(f"/p/{hostile}")
    assert shown.status_code == 200 and len(shown.content) < 4 << 20
    tags = set(re.findall(r"<(\w+)", shown.text))
    assert not tags & {"img", "svg", "style", "iframe", "object"}
    assert shown.text.count("<script") == 1 and not re.search(r"<[^>]*\son\w+=", shown.text)
    assert ("{{ 7 * 7 }}" in shown.text) == ("{{" in text), "a template inside a text is text"
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", shown.text)
    if len(text) > 2000:
        assert "folded" in shown.text
