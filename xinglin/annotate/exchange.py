"""Records in and out of the store.

In: rollouts grouped by question (k answers each), questions with references, preferences. Out: `Preference` records
that carry every vote, sides, seconds, guideline version and the way the label came about, so that a store can be filled
from them again; chosen/rejected pairs with ties apart; TRL and LLaMA-Factory shapes. `import(export(x)) == x`.
"""

from __future__ import annotations

import itertools
import json
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from xinglin.annotate import schema
from xinglin.annotate.labels import Label, in_force, labels, relation, stored_verdict, update_state
from xinglin.annotate.manage import same_pairs
from xinglin.annotate.projects import Item, Project, add_items, last_round, load_item, load_project
from xinglin.annotate.rubric import Verdict
from xinglin.annotate.store import Store, append_log, canonical, digest, head, next_id
from xinglin.records import Answer, InputError, Message, Preference, Question, Rollout, Score, write_records
from xinglin.run import file_hash, write_text

LABELLED = ("vote", "arbitration")


@dataclass(frozen=True, slots=True)
class Vote:
    """A vote outside the store: the verdict in the answers' own order, the rater by pseudonym."""

    rater: str
    kind: str
    verdict: Verdict
    sides: tuple[int, ...]
    guideline_version: int
    shown_at: int
    submitted_at: int
    active_ms: int

    def as_json(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in ("rater", "kind", "guideline_version", "shown_at")}
        plain |= {"submitted_at": self.submitted_at, "seconds": self.active_ms / 1000, "sides": list(self.sides)}
        return {**plain, "verdict": json.loads(canonical(self.verdict.as_json()))}


def vote_from_json(body: Any) -> Vote:
    """Raises `InputError` for a vote that this module did not write."""
    try:
        return Vote(
            rater=str(body["rater"]),
            kind=str(body["kind"]),
            verdict=stored_verdict(canonical(body["verdict"])),
            sides=tuple(body["sides"]),
            guideline_version=int(body["guideline_version"]),
            shown_at=int(body["shown_at"]),
            submitted_at=int(body["submitted_at"]),
            active_ms=round(float(body["seconds"]) * 1000),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"an annotation's vote is not as exported ({type(error).__name__} {error})") from None


@dataclass(frozen=True, slots=True)
class Judged:
    """An item with the votes in force on it; `label` where it has one."""

    round: int
    item: Item
    votes: tuple[Vote, ...]
    label: Label | None = None


# --- in --------------------------------------------------------------------------------------------------------------


def items_from_rollouts(
    rollouts: Iterable[Rollout], questions: Iterable[Question] = (), counts: Counter[str] | None = None
) -> Iterator[Item]:
    """An item for each question with two or more different answers; the rest is counted by reason.

    `questions` give the doctor's reference; `meta` of a rollout gives department, domain (in, out) and context.
    """
    counts = Counter() if counts is None else counts
    references = {question.id: question.reference for question in questions}
    groups: dict[str, dict[str, Rollout]] = defaultdict(dict)
    for rollout in rollouts:
        counts["read"] += 1
        said = not rollout.answer.text.strip() or rollout.answer.text in groups[rollout.question_id]
        counts["answers empty or said twice"] += said
        if rollout.answer.text.strip():
            groups[rollout.question_id].setdefault(rollout.answer.text, rollout)
    for question_id, found in groups.items():
        members = list(found.values())
        if len(members) < 2:
            counts["questions with fewer than two different answers"] += 1
            continue
        meta = {**members[0].meta, **({"source": members[0].source} if members[0].source else {})}
        scores = tuple(member.scores for member in members)
        answers = tuple(member.answer for member in members)
        reference = references.get(question_id, "")
        yield _item(question_id, members[0].prompt, answers, reference, meta, scores)


def items_from_preferences(
    preferences: Iterable[Preference], *, gold: bool = False, counts: Counter[str] | None = None
) -> Iterator[Item]:
    """The answers of each preference, to be judged (again). `gold` keeps its ranks as the known ones."""
    counts = Counter() if counts is None else counts
    for preference in preferences:
        counts["read"] += 1
        if len({answer.text for answer in preference.answers}) < len(preference.answers):
            counts["equal answers"] += 1
            continue
        meta = {**preference.meta, **({"source": preference.source} if preference.source else {})}
        item = _item(preference.id, preference.prompt, preference.answers, "", meta, ())
        yield replace(item, gold=preference.ranks if gold else None)


