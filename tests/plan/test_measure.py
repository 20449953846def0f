"""The forecast of a run: counts against stages that really ran, and the scaling by hand on a stopped clock."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import tiny_stages
from tiny_stages import CONFIGS, log_of, run_stage, save_model, write_data
from typer.testing import CliRunner

from xinglin.cli import app
from xinglin.config import Base, BestOfN, Decoding, Evaluate, Ppo, Recipe, Reward, Sample, Score, Sft, StageConfig
from xinglin.plan import measure
from xinglin.plan.measure import Forecast, forecast_run, sample_data
from xinglin.plan.work import num_validations, work_of
from xinglin.records import write_records
from xinglin.run import Stage

TINY_RECIPE = Path(__file__).parents[1] / "tiny_recipe.yaml"


def recipe(base: Path, **stages: StageConfig) -> Recipe:
    return Recipe(name="demo", base=Base(path=str(base)), stages=stages)


# --- counts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pretrain", "sft", "reward", "dpo"])
def test_steps_and_validations_are_those_of_a_run(tmp_path: Path, kind: str) -> None:
    data = write_data(tmp_path / "data")
    run_stage(kind, tmp_path / "out", data, save_model(tmp_path / "base"))
    found = work_of(recipe(tmp_path), kind, CONFIGS[kind], data)
    log = log_of(tmp_path / "out")
    assert found.steps == sum("lr" in line for line in log) == tiny_stages.NUM_STEPS
    assert found.validations == sum("valid_loss" in line for line in log)
    assert found.validated == 6


@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [(12, 3, 5), (25, None, 14), (3, None, 4), (10, 4, 4)],  # 25: 0, 2, 4 ... 24, 25; 10 by 4: 0, 4, 8, 10
)
def test_validations_by_hand(steps: int, every: int | None, expected: int) -> None:
    assert num_validations(Sft(general_share=0, eval_every=every), steps) == expected


def test_work_by_hand(tmp_path: Path) -> None:
    data = write_data(tmp_path)
    write_records(data / "questions/test.jsonl", tiny_stages.questions(5))
    stages: dict[str, StageConfig] = {
        "sample": Sample(limit=4, num_answers=3),
        "score": Score(),
        "reward": Reward(data="score", batch_size=2),
        "best_of_n": BestOfN(keep=2, num_answers=5, batch_size=4, epochs=3),
        "ppo": Ppo(iterations=5, prompts=3),
        "evaluate": Evaluate(checkpoints=("a",), evaluations=("documents", "dialogue", "dialogue_sampled"), limit=4),
    }
    demo = recipe(tmp_path, **stages)
    found = {name: work_of(demo, name, config, data) for name, config in stages.items()}
    assert found["sample"].questions == 4
    assert (found["reward"].rows, found["reward"].steps) == (4, 2) and "known once it is scored" in found["reward"].note
    assert (found["best_of_n"].questions, found["best_of_n"].rows) == (6, 11)  # 2 of each kept, 5 % held
    assert found["best_of_n"].steps == math.ceil(33 / 4)
    assert (found["ppo"].steps, found["ppo"].questions) == (5, 15)
    assert found["evaluate"].items == 3 * 4


# --- scaling ---------------------------------------------------------------------------------------------------------


class Clock:
    """Time that passes only when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    stopped = Clock()
    monkeypatch.setattr(measure.time, "perf_counter", stopped)
    yield stopped


def rows(data: Path, count: int, name: str, part: str) -> None:
    make = tiny_stages.preferences if name == "preferences" else tiny_stages.conversations
    write_records(data / name / f"{part}.jsonl", make(count))


def test_a_training_stage_by_hand(tmp_path: Path, clock: Clock) -> None:
    data = tmp_path / "data"
    for name, part, count in (("conversations", "train", 90), ("conversations", "valid", 20), ("general", "train", 30)):
        rows(data, count, name, part)

    def work(name: str, config: Any, stage: Stage, folder: Path) -> None:
        assert config.max_steps == 6 and len((folder / "conversations/valid.jsonl").read_text().splitlines()) == 16
        clock.spend(0.5)  # loading
        with stage.progress("train", 6):
            clock.spend(0.25)
            stage.log(step=0, valid_loss=1.0)
            for step in range(6):
                clock.spend(0.75 if step == 0 else 0.125)  # the first pays for warming up
                stage.log(step=step + 1, loss=1.0, lr=0.1)
            clock.spend(0.0625)
            stage.log(step=6, valid_loss=1.0)
        clock.spend(0.5)  # saving

    demo = recipe(save_model(tmp_path / "base"), sft=Sft(general_share=0.1, batch_size=8, epochs=2))
    (found,) = forecast_run(demo, data, tmp_path / "scratch", work)
    # 90 + 10 rows twice by 8 = 25 steps; 14 validations of 20 rows where 16 took 0.0625 s; half a second at each end
    assert found.seconds == pytest.approx(25 * 0.125 + 14 * 0.0625 * 20 / 16 + 1.0)
    assert found.gigabytes is not None and 0.05 < found.gigabytes < 8
    assert found.tokens is not None and found.tokens > 200


