"""Guarantee b: no log line, no manifest, no message holds record text. Every record carries a mark; we look for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_stages import CONFIGS, run_stage, write_data

from xinglin.config import BestOfN, Decoding
from xinglin.records import InputError
from xinglin.run import Stage
from xinglin.train.best_of_n import best_of_n

MARK = "绝密病历XQZWK"


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("marked"), MARK)


def assert_silent(folder: Path, *texts: str) -> None:
    """In no text, and in no file but the models' own and records."""
    files = [path for path in folder.rglob("*") if path.is_file() and "model" not in path.parts]
    logs = [path for path in files if path.suffix != ".safetensors" and path.name != "kept.jsonl"]
    assert logs
    for text in [*texts, *(path.read_text("utf-8", errors="replace") for path in logs)]:
        for form in (MARK, MARK.encode("unicode_escape").decode(), MARK[:4], MARK[4:]):
            assert form not in text


@pytest.mark.parametrize("kind", ["pretrain", "sft", "reward", "dpo", "ppo", "grpo"])
def test_stages_are_silent(
    tmp_path: Path, marked: Path, model: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run_stage(kind, tmp_path, marked, model)
    shown = capfd.readouterr()
    assert (tmp_path / "manifest.json").is_file() and (tmp_path / "metrics.jsonl").is_file()
    assert_silent(tmp_path, shown.out, shown.err)


def test_rejection_sampling_is_silent(
    tmp_path: Path, marked: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reward = run_stage("reward", tmp_path / "reward", marked, model).dir / "model"
    config = BestOfN(num_answers=2, limit=3, max_steps=1, max_seq_len=128, decoding=Decoding(max_new_tokens=4))
    stage = Stage(tmp_path / "best", "best_of_n")  # not quiet: the progress bar is part of what is shown
    facts = best_of_n(config, stage, model, reward, marked / "questions/train.jsonl")
    stage.finish(config={}, inputs={}, key="k", **facts)
    shown = capfd.readouterr()
    assert_silent(tmp_path / "best", shown.out, shown.err)


def test_a_stage_that_stops_itself_is_silent(
    tmp_path: Path, marked: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = CONFIGS["ppo"].model_copy(update={"min_entropy": 100.0})
    stage = run_stage("ppo", tmp_path, marked, model, config)
    shown = capfd.readouterr()
    assert stage.manifest()["stopped_by"] and "stopped by a health rule" in shown.err
    assert_silent(tmp_path, shown.out, shown.err)


@pytest.mark.parametrize("kind", ["pretrain", "sft", "reward", "dpo", "ppo"])
@pytest.mark.parametrize("damage", ["cut", "field", "type"])
def test_messages_about_bad_rows_are_silent(tmp_path: Path, model: Path, kind: str, damage: str) -> None:
    data = write_data(tmp_path / "data", MARK)
    for path in data.rglob("train.jsonl"):
        lines = path.read_text("utf-8").splitlines()
        lines[3] = {
            "cut": lines[3][: lines[3].index(MARK) + 6],
            "field": lines[3].replace('"meta":', '"mata":'),
            "type": lines[3].replace('"meta":{}', f'"meta":"{MARK}"'),
        }[damage]
        path.write_text("\n".join(lines), "utf-8")
    with pytest.raises(InputError, match="train.jsonl:4: ") as error:
        run_stage(kind, tmp_path / "out", data, model)
    assert MARK[:4] not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["sft", "reward", "dpo"])
def test_messages_about_long_rows_are_silent(tmp_path: Path, marked: Path, model: Path, kind: str) -> None:
    config = CONFIGS[kind].model_copy(update={"on_long": "error", "max_seq_len": 8})
    with pytest.raises(InputError, match="tokens, max_seq_len is 8") as error:
        run_stage(kind, tmp_path, marked, model, config)
    assert MARK[:4] not in str(error.value)
    assert_silent_or_empty(tmp_path)


def assert_silent_or_empty(folder: Path) -> None:
    for path in folder.rglob("*.json*"):
        assert MARK[:4] not in path.read_text("utf-8")
