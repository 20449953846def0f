"""Runs what a data folder holds, turns it into score lines, and says which of two models is better.

    documents/valid.jsonl                bits per character           documents.py
    questions/test.jsonl                 answers to consultations     dialogue.py (named dialogue)
                                         the same, sampled            dialogue.py (named dialogue_sampled)
    questions/heldout_diseases.jsonl     the same, unseen diseases    dialogue.py (named dialogue_heldout)
    general_questions/test.jsonl         forgetting                   general.py
    exam/{dev,test}.jsonl                multiple choice              exam.py (one evaluation for each mode)
    general_exam/test.jsonl              forgetting, four options     exam.py (named general_exam)
    entities/test.jsonl                  entity recognition           entities.py
    safety/test.jsonl                    refusing and not refusing    safety.py
    safety_exam/test.jsonl               safety as multiple choice    exam.py (named safety_exam)
    bias items (a path of their own)     attitude scales              bias.py
    canaries (a private path)            planted identifiers          memorisation.py

What is missing is listed as not run, with the reason. "Better" is said only when the paired interval excludes 0.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xinglin.data.canaries import read_canaries
from xinglin.evals import bias, dialogue, documents, entities, exam, general, memorisation, safety
from xinglin.evals.dialogue import Judge, Scorer
from xinglin.evals.exam import Mode
from xinglin.evals.result import Evaluation, answer_texts, not_run, question_prompts
from xinglin.metrics import Embedding, paired_difference, train_embedding
from xinglin.metrics.embedding import Embed
from xinglin.records import Document, EntityText, ExamQuestion, InputError, Question, RecordT, read_records
from xinglin.rollout.generator import Decoding, Generator

EVALUATIONS = (
    *("documents", "dialogue", "dialogue_sampled", "dialogue_heldout", "pairwise", "general"),
    *("exam", "general_exam", "entities", "safety", "safety_exam", "bias", "memorisation"),
)
SAMPLED = (1.0, 0.9)  # temperature and top_p of ChiMed-GPT's README: what alignment shapes is the distribution
MOST_EMBEDDED = 400_000  # characters: a few seconds on one core
FEWEST_DIFFERING = 6  # five items that all point one way have p = 1/16 in an exact sign test: no evidence at 5 %


@dataclass(frozen=True, slots=True)
class BatterySettings:
    """No `evaluations` means all; `limit` keeps the first items of each file (0 = all); `bias_items` is a CSV or YAML
    file, `canaries` the private list of planted identifiers. `exam_shots` is for mode logprob: chat and generate ask
    without shots, as a chat model is asked."""

    evaluations: tuple[str, ...] = ()
    limit: int = 0
    max_new_tokens: int = 128
    temperature: float = 0.0
    bleu_mode: str = "correct"
    exam_modes: tuple[Mode, ...] = ("logprob", "chat", "generate")
    exam_shots: int = 5
    exam_delimiter: str = " "
    exam_circular: bool = False
    entity_shots: int = 0
    chunk: int = documents.CHUNK
    bias_items: Path | None = None
    bias_languages: tuple[str, ...] = ("zh", "en")
    canaries: Path | None = None
    draws: int = 10_000


def battery_settings(values: Mapping[str, Any]) -> BatterySettings:
    """Settings from parsed YAML; an unknown key or evaluation is an error with the nearest name."""
    names = [field.name for field in dataclasses.fields(BatterySettings)]
    for key in values:
        _known(key, names, "evaluation setting")
    for name in values.get("evaluations", ()):
        _known(name, EVALUATIONS, "evaluation")
    made: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    for name in ("bias_items", "canaries"):
        if made.get(name) is not None:
            made[name] = Path(made[name])
    return BatterySettings(**made)


def _known(name: str, allowed: Sequence[str], what: str) -> None:
    if name not in allowed:
        near = difflib.get_close_matches(name, allowed, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"unknown {what} {name!r}; {hint}allowed: {', '.join(allowed)}")


def run_battery(
    generator: Generator,
    data: Path,
    settings: BatterySettings | None = None,
    *,
    scorer: Scorer | None = None,
    judge: Judge | None = None,
    embed: Embed | None = None,
    seed: int = 0,
) -> list[Evaluation]:
    """Every evaluation of the settings, in the order of `EVALUATIONS`. The same seed gives the same result."""
    battery = _Battery(generator, data, settings or BatterySettings(), scorer, judge, embed, seed)
    steps: dict[str, Callable[[], list[Evaluation]]] = {
        "documents": battery.documents,
        "dialogue": lambda: battery.dialogue("dialogue", "questions/test.jsonl"),
        "dialogue_sampled": lambda: battery.dialogue("dialogue_sampled", "questions/test.jsonl", True),
        "dialogue_heldout": lambda: battery.dialogue("dialogue_heldout", "questions/heldout_diseases.jsonl"),
        "pairwise": battery.pairwise,
        "general": battery.general,
        "exam": lambda: battery.exam("exam"),
        "general_exam": lambda: battery.exam("general_exam"),
        "entities": battery.entities,
        "safety": battery.safety,
        "safety_exam": lambda: battery.exam("safety_exam"),
        "bias": battery.bias,
        "memorisation": battery.memorisation,
    }
    wanted = battery.settings.evaluations or EVALUATIONS
    for name in wanted:
        _known(name, EVALUATIONS, "evaluation")
    return [found for name in EVALUATIONS if name in wanted for found in steps[name]()]


@dataclass(frozen=True, slots=True)
class _Battery:
    generator: Generator
    data: Path
    settings: BatterySettings
    scorer: Scorer | None
    judge: Judge | None
    embed: Embed | None
    seed: int
    answered: dict[str, dict[str, str]] = field(default_factory=dict)

    def documents(self) -> list[Evaluation]:
        items, reason = self.read("documents/valid.jsonl", Document)
        if not items:
            return [not_run("documents", reason)]
        settings = self.settings
        return [documents.run(self.generator, items, seed=self.seed, chunk=settings.chunk, draws=settings.draws)]

    def dialogue(self, name: str, file: str, sampled: bool = False) -> list[Evaluation]:
        items, reason = self.read(file, Question)
        if not items:
            return [not_run(name, reason)]
        extra: dict[str, Any] = {"scorer": self.scorer, "embed": self.embed, "bleu_mode": self.settings.bleu_mode}
        how = self.generation()
        if sampled:
            how["decoding"] = dataclasses.replace(self.decoding(), temperature=SAMPLED[0], top_p=SAMPLED[1])
            return [dialogue.run(self.generator, items, name=name, **how, **extra)]
        return [dialogue.run(self.generator, items, name=name, texts=self.answers(file, items), **how, **extra)]

    def pairwise(self) -> list[Evaluation]:
        """The model's answers (a) against the references (b); two models: `dialogue.pairwise` on their answers."""
        items, reason = self.read("questions/test.jsonl", Question)
        items = items if all(item.reference.strip() for item in items) else []
        if self.judge is None or not items:
            return [
                not_run(
                    "pairwise",
                    reason or ("no judge was given" if self.judge is None else "a question has no reference"),
                )
            ]
        ours = self.answers("questions/test.jsonl", items)
        references = {item.id: item.reference for item in items}
        draws = self.settings.draws
        return [dialogue.pairwise(self.judge, items, ours, references, seed=self.seed, draws=draws)]

    def general(self) -> list[Evaluation]:
        items, reason = self.read("general_questions/test.jsonl", Question)
        return [general.run(self.generator, items, **self.generation()) if items else not_run("general", reason)]

    def exam(self, name: str) -> list[Evaluation]:
        items, reason = self.read(f"{name}/test.jsonl", ExamQuestion)
        shots, _ = self.read(f"{name}/dev.jsonl", ExamQuestion, limited=False)
        return [self.exam_in(mode, name, items, shots) for mode in self.settings.exam_modes if items] or [
            not_run(name, reason)
        ]

    def exam_in(self, mode: Mode, name: str, items: list[ExamQuestion], shots: list[ExamQuestion]) -> Evaluation:
        settings = self.settings
        num_shots = settings.exam_shots if mode == "logprob" else 0
        form: dict[str, Any] = {"num_shots": num_shots, "delimiter": settings.exam_delimiter}
        form["circular"] = settings.exam_circular
        return exam.run(self.generator, items, name=name, shots=shots, mode=mode, **form, **self.generation())

    def entities(self) -> list[Evaluation]:
        items, reason = self.read("entities/test.jsonl", EntityText)
        if not items:
            return [not_run("entities", reason)]
        everything, _ = self.read("entities/test.jsonl", EntityText, limited=False)
        types = entities.types_of(everything)  # a limit must not change the prompt
        count = self.settings.entity_shots
        shots = self.read("entities/train.jsonl", EntityText, limited=False)[0][:count] if count else []
        return [entities.run(self.generator, items, types=types, shots=shots, **self.generation())]

    def safety(self) -> list[Evaluation]:
        items, reason = self.read("safety/test.jsonl", Question)
        return [safety.run(self.generator, items, **self.generation()) if items else not_run("safety", reason)]

    def bias(self) -> list[Evaluation]:
        path = self.settings.bias_items
        if path is None or not path.is_file():
            reason = "no file of bias items was given (bias_items)" if path is None else f"no file {path.name}"
            return [not_run("bias", reason)]
        items = bias.load_items(path)
        how = {"seed": self.seed, "draws": self.settings.draws}
        return [bias.run(self.generator, items, languages=self.settings.bias_languages, **how)]

    def memorisation(self) -> list[Evaluation]:
        if self.settings.canaries is None:
            return [not_run("memorisation", "no list of canaries was given (evaluate.canaries)")]
        canaries = read_canaries(self.settings.canaries)
        limit = self.settings.limit or len(canaries)
        return [memorisation.run(self.generator, canaries[:limit], **self.generation())]

    def read(self, name: str, kind: type[RecordT], limited: bool = True) -> tuple[list[RecordT], str]:
        """The records, or none and the reason."""
        if not (self.data / name).is_file():
            return [], f"{name} is not in the data folder"
        items = list(read_records(self.data / name, kind))
        kept = items[: self.settings.limit] if limited and self.settings.limit else items
        return kept, "" if items else f"{name} is empty"

    def answers(self, name: str, items: list[Question]) -> dict[str, str]:
        """The model's answers to a file's questions, generated once for all evaluations that need them."""
        if name not in self.answered:
            prompts = question_prompts(items)
            self.answered[name] = answer_texts(self.generator, prompts, self.decoding(), self.seed)
        return self.answered[name]

    def decoding(self) -> Decoding:
        return Decoding(max_new_tokens=self.settings.max_new_tokens, temperature=self.settings.temperature)

    def generation(self) -> dict[str, Any]:
        return {"seed": self.seed, "decoding": self.decoding(), "draws": self.settings.draws}


