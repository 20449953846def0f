"""The experiments about preferences: what they compare differs in nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from xinglin.config import Dpo, Evaluate, LabelNoise, Ppo, Reward
from xinglin.recipe import load_recipe
from xinglin.records import InputError, Question
from xinglin.stages import _reward


@pytest.mark.parametrize("scale", ["full", "tiny"])
def test_the_four_learn_from_one_half_and_are_judged_by_the_other(scale: str) -> None:
    stages = load_recipe("preferences-compare", scale=scale).stages
    reward, held_out, dpo, battery = (stages[name] for name in ("reward", "reward-held-out", "dpo", "evaluate"))
    assert isinstance(reward, Reward) and isinstance(held_out, Reward)
    assert isinstance(dpo, Dpo) and isinstance(battery, Evaluate)
    assert (reward.half, dpo.half, held_out.half) == ("first", "first", "second")
    assert battery.held_out_reward == "reward-held-out" and battery.reference == "sft"
    assert {stages[name].from_ for name in battery.aligned} == {"sft"}  # type: ignore[attr-defined]
    assert {stages[name].reward for name in ("ppo", "grpo", "best_of_n")} == {"reward"}  # type: ignore[attr-defined]
    drawn = [stages[name].iterations * stages[name].prompts * stages[name].num_answers for name in ("ppo", "grpo")]  # type: ignore[attr-defined]
    drawn.append(stages["best_of_n"].limit * stages["best_of_n"].num_answers)  # type: ignore[attr-defined]
    assert max(drawn) <= 1.1 * min(drawn)


def test_the_bad_reward_pays_for_length_alone() -> None:
    hacked = load_recipe("preferences-compare", scale="tiny").stages["ppo-hacked"]
    assert isinstance(hacked, Ppo) and hacked.reward == "length" and hacked.kl == 0
    score = _reward(SimpleNamespace(), hacked.reward)  # type: ignore[arg-type]
    assert callable(score) and score(Question("q", ()), "三个字") == 3.0


def test_ranks_and_pairs_differ_in_the_ranks_alone() -> None:
    stages = load_recipe("rank-augmentation", scale="tiny").stages
    for seed in ("", "-seed1"):
        ranks, pairs = (stages[name + seed].model_dump(exclude={"ranks"}) for name in ("ranks", "pairs"))
        assert ranks == pairs and stages["ranks" + seed].ranks == "all"  # type: ignore[attr-defined]


def test_the_noise_study_differs_in_the_noise_alone() -> None:
    stages = load_recipe("label-noise", scale="tiny").stages
    noisy = {name: stage for name, stage in stages.items() if isinstance(stage, Reward)}
    assert len({stage.model_dump_json(exclude={"noise"}) for stage in noisy.values()}) == 1
    for name, stage in noisy.items():
        assert isinstance(stage.noise, LabelNoise)
        how, _, percent = name.partition("-")
        assert stage.noise.share == pytest.approx(int(percent) / 100)
        assert stage.noise.settle == {"one": "first", "weighted": "weighted"}[how]


def test_what_is_compared_must_be_evaluated() -> None:
    with pytest.raises(InputError, match="aligned .* names 'dpo', which is not among its checkpoints"):
        load_recipe("preferences-compare", scale="tiny", settings=["evaluate.checkpoints=[sft]", "evaluate.compare=[]"])
