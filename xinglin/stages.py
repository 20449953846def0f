"""The join: every stage of a recipe as one function, and the run that calls them in order.

    run_recipe(recipe, RunOptions(out=Path("runs/demo")))

Stages speak through files: each reads the folders of the stages it names and writes its own. A stage that is complete
under the same key (its configuration, its inputs' keys, the code's version) is not run again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from xinglin.config import (
    Base,
    BestOfN,
    Config,
    Data,
    Dpo,
    Evaluate,
    Export,
    Grpo,
    Ppo,
    Pretrain,
    Recipe,
    Reward,
    Sample,
    Score,
    Sft,
    StageConfig,
    Training,
)
from xinglin.records import InputError
from xinglin.run import Stage, exclusive, file_hash, prepare_output, say, stage_key, versions, write_text

Work = Callable[[Any, Stage], dict[str, Any] | None]
RUN_BYTES = 2 << 30
BIAS_ITEMS = Path(__file__).parent / "data/ward/knowledge/general/bias.yaml"


@dataclass(frozen=True, slots=True)
class RunOptions:
    out: Path
    data: str = "ward"
    data_dir: Path | None = None
    only: str | None = None
    quiet: bool = False
    scale: str = "tiny"


@dataclass(slots=True)
class Run:
    """Where the finished stages are, by name."""

    recipe: Recipe
    options: RunOptions
    folders: dict[str, Path]
    keys: dict[str, str]

    def model(self, name: str) -> Path:
        """The model folder a stage wrote."""
        if name == "base" and self.recipe.base.path:
            return Path(self.recipe.base.path)
        return self.folder(name) / "model"

    def folder(self, name: str) -> Path:
        """The folder of a finished stage."""
        if name not in self.folders:
            raise InputError(f"stage {name!r} is not finished; run it first, or the whole recipe")
        return self.folders[name]

    def template(self, name: str) -> str | None:
        """The chat template of a base on disk; all other models remember theirs."""
        return self.recipe.base.template if name == "base" and self.recipe.base.path else None

    def data(self, name: str) -> Path:
        return self.folder("data") / name

    @property
    def synthetic(self) -> bool:
        """Whether what is shown of this run must carry the word."""
        return self.options.data == "ward" or self.recipe.base.path is None


def run_recipe(recipe: Recipe, options: RunOptions) -> tuple[Path, Path | None]:
    """Run every stage that is not yet complete, in the order of the recipe; the report last.

    Returns the report's path and the folder of the last model, to chat with.
    """
    _choose_device(recipe)
    if options.data == "public":
        _need_data_dir(options)
    prepare_output(options.out, free_bytes=RUN_BYTES if recipe.base.tiny else 0)
    with exclusive(options.out):
        return _run_stages(recipe, options)


def _run_stages(recipe: Recipe, options: RunOptions) -> tuple[Path, Path | None]:
    about = {
        "recipe": recipe.name,
        "data": options.data,
        "scale": options.scale,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        **versions(),
    }
    write_text(options.out / "run.json", json.dumps(about))
    write_text(options.out / "recipe.json", recipe.model_dump_json(indent=1, by_alias=True, serialize_as_any=True))
    run = Run(recipe, options, {}, {})
    stages = dict(recipe.stages)
    ordered: list[tuple[str, StageConfig | Base]] = [("data", stages.pop("data", Data()))]
    if recipe.base.path is None:
        ordered.append(("base", recipe.base))
    ordered += list(stages.items())
    if options.only and options.only not in dict(ordered):
        raise InputError(f"--only {options.only}: the recipe has no such stage; it has {', '.join(dict(ordered))}")
    for number, (name, config) in enumerate(ordered):
        _run_stage(run, number, name, config)
    from xinglin.report import write_report

    policies = [name for name, config in stages.items() if isinstance(config, Training) and config.stage != "reward"]
    models = [run.model(name) for name in policies if name in run.folders]
    return write_report(options.out), models[-1] if models else None


def _choose_device(recipe: Recipe) -> None:
    """Refuse a GPU that is not there before anything is written."""
    import torch

    if recipe.base.device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"recipe {recipe.name!r} asks for a GPU (base.device: cuda) and this machine has none that torch can use; "
            "run it with --scale tiny, or --set base.device=cpu"
        )
    if recipe.base.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _need_data_dir(options: RunOptions) -> None:
    if options.data_dir is None or not options.data_dir.is_dir():
        given = f"{options.data_dir}: no such folder" if options.data_dir else "no --data-dir"
        raise InputError(f"--data public needs --data-dir DIR, a folder of public sets; {given}")


def _run_stage(run: Run, number: int, name: str, config: StageConfig | Base) -> None:
    folder = run.options.out / f"{number:02d}-{name}"
    inputs = _inputs(run, name, config)
    key = stage_key(config, inputs)  # type: ignore[arg-type]
    skipped = run.options.only not in (None, name)
    if skipped and not (folder / "manifest.json").is_file():
        return
    run.folders[name], run.keys[name] = folder, key
    stage = Stage(folder, name, quiet=run.options.quiet)
    if stage.complete and (skipped or stage.manifest()["key"] == key):
        run.keys[name] = stage.manifest()["key"]
        return
    kind = "base" if isinstance(config, Base) else config.stage
    if isinstance(config, Training) and run.template(config.from_):
        config = config.model_copy(update={"template": run.template(config.from_)})
    work = partial(FUNCTIONS[kind], run)
    _work(stage, config, kind, key, inputs, lambda config, stage: work(stage, config), synthetic=run.synthetic)


def run_alone(kind: str, config: StageConfig, out: Path, work: Work, inputs: list[Path]) -> bool:
    """One stage outside a recipe. False when `out` holds it already, complete and of the same inputs."""
    hashes = {str(path): _content_hash(path) for path in inputs}
    key = stage_key(config, hashes)
    if out.is_dir() and any(out.iterdir()) and not (out / "key").is_file():
        raise InputError(f"{out}: not empty and no stage of ours; give --out a new or empty folder")
    with exclusive(out):
        stage = Stage(out, kind)
        if stage.complete and stage.manifest()["key"] == key:
            return False
        _work(stage, config, kind, key, hashes, work)
        return True


def _work(
    stage: Stage,
    config: Config,
    kind: str,
    key: str,
    inputs: dict[str, str],
    work: Work,
    **facts: Any,
) -> None:
    """Do a stage's work in its folder, clear what only served to resume it, and write the manifest last."""
    _discard_other(stage.dir, key)
    say(f"{stage.dir.name}: {'going on' if any(stage.dir.rglob('checkpoints')) else 'running'}")
    found = work(config, stage) or {}
    dumped = config.model_dump(mode="json", by_alias=True)
    stage.finish(config=dumped, inputs=inputs, key=key, kind=kind, **facts, **found)
    stage.clear_resume()


