"""Projects, their guideline and their items: what is judged, in which form, in which round.

An item's texts are never changed in place: an edit is a new version, the votes on the old one stay with it and the item
is judged anew. Its answers stand apart from the item, with the source that no page ever shows.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, func, select

from xinglin.annotate import sampling, schema
from xinglin.annotate.rubric import RUBRICS, Rubric, dense
from xinglin.annotate.store import Store, append_log, canonical, digest, next_id, row
from xinglin.records import Answer, InputError, Message, Score

FORMS = ("rank", "pair", "scores")
CONFLICTS = ("any", "reversal")
MOST_ANSWERS = 16


@dataclass(frozen=True, slots=True)
class Settings:
    """How a project is judged; fixed when it is made.

    `conflict`: what two votes must differ in to need an expert: `any` difference of order, or a `reversal` (one ranks
    above what the other ranks below; a tie against an order is no reversal).
    """

    form: str = "rank"
    rubric: str = "spf"
    votes: int = 2
    repeat_share: float = 0.1
    gold_share: float = 0.05
    order: str = "random"
    seed: int = 0
    in_domain_share: float | None = None
    lease_minutes: int = 30
    margin: float = 0.5
    conflict: str = "any"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("form", self.form, FORMS),
            ("rubric", self.rubric, tuple(RUBRICS)),
            ("order", self.order, sampling.ORDERS),
            ("conflict", self.conflict, CONFLICTS),
        ):
            if value not in allowed:
                raise InputError(f"project setting {name} is {value!r}; allowed: {', '.join(allowed)}")
        shares = (self.repeat_share, self.gold_share, 0.0 if self.in_domain_share is None else self.in_domain_share)
        if not all(0 <= share <= 1 for share in shares) or max(self.repeat_share, self.gold_share) > 0.5:
            raise InputError("project settings: shares lie between 0 and 1, those of repeats and gold at most 0.5")
        if not (1 <= self.votes <= 9 and 1 <= self.lease_minutes <= 1440 and 0 <= self.margin < 5):
            raise InputError("project settings: votes are 1 to 9, lease_minutes 1 to 1440, margin 0 to under 5")


@dataclass(frozen=True, slots=True)
class Project:
    id: int
    name: str
    settings: Settings
    guideline_version: int

    @property
    def rubric(self) -> Rubric:
        return RUBRICS[self.settings.rubric]


@dataclass(frozen=True, slots=True)
class Item:
    """One question with k answers to be judged. `gold` are the ranks an expert gave beforehand, or None.

    `field` is a department, `domain` is "in" or "out", `scores[i]` what scorers said of answer i.
    """

    external_id: str
    prompt: tuple[Message, ...]
    answers: tuple[Answer, ...]
    reference: str = ""
    context: str = ""
    field: str = ""
    domain: str = "in"
    gold: tuple[int, ...] | None = None
    scores: tuple[tuple[Score, ...], ...] = ()
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # `field` is a department here
    version: int = 1


def create_project(store: Store, name: str, guideline: str, settings: Settings | None = None, actor: int = 0) -> int:
    """Make a project with guideline version 1; its id. Raises `InputError` where the name is taken."""
    settings = settings or Settings()
    with store.write() as connection:
        if connection.scalar(select(schema.projects.c.id).where(schema.projects.c.name == name)):
            raise InputError(f"project {name!r} is there already; give another name")
        project_id = next_id(connection, schema.projects)
        values = {"name": name, "settings": canonical(asdict(settings)), "created_at": store.clock()}
        connection.execute(schema.projects.insert().values(id=project_id, state="open", guideline_version=1, **values))
        body = {"project": project_id, "sha256": digest([project_id, name, values["settings"]])}
        append_log(store, connection, actor, "project", [(str(project_id), body)])
        _add_guideline(store, connection, project_id, 1, guideline, actor)
    return project_id


def project(store: Store, project_id: int) -> Project:
    """Raises `InputError` with the projects there are."""
    with store.read() as connection:
        return load_project(connection, project_id)


def list_projects(store: Store) -> list[Project]:
    with store.read() as connection:
        found = connection.execute(select(schema.projects).order_by(schema.projects.c.id)).mappings()
        return [_project(one) for one in found]


def load_project(connection: Connection, project_id: int) -> Project:
    found = row(connection, schema.projects, project_id)
    if found is None:
        ids = connection.scalars(select(schema.projects.c.id).order_by(schema.projects.c.id)).all()
        raise InputError(f"no project {project_id}; there are: {', '.join(map(str, ids)) or 'none yet'}")
    return _project(found)


def _project(found: RowMapping) -> Project:
    return Project(
        found["id"], found["name"], Settings(**json.loads(found["settings"])), int(found["guideline_version"])
    )


def guideline(store: Store, project_id: int, version: int | None = None) -> tuple[int, str]:
    """(version, text) of the guideline, the newest by default."""
    with store.read() as connection:
        version = version or load_project(connection, project_id).guideline_version
        table = schema.guidelines
        where = (table.c.project_id == project_id) & (table.c.version == version)
        text = connection.scalar(select(table.c.text).where(where))
    if text is None:
        raise InputError(f"project {project_id} has no guideline version {version}")
    return version, text


def revise_guideline(store: Store, project_id: int, text: str, actor: int = 0, *, requeue: bool = True) -> int:
    """Give the project a new guideline; its version. The votes so far keep theirs.

    `requeue` sends every item back to be judged under the new one; without it (a misprint) the votes stay in force.
    """
    with store.write() as connection:
        version = load_project(connection, project_id).guideline_version + 1
        _add_guideline(store, connection, project_id, version, text, actor)
        where = schema.projects.c.id == project_id
        connection.execute(schema.projects.update().where(where).values(guideline_version=version))
        if requeue:
            chosen = select(schema.items.c.id).where(schema.items.c.project_id == project_id)
            _requeue(store, connection, list(connection.scalars(chosen)), actor, "guideline")
    return version


def _add_guideline(store: Store, connection: Connection, project_id: int, version: int, text: str, actor: int) -> None:
    values = {"project_id": project_id, "version": version, "text": text, "author_id": actor}
    values["created_at"] = store.clock()
    connection.execute(schema.guidelines.insert().values(**values))
    body = {"project": project_id, "version": version, "sha256": digest(values)}
    append_log(store, connection, actor, "guideline", [(f"{project_id}/{version}", body)])


# --- items -----------------------------------------------------------------------------------------------------------


def add_items(store: Store, project_id: int, found: Iterable[Item], *, round: int = 1, actor: int = 0) -> Counter[str]:
    """Add items to a round; counts of accepted and of what was left out, by reason.

    Raises `InputError` for an item that cannot be judged: fewer than two answers, two that are equal, too many for the
    form, or gold ranks that do not fit.
    """
    counts: Counter[str] = Counter()
    with store.write() as connection:
        settings = load_project(connection, project_id).settings
        first = next_id(connection, schema.items)
        where = (schema.items.c.project_id == project_id) & (schema.items.c.round == round)
        known = set(connection.scalars(select(schema.items.c.external_id).where(where)))
        rows: dict[str, list[dict[str, Any]]] = {"items": [], "contents": [], "answers": []}
        entries = []
        for item in found:
            counts["read"] += 1
            if item.external_id in known:
                counts["already there"] += 1
                continue
            check_item(item, settings.form)
            known.add(item.external_id)
            head, content, answers = _item_rows(item, first + len(rows["items"]), project_id, round, settings.votes)
            rows["items"].append(head)
            rows["contents"].append(content)
            rows["answers"] += answers
            body = {"item": head["id"], "version": item.version, "round": round}
            body["sha256"] = content_digest(content, answers)
            entries.append((f"{head['id']}/{item.version}", body))
        for name, table in (("items", schema.items), ("contents", schema.contents), ("answers", schema.answers)):
            if rows[name]:
                connection.execute(table.insert(), rows[name])
        append_log(store, connection, actor, "item", entries)
        _reorder(connection, project_id, settings)
        counts["accepted"] = len(entries)
    return counts


def check_item(item: Item, form: str) -> None:
    """Raises `InputError` for an item that cannot be judged in this form."""
    k = len(item.answers)
    where = f"item {item.external_id!r}"
    if not item.prompt or item.domain not in ("in", "out"):
        raise InputError(f"{where}: it needs a prompt, and domain in or out, not {item.domain!r}")
    if not 2 <= k <= (2 if form == "pair" else MOST_ANSWERS):
        raise InputError(f"{where} has {k} answers; the form {form} takes 2{'' if form == 'pair' else ' to 16'}")
    if len({answer.text for answer in item.answers}) < k or not all(answer.text.strip() for answer in item.answers):
        raise InputError(f"{where} has equal or empty answers; nothing to choose between: leave the double out")
    if item.gold is not None and (len(item.gold) != k or dense(item.gold) != item.gold):
        raise InputError(f"{where}: gold needs {k} ranks without gaps, 1 is best")
    if item.scores and len(item.scores) != k:
        raise InputError(f"{where} has {k} answers and scores for {len(item.scores)}")
    texts = [item.reference, item.context, *(one.text for one in item.answers), *(one.content for one in item.prompt)]
    if any("\0" in text for text in texts):
        raise InputError(f"{where} holds a NUL character; remove it")


def _item_rows(
    item: Item, item_id: int, project_id: int, round: int, votes: int
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    gold = None if item.gold is None else canonical(item.gold)
    head = {"id": item_id, "project_id": project_id, "external_id": item.external_id, "round": round}
    head |= {"version": item.version, "epoch": 1, "state": "open" if gold is None else "gold", "field": item.field}
    head |= {"domain": item.domain, "priority": float(item_id), "taken": 0, "needed": votes if gold is None else 0}
    head |= {"gold": gold, "meta": canonical(dict(item.meta))}
    return head, *content_rows(item, item_id)


def content_rows(item: Item, item_id: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    content: dict[str, Any] = {"item_id": item_id, "version": item.version}
    content |= {"prompt": canonical([asdict(message) for message in item.prompt])}
    content |= {"reference": item.reference, "context": item.context}
    scores = item.scores or ((),) * len(item.answers)
    answers = [
        {"item_id": item_id, "version": item.version, "place": place, "text": answer.text, "source": answer.source}
        | {"decoding": canonical(answer.decoding), "scores": canonical([asdict(score) for score in scores[place]])}
        for place, answer in enumerate(item.answers)
    ]
    return content, answers


def content_digest(content: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]) -> str:
    return digest([dict(content), [dict(answer) for answer in answers]])


def edit_item(store: Store, item_id: int, actor: int = 0, **changes: Any) -> int:
    """Give an item new texts (`prompt`, `answers`, `reference`, `context`, `scores`); its new version.

    The votes so far stay with the old version, and the item is judged anew.
    """
    allowed = {"prompt", "answers", "reference", "context", "scores"}
    if not changes or not set(changes) <= allowed:
        raise InputError(
            f"edit_item changes {', '.join(sorted(allowed))}; found {', '.join(sorted(changes)) or 'none'}"
        )
    with store.write() as connection:
        old = load_item(connection, item_id)
        version = old[0]["version"] + 1
        item = replace(old[1], version=version, **changes)
        check_item(item, load_project(connection, old[0]["project_id"]).settings.form)
        content, answers = content_rows(item, item_id)
        connection.execute(schema.contents.insert().values(**content))
        connection.execute(schema.answers.insert(), answers)
        body = {"item": item_id, "version": version, "round": old[0]["round"]}
        body["sha256"] = content_digest(content, answers)
        append_log(store, connection, actor, "item", [(f"{item_id}/{version}", body)])
        connection.execute(schema.items.update().where(schema.items.c.id == item_id).values(version=version))
        _requeue(store, connection, [item_id], actor, "edit")
    return version


def load_item(connection: Connection, item_id: int, version: int | None = None) -> tuple[RowMapping, Item]:
    """The row and the content of an item, in its newest version by default. Raises `InputError`."""
    found = row(connection, schema.items, item_id)
    if found is None:
        raise InputError(f"no item {item_id}")
    version = version or found["version"]
    contents, answers = schema.contents.c, schema.answers.c
    content = (
        connection.execute(select(schema.contents).where((contents.item_id == item_id) & (contents.version == version)))
        .mappings()
        .one()
    )
    where = (answers.item_id == item_id) & (answers.version == version)
    rows = connection.execute(select(schema.answers).where(where).order_by(answers.place)).mappings().all()
    return found, build_item(found, content, rows)


def build_item(head: RowMapping, content: RowMapping, answers: Sequence[RowMapping]) -> Item:
    return Item(
        head["external_id"],
        tuple(Message(**message) for message in json.loads(content["prompt"])),
        tuple(Answer(one["text"], one["source"], json.loads(one["decoding"])) for one in answers),
        content["reference"],
        content["context"],
        head["field"],
        head["domain"],
        None if head["gold"] is None else tuple(json.loads(head["gold"])),
        tuple(tuple(Score(**score) for score in json.loads(one["scores"])) for one in answers),
        json.loads(head["meta"]),
        content["version"],
    )


def last_round(store: Store, project_id: int) -> int:
    """The newest round of a project; 0 before the first."""
    with store.read() as connection:
        where = schema.items.c.project_id == project_id
        return int(connection.scalar(select(func.max(schema.items.c.round)).where(where)) or 0)


def _requeue(store: Store, connection: Connection, item_ids: list[int], actor: int, why: str) -> None:
    """Judge these items anew. Open leases become stale: what is still sent for them is kept with the old epoch."""
    items, assignments = schema.items, schema.assignments
    for start in range(0, len(item_ids), 500):
        some = item_ids[start : start + 500]
        open_leases = assignments.c.item_id.in_(some) & (assignments.c.state == "leased")
        connection.execute(assignments.update().where(open_leases).values(state="stale"))
        chosen = items.update().where(items.c.id.in_(some))
        connection.execute(chosen.values(epoch=items.c.epoch + 1, taken=0))
        connection.execute(chosen.where(items.c.gold.is_(None)).values(state="open"))
    append_log(store, connection, actor, "requeue", [(str(one), {"item": one, "why": why}) for one in item_ids])


def release(connection: Connection, where: ColumnElement[bool], state: str) -> int:
    """Give the places of these open leases back to the queue; how many. Runs inside the caller's transaction."""
    leases = schema.assignments
    chosen = select(leases.c.id, leases.c.item_id, leases.c.kind, leases.c.epoch)
    found = connection.execute(chosen.where(where & (leases.c.state == "leased"))).all()
    for id_, item_id, kind, epoch in found:
        connection.execute(leases.update().where(leases.c.id == id_).values(state=state))
        if kind == "vote":
            free_place(connection, item_id, epoch)
    return len(found)


