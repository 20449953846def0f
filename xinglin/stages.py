"""The join: every stage of a recipe as one function, and the run that calls them in order.

    run_recipe(recipe, RunOptions(out=Path("runs/demo")))

Stages speak through files: each reads the folders of the stages it names and writes its own. A stage that is complete
under the same key (its configuration, its inputs' keys, the code's version) is not run again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
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
    HospitalNotes,
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
from xinglin.run import (
    Begun,
    Stage,
    begin_with,
    changed,
    exclusive,
    hashes_of,
    on_signals,
    one_hash,
    prepare_output,
    say,
    stage_key,
    stop,
    versions,
    write_text,
)

Work = Callable[[Any, Stage], dict[str, Any] | None]
RUN_BYTES = 2 << 30
TOGETHER = frozenset({"base", "pretrain", "sft", "reward", "dpo"})  # stages that several ranks share (train/ranks.py)
BIAS_ITEMS = Path(__file__).parent / "data/ward/knowledge/general/bias.yaml"


@dataclass(frozen=True, slots=True)
class RunOptions:
    out: Path
    data: str = "ward"
    data_dir: Path | None = None
    only: str | None = None
    quiet: bool = False
    scale: str = "tiny"
    columns: Path | None = None
    key: Path = Path("~/.config/xinglin/deidentify.key")
    """The secret of the de-identification, for notes."""


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
        generated = self.options.data == "notes" and self.options.data_dir is None
        return self.of_ward or generated or self.recipe.base.path is None

    @property
    def of_ward(self) -> bool:
        """Whether questions and preferences are the ward's, whose rules can score any answer."""
        return self.options.data == "ward" or (self.options.data == "notes" and not self.notes.public_dir)

    @property
    def notes(self) -> HospitalNotes:
        """How notes become data. Raises `InputError` where the recipe does not say."""
        config = self.recipe.stages.get("data")
        if not isinstance(config, Data) or config.notes is None:
            raise InputError(
                f"recipe {self.recipe.name!r} does not say how to mix notes: give --set data.notes.general_share=0.2, "
                "the share of general conversations; 0 is allowed"
            )
        return config.notes


def run_recipe(recipe: Recipe, options: RunOptions) -> tuple[Path, Path | None]:
    """Run every stage that is not yet complete, in the order of the recipe; the report last.

    Returns the report's path and the folder of the last model, to chat with.
    """
    _choose_device(recipe)
    if options.data == "public":
        _need_data_dir(options)
    if options.data == "notes":
        from xinglin.data.road import check_road

        check_road(Run(recipe, options, {}, {}).notes, options.data_dir, options.columns, options.key, options.out)
    from xinglin.train import ranks

    out = ranks.own(options.out)
    prepare_output(out, free_bytes=RUN_BYTES if recipe.base.tiny else 0)
    with exclusive(out):
        return _run_stages(recipe, options)


def _run_stages(recipe: Recipe, options: RunOptions) -> tuple[Path, Path | None]:
    about = {
        "recipe": recipe.name,
        "data": options.data,
        "scale": options.scale,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        **versions(),
    }
    from xinglin.train import ranks

    out = ranks.own(options.out)
    write_text(out / "run.json", json.dumps(about))
    write_text(out / "recipe.json", recipe.model_dump_json(indent=1, by_alias=True, serialize_as_any=True))
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
    if not ranks.is_main():
        return options.out, None
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
    from xinglin.train import ranks

    folder = run.options.out / f"{number:02d}-{name}"
    inputs = _inputs(run, name, config)
    key = stage_key(config, inputs)  # type: ignore[arg-type]
    skipped = run.options.only not in (None, name)
    if ranks.tell(skipped and not (folder / "manifest.json").is_file()):
        return
    run.folders[name], run.keys[name] = folder, key
    stage = Stage(ranks.own(folder), name, quiet=run.options.quiet)
    done = stage.manifest()["key"] if stage.complete else None
    if done := ranks.tell(done if skipped or done == key else None):
        run.keys[name] = done
        return
    kind = "base" if isinstance(config, Base) else config.stage
    if isinstance(config, Training) and run.template(config.from_):
        config = config.model_copy(update={"template": run.template(config.from_)})
    work = partial(FUNCTIONS[kind], run)
    begun = begin_with(key, config, {parent: {"": key} for parent, key in inputs.items()})
    job = partial(_work, stage, config, kind, begun, lambda config, stage: work(stage, config), synthetic=run.synthetic)
    ranks.each(kind, kind in TOGETHER, job)


def run_alone(
    kind: str, config: StageConfig, out: Path, work: Work, inputs: list[Path], *, restart: bool = False
) -> bool:
    """One stage outside a recipe. False when `out` holds it already, complete and of the same inputs.

    Raises `InputError` where `out` holds work on other inputs or under other settings, unless `restart` gives that up.
    """
    from xinglin.train import ranks

    out = ranks.own(out)
    files = {str(path): hashes_of(path) for path in inputs}
    key = stage_key(config, {path: one_hash(hashes) for path, hashes in files.items()})
    if out.is_dir() and {path.name for path in out.iterdir()} - {".lock"} and not (out / "key").is_file():
        raise InputError(f"{out}: not empty and no stage of ours; give --out a new or empty folder")
    with exclusive(out):
        stage = Stage(out, kind)
        if ranks.tell(stage.complete and stage.manifest()["key"] == key):
            return False
        begun = begin_with(key, config, files)
        other = changed(out, begun)
        if other and not restart and ((out / "manifest.json").is_file() or any(out.glob("checkpoints/step-*"))):
            raise InputError(
                f"{out}: holds work that was begun otherwise: {other}; give another --out, run it as it was begun, or "
                "add --restart to delete that work and begin again"
            )
        ranks.each(kind, kind in TOGETHER, partial(_work, stage, config, kind, begun, work))
        return True


