"""Label Studio tasks, both ways.

`task` writes an item with its votes: the dialogue and the answers in `data`, who wrote the answers in `meta` (which
Label Studio shows to nobody who labels), each vote as an annotation. Ranks are `number` results, because they hold
ties; `config` gives the labelling configuration that fits. `judged_of` reads these back without loss, and also the
`pairwise` and `ranker` results of projects made elsewhere.

Source: labelstud.io, task format (data, meta, annotations, result) and the tags Number, Pairwise, Ranker, Rating,
TextArea and Labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import quoteattr

from xinglin.annotate.exchange import Judged, Vote
from xinglin.annotate.projects import Item
from xinglin.annotate.rubric import Rubric, Verdict, dense
from xinglin.records import Answer, InputError, Message, Score

SPEAKERS = {"user": "患者", "assistant": "医生", "system": "说明"}


def config(k: int, rubric: Rubric) -> str:
    """The labelling configuration for k answers: a rank, danger spans and a rewrite for each, scores per ability."""
    lines = ["<View>", '  <Paragraphs name="dialogue" value="$dialogue" nameKey="author" textKey="text"/>']
    for n in range(1, k + 1):
        lines += [
            f'  <Text name="answer_{n}" value="$answer_{n}"/>',
            f'  <Number name="rank_{n}" toName="answer_{n}" min="1" max="{k}" required="true"/>',
            f'  <Labels name="danger_{n}" toName="answer_{n}"><Label value="danger"/></Labels>',
            f'  <TextArea name="rewrite_{n}" toName="answer_{n}"/>',
        ]
        for dimension in rubric.dimensions:
            for one in dimension.abilities:
                name = quoteattr(f"score_{one.name}_{n}")
                lines.append(f'  <Rating name={name} toName="answer_{n}" maxRating="5"/>')
    return "\n".join([*lines, '  <TextArea name="comment" toName="dialogue"/>', "</View>"])


# --- out -------------------------------------------------------------------------------------------------------------


def task(judged: Judged) -> dict[str, Any]:
    """One Label Studio task."""
    item = judged.item
    dialogue = [{"author": SPEAKERS[one.role], "role": one.role, "text": one.content} for one in item.prompt]
    data: dict[str, Any] = {"dialogue": dialogue, "reference": item.reference, "context": item.context}
    data |= {f"answer_{n}": answer.text for n, answer in enumerate(item.answers, 1)}
    kept = {"external_id": item.external_id, "round": judged.round, "version": item.version, "field": item.field}
    kept |= {"domain": item.domain, "meta": dict(item.meta)}
    kept["answers"] = [{"source": one.source, "decoding": one.decoding} for one in item.answers]
    kept["scores"] = [[asdict(score) for score in given] for given in item.scores]
    return {"data": data, "meta": {"xinglin": kept}, "annotations": [_annotation(vote) for vote in judged.votes]}


def _annotation(vote: Vote) -> dict[str, Any]:
    kept = {"rater": vote.rater, "kind": vote.kind, "sides": list(vote.sides), "active_ms": vote.active_ms}
    kept |= {"guideline_version": vote.guideline_version, "shown_at": vote.shown_at}
    kept |= {"submitted_at": vote.submitted_at, "dimensions": {k: list(v) for k, v in vote.verdict.dimensions.items()}}
    results = list(_results(vote.verdict))
    results[0]["meta"] = {"xinglin": kept}
    created = datetime.fromtimestamp(vote.submitted_at / 1000, UTC).isoformat()
    return {"result": results, "lead_time": vote.active_ms / 1000, "created_at": created}


def _results(verdict: Verdict) -> Iterator[dict[str, Any]]:
    for n, rank in enumerate(verdict.ranks, 1):
        yield _result(f"rank_{n}", f"answer_{n}", "number", {"number": rank})
    for name, scores in verdict.scores.items():
        for n, score in enumerate(scores, 1):
            yield _result(f"score_{name}_{n}", f"answer_{n}", "rating", {"rating": score})
    for answer, start, end in verdict.danger:
        value = {"start": start, "end": end, "labels": ["danger"]}
        yield _result(f"danger_{answer + 1}", f"answer_{answer + 1}", "labels", value)
    for answer, text in verdict.rewrites.items():
        yield _result(f"rewrite_{answer + 1}", f"answer_{answer + 1}", "textarea", {"text": [text]})
    if verdict.comment:
        yield _result("comment", "dialogue", "textarea", {"text": [verdict.comment]})


def _result(name: str, to: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"from_name": name, "to_name": to, "type": kind, "value": value}


# --- in --------------------------------------------------------------------------------------------------------------


def judged_of(
    tasks: Iterable[Any], *, answers: Sequence[str] = (), prompt: str = "prompt", round: int = 1
) -> Iterator[Judged]:
    """Items and votes out of Label Studio's JSON export, for `exchange.add_judged`.

    For a project made elsewhere `answers` names the fields of `data` that hold the answers (left first) and `prompt`
    the question's. Raises `InputError` with the task's number and the field.
    """
    for number, body in enumerate(tasks, 1):
        try:
            yield _judged(body, list(answers), prompt, round, number)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise InputError(
                f"Label Studio task {number}: {type(error).__name__} {error}; expected data, annotations and result "
                "as Label Studio's JSON export has them"
            ) from None


def _judged(body: Any, fields: list[str], prompt: str, round: int, number: int) -> Judged:
    data, kept = body["data"], (body.get("meta") or {}).get("xinglin", {})
    if not fields:
        fields = sorted((one for one in data if one.startswith("answer_")), key=lambda one: int(one[7:]))
    if len(fields) < 2 or any(field not in data for field in fields):
        raise InputError(f"Label Studio task {number}: its data has no answer_1, answer_2; name the answers' fields")
    about = kept.get("answers") or [{}] * len(fields)
    given = tuple(
        Answer(data[field], one.get("source", ""), one.get("decoding", {}))
        for field, one in zip(fields, about, strict=True)
    )
    item = Item(
        external_id=str(kept.get("external_id", body.get("id", number))),
        prompt=_prompt(data, prompt),
        answers=given,
        reference=str(data.get("reference", "")),
        context=str(data.get("context", "")),
        field=kept.get("field", ""),
        domain=kept.get("domain", "in"),
        scores=tuple(tuple(Score(**score) for score in one) for one in kept.get("scores", [])),
        meta=kept.get("meta", {}),
        version=kept.get("version", 1),
    )
    done = [one for one in body.get("annotations", []) if not one.get("was_cancelled")]
    votes = tuple(_vote(one, len(given), fields) for one in done)
    return Judged(kept.get("round", round), item, votes)


def _prompt(data: Mapping[str, Any], prompt: str) -> tuple[Message, ...]:
    if "dialogue" in data:
        return tuple(Message(one["role"], one["text"]) for one in data["dialogue"])
    return (Message("user", str(data[prompt])),)


def _vote(annotation: Mapping[str, Any], k: int, fields: Sequence[str]) -> Vote:
    results = annotation["result"]
    kept = next((one["meta"]["xinglin"] for one in results if "xinglin" in one.get("meta", {})), None)
    verdict = _verdict(results, k, fields)
    if kept is None:
        return _foreign_vote(annotation, verdict, k)
    dimensions = {name: tuple(ranks) for name, ranks in kept["dimensions"].items()}
    verdict = Verdict(verdict.ranks, dimensions, verdict.scores, verdict.danger, verdict.rewrites, verdict.comment)
    numbers = [int(kept[name]) for name in ("guideline_version", "shown_at", "submitted_at", "active_ms")]
    return Vote(kept["rater"], kept["kind"], verdict, tuple(kept["sides"]), *numbers)


def _foreign_vote(annotation: Mapping[str, Any], verdict: Verdict, k: int) -> Vote:
    """A vote made in Label Studio: the rater by pseudonym, sides as they stand in the data."""
    who = annotation.get("completed_by", 0)
    name = str(who.get("email", who.get("id")) if isinstance(who, dict) else who)
    code = f"ls-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    active = round(float(annotation.get("lead_time") or 0) * 1000)
    at = datetime.fromisoformat(str(annotation["created_at"]).replace("Z", "+00:00"))
    submitted = round(at.timestamp() * 1000)
    return Vote(code, "vote", verdict, tuple(range(k)), 1, submitted - active, submitted, active)


def _verdict(results: Sequence[Mapping[str, Any]], k: int, fields: Sequence[str]) -> Verdict:
    ranks: dict[int, float] = {}
    scores: dict[str, list[int]] = {}
    danger: list[tuple[int, int, int]] = []
    rewrites: dict[int, str] = {}
    comment = ""
    for one in results:
        name, value = str(one["from_name"]), one["value"]
        stem, _, last = name.rpartition("_")
        answer = int(last) - 1 if last.isdigit() else -1
        if one["type"] in ("pairwise", "ranker"):
            ranks = _native_ranks(one["type"], value, k, fields)
        elif name.startswith("rank_"):
            ranks[answer] = value["number"]
        elif name.startswith("score_"):
            scores.setdefault(stem.removeprefix("score_"), [0] * k)[answer] = value["rating"]
        elif name.startswith("danger_"):
            danger.append((answer, value["start"], value["end"]))
        elif name.startswith("rewrite_"):
            rewrites[answer] = value["text"][0]
        elif name == "comment":
            comment = value["text"][0]
    if sorted(ranks) != list(range(k)):
        raise ValueError(f"ranks for {len(ranks)} of {k} answers")
    kept = {name: tuple(values) for name, values in scores.items()}
    return Verdict(dense([ranks[i] for i in range(k)]), {}, kept, tuple(danger), rewrites, comment)


def _native_ranks(kind: str, value: Mapping[str, Any], k: int, fields: Sequence[str]) -> dict[int, float]:
    """Pairwise knows left and right only; a ranker's list names the fields, or positions, best first."""
    if kind == "pairwise":
        return {0: 1.0, 1: 2.0} if value["selected"] == "left" else {0: 2.0, 1: 1.0}
    listed = value["ranker"]["rank"] if isinstance(value["ranker"], dict) else value["ranker"]
    names = {str(field): n for n, field in enumerate(fields)} | {str(n): n for n in range(k)}
    return {names[str(one)]: float(place) for place, one in enumerate(listed, 1)}