def take_place(connection: Connection, item_id: int, epoch: int) -> bool:
    """Take one of an item's places for a vote; False where none is free. The one statement the overlap hangs on."""
    items = schema.items
    free = (items.c.id == item_id) & (items.c.epoch == epoch) & (items.c.taken < items.c.needed)
    return connection.execute(items.update().where(free).values(taken=items.c.taken + 1)).rowcount == 1


def free_place(connection: Connection, item_id: int, epoch: int) -> None:
    items = schema.items
    held = (items.c.id == item_id) & (items.c.epoch == epoch)
    connection.execute(items.update().where(held).values(taken=items.c.taken - 1))


def _reorder(connection: Connection, project_id: int, settings: Settings) -> None:
    """Write each open item's place in the queue."""
    items, answers = schema.items.c, schema.answers.c
    joined = schema.items.join(schema.answers, (answers.item_id == items.id) & (answers.version == items.version))
    chosen = select(items.id, items.external_id, items.domain, answers.scores).select_from(joined)
    where = (items.project_id == project_id) & (items.state == "open")
    heads: dict[int, tuple[str, str]] = {}
    scores: dict[int, list[tuple[Score, ...]]] = {}
    for id_, external_id, domain, given in connection.execute(chosen.where(where).order_by(items.id, answers.place)):
        heads[id_] = (external_id, domain)
        scores.setdefault(id_, []).append(tuple(Score(**score) for score in json.loads(given)))
    candidates = [sampling.Candidate(id_, *heads[id_], tuple(scores[id_])) for id_ in heads]
    ordered = sampling.sampling_order(candidates, settings.order, settings.seed, settings.in_domain_share)
    if ordered:
        statement = "UPDATE items SET priority = {} WHERE id = {}"
        marks = ("?", "?") if connection.dialect.name == "sqlite" else ("%s", "%s")
        connection.exec_driver_sql(statement.format(*marks), [(float(n), id_) for n, id_ in enumerate(ordered)])


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Settings out of a form or a file. Raises `InputError` for a key that is not one."""
    names = [one.name for one in fields(Settings)]
    if unknown := sorted(set(values) - set(names)):
        raise InputError(f"unknown project setting {unknown[0]!r}; allowed: {', '.join(names)}")
    return Settings(**values)
