"""One command per stage, for people with their own files and a model on disk.

Each takes a model folder, data files and --set KEY=VALUE, and writes one stage folder: model/, metrics.jsonl, manifest.
The same command run again goes on where it stopped; with other data, base or settings it is refused with what differs,
unless --restart gives up what lies there. Exit codes: 0 done, 2 a mistake of the user's or a full disk (one line says
what to do), 1 a fault of ours, 143 and 130 stopped by SIGTERM or SIGINT after the step in hand, to go on later.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from xinglin.run import Stage

Model = Annotated[Path, typer.Option(help="The model folder to start from (transformers or peft).")]
Train = Annotated[Path, typer.Option("--data", help="Training records, JSONL (see `xinglin data import`).")]
Valid = Annotated[Path | None, typer.Option(help="Validation records; chooses the best checkpoint.")]
Out = Annotated[Path, typer.Option(help="The stage's folder.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, e.g. lr=1e-4.")]
Restart = Annotated[bool, typer.Option("--restart", help="Delete work in --out that was begun otherwise.")]
Reward = Annotated[Path, typer.Option(help="The folder of a reward model.")]
Questions = Annotated[Path, typer.Option("--data", help="Questions, JSONL.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for name, function in (
        ("pretrain", pretrain),
        ("sft", sft),
        ("reward", reward),
        ("dpo", dpo),
        ("ppo", ppo),
        ("grpo", grpo),
        ("best-of-n", best_of_n),
        ("sample", sample),
        ("score", score),
        ("evaluate", evaluate),
    ):
        app.command(name, epilog=EXAMPLES[name])(function)


EXAMPLES = {
    "pretrain": "Example:  xinglin pretrain --model base --data documents.jsonl --out runs/pt --set lr=1e-4",
    "sft": "Example:  xinglin sft --model base --data conversations.jsonl --out runs/sft --set method=qlora",
    "reward": "Example:  xinglin reward --model runs/sft/model --data prefs.jsonl --valid held.jsonl --out runs/rm",
    "dpo": "Example:  xinglin dpo --model runs/sft/model --data prefs.jsonl --out runs/dpo --set beta=0.1",
    "ppo": "Example:  xinglin ppo --model runs/sft/model --reward runs/rm/model --data questions.jsonl --out runs/ppo",
    "grpo": "Example:  xinglin grpo --model runs/sft/model --reward runs/rm/model --data questions.jsonl "
    "--out runs/grpo",
    "best-of-n": "Example:  xinglin best-of-n --model runs/sft/model --reward runs/rm/model --data questions.jsonl "
    "--out runs/best --set num_answers=8",
    "sample": "Example:  xinglin sample --model runs/sft/model --data questions.jsonl --out runs/k --set num_answers=4",
    "score": "Example:  xinglin score --rollouts runs/k/rollouts.jsonl --data questions.jsonl --set scorer=rule "
    "--out runs/scored",
    "evaluate": "Example:  xinglin evaluate --model runs/sft/model --data DATA_FOLDER --out runs/eval",
}


def pretrain(
    model: Model, data: Train, out: Out, valid: Valid = None, settings: Settings = None, restart: Restart = False
) -> None:
    """Continue pre-training on documents."""

    def work(config: Any, stage: Stage) -> dict[str, Any]:
        from xinglin.train.causal import pretrain

        return {"counts": pretrain(config, stage, model, data, valid)}

    _run("pretrain", out, settings, work, [model, data, valid], restart)


def sft(
    model: Model,
    data: Train,
    out: Out,
    valid: Valid = None,
    general: Annotated[Path | None, typer.Option(help="General conversations against forgetting.")] = None,
    settings: Settings = None,
    restart: Restart = False,
) -> None:
    """Fine-tune on conversations; loss on assistant turns only."""

    def work(config: Any, stage: Stage) -> dict[str, Any]:
        from xinglin.train.causal import sft

        return {"counts": sft(config, stage, model, data, valid, general)}

    share = [] if general else ["general_share=0"]
    _run("sft", out, [*share, *(settings or [])], work, [model, data, valid, general], restart)


def reward(
    model: Model,
    data: Train,
    out: Out,
    valid: Annotated[Path, typer.Option(help="Held-out preferences.")],
    danger: Annotated[
        Path | None, typer.Option(help="Safe and dangerous answers; default: edits of the best held-out ones.")
    ] = None,
    settings: Settings = None,
    restart: Restart = False,
) -> None:
    """Train a reward model on rankings and examine it."""

    def work(config: Any, stage: Stage) -> dict[str, Any]:
        from xinglin.train.preference import reward

        return reward(config, stage, model, data, valid, danger)

    _run("reward", out, settings, work, [model, data, valid, danger], restart)


def dpo(
    model: Model, data: Train, out: Out, valid: Valid = None, settings: Settings = None, restart: Restart = False
) -> None:
    """Direct preference optimisation."""

    def work(config: Any, stage: Stage) -> dict[str, Any]:
        from xinglin.train.preference import dpo

        return dpo(config, stage, model, data, valid)

    _run("dpo", out, settings, work, [model, data, valid], restart)


def ppo(
    model: Model, reward: Reward, data: Questions, out: Out, settings: Settings = None, restart: Restart = False
) -> None:
    """Proximal policy optimisation against a reward model."""

    def work(config: Any, stage: Stage) -> dict[str, Any]:
        from xinglin.train.policy import ppo

        return ppo(config, stage, model, reward, data)

    _run("ppo", out, settings, work, [model, reward, data], restart)


def grpo(
    model: Model, reward: Reward, data: Questions, out: Out, settings: Settings = None, restart: Restart = False
) -> None:
    """Group-relative policy optimisation against a reward model."""

    def work(config: Any, stage: Stage) -> dict[str, Any]:
        from xinglin.train.policy import grpo

        return grpo(config, stage, model, reward, data)

    _run("grpo", out, settings, work, [model, reward, data], restart)


def best_of_n(
    model: Model, reward: Reward, data: Questions, out: Out, settings: Settings = None, restart: Restart = False
) -> None:
    """Rejection sampling: n answers, the reward model keeps the best K, then SFT on them."""

    def work(config: Any, stage: Stage) -> dict[str, Any]:
        from xinglin.train.best_of_n import best_of_n

        return best_of_n(config, stage, model, reward, data)

    _run("best_of_n", out, settings, work, [model, reward, data], restart)


def sample(model: Model, data: Questions, out: Out, settings: Settings = None, restart: Restart = False) -> None:
    """k answers to each question."""

    def work(config: Any, stage: Stage) -> dict[str, Any]:
        from xinglin.rollout.sample import sample

        return sample(config, stage, model, data)

    _run("sample", out, settings, work, [model, data], restart)


def score(
    rollouts: Annotated[Path, typer.Option(help="rollouts.jsonl of `xinglin sample`.")],
    data: Questions,
    out: Out,
    judge: Annotated[
        str, typer.Option(help="rule; local (--set model=FOLDER); human (--set file=FILE); or a judge's address.")
    ] = "rule",
    settings: Settings = None,
    restart: Restart = False,
) -> None:
    """Score sampled answers by rule, by a judge or by hand, and make rankings of them."""
    by = ["scorer=llm", f"url={judge}"] if judge.startswith(("http://", "https://")) else [f"scorer={judge}"]

    def work(config: Any, stage: Stage) -> dict[str, Any]:
        from xinglin.metrics import overlap_score
        from xinglin.rollout.score import score

        return score(config, stage, rollouts, data, overlap_score)

    _run("score", out, [*by, *(settings or [])], work, [rollouts, data], restart)


def evaluate(
    model: Annotated[list[Path], typer.Option(help="A model folder; repeat to compare with the first.")],
    data: Annotated[Path, typer.Option(help="A data folder as the data stage writes it.")],
    out: Out,
    settings: Settings = None,
    restart: Restart = False,
) -> None:
    """Every evaluation the data folder allows, with intervals; scores.jsonl in the stage's folder."""
    names = [path.parent.name if path.name == "model" else path.name for path in model]
    pairs = [f"[{name}, {names[0]}]" for name in names[1:]]
    given = [f"checkpoints=[{', '.join(names)}]", f"compare=[{', '.join(pairs)}]", *(settings or [])]

    def work(config: Any, stage: Stage) -> dict[str, Any]:
        from functools import partial

        from xinglin.evals.checkpoints import evaluate
        from xinglin.rollout.local import LocalGenerator
        from xinglin.stages import BIAS_ITEMS, pair_judge

        models = {name: partial(LocalGenerator.load, path, name=name) for name, path in zip(names, model, strict=True)}
        return evaluate(config, stage, models, data, None, BIAS_ITEMS, out, judge=pair_judge(config, stage))

    _run("evaluate", out, given, work, [*model, data], restart)


def _run(
    kind: str,
    out: Path,
    settings: list[str] | None,
    work: Callable[[Any, Stage], dict[str, Any]],
    inputs: list[Path | None],
    restart: bool,
) -> None:
    """Build the stage's configuration, do the work, write the manifest."""
    from xinglin.recipe import stage_config
    from xinglin.run import say
    from xinglin.stages import run_alone

    config = stage_config(kind, settings or [])
    for path in inputs:
        _must_exist(path)
    if run_alone(kind, config, out, work, [path for path in inputs if path], restart=restart):
        say(f"{kind}: {out}")
    else:
        say(f"{kind}: {out} is complete already")


def _must_exist(path: Path | None) -> None:
    from xinglin.records import InputError

    if path is not None and not path.exists():
        raise InputError(f"{path}: no such file or folder")
