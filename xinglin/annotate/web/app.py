"""The application: routes of all files together, handlers for refusals, the guard before everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from xinglin.annotate.store import Refused, Store, Unavailable
from xinglin.annotate.web import asking, entrance, judging, manager
from xinglin.annotate.web.content import Counted
from xinglin.annotate.web.guard import Attempts, Guard
from xinglin.annotate.web.render import FILES, static_file
from xinglin.records import InputError

HANDLERS: list[tuple[type[Exception], Callable[[Request, Any], Response]]] = [
    (asking.SignedOut, asking.signed_out),
    (Refused, asking.refused),
    (InputError, asking.input_error),
    (Unavailable, asking.unavailable),
    (HTTPException, asking.http_error),
    (RequestValidationError, asking.wrong_address),
]


def build_app(store: Store, *, hosts: Sequence[str] = (), problems: Sequence[str] = ()) -> FastAPI:
    """The application over a store.

    `hosts`: the names a browser may call it by, any where empty. `problems`: what `verify` found; the application is
    read-only where there are any.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.store, app.state.counted, app.state.attempts = store, Counted(), Attempts()
    app.state.problems = tuple(problems)
    for one in (entrance, judging, manager):
        app.include_router(one.router)
    app.add_api_route("/static/{name}", static)
    app.add_api_route("/favicon.ico", lambda: Response(status_code=204))
    app.add_api_route("/health", health)
    for kind, handler in HANDLERS:
        app.add_exception_handler(kind, handler)
    if hosts:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    app.add_middleware(Guard, refusal=lambda scope, status, code: asking.problem(Request(scope), status, code))
    return app


def static(name: str) -> Response:
    """The style sheet and the script; nothing else has a name here."""
    if name not in FILES:
        raise HTTPException(404)
    return Response(static_file(name), media_type=FILES[name], headers={"cache-control": "max-age=86400"})


def health(store: asking.TheStore) -> dict[str, bool]:
    """Whether the store can be read."""
    with store.read():
        return {"ok": True}