def embedding_of(data: Path, *, lexicon: Sequence[str] = (), seed: int = 0) -> Embedding | None:
    """Word vectors of the folder's training documents (else the held-out ones), to hand to `run_battery`; train them
    once and use them for every checkpoint."""
    for name in ("documents/train.jsonl", "documents/valid.jsonl"):
        if (data / name).is_file():
            texts, seen = [], 0
            for document in read_records(data / name, Document):
                if seen < MOST_EMBEDDED:
                    texts.append(document.text)
                    seen += len(document.text)
            return train_embedding(texts, lexicon, seed=seed)
    return None


def score_lines(checkpoint: str, evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """One line for each metric; an evaluation that was not run has one line with metric and value None."""
    lines: list[dict[str, Any]] = []
    for found in evaluations:
        notes = {key: value for key, value in found.notes.items() if key != "parse_failure_rate"}
        empty: dict[str, Any] = {"value": None, "n": 0, "low": None, "high": None, "chance": None}
        rows: dict[str | None, dict[str, Any]] = {
            name: {"value": m.value, "n": m.n, "low": m.low, "high": m.high, "chance": m.chance}
            for name, m in found.metrics.items()
        }
        for name, row in (rows or {None: empty}).items():
            line = {"checkpoint": checkpoint, "evaluation": found.name, "metric": name, **row}
            if "parse_failure_rate" in found.notes:
                line["parse_failure_rate"] = found.notes["parse_failure_rate"]
            lines.append({**line, "notes": notes})
    return lines


def compare(
    evals_a: Sequence[Evaluation], evals_b: Sequence[Evaluation], *, seed: int = 0, draws: int = 10_000
) -> list[dict[str, Any]]:
    """b minus a for every metric both have. `better`: b is better, worse (false), or it cannot be said (None)."""
    left = {(e.name, name): m for e in evals_a for name, m in e.metrics.items()}
    right = {(e.name, name): m for e in evals_b for name, m in e.metrics.items()}
    lines = []
    for key in [key for key in left if key in right and left[key].n and right[key].n]:
        a, b = left[key], right[key]
        found = paired_difference(
            a.per_item, b.per_item, draws=draws, seed=seed, groups=a.groups or None, statistic=a.statistic
        )
        sure = found.low > 0 or found.high < 0
        sure = sure and found.num_differ >= FEWEST_DIFFERING and a.higher_is_better is not None
        line = {"evaluation": key[0], "metric": key[1], "a": a.value, "b": b.value}
        line.update(diff=found.diff, low=found.low, high=found.high, n=found.n, num_differ=found.num_differ)
        lines.append({**line, "better": (found.diff > 0) == a.higher_is_better if sure else None})
    return lines