def _content_hash(path: Path) -> str:
    """A hash over a file, or over all files of a folder: two trainings of one model differ in no name and no size."""
    if path.is_file():
        return file_hash(path)
    listing = [f"{p.relative_to(path)} {file_hash(p)}" for p in sorted(path.rglob("*")) if p.is_file()]
    return hashlib.sha256("\n".join(listing).encode()).hexdigest()


def _discard_other(folder: Path, key: str) -> None:
    """What lies there was begun under another key: it cannot be continued."""
    path = folder / "key"
    if path.is_file() and path.read_text("utf-8") == key:
        return
    (folder / "manifest.json").unlink(missing_ok=True)  # first: what follows is not complete
    for item in folder.iterdir():
        if item.name != ".lock":
            shutil.rmtree(item) if item.is_dir() else item.unlink()
    write_text(path, key)


def _inputs(run: Run, name: str, config: StageConfig | Base) -> dict[str, str]:
    """Keys of what a stage depends on."""
    if isinstance(config, Data):
        folder = run.options.data_dir if run.options.data == "public" else None
        return {"data": run.options.data, "data_dir": _content_hash(folder) if folder else ""}
    names = ["data"]
    for field in ("from_", "reward", "data"):
        value = getattr(config, field, None)
        if isinstance(value, str) and value in run.keys:
            names.append(value)
    if isinstance(config, Evaluate):
        names += [name for name in (*config.checkpoints, *config.rewards) if name in run.keys]
    found = {parent: run.keys[parent] for parent in names if parent in run.keys}
    if run.recipe.base.path and getattr(config, "from_", None) == "base":
        found["base"] = _content_hash(Path(run.recipe.base.path))
    return found