def test_a_reference_pass_and_an_iteration_by_hand(tmp_path: Path, clock: Clock) -> None:
    data = write_data(tmp_path / "data")
    rows(data, 240, "preferences", "train")
    rows(data, 60, "preferences", "valid")

    def work(name: str, config: Any, stage: Stage, folder: Path) -> None:
        if name == "dpo":
            with stage.progress("reference", 1):
                clock.spend(0.5)  # 7 batches of 4 and 16 of validation: 44 of 300 rows
            clock.spend(0.25)
            stage.log(step=1, lr=0.1)
        elif name == "ppo":
            assert config.iterations == 1 and config.value_warmup == 0
            with stage.progress("iterations", 1):
                clock.spend(1.5)
                stage.log(step=1, iteration=0, lr=0.1)
            clock.spend(0.25)
        else:
            with stage.progress("answers", 1):
                clock.spend(0.125)
            clock.spend(0.25)

    base = save_model(tmp_path / "base")
    stages = {"dpo": CONFIGS["dpo"], "ppo": CONFIGS["ppo"], "sample": Sample(limit=4)}
    dpo, ppo, sample = forecast_run(recipe(base, **stages), data, tmp_path / "scratch", work)
    assert dpo.seconds == pytest.approx(0.5 * 300 / 44 + 120 * 0.25)
    assert ppo.seconds == pytest.approx(3 * 1.5 + 0.25)
    assert sample.seconds == pytest.approx(0.125 * 4 / 4 + 0.25)


def test_the_sample_is_a_part_of_the_rows(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    sample_data(data, tmp_path / "small", recipe(tmp_path, sft=Sft(general_share=0, batch_size=2)))
    whole, part = (
        (folder / "conversations/train.jsonl").read_text("utf-8").splitlines() for folder in (data, tmp_path / "small")
    )
    assert len(part) == 14 and set(part) < set(whole)
    questions = "questions/train.jsonl"
    assert (tmp_path / "small" / questions).read_bytes() == (data / questions).read_bytes()


def test_listening_leaves_nothing_behind(tmp_path: Path) -> None:
    log, progress = Stage.log, Stage.progress
    with pytest.raises(ZeroDivisionError), measure.listening():
        Stage(tmp_path, "x").log(step=1, lr=1 / 0)
    assert (Stage.log, Stage.progress) == (log, progress)


def test_an_evaluation_by_hand(tmp_path: Path, clock: Clock) -> None:
    data = write_data(tmp_path / "data")
    write_records(data / "questions/test.jsonl", tiny_stages.questions(100))

    def work(name: str, config: Any, stage: Stage, folder: Path) -> None:
        if isinstance(config, Evaluate):
            assert (config.limit, config.checkpoints, config.compare) == (48, ("sft",), ())
            clock.spend(2.0)  # word vectors
            with stage.progress("checkpoints", 1):
                clock.spend(3.0)  # 48 items

    config = Evaluate(
        checkpoints=("base", "sft"),
        compare=(("sft", "base"),),
        evaluations=("dialogue",),
        decoding=Decoding(max_new_tokens=64),
    )
    stages = {"sft": CONFIGS["sft"], "evaluate": config}
    _, found = forecast_run(recipe(save_model(tmp_path / "base"), **stages), data, tmp_path / "scratch", work)
    small = measure.typical(tmp_path / "scratch/small", tiny_models.tokenizer())
    # 100 items at 1/16 s for the model that stops; for the other, a third of it as many times longer as its answers
    assert found.seconds == pytest.approx(2.0 + 100 / 16 * (1 + 2 / 3 + 64 / small.answer / 3))


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_plans_every_stage() -> None:
    found = CliRunner().invoke(app, ["doctor", "--plan", str(TINY_RECIPE), "--json"])
    assert found.exit_code == 0, found.output
    stages = [Forecast(**one) for one in json.loads(found.stdout)["stages"]]
    names = ["data", "base", "base: pre-training", "pretrain", "sft", "sample", "score", "reward", "ppo", "dpo"]
    assert [one.stage for one in stages] == [*names, "best_of_n", "evaluate", "export"]
    assert all(one.seconds is not None and 0 < one.seconds < 300 for one in stages)
    assert all(one.gigabytes is not None and 0 < one.gigabytes < 4 for one in stages)
