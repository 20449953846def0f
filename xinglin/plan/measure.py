"""A recipe in miniature: every stage run for a few steps on a few of its own rows, and what that says of the whole.

    for forecast in forecast_run(recipe, data, work): print(forecast)

The very stage functions of the run are called (handed down as `work`), in the recipe's own order, shape and settings,
over a data folder that holds a sample of each file. A step, a validation, an iteration and an answer are timed apart,
by listening to what the stage logs, and each is multiplied by how often the run will do it; loading and saving are
taken as they are. Memory is the peak of the resident set while the miniature runs, in this one process as in the run.

What is not measured: an answer's length under a trained policy. Answers are taken to be as long as the data's own, and
as long as allowed where nothing has taught the model to stop.
"""

from __future__ import annotations

import contextlib
import random
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from xinglin.config import (
    Base,
    BestOfN,
    Decoding,
    Dpo,
    Evaluate,
    Policy,
    Ppo,
    Pretrain,
    Recipe,
    Sample,
    Score,
    StageConfig,
    Training,
)
from xinglin.plan.paper import GB
from xinglin.plan.work import Work, count, num_items, work_of
from xinglin.records import Conversation, Document, Preference, read_records
from xinglin.run import Stage

STEPS = 6
VALIDATED = 16
ASKED = 16
EVALUATED = 48  # items of each evaluation
DECODED = 1 / 3  # of an evaluation's time goes into decoding (profile of the quickstart's, one thread); the rest grades
NEVER = 1_000_000_000

DoStage = Callable[[str, StageConfig | Base, Stage, Path], None]
"""(name, settings, folder of the stage, data folder): do it, and remember its folder for the stages that name it."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """One stage: `tokens` trained on (all epochs), `seconds` and peak `gigabytes`; None where it cannot be known."""

    stage: str
    kind: str
    tokens: float | None
    seconds: float | None
    gigabytes: float | None
    note: str = ""


@dataclass(slots=True)
class Timeline:
    """What a stage was heard doing, in seconds: each optimiser step, validation, iteration; each named progress."""

    steps: list[float] = field(default_factory=list)
    validations: list[float] = field(default_factory=list)
    iterations: list[float] = field(default_factory=list)
    progress: dict[str, float] = field(default_factory=dict)
    total: float = 0.0

    @property
    def step(self) -> float:
        """Seconds of a step; the first one pays for what is done once."""
        return average(self.steps[1:] or self.steps)


@contextlib.contextmanager
def listening() -> Iterator[Timeline]:
    """Time what any stage logs meanwhile. The stage's code is not touched: its log and its progress are overheard."""
    timeline = Timeline()
    log, progress = Stage.log, Stage.progress
    start = last = time.perf_counter()

    def heard_log(stage: Stage, **metrics: Any) -> None:
        nonlocal last
        now = time.perf_counter()
        if "iteration" in metrics:
            timeline.iterations.append(now - last)
        elif "lr" in metrics:
            timeline.steps.append(now - last)
        elif any(name.startswith("valid_") for name in metrics):
            timeline.validations.append(now - last)
        log(stage, **metrics)
        last = time.perf_counter()

    @contextlib.contextmanager
    def heard_progress(stage: Stage, what: str, total: int) -> Iterator[Any]:
        nonlocal last
        last = begun = time.perf_counter()
        with progress(stage, what, total) as advance:
            yield advance
        last = time.perf_counter()
        timeline.progress[what] = last - begun

    Stage.log, Stage.progress = heard_log, heard_progress  # type: ignore[method-assign, assignment]
    try:
        yield timeline
    finally:
        Stage.log, Stage.progress = log, progress  # type: ignore[method-assign]
        timeline.total = time.perf_counter() - start


def sample_data(data: Path, folder: Path, recipe: Recipe) -> None:
    """A folder of the same files with fewer rows, drawn at random: enough for STEPS steps and VALIDATED rows."""
    stages: list[StageConfig] = list(recipe.stages.values())
    if recipe.base.tiny and recipe.base.tiny.pretrain:
        stages.append(recipe.base.tiny.pretrain)
    batches: dict[str, int] = {}
    for config in stages:
        name = getattr(config, "data", None)
        if isinstance(config, Training) and name:
            batches[name] = max(batches.get(name, 1), config.batch_size)
    batches["general"] = batches.get("conversations", 1)
    for path in data.rglob("*.jsonl"):
        target = folder / path.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        name = path.parent.name
        if path.stem not in ("train", "valid") or name not in batches:
            shutil.copyfile(path, target)
            continue
        lines = path.read_bytes().splitlines(keepends=True)
        size = min(len(lines), VALIDATED if path.stem == "valid" else (STEPS + 1) * batches[name])
        target.write_bytes(b"".join(random.Random(0).sample(lines, size)))


