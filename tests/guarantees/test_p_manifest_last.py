"""Guarantee p: a manifest is written last. Where it stands, the stage is complete and its outputs are as it says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tiny_stages import in_another_process, run_stage, training_steps

from xinglin import report, stages
from xinglin import run as run_module
from xinglin.config import Base, Data, Recipe
from xinglin.run import Stage, file_hash
from xinglin.stages import RunOptions, run_recipe


@pytest.mark.parametrize("kind", ["pretrain", "sft", "reward", "dpo"])
def test_outputs_are_as_the_manifest_says(tmp_path: Path, data: Path, model: Path, kind: str) -> None:
    stage = run_stage(kind, tmp_path, data, model)
    manifest = stage.manifest()
    files = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if path.is_file()}
    assert files.keys() - {"manifest.json"} == manifest["outputs"].keys()
    assert all(file_hash(files[name]) == digest for name, digest in manifest["outputs"].items())
    assert {"stage", "key", "config", "inputs", "versions", "outputs", "seconds"} <= manifest.keys()
    assert {"xinglin", "code", "python", "torch", "transformers"} <= manifest["versions"].keys()
    assert not list(tmp_path.rglob("*.partial"))


def test_a_killed_stage_has_none(tmp_path: Path, data: Path, model: Path) -> None:
    process = in_another_process("sft", tmp_path, data, model)
    while process.is_alive() and not training_steps(tmp_path):
        time.sleep(0.001)
    process.kill()
    process.join(30)
    assert process.exitcode == -9 and training_steps(tmp_path) and not Stage(tmp_path, "sft").complete
    run_stage("sft", tmp_path, data, model)
    assert Stage(tmp_path, "sft").complete


def test_a_manifest_that_cannot_be_written_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path, "demo", quiet=True)
    (tmp_path / "output").write_text("x")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module.os, "fsync", full)
    with pytest.raises(OSError):
        stage.finish(config={}, inputs={}, key="k")
    assert not stage.complete


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Data stages that were run; the stage with seed 13 dies half-way."""
    seen: list[dict[str, Any]] = []

    def fake(run: stages.Run, stage: Stage, config: Data) -> dict[str, Any]:
        seen.append({"left over": sorted(p.name for p in stage.dir.iterdir())})
        (stage.dir / f"half-{config.seed}").write_text("x")
        if config.seed == 13 and len(seen) == 1:
            raise RuntimeError("power cut")
        return {"counts": {"rows": 1}}

    monkeypatch.setitem(stages.FUNCTIONS, "data", fake)
    monkeypatch.setattr(report, "write_report", lambda out: None)
    return seen


def run_data(out: Path, seed: int) -> Path:
    recipe = Recipe(name="demo", base=Base(path="some/model"), stages={})
    recipe = recipe.model_copy(update={"stages": {"data": Data(seed=seed)}})
    run_recipe(recipe, RunOptions(out, quiet=True, scale="full"))
    return out / "00-data"


def test_a_run_skips_what_is_complete_and_finishes_what_is_not(tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        run_data(tmp_path, 13)
    assert not (tmp_path / "00-data/manifest.json").exists()
    folder = run_data(tmp_path, 13)  # goes on in what it began
    assert calls[1]["left over"] == ["half-13", "key"] and (folder / "manifest.json").is_file()
    run_data(tmp_path, 13)
    assert len(calls) == 2


def test_another_configuration_begins_in_an_empty_folder(tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    run_data(tmp_path, 1)
    folder = run_data(tmp_path, 2)
    assert calls[1]["left over"] == ["key"]
    assert sorted(path.name for path in folder.iterdir()) == ["half-2", "key", "manifest.json"]
    assert Stage(folder, "data").manifest()["config"]["seed"] == 2