# --- stages ----------------------------------------------------------------------------------------------------------


def data_stage(run: Run, stage: Stage, config: Data) -> dict[str, Any]:
    if run.options.data == "ward":
        from xinglin.data.ward.build import build_ward, ward_config

        return {"counts": build_ward(stage.dir, ward_config(config.ward), config.seed)}
    from xinglin.data.public import build_public

    assert run.options.data_dir is not None

    return build_public(stage.dir, run.options.data_dir, config.public, config.seed)


def base_stage(run: Run, stage: Stage, config: Base) -> dict[str, Any]:
    """The embedded model: a tokenizer trained on this run's text, random weights, and its own pre-training."""
    from xinglin.data.batches import training_texts
    from xinglin.models.load import save_model
    from xinglin.models.template import template_named
    from xinglin.models.tiny import build_model, train_tokenizer
    from xinglin.train.causal import pretrain

    tiny = config.tiny
    if tiny is None:
        raise InputError(
            f"recipe {run.recipe.name!r} needs its base model: --set base.path=FOLDER, "
            "or --scale tiny for the embedded one"
        )
    tokenizer = train_tokenizer(training_texts(run.folder("data")), tiny.vocab_size, config.template)
    model = build_model(
        tiny.shape,
        len(tokenizer),
        hidden_size=tiny.hidden_size,
        num_layers=tiny.num_layers,
        num_heads=tiny.num_heads,
        max_seq_len=tiny.max_seq_len,
        seed=tiny.seed,
    )
    facts: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters()), "vocabulary": len(tokenizer)}
    if tiny.pretrain is None:
        save_model(stage.dir / "model", model, tokenizer, template_named(config.template))
        return facts
    start = stage.dir / "random"
    save_model(start, model, tokenizer, template_named(config.template))
    train, valid = run.data("documents/train.jsonl"), run.data("documents/valid.jsonl")
    facts["counts"] = pretrain(tiny.pretrain, stage, start, train, valid)
    return facts


def pretrain_stage(run: Run, stage: Stage, config: Pretrain) -> dict[str, Any]:
    from xinglin.train.causal import pretrain

    train, valid = run.data(f"{config.data}/train.jsonl"), run.data(f"{config.data}/valid.jsonl")
    return {"counts": pretrain(config, stage, run.model(config.from_), train, valid)}


def sft_stage(run: Run, stage: Stage, config: Sft) -> dict[str, Any]:
    from xinglin.train.causal import sft

    train, valid = run.data(f"{config.data}/train.jsonl"), run.data(f"{config.data}/valid.jsonl")
    counts = sft(config, stage, run.model(config.from_), train, valid, run.data("general/train.jsonl"))
    return {"counts": counts}


def sample_stage(run: Run, stage: Stage, config: Sample) -> dict[str, Any]:
    from xinglin.rollout.sample import sample

    questions = run.data(f"{config.questions}.jsonl")
    return sample(config, stage, run.model(config.from_), questions)


def score_stage(run: Run, stage: Stage, config: Score) -> dict[str, Any]:
    from xinglin.rollout.score import score

    questions = run.data("questions/train.jsonl")
    return score(config, stage, run.folder(config.from_) / "rollouts.jsonl", questions, rule_scorer(run))


def reward_stage(run: Run, stage: Stage, config: Reward) -> dict[str, Any]:
    from xinglin.train.preference import reward

    folder = _preferences(run, config.data)
    return reward(config, stage, run.model(config.from_), folder / "train.jsonl", folder / "valid.jsonl")