@dataclass(frozen=True, slots=True)
class Typical:
    """What the data says of a row: tokens per row of each file trained on, and of an answer."""

    per_row: dict[str, float]
    answer: int


def average(values: Iterable[float]) -> float:
    """Their mean; 0 of none (an empty file)."""
    found = list(values)
    return mean(found) if found else 0.0


def typical(data: Path, tokenizer: Any) -> Typical:
    """Mean tokens of the rows of a (sampled) data folder. Control tokens of the template are left out: under 5 %."""

    def size(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    found: dict[str, float] = {}
    answers = [1.0]
    for path in sorted(data.rglob("train.jsonl")):
        name = path.parent.name
        if name == "documents":
            found[name] = average(size(record.text) for record in read_records(path, Document))
        elif name in ("conversations", "general"):
            rows = [[(m.role, size(m.content)) for m in r.messages] for r in read_records(path, Conversation)]
            found[name] = average(sum(tokens for _, tokens in row) for row in rows)
            answers += [tokens for row in rows for role, tokens in row if role == "assistant"]
        elif name == "preferences":
            preferences = list(read_records(path, Preference))
            found[name] = average(
                sum(size(m.content) for m in p.prompt) + sum(size(a.text) for a in p.answers) for p in preferences
            )
    return Typical(found, round(mean(answers)))


def miniature(config: StageConfig, answer: int) -> StageConfig:
    """The same stage for a few steps. `answer`: tokens that an answer is taken to have."""
    change: dict[str, Any] = {}
    if isinstance(config, Training):
        change |= {"max_steps": min(STEPS, config.max_steps or STEPS), "eval_every": NEVER, "save_every": NEVER}
    if isinstance(config, Policy):
        change |= {"iterations": 1, "max_length_growth": 1e9, "max_kl": 1e9, "min_entropy": 0.0, "max_ratio": 1e9}
    if isinstance(config, Ppo):
        change["value_warmup"] = 0
    if isinstance(config, BestOfN):
        change |= {"rounds": 1}
    if isinstance(config, Sample | BestOfN):
        change["limit"] = min(ASKED, config.limit or ASKED)
    if isinstance(config, Policy | BestOfN | Sample | Evaluate):
        change["decoding"] = shorter(config.decoding, answer)
    return config.model_copy(update=change)


def shorter(decoding: Decoding, answer: int) -> Decoding:
    return decoding.model_copy(update={"max_new_tokens": min(decoding.max_new_tokens, max(answer, 1))})


def forecast_run(recipe: Recipe, data: Path, scratch: Path, work: DoStage) -> Iterator[Forecast]:
    """Forecasts of the base and of every stage, one as soon as it is measured. `scratch`: an empty folder to write in.

    Raises `InputError` as the stages themselves do: what a miniature stumbles over, the run would.
    """
    small = scratch / "small"
    sample_data(data, small, recipe)
    yield from _base(recipe, data, small, scratch, work)
    from xinglin.models.load import load_tokenizer

    base = Path(recipe.base.path) if recipe.base.path else scratch / "base" / "model"
    rows = typical(small, load_tokenizer(base, recipe.base.template)[0])
    for name, config in recipe.stages.items():
        if name == "data":
            continue
        stage = Stage(scratch / name, name, quiet=True)
        if isinstance(config, Evaluate):
            yield _evaluate(recipe, name, config, data, scratch, rows, work)
        elif isinstance(config, Score) and config.scorer != "rule":
            yield Forecast(name, "score", None, None, None, f"scorer {config.scorer}: as long as it takes")
            return
        else:
            forget_peak()
            with listening() as heard:
                work(name, miniature(config, rows.answer), stage, small)
            yield scaled(name, config, heard, work_of(recipe, name, config, data), small, rows)


def _base(recipe: Recipe, data: Path, small: Path, scratch: Path, work: DoStage) -> Iterator[Forecast]:
    """The embedded model: its tokenizer is trained on all the text, its pre-training is a stage like any other."""
    tiny = recipe.base.tiny
    if recipe.base.path or tiny is None:
        return
    forget_peak()
    with listening() as heard:
        bare = recipe.base.model_copy(update={"tiny": tiny.model_copy(update={"pretrain": None})})
        work("base", bare, Stage(scratch / "base", "base", quiet=True), data)
    yield Forecast("base", "base", None, heard.total, peak_gigabytes(), "tokenizer and random weights")
    if tiny.pretrain:
        from xinglin.models.load import load_tokenizer

        rows = typical(small, load_tokenizer(scratch / "base" / "model")[0])
        stage = Stage(scratch / "base-pretrain", "base-pretrain", quiet=True)
        with listening() as heard:
            work("base-pretrain", miniature(tiny.pretrain, rows.answer), stage, small)
        found = work_of(recipe, "base", tiny.pretrain, data)
        yield scaled("base: pre-training", tiny.pretrain, heard, found, small, rows)


def scaled(name: str, config: StageConfig, heard: Timeline, work: Work, small: Path, rows: Typical) -> Forecast:
    """The whole stage from its miniature: what is repeated is multiplied, the rest is taken as it was."""
    peak = peak_gigabytes()
    repeated = sum(heard.steps) + sum(heard.validations) + sum(heard.iterations)
    seconds = 0.0
    if isinstance(config, Policy):
        seconds += config.iterations * average(heard.iterations)
    elif isinstance(config, Training):
        sampled = count(small, f"{getattr(config, 'data', '')}/valid") or round(0.1 * ASKED)  # or from a score stage
        validated = min(work.validated, sampled) or 1
        seconds += work.steps * heard.step
        seconds += work.validations * average(heard.validations[-1:]) * work.validated / validated
    for what, spent in heard.progress.items():
        ratio = _ratio(what, config, work, small)
        if ratio is not None:
            repeated += spent
            seconds += spent * ratio
    rounds = config.rounds if isinstance(config, BestOfN) else 1
    seconds = rounds * (seconds + max(0.0, heard.total - repeated))
    return Forecast(name, config.stage, _tokens(config, work, rows), seconds, peak, work.note)


def _ratio(what: str, config: StageConfig, work: Work, small: Path) -> float | None:
    """How much longer a named progress takes over all rows than over the sample; None for one heard step by step."""
    if what == "reference":
        assert isinstance(config, Dpo)
        held = work.rows + work.validated
        return held / max(1, count(small, f"{config.data}/train") + count(small, f"{config.data}/valid"))
    return work.questions / max(1, min(ASKED, work.questions)) if "answers" in what else None


def _tokens(config: StageConfig, work: Work, rows: Typical) -> float | None:
    """Tokens trained on or sampled, over all epochs."""
    if isinstance(config, Policy):
        return work.questions * config.num_answers * rows.answer
    if isinstance(config, Sample):
        return work.questions * config.num_answers * rows.answer
    if isinstance(config, BestOfN):
        return config.rounds * work.questions * config.num_answers * rows.answer
    if isinstance(config, Training) and work.rows:
        name = "documents" if isinstance(config, Pretrain) else str(getattr(config, "data", ""))
        per_row = rows.per_row.get(name, rows.per_row.get("preferences"))
        return None if per_row is None else per_row * min(work.rows * config.epochs, work.steps * config.batch_size)
    return None


def _evaluate(
    recipe: Recipe, name: str, config: Evaluate, data: Path, scratch: Path, rows: Typical, work: DoStage
) -> Forecast:
    """A short evaluation of the last checkpoint: what is done once (word vectors), and what each item takes."""
    few = miniature(config, rows.answer).model_copy(
        update={"limit": EVALUATED, "checkpoints": config.checkpoints[-1:], "rewards": (), "compare": ()}
    )
    forget_peak()
    with listening() as heard:
        work(name, few, Stage(scratch / name, name, quiet=True), data)
    spent = sum(heard.progress.values())
    each = spent / max(1, num_items(config, data, EVALUATED))
    whole = num_items(config, data, config.limit or 0)
    longer = config.decoding.max_new_tokens / max(1, min(config.decoding.max_new_tokens, rows.answer))
    weights = [1 + DECODED * (longer - 1) * _never_stops(recipe, one) for one in config.checkpoints]
    seconds = heard.total - spent + each * whole * sum(weights)
    return Forecast(name, "evaluate", None, seconds, peak_gigabytes(), f"{whole} items x {len(weights)} models")


def _never_stops(recipe: Recipe, name: str) -> bool:
    """Nothing has taught it to end an answer."""
    return name == "base" or isinstance(recipe.stages.get(name), Pretrain)


def forget_peak() -> None:
    """Start the peak of the resident set anew, where the system allows it (Linux)."""
    with contextlib.suppress(OSError):  # elsewhere the peak is that of the whole process: an upper bound
        Path("/proc/self/clear_refs").write_text("5", "utf-8")


def peak_gigabytes() -> float:
    """Peak resident set since `forget_peak`."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text("utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / GB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GB
