"""Who asks, with what, and how he is answered: sessions, tokens against forged requests, bodies, refusals.

Every refusal of the store has a status here and a sentence in `words`; a script gets it as JSON, a reader as a page.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote

from fastapi import Depends, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException

from xinglin.annotate.people import Rater, session_rater
from xinglin.annotate.store import Refused, Store, Unavailable, append_log
from xinglin.annotate.web.render import render
from xinglin.annotate.web.words import word
from xinglin.records import DECODER, InputError

COOKIE, BEFORE, LANGUAGE = "xinglin_session", "xinglin_before", "xinglin_language"
STATUS = {
    **{"invalid": 422, "foreign": 403, "role": 403, "replayed": 409, "done": 409, "expired": 409, "nothing": 409},
    **{"login": 401, "throttled": 429, "csrf": 403, "gone": 401, "json": 400, "size": 413, "slow": 408},
}
LARGEST_ID = 2**53
logger = logging.getLogger("xinglin.annotate")


class SignedOut(Exception):
    """No session, or one that has ended."""


def store_of(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def signed_in(request: Request) -> Rater:
    """The rater of the session cookie. Raises `SignedOut`."""
    token = request.cookies.get(COOKIE, "")
    rater = session_rater(store_of(request), token) if token else None
    if rater is None:
        raise SignedOut
    request.state.rater = rater
    return rater


TheStore = Annotated[Store, Depends(store_of)]
Who = Annotated[Rater, Depends(signed_in)]
ProjectId = Annotated[int, Path(ge=1, le=LARGEST_ID)]


def locale_of(request: Request) -> str:
    rater = getattr(request.state, "rater", None)
    return rater.locale if rater else "en" if request.cookies.get(LANGUAGE) == "en" else "zh"


def csrf_of(request: Request, *cookies: str) -> str:
    """The token every form of a session carries; it follows from a cookie that no script can read."""
    values = [request.cookies.get(name) for name in cookies or (COOKIE, BEFORE)]
    cookie = next(filter(None, values), "")
    return hashlib.sha256(b"csrf:" + cookie.encode("utf-8", "replace")).hexdigest() if cookie else ""


def check_token(request: Request, token: str, *cookies: str) -> None:
    """Raises `Refused("csrf")` unless the token hangs on one of these cookies and our own page sent the request."""
    origin, sent = request.headers.get("origin"), token.encode("utf-8", "replace")
    same = origin is None or origin.split("://")[-1] == request.headers.get("host")
    wanted = [csrf_of(request, name) for name in cookies if request.cookies.get(name)]
    if not same or not any(hmac.compare_digest(one.encode(), sent) for one in wanted):
        raise Refused("csrf", "the form's token is not this session's; reload the page")


async def form_of(request: Request) -> dict[str, str]:
    """A form's fields, its token checked."""
    try:
        fields = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=50))
    except ValueError:
        raise Refused("invalid", "the form cannot be read; it is UTF-8 with at most 50 fields") from None
    check_token(request, fields.pop("csrf", ""), COOKIE, BEFORE)
    return fields


async def json_of(request: Request, _: Who) -> dict[str, Any]:
    """The JSON object a script sent, its token checked. Raises `Refused` ("json", "csrf")."""
    check_token(request, request.headers.get("x-csrf-token", ""), COOKIE)
    try:
        body = DECODER.decode((await request.body()).decode())
    except json.JSONDecodeError as error:
        raise Refused("json", f"not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError):
        raise Refused("json", "not JSON: no UTF-8, a number that is none, or nested too deep") from None
    if not isinstance(body, dict):
        raise Refused("json", f"the body is {type(body).__name__}; it is an object")
    if request.app.state.problems:
        raise Unavailable("the store did not verify; it is read-only")
    return body


Form = Annotated[dict[str, str], Depends(form_of)]
Body = Annotated[dict[str, Any], Depends(json_of)]


# --- answers ----------------------------------------------------------------------------------------------------------


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page in the language of whoever asks."""
    rater = getattr(request.state, "rater", None)
    frame = {"rater": rater, "csrf": csrf_of(request), "path": request.url.path, "locale": locale_of(request)}
    return HTMLResponse(render(template, {"project": None, "page": "{}", **frame, **values}), status)


def problem(request: Request, status: int, code: str, detail: str = "", wait: int = 0) -> Response:
    """A refusal: JSON for a script, a page for everybody else."""
    locale = locale_of(request)
    headers = {"retry-after": str(wait)} if wait else None
    if request.url.path.startswith("/api/"):
        body = {"error": code, "message": word(f"error_{code}", locale), "detail": detail}
        return JSONResponse(body, status, headers)
    answer = page(request, "error.html.jinja", status, message=word(f"error_{code}", locale))
    answer.headers.update(headers or {})
    return answer


def signed_out(request: Request, _: Exception) -> Response:
    if request.method == "GET" and not request.url.path.startswith("/api/"):
        return RedirectResponse(f"/login?next={quote(request.url.path)}", 303)
    return problem(request, 401, "gone")


def refused(request: Request, error: Refused) -> Response:
    if error.code in ("role", "csrf") and (rater := getattr(request.state, "rater", None)):
        log_refusal(store_of(request), rater, request.url.path, error.code)
    return problem(request, STATUS[error.code], error.code, str(error))


def log_refusal(store: Store, rater: Rater, path: str, why: str) -> None:
    """Enter into the audit log that a rater asked for what his role does not allow."""
    with store.write() as connection:
        body = {"rater": rater.id, "why": why}
        append_log(store, connection, rater.id, "refused", [(path[:200].encode("ascii", "replace").decode(), body)])


def input_error(request: Request, error: InputError) -> Response:
    missing = request.method == "GET"
    return problem(request, 404 if missing else 422, "missing" if missing else "invalid", str(error))


def unavailable(request: Request, error: Unavailable) -> Response:
    logger.warning("nothing saved: %s", error)
    return problem(request, 503, "unavailable", wait=5)


def http_error(request: Request, error: HTTPException) -> Response:
    return problem(request, error.status_code, "missing" if error.status_code in (404, 405) else "invalid")


def wrong_address(request: Request, error: RequestValidationError) -> Response:
    return problem(request, 404, "missing")