def _work(stage: Stage, config: Config, kind: str, begun: Begun, work: Work, **facts: Any) -> None:
    """Do a stage's work in its folder, clear what only served to resume it, and write the manifest last."""
    _discard_other(stage, begun)
    say(f"{stage.dir.name}: {'going on' if any(stage.dir.rglob('checkpoints')) else 'running'}")
    with on_signals(stop):
        found = work(config, stage) or {}
    stage.finish(config=begun.config, inputs=begun.inputs, key=begun.key, kind=kind, **facts, **found)
    stage.clear_resume()


def _discard_other(stage: Stage, begun: Begun) -> None:
    """What lies there was begun under another key: it cannot be continued."""
    path = stage.dir / "key"
    if other := changed(stage.dir, begun):
        say(f"{stage.dir.name}: {other}; starting again")
    elif path.is_file():
        return
    (stage.dir / "manifest.json").unlink(missing_ok=True)  # first: what follows is not complete
    for item in stage.dir.iterdir():
        if item.name not in (".lock", "key"):
            shutil.rmtree(item) if item.is_dir() else item.unlink()
    write_text(path, json.dumps(asdict(begun), ensure_ascii=False))


def _inputs(run: Run, name: str, config: StageConfig | Base) -> dict[str, str]:
    """Keys of what a stage depends on."""
    if isinstance(config, Data):
        return _data_inputs(run.options, config)
    names = ["data"]
    for field in ("from_", "reward", "data"):
        value = getattr(config, field, None)
        if isinstance(value, str) and value in run.keys:
            names.append(value)
    if isinstance(config, Evaluate):
        listed = (*config.checkpoints, *config.rewards, *config.aligned, config.held_out_reward)
        names += [name for name in listed if name in run.keys]
    found = {parent: run.keys[parent] for parent in names if parent in run.keys}
    if run.recipe.base.path and getattr(config, "from_", None) == "base":
        found["base"] = one_hash(hashes_of(Path(run.recipe.base.path)))
    files = [getattr(config, field, None) for field in ("file", "doctor_labels")]
    return found | {str(path): one_hash(hashes_of(Path(path))) for path in files if path}


def _data_inputs(options: RunOptions, config: Data) -> dict[str, str]:
    paths = {"data_dir": options.data_dir if options.data != "ward" else None}
    found = {"data": options.data}
    if options.data == "notes" and config.notes:
        from xinglin.data.deidentify.ledger import key_name, load_key

        found["key"] = key_name(load_key(options.key, options.out))
        given = (config.notes.public_dir, config.notes.general_file)
        paths |= {"columns": options.columns, **{name: Path(name) for name in given if name}}
    return found | {name: one_hash(hashes_of(path)) if path else "" for name, path in paths.items()}


# --- stages ----------------------------------------------------------------------------------------------------------


def data_stage(run: Run, stage: Stage, config: Data) -> dict[str, Any]:
    from xinglin.data.road import say_overlap, training_overlap

    facts = _build_data(run, stage, config)
    overlap = training_overlap(stage.dir)
    say_overlap(overlap)
    return {**facts, "training_overlap": overlap}


def _build_data(run: Run, stage: Stage, config: Data) -> dict[str, Any]:
    if run.options.data == "notes":
        return _notes(run, stage, config)
    if run.options.data == "ward":
        from xinglin.data.ward.build import build_ward, ward_config

        return {"counts": build_ward(stage.dir, ward_config(config.ward), config.seed)}
    from xinglin.data.public import build_public

    assert run.options.data_dir is not None

    return build_public(stage.dir, run.options.data_dir, config.public, config.seed)


def _notes(run: Run, stage: Stage, config: Data) -> dict[str, Any]:
    from xinglin.data.deidentify.pipeline import Leak
    from xinglin.data.road import build_notes

    options = run.options
    try:
        with stage.progress("notes", None) as bar:
            given = (run.notes, options.data_dir, options.columns, options.key)
            return build_notes(stage.dir, config, *given, advance=lambda step, count: bar(count, step))
    except Leak as error:  # its message names note and kind, no text
        say(f"xinglin: {error}")
        raise SystemExit(1) from None


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

    folder, danger = _preferences(run, config.data), run.data("preferences/danger.jsonl")
    return reward(config, stage, run.model(config.from_), folder / "train.jsonl", folder / "valid.jsonl", danger)


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
    scorer = rule_scorer(run) if run.of_ward else None
    planted = Path(Stage(run.folder("data"), "data", quiet=True).manifest().get("canaries", {}).get("file", ""))
    if config.canaries is None and planted.is_file():
        config = config.model_copy(update={"canaries": str(planted)})
    rewards = {name: run.folder(name) / "diagnostics.json" for name in config.rewards}
    judge = pair_judge(config, stage)
    held_out = run.model(config.held_out_reward) if config.held_out_reward else None
    out, folders = run.options.out, run.folders
    return evaluate(
        config, stage, models, run.folder("data"), scorer, BIAS_ITEMS, out, rewards, judge, held_out, folders
    )


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
    return export(run.model(config.from_), stage.dir / "model", acknowledge=config.acknowledge_research_only)


def rule_scorer(run: Run) -> Callable[..., dict[str, float]]:
    """The ward's scorer where the world knows the truth; overlap with the doctor's answer elsewhere."""
    if run.of_ward:
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
    if name == "length":  # a bad reward on purpose: what the health rules are for
        return lambda question, text: float(len(text))
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
