"""What each page shows, out of the store: plain values for the templates, nothing of HTTP.

Positions on a page count answers from 0. What a page gets is what `View` knows: no item id, no model's name.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select

from xinglin.annotate import schema
from xinglin.annotate.people import Rater
from xinglin.annotate.queue import View
from xinglin.annotate.rubric import Dimension, Verdict
from xinglin.annotate.store import Store
from xinglin.annotate.web.texts import FOLD
from xinglin.annotate.web.words import script_words, word

LEFT_SECONDS = 5.0  # how long the number of open places is kept: it is only a sign of progress
QUOTE = 200  # characters of a marked span in the list of votes


@dataclass(slots=True)
class Counted:
    """Open places of each project, kept for a few seconds."""

    known: dict[int, tuple[float, int]] = field(default_factory=dict)

    def left(self, store: Store, project_id: int) -> int:
        """Votes still wanted, rounded to ten so that a hidden repeat does not show by a number that stands still."""
        at, number = self.known.get(project_id, (0.0, 0))
        if time.monotonic() - at > LEFT_SECONDS or not at:
            items = schema.items.c
            wanted = select(func.sum(items.needed - items.taken))
            with store.read() as connection:
                found = connection.scalar(wanted.where((items.project_id == project_id) & (items.state == "open")))
            number = int(found or 0)
            self.known[project_id] = (time.monotonic(), number)
        return number if number < 10 else round(number, -1)


def my_progress(store: Store, rater: Rater, project_id: int) -> dict[str, int]:
    """How many votes of the rater stand, and the minutes they took."""
    votes, later = schema.votes.c, schema.votes.alias("later")
    mine = (votes.rater_id == rater.id) & (votes.project_id == project_id) & (votes.status == "cast")
    over = select(later.c.id).where(later.c.supersedes == votes.id).exists()
    chosen = select(func.count(), func.sum(votes.active_ms)).where(mine & ~over)
    with store.read() as connection:
        count, active = connection.execute(chosen).one()
    return {"done": int(count), "minutes": round(int(active or 0) / 60_000)}


def work_page(view: View, rater: Rater, csrf: str, locale: str) -> dict[str, Any]:
    """The judging page: the view for the template, and `page` as JSON for the script."""
    dimensions = [{"name": one.name, "label": _label(one, locale)} for one in view.rubric.dimensions]
    page = {
        **{"lease": view.lease, "project": view.project_id, "form": view.form, "k": len(view.answers)},
        **{"who": rater.code, "csrf": csrf, "arbitration": bool(view.votes), "locale": locale},
        "dimensions": dimensions if len(dimensions) > 1 else [],
        "abilities": _abilities(view, locale),
        **{"words": script_words(locale), "fold": FOLD},
    }
    return {
        **{"view": view, "page": json.dumps(page, ensure_ascii=False), "form": view.form},
        "dimensions": page["dimensions"],
        "groups": _groups(view.rubric.dimensions, locale),
        "votes": [_opinion(vote, view, locale) for vote in view.votes],
        "conflict": _conflict(view, locale),
        "columns": _columns(len(view.answers)),
    }


def _columns(k: int) -> int:
    """Answers in a row: so many that each keeps a readable width, and rows are even."""
    return {2: 2, 3: 3, 4: 2}.get(k, 3)


def _label(one: Any, locale: str) -> str:
    return str(one.en if locale == "en" else one.zh)


def _abilities(view: View, locale: str) -> list[dict[str, str]]:
    return [
        {"name": one.name, "label": _label(one, locale), "ask": one.ask_en if locale == "en" else one.ask_zh}
        | {"dimension": _label(dimension, locale)}
        for dimension in view.rubric.dimensions
        for one in dimension.abilities
    ]


def _groups(dimensions: Sequence[Dimension], locale: str) -> list[dict[str, Any]]:
    ask = "ask_en" if locale == "en" else "ask_zh"
    return [
        {
            "label": _label(dimension, locale),
            "abilities": [
                {"name": one.name, "label": _label(one, locale), "ask": getattr(one, ask)}
                for one in dimension.abilities
            ],
        }
        for dimension in dimensions
    ]


def order_line(ranks: Sequence[int]) -> str:
    """`2 > 1 = 3` from ranks as shown."""
    places = sorted(set(ranks))
    return " > ".join(" = ".join(str(i + 1) for i, rank in enumerate(ranks) if rank == place) for place in places)


def _opinion(vote: Verdict, view: View, locale: str) -> dict[str, Any]:
    """One vote as the expert sees it."""
    named = {one.name: _label(one, locale) for one in view.rubric.dimensions}
    return {
        "order": order_line(vote.ranks),
        "dimensions": [(named.get(name, name), order_line(ranks)) for name, ranks in vote.dimensions.items()],
        "danger": [(answer + 1, view.answers[answer][start:end][:QUOTE]) for answer, start, end in vote.danger],
        "rewrites": sorted((answer + 1, text) for answer, text in vote.rewrites.items()),
        "comment": vote.comment,
    }


def _conflict(view: View, locale: str) -> str:
    if view.conflict in ("danger", ""):
        return word("conflict_danger", locale) if view.conflict else ""
    named = {one.name: _label(one, locale) for one in view.rubric.dimensions}
    return named.get(view.conflict) or word("overall", locale)


def verdict_for_page(view: View) -> dict[str, Any] | None:
    """The rater's own verdict after an undo, for the script to put back."""
    return view.previous.as_json() if view.previous is not None else None


# --- the manager -----------------------------------------------------------------------------------------------------


def share_text(found: dict[str, Any] | None, locale: str) -> str:
    """`80 %（10；49–94）`: share, n and interval; or that there is nothing to compute it from."""
    if found is None:
        return word("undefined", locale)
    percent = [round(100 * found[name]) for name in ("share", "low", "high")]
    return f"{percent[0]}% ({found['n']}; {percent[1]}–{percent[2]}%)"


def figure_text(found: Mapping[str, Any], locale: str) -> str:
    """`0.712 (40; 0.551 … 0.848)`: value, n and interval; or that it is undefined."""
    if found["value"] is None:
        return word("undefined", locale)
    inside = f"{found['n']}"
    if found["low"] is not None:
        inside += f"; {found['low']:.3f} … {found['high']:.3f}"
    return f"{found['value']:.3f} ({inside})"