def _item(
    external_id: str,
    prompt: tuple[Message, ...],
    answers: tuple[Answer, ...],
    reference: str,
    meta: Mapping[str, Any],
    scores: tuple[tuple[Score, ...], ...],
) -> Item:
    domain = "out" if meta.get("domain") == "out" else "in"
    field, context = str(meta.get("department", "")), str(meta.get("context", ""))
    return Item(external_id, prompt, answers, reference, context, field, domain, None, scores, dict(meta))


def add_round(store: Store, project_id: int, found: Iterable[Item], lineage: Mapping[str, Any], actor: int = 0) -> int:
    """New answers of an aligned model as the project's next round; its number. `lineage` (model folder, manifest hash,
    the labels it was trained on) goes into each item's meta and from there into every export."""
    number = last_round(store, project_id) + 1
    marked = (replace(item, meta={**item.meta, "lineage": {**lineage, "round": number}}) for item in found)
    counts = add_items(store, project_id, marked, round=number, actor=actor)
    if not counts["accepted"]:
        raise InputError(f"round {number}: no item could be added ({counts['read']} read)")
    return number


def add_judged(store: Store, project_id: int, found: Iterable[Judged], actor: int = 0) -> Counter[str]:
    """Add items together with votes made elsewhere; each vote enters the log as imported."""
    counts: Counter[str] = Counter()
    for judged in found:
        added = add_items(store, project_id, [judged.item], round=judged.round, actor=actor)
        counts.update(added)
        if added["accepted"] and judged.votes:
            with store.write() as connection:
                _add_votes(store, connection, project_id, judged, actor)
            counts["votes"] += len(judged.votes)
    return counts


def _add_votes(store: Store, connection: Connection, project_id: int, judged: Judged, actor: int) -> None:
    items = schema.items.c
    here = (items.project_id == project_id) & (items.external_id == judged.item.external_id)
    item = connection.execute(select(schema.items).where(here & (items.round == judged.round))).mappings().one()
    needed = sum(vote.kind == "vote" for vote in judged.votes)
    values = {"taken": needed, "needed": max(needed, item["needed"])}
    connection.execute(schema.items.update().where(items.id == item["id"]).values(**values))
    for slot, vote in enumerate(judged.votes):
        if sorted(vote.sides) != list(range(len(judged.item.answers))) or vote.kind not in LABELLED:
            raise InputError(f"item {judged.item.external_id!r}: vote {slot + 1} has impossible sides or kind")
        _add_vote(store, connection, item, vote, 0 if vote.kind == "arbitration" else slot, actor)
    update_state(connection, item["id"], load_project(connection, project_id))


def _add_vote(store: Store, connection: Connection, item: Any, vote: Vote, slot: int, actor: int) -> None:
    """The lease and the vote, as if they had been made here."""
    where = {"project_id": item["project_id"], "item_id": item["id"], "version": item["version"]}
    where |= {"epoch": item["epoch"], "rater_id": _rater_of(store, connection, vote.rater), "kind": vote.kind}
    where |= {"sides": json.dumps(list(vote.sides)), "guideline_version": vote.guideline_version}
    lease = secrets.token_urlsafe(12)
    times = {"leased_at": vote.shown_at, "expires_at": vote.submitted_at}
    connection.execute(schema.assignments.insert().values(id=lease, slot=slot, state="done", **times, **where))
    values = {"id": next_id(connection, schema.votes), "client_id": f"import-{lease}", "lease_id": lease, **where}
    values |= {"status": "cast", "supersedes": None, "body": canonical(vote.verdict.as_json())}
    values |= {"shown_at": vote.shown_at, "submitted_at": vote.submitted_at, "active_ms": vote.active_ms}
    connection.execute(schema.votes.insert().values(**values))
    entry = {"vote": values["id"], "sha256": digest(values), "imported": True}
    append_log(store, connection, actor, "vote", [(str(values["id"]), entry)])


