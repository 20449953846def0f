"""Signing in and out: by name and password, by invitation; the language of the pages."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from xinglin.annotate.people import Rater, accept_invitation, authenticate, close_session, open_session, session_rater
from xinglin.annotate.people import set_locale as keep_locale
from xinglin.annotate.store import Refused
from xinglin.annotate.web.asking import BEFORE, COOKIE, LANGUAGE, STATUS, Form, TheStore, page, store_of
from xinglin.annotate.web.guard import Attempts

router = APIRouter()


@router.get("/login")
def login_page(request: Request) -> Response:
    return _entrance(request, "login.html.jinja")


@router.get("/invitation")
def invitation_page(request: Request) -> Response:
    """The token stands behind the # of the link, which no browser sends; the script puts it into the form."""
    return _entrance(request, "invitation.html.jinja")


def _entrance(request: Request, template: str, status: int = 200, problem: str = "") -> Response:
    """A form for somebody who has no session yet; its token hangs on a cookie of its own."""
    before = request.cookies.get(BEFORE)
    if before is None:
        before = secrets.token_urlsafe(24)
        request.cookies[BEFORE] = before
    request.cookies.pop(COOKIE, None)
    answer = page(request, template, status, problem=problem, next=request.query_params.get("next", ""))
    _set_cookie(request, answer, BEFORE, before)
    return answer


@router.post("/login")
def login(request: Request, store: TheStore, form: Form) -> Response:
    return _enter(
        request, "login.html.jinja", lambda: authenticate(store, form.get("name", ""), form.get("password", ""))
    )


@router.post("/invitation")
def invitation(request: Request, store: TheStore, form: Form) -> Response:
    if form.get("password") != form.get("again"):
        return _entrance(request, "invitation.html.jinja", 422, "passwords_differ")
    return _enter(
        request,
        "invitation.html.jinja",
        lambda: accept_invitation(store, form.get("invitation", "").strip(), form.get("password", "")),
    )


def _enter(request: Request, template: str, who: Callable[[], Rater]) -> Response:
    attempts: Attempts = request.app.state.attempts
    address = request.client.host if request.client else ""
    problems = {"throttled": "throttled", "invalid": "bad_password"}
    problems["login"] = "wrong_login" if template.startswith("login") else "wrong_invitation"
    if wait := attempts.wait(address):
        answer = _entrance(request, template, 429, "throttled")
        answer.headers["retry-after"] = str(wait)
        return answer
    try:
        rater = who()
    except Refused as error:
        attempts.fail(address)
        return _entrance(request, template, STATUS[error.code], problems[error.code])
    answer = RedirectResponse(local_path(request.query_params.get("next", "")), 303)
    _set_cookie(request, answer, COOKIE, open_session(store_of(request), rater))
    return answer


def local_path(path: str) -> str:
    """Where to go after signing in: a path of this server, never another one."""
    plain = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if plain and path.isascii() else "/"


def _set_cookie(request: Request, answer: Response, name: str, value: str) -> None:
    secure = request.url.scheme == "https"
    age = 12 * 3600 if name == COOKIE else 365 * 86400 if name == LANGUAGE else None
    answer.set_cookie(name, value, max_age=age, path="/", secure=secure, httponly=True, samesite="strict")


@router.post("/logout")
def logout(request: Request, store: TheStore, form: Form) -> Response:
    close_session(store, request.cookies.get(COOKIE, ""))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, path="/")
    return answer


@router.post("/language")
def language(request: Request, store: TheStore, form: Form) -> Response:
    """Chinese or English, for this browser and for the rater who is signed in."""
    chosen = "en" if form.get("locale") == "en" else "zh"
    rater = session_rater(store, request.cookies.get(COOKIE, ""))
    if rater is not None:
        keep_locale(store, rater.id, chosen)
    answer = RedirectResponse(local_path(form.get("next", "")), 303)
    _set_cookie(request, answer, LANGUAGE, chosen)
    return answer
