"""Rejection sampling: what is kept is what the reward model likes best, every answer is accounted for, and an
interrupted round is gone on with, not begun again."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_stages import run_stage, weights

from xinglin.config import BestOfN, Decoding
from xinglin.records import Conversation, InputError, read_records, write_records
from xinglin.rollout.reward import load_reward
from xinglin.run import Stage
from xinglin.train import best_of_n as module
from xinglin.train.best_of_n import best_of_n

CONFIG = BestOfN(
    num_answers=6, keep=2, rounds=2, epochs=1, max_seq_len=128, precision="fp32", decoding=Decoding(max_new_tokens=6)
)


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory, data: Path, model: Path) -> Path:
    return run_stage("reward", tmp_path_factory.mktemp("reward"), data, model).dir / "model"


def run(out: Path, data: Path, model: Path, reward: Path, config: BestOfN = CONFIG) -> dict[str, object]:
    return best_of_n(config, Stage(out, "best_of_n", quiet=True), model, reward, data / "questions/train.jsonl")


def test_rounds_keep_the_best_and_account_for_the_rest(tmp_path: Path, data: Path, model: Path, reward: Path) -> None:
    facts = run(tmp_path, data, model, reward)
    assert (facts["n"], facts["keep"]) == (6, 2) and [r["round"] for r in facts["rounds"]] == [1, 2]  # type: ignore[attr-defined,index]
    for found in facts["rounds"]:  # type: ignore[attr-defined]
        counts = found["counts"]
        lost = counts["answers said twice"] + counts["answers without text"] + counts["answers not kept"]
        assert counts["answers"] == 6 * 6 == counts["kept"] + lost
        assert found["reward_of_best"] >= found["reward_mean"]
        assert found["training"]["conversations"] == counts["kept"]
    assert (tmp_path / "model").resolve() == (tmp_path / "round-2/model").resolve()
    assert weights(tmp_path) and not list(tmp_path.rglob("checkpoints")) and not list(tmp_path.rglob("best"))


def test_what_is_kept_scores_as_it_says_in_falling_order(tmp_path: Path, data: Path, model: Path, reward: Path) -> None:
    run(tmp_path, data, model, reward, CONFIG.model_copy(update={"rounds": 1, "max_steps": 1}))
    judge = load_reward(reward)
    kept: dict[str, list[Conversation]] = {}
    for record in read_records(tmp_path / "round-1/kept.jsonl", Conversation):
        kept.setdefault(record.messages[0].content, []).append(record)
    for group in kept.values():
        texts = [record.messages[-1].content for record in group]
        said = [record.meta["reward"] for record in group]
        assert len(set(texts)) == len(texts) <= 2 and said == sorted(said, reverse=True)
        assert judge.score_texts(group[0].messages[:-1], texts).tolist() == pytest.approx(said, abs=1e-5)


def test_an_interrupted_round_is_gone_on_with(
    tmp_path: Path, data: Path, model: Path, reward: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", data, model, reward)
    train, select, selected = module._train, module._select, []

    def dies(config: BestOfN, part: Stage, parent: Path, kept: Path) -> None:
        if part.dir.name == "round-2":
            raise KeyboardInterrupt
        train(config, part, parent, kept)

    monkeypatch.setattr(module, "_train", dies)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", data, model, reward)
    monkeypatch.setattr(module, "_train", train)
    monkeypatch.setattr(module, "_select", lambda *args: selected.append(args) or select(*args))
    assert run(tmp_path / "broken", data, model, reward) == whole and not selected
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")


def test_no_questions_is_an_error(tmp_path: Path, model: Path, reward: Path) -> None:
    write_records(tmp_path / "questions/train.jsonl", [])
    with pytest.raises(InputError, match="0 answers to keep from 0 questions"):
        run(tmp_path / "out", tmp_path, model, reward)