def _rater_of(store: Store, connection: Connection, code: str) -> int:
    """The rater of a pseudonym; one from elsewhere is entered as inactive."""
    found = connection.scalar(select(schema.raters.c.id).where(schema.raters.c.code == code))
    if found is not None:
        return int(found)
    values: dict[str, Any] = {"id": next_id(connection, schema.raters), "name": code, "code": code, "role": "annotator"}
    values |= {"field": "", "locale": "zh", "password": None, "invitation": None, "active": 0, "failures": 0}
    connection.execute(schema.raters.insert().values(**values, locked_until=0, created_at=store.clock()))
    append_log(store, connection, 0, "rater", [(str(values["id"]), {"rater": values["id"], "role": "imported"})])
    return int(values["id"])


# --- out -------------------------------------------------------------------------------------------------------------


def judged_items(store: Store, project_id: int, round: int | None = None) -> Iterator[Judged]:
    """Every item that is not gold, with the votes in force, labelled or not."""
    settled = {label.item_id: label for label in labels(store, project_id, round)}
    with store.read() as connection:
        codes = {id_: code for id_, code in connection.execute(select(schema.raters.c.id, schema.raters.c.code))}
        items = schema.items.c
        where = (items.project_id == project_id) & items.gold.is_(None)
        if round is not None:
            where &= items.round == round
        for item_id in connection.scalars(select(items.id).where(where).order_by(items.id)).all():
            found, item = load_item(connection, item_id)
            votes = schema.votes.c
            here = (votes.item_id == item_id) & (votes.epoch == found["epoch"]) & votes.kind.in_(LABELLED)
            rows = connection.execute(in_force(here)).mappings().all()
            given = tuple(_vote(row, codes) for row in rows)
            yield Judged(found["round"], item, given, settled.get(item_id))


def _vote(row: RowMapping, codes: Mapping[int, str]) -> Vote:
    numbers = {name: row[name] for name in ("guideline_version", "shown_at", "submitted_at", "active_ms")}
    sides = tuple(json.loads(row["sides"]))
    return Vote(codes[row["rater_id"]], row["kind"], stored_verdict(row["body"]), sides, **numbers)


def export_preferences(store: Store, project_id: int, round: int | None = None) -> Iterator[Preference]:
    """A record for each settled item. `meta.label_source` is human; `meta.annotation` holds the whole trail."""
    with store.read() as connection:
        project = load_project(connection, project_id)
    for judged in judged_items(store, project_id, round):
        if judged.label is not None:
            yield _preference(project, judged, judged.label)


def _preference(project: Project, judged: Judged, label: Label) -> Preference:
    item = judged.item
    hits, n = same_pairs([vote.verdict.ranks for vote in judged.votes if vote.kind == "vote"])
    annotation = {
        **{"project": project.name, "rubric": project.settings.rubric, "form": project.settings.form},
        **{"external_id": item.external_id, "item_version": item.version, "round": judged.round},
        **{"method": label.method, "reason": label.reason, "agreement": hits / n if n else None},
        "dimensions": {name: list(ranks) for name, ranks in label.dimensions.items()},
        "guideline_version": max(vote.guideline_version for vote in judged.votes),
        **{"reference": item.reference, "context": item.context, "field": item.field, "domain": item.domain},
        "scores": [[asdict(score) for score in given] for given in item.scores],
        "votes": [vote.as_json() for vote in judged.votes],
    }
    meta = {name: value for name, value in item.meta.items() if name != "source"}
    meta |= {"label_source": "human", "annotation": annotation}
    name = item.external_id if judged.round == 1 else f"{item.external_id}.r{judged.round}"
    return Preference(name, item.prompt, item.answers, label.ranks, str(item.meta.get("source", "")), meta)


def judged_preferences(preferences: Iterable[Preference]) -> Iterator[Judged]:
    """The way back, for `add_judged`. Raises `InputError` for a record that carries no votes of ours."""
    for preference in preferences:
        annotation = preference.meta.get("annotation")
        if not isinstance(annotation, dict) or not isinstance(annotation.get("votes"), list):
            raise InputError(f"preference {preference.id!r} carries no votes; import it as items to be judged instead")
        meta = {name: value for name, value in preference.meta.items() if name not in ("annotation", "label_source")}
        meta |= {"source": preference.source} if preference.source else {}
        item = Item(
            external_id=str(annotation["external_id"]),
            prompt=preference.prompt,
            answers=preference.answers,
            reference=str(annotation.get("reference", "")),
            context=str(annotation.get("context", "")),
            field=str(annotation.get("field", "")),
            domain=str(annotation.get("domain", "in")),
            scores=tuple(tuple(Score(**score) for score in given) for given in annotation.get("scores", [])),
            meta=meta,
            version=int(annotation["item_version"]),
        )
        yield Judged(int(annotation["round"]), item, tuple(vote_from_json(one) for one in annotation["votes"]))