def dpo_stage(run: Run, stage: Stage, config: Dpo) -> dict[str, Any]:
    from xinglin.train.preference import dpo

    folder = _preferences(run, config.data)
    return dpo(config, stage, run.model(config.from_), folder / "train.jsonl", folder / "valid.jsonl")


def best_of_n_stage(run: Run, stage: Stage, config: BestOfN) -> dict[str, Any]:
    from xinglin.train.best_of_n import best_of_n

    questions = run.data(f"{config.questions}.jsonl")
    return best_of_n(config, stage, run.model(config.from_), run.model(config.reward), questions)


def ppo_stage(run: Run, stage: Stage, config: Ppo) -> dict[str, Any]:
    from xinglin.train.policy import ppo

    questions = run.data(f"{config.questions}.jsonl")
    return ppo(config, stage, run.model(config.from_), _reward(run, config.reward), questions)


def grpo_stage(run: Run, stage: Stage, config: Grpo) -> dict[str, Any]:
    from xinglin.train.policy import grpo

    questions = run.data(f"{config.questions}.jsonl")
    return grpo(config, stage, run.model(config.from_), _reward(run, config.reward), questions)


def evaluate_stage(run: Run, stage: Stage, config: Evaluate) -> dict[str, Any]:
    from xinglin.evals.checkpoints import evaluate
    from xinglin.rollout.local import LocalGenerator

    models = {
        name: partial(LocalGenerator.load, run.model(name), name=name, template=run.template(name))
        for name in config.checkpoints
    }
    scorer = rule_scorer(run) if run.options.data == "ward" else None
    rewards = {name: run.folder(name) / "diagnostics.json" for name in config.rewards}
    judge = pair_judge(config, stage)
    return evaluate(config, stage, models, run.folder("data"), scorer, BIAS_ITEMS, run.options.out, rewards, judge)


def pair_judge(config: Evaluate, stage: Stage) -> Any:
    """The judge of win rates that the recipe names, or None."""
    from xinglin.rollout.judge import PairJudge
    from xinglin.rollout.score import JUDGE_KEY

    if config.judge_url is None:
        return None
    key = JUDGE_KEY if os.environ.get(JUDGE_KEY) else None
    return PairJudge(
        config.judge_url, config.judge_model or "default", cache=stage.dir / "judge.jsonl", api_key_env=key
    )


def export_stage(run: Run, stage: Stage, config: Export) -> dict[str, Any]:
    from xinglin.export import export

    shutil.rmtree(stage.dir / "model", ignore_errors=True)  # half of one that was killed
    return export(run.model(config.from_), stage.dir / "model")


def rule_scorer(run: Run) -> Callable[..., dict[str, float]]:
    """The ward's scorer where the world knows the truth; overlap with the doctor's answer elsewhere."""
    if run.options.data == "ward":
        from xinglin.data.ward.scorer import score_answer
        from xinglin.data.ward.world import load_world

        world = load_world()
        return lambda question, text: score_answer(world, question, text)
    from xinglin.metrics import overlap_score

    return overlap_score


def _preferences(run: Run, name: str) -> Path:
    """Preferences of the data stage, or those a score stage made."""
    return run.folders[name] / "preferences" if name in run.folders else run.data(name)


def _reward(run: Run, name: str) -> Path | Callable[..., float]:
    if name == "rule":
        scorer = rule_scorer(run)
        return lambda question, text: float(scorer(question, text)["overall"])
    return run.model(name)


FUNCTIONS: dict[str, Callable[[Run, Stage, Any], dict[str, Any] | None]] = {
    "data": data_stage,
    "base": base_stage,
    "pretrain": pretrain_stage,
    "sft": sft_stage,
    "sample": sample_stage,
    "score": score_stage,
    "reward": reward_stage,
    "best_of_n": best_of_n_stage,
    "dpo": dpo_stage,
    "ppo": ppo_stage,
    "grpo": grpo_stage,
    "evaluate": evaluate_stage,
    "export": export_stage,
}
