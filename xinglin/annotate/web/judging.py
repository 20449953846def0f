"""The doctor's and the expert's pages, and what their script sends.

A page is one lease: /p/3 shows the doctor's next item, its script posts to /api/vote and comes back to /p/3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from xinglin.annotate.labels import next_dispute
from xinglin.annotate.people import Rater
from xinglin.annotate.projects import guideline, list_projects, project
from xinglin.annotate.queue import next_item, renew, view
from xinglin.annotate.rubric import verdict_from_json
from xinglin.annotate.store import Refused, Store
from xinglin.annotate.votes import history, skip, submit, undo
from xinglin.annotate.web import content
from xinglin.annotate.web.asking import LARGEST_ID, Body, ProjectId, TheStore, Who, csrf_of, locale_of, page
from xinglin.annotate.web.words import word

router = APIRouter()


@router.get("/")
def start(request: Request, store: TheStore, rater: Who) -> Response:
    """The projects; with only one, straight to the work."""
    projects = list_projects(store)
    if len(projects) == 1:
        return RedirectResponse(f"/p/{projects[0].id}{'/manage' if rater.role == 'manager' else ''}", 303)
    return page(request, "projects.html.jinja", projects=projects)


@router.get("/p/{project_id}")
def work(request: Request, store: TheStore, rater: Who, project_id: ProjectId) -> Response:
    """The doctor's next item."""
    return _item_page(request, store, rater, project_id, next_item)


@router.get("/p/{project_id}/disputes")
def disputes(request: Request, store: TheStore, rater: Who, project_id: ProjectId) -> Response:
    """The expert's next dispute."""
    return _item_page(request, store, rater, project_id, next_dispute)


def _item_page(request: Request, store: Store, rater: Rater, project_id: int, choose: Callable[..., Any]) -> Response:
    chosen = project(store, project_id)
    if request.app.state.problems:
        return page(request, "error.html.jinja", 503, message=word("store_damaged", locale_of(request)))
    shown = choose(store, rater, project_id)
    found: dict[str, Any] = {"project": chosen, "mine": content.my_progress(store, rater, project_id)}
    if shown is None:
        return page(request, "finished.html.jinja", **found, arbitrating=choose is next_dispute)
    found |= content.work_page(shown, rater, csrf_of(request), locale_of(request))
    found["left"] = request.app.state.counted.left(store, project_id)
    found["rules"] = guideline(store, project_id, shown.guideline_version)
    return page(request, "work.html.jinja", **found)


@router.get("/p/{project_id}/guideline")
def guideline_page(request: Request, store: TheStore, _: Who, project_id: ProjectId) -> Response:
    return page(request, "guideline.html.jinja", project=project(store, project_id), rules=guideline(store, project_id))


@router.get("/p/{project_id}/history")
def history_page(request: Request, store: TheStore, rater: Who, project_id: ProjectId) -> Response:
    """The rater's own votes."""
    chosen = project(store, project_id)
    return page(request, "history.html.jinja", project=chosen, rows=history(store, rater, project_id))


@router.get("/item/{lease}")
def item_page(request: Request, store: TheStore, rater: Who, lease: str) -> Response:
    """One of the rater's own items again, to look at; another's is refused and logged."""
    shown = view(store, rater, lease)
    found = content.work_page(shown, rater, csrf_of(request), locale_of(request))
    return page(request, "look.html.jinja", **{**found, "page": "{}"}, project=project(store, shown.project_id))


# --- what the script sends -------------------------------------------------------------------------------------------


def _named(body: dict[str, Any], allowed: dict[str, type]) -> list[Any]:
    """The fields of a body, checked for type. Raises `Refused("invalid")` that names the field."""
    if unknown := sorted(set(body) - set(allowed)):
        raise Refused("invalid", f"unknown field {unknown[0][:40]!r}; allowed: {', '.join(allowed)}")
    for name, kind in allowed.items():
        if type(body.get(name)) is not kind:
            raise Refused("invalid", f"field {name} is {type(body.get(name)).__name__}, expected {kind.__name__}")
    return [body[name] for name in allowed]


@router.post("/api/vote")
def vote(request: Request, store: TheStore, rater: Who, body: Body) -> dict[str, Any]:
    """Cast a vote. The answer means it is on the disk."""
    wanted: dict[str, type] = {"lease": str, "client_id": str, "verdict": dict, "events": list}
    lease, client_id, verdict, events = _named(body, wanted)
    ack = submit(store, rater, lease, client_id, verdict_from_json(verdict), events)
    return {"saved": True, "duplicate": ack.duplicate, "note": ack.note}


@router.post("/api/skip")
def not_my_field(request: Request, store: TheStore, rater: Who, body: Body) -> dict[str, Any]:
    lease, client_id, comment = _named(body, {"lease": str, "client_id": str, "comment": str})
    ack = skip(store, rater, lease, client_id, comment)
    return {"saved": True, "duplicate": ack.duplicate, "note": ack.note}


@router.post("/api/undo")
def take_back(request: Request, store: TheStore, rater: Who, body: Body) -> dict[str, Any]:
    """Take the last vote back: its lease, what was said, and the page that shows it."""
    project_id, client_id = _named(body, {"project": int, "client_id": str})
    if not 0 < project_id <= LARGEST_ID:
        raise Refused("invalid", "the project is out of range")
    shown = undo(store, rater, project_id, client_id)
    return {
        **{"saved": True, "lease": shown.lease, "verdict": content.verdict_for_page(shown)},
        "to": f"/p/{project_id}{'/disputes' if shown.votes else ''}",
    }


@router.post("/api/renew")
def keep(request: Request, store: TheStore, rater: Who, body: Body) -> dict[str, Any]:
    """Keep the lease of an open page alive."""
    (lease,) = _named(body, {"lease": str})
    return {"expires_at": renew(store, rater, lease)}


@router.get("/api/token")
def token(request: Request, rater: Who) -> dict[str, str]:
    """The token of the session as it is now, for a tab that was open while the rater signed in again elsewhere."""
    return {"csrf": csrf_of(request), "who": rater.code}