def pairs(preference: Preference) -> tuple[list[Preference], list[Preference]]:
    """(pairs, ties): each two answers of a ranking as a record of their own, the better one first.

    Raises `InputError` where two answers of different rank are the same text.
    """
    ordered: list[Preference] = []
    ties: list[Preference] = []
    for i, j in itertools.combinations(range(len(preference.answers)), 2):
        sign = relation(preference.ranks, i, j)
        first, second = (i, j) if sign >= 0 else (j, i)
        answers = (preference.answers[first], preference.answers[second])
        if sign and answers[0].text == answers[1].text:
            raise InputError(f"preference {preference.id!r}: answers {i + 1} and {j + 1} are equal, yet one is chosen")
        made = replace(
            preference, id=f"{preference.id}-{first}-{second}", answers=answers, ranks=(1, 2) if sign else (1, 1)
        )
        (ordered if sign else ties).append(made)
    return ordered, ties


def trl_row(pair: Preference) -> dict[str, Any]:
    """TRL's explicit-prompt conversational preference format."""
    chosen, rejected = _chosen_rejected(pair)
    return {
        "prompt": [asdict(message) for message in pair.prompt],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def llama_factory_row(pair: Preference) -> dict[str, Any]:
    """LLaMA-Factory's ranking format (ShareGPT)."""
    chosen, rejected = _chosen_rejected(pair)
    names = {"user": "human", "assistant": "gpt"}
    return {
        "conversations": [{"from": names[one.role], "value": one.content} for one in pair.prompt if one.role in names],
        "chosen": {"from": "gpt", "value": chosen},
        "rejected": {"from": "gpt", "value": rejected},
        "system": "\n".join(message.content for message in pair.prompt if message.role == "system"),
    }


def _chosen_rejected(pair: Preference) -> tuple[str, str]:
    if pair.ranks != (1, 2) or pair.answers[0].text == pair.answers[1].text:
        raise InputError(f"preference {pair.id!r} is no pair of a better and a worse answer")
    return pair.answers[0].text, pair.answers[1].text


LLAMA_FACTORY = {
    "file_name": "llama_factory.json",
    "ranking": True,
    "formatting": "sharegpt",
    "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "system": "system"},
}


def export_project(store: Store, project_id: int, out: Path, round: int | None = None) -> dict[str, Any]:
    """Write the labels in every shape into a new folder; the manifest, which is written last.

    Raises `InputError` where the folder holds something, or nothing is settled yet.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: already there and not empty; give a new folder")
    preferences = list(export_preferences(store, project_id, round))
    if not preferences:
        raise InputError(f"project {project_id}: no item has its label yet, there is nothing to export")
    ordered, ties = _all_pairs(preferences)
    out.mkdir(parents=True, exist_ok=True)
    counts = {"preferences": write_records(out / "preferences.jsonl", preferences)}
    counts |= {"pairs": write_records(out / "pairs.jsonl", ordered), "ties": write_records(out / "ties.jsonl", ties)}
    trl = "".join(json.dumps(trl_row(pair), ensure_ascii=False) + "\n" for pair in ordered)
    write_text(out / "trl.jsonl", trl)
    rows = [llama_factory_row(pair) for pair in ordered]
    write_text(out / "llama_factory.json", json.dumps(rows, ensure_ascii=False, indent=1))
    write_text(out / "dataset_info.json", json.dumps({"xinglin": LLAMA_FACTORY}, indent=1))
    seq, last = head(store)
    methods = Counter(preference.meta["annotation"]["method"] for preference in preferences)
    manifest = {"counts": counts, "methods": dict(methods), "log": {"entries": seq, "head": last}}
    manifest["outputs"] = {path.name: file_hash(path) for path in sorted(out.iterdir())}
    write_text(out / "manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1))
    return manifest


def _all_pairs(preferences: Sequence[Preference]) -> tuple[list[Preference], list[Preference]]:
    ordered: list[Preference] = []
    ties: list[Preference] = []
    for preference in preferences:
        better, equal = pairs(preference)
        ordered += better
        ties += equal
    return ordered, ties
