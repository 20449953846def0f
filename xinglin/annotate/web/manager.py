"""The manager's page: how far, how fast, how far apart the raters are, whom to ask; raters and guideline. Nothing here
deletes a vote, and nothing here judges."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from xinglin.annotate.agreement import agreement
from xinglin.annotate.audit import verify
from xinglin.annotate.exchange import export_preferences
from xinglin.annotate.manage import summary
from xinglin.annotate.people import LOCALES, ROLES, Rater, add_rater, invite, list_raters, remove_rater
from xinglin.annotate.projects import guideline, project, revise_guideline
from xinglin.annotate.rubric import Ability, Dimension
from xinglin.annotate.store import Refused, Store, checked_text
from xinglin.annotate.web.asking import Form, ProjectId, TheStore, Who, locale_of, page
from xinglin.annotate.web.content import figure_text, share_text
from xinglin.records import to_json

LONGEST_GUIDELINE = 200_000
router = APIRouter()


def managing(rater: Who) -> Rater:
    """Raises `Refused("role")` for everybody but a manager; the refusal is logged."""
    if rater.role != "manager":
        raise Refused("role", "this is for: manager")
    return rater


Manager = Annotated[Rater, Depends(managing)]


@router.get("/p/{project_id}/manage")
def manage_page(request: Request, store: TheStore, _: Manager, project_id: ProjectId, check: bool = False) -> Response:
    return _page(request, store, project_id, checked=verify(store) if check else None)


def _page(request: Request, store: Store, project_id: int, **more: Any) -> Response:
    locale = locale_of(request)
    chosen = project(store, project_id)
    found: dict[str, Any] = {"checked": None, "invitation": None, "invited": "", **more}
    found["path"] = f"/p/{project_id}/manage"
    return page(
        request,
        "manage.html.jinja",
        **found,
        project=chosen,
        labels=_labels(store, project_id, locale),
        found=summary(store, project_id),
        rules=guideline(store, project_id),
        show=lambda one: share_text(one, locale),
        roles=ROLES,
    )


@router.get("/p/{project_id}/agreement")
def agreement_page(request: Request, store: TheStore, _: Manager, project_id: ProjectId) -> Response:
    """Coefficients per dimension, per pair of raters, per rater, over time. Takes seconds with many votes."""
    locale = locale_of(request)
    return page(
        request,
        "agreement.html.jinja",
        project=project(store, project_id),
        labels=_labels(store, project_id, locale),
        names={one.code: one.name for one in list_raters(store)},
        found=agreement(store, project_id),
        show=lambda one: figure_text(one, locale),
    )


def _labels(store: Store, project_id: int, locale: str) -> dict[str, str]:
    """Dimensions and abilities of the project's rubric, in words."""
    dimensions = project(store, project_id).rubric.dimensions
    every: list[Ability | Dimension] = [*(ability for one in dimensions for ability in one.abilities), *dimensions]
    return {one.name: one.en if locale == "en" else one.zh for one in every}


@router.get("/p/{project_id}/preferences.jsonl")
def download(store: TheStore, _: Manager, project_id: ProjectId) -> Response:
    """The labels, a `Preference` a line, each with its votes, sides, seconds and guideline version."""
    project(store, project_id)
    lines = (to_json(preference) + "\n" for preference in export_preferences(store, project_id))
    headers = {"content-disposition": f'attachment; filename="preferences-{project_id}.jsonl"'}
    return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)


@router.post("/p/{project_id}/raters")
def new_rater(request: Request, store: TheStore, manager: Manager, form: Form, project_id: ProjectId) -> Response:
    """Add a rater; the page that follows shows the invitation, this once."""
    name, field = form.get("name", ""), checked_text("the field", form.get("field", ""), 64)
    locale = form.get("locale", "") if form.get("locale") in LOCALES else "zh"
    rater, token = add_rater(store, name, form.get("role", ""), field=field, locale=locale, actor=manager.id)
    return _page(request, store, project_id, invitation=token, invited=rater.name)


@router.post("/p/{project_id}/raters/{rater_id}")
def change_rater(
    request: Request, store: TheStore, manager: Manager, form: Form, project_id: ProjectId, rater_id: int
) -> Response:
    """A new invitation, or out: open leases go back to the queue, votes stay."""
    names = {one.id: one.name for one in list_raters(store)}
    if rater_id not in names or rater_id == manager.id or form.get("do") not in ("invite", "remove"):
        raise Refused("invalid", "another rater than yourself, to invite or to remove")
    if form["do"] == "remove":
        remove_rater(store, rater_id, actor=manager.id)
        return RedirectResponse(f"/p/{project_id}/manage", 303)
    token = invite(store, rater_id, actor=manager.id)
    return _page(request, store, project_id, invitation=token, invited=names[rater_id])


@router.post("/p/{project_id}/guideline")
def new_guideline(store: TheStore, manager: Manager, form: Form, project_id: ProjectId) -> Response:
    """A new version. Votes keep the version they were given under."""
    text = checked_text("the guideline", form.get("text", ""), LONGEST_GUIDELINE).replace("\r\n", "\n")
    if not text.strip():
        raise Refused("invalid", "the guideline is empty")
    revise_guideline(store, project_id, text, actor=manager.id, requeue=form.get("requeue") == "yes")
    return RedirectResponse(f"/p/{project_id}/manage", 303)
