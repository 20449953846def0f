"""The join: which stages run again and which do not, and what is refused before anything is written.

The stages themselves are stand-ins that write one file; the folders, keys, locks and manifests are the real ones.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_stages import documents, write_data

from xinglin import report, stages
from xinglin import run as run_module
from xinglin.config import Lora, Pretrain
from xinglin.recipe import load_recipe
from xinglin.records import InputError, write_records
from xinglin.run import Stage
from xinglin.stages import RunOptions, rule_scorer, run_alone, run_recipe

RECIPE = """
name: demo
base: {tiny: {hidden_size: 32, num_heads: 2}}
stages:
  data:
  pretrain: {from: base}
  sft: {from: pretrain, general_share: 0}
  sample: {from: sft}
  reward: {from: sft}
  dpo: {from: sft}
  ppo: {from: sft, reward: reward}
  evaluate: {checkpoints: [sft, ppo]}
  export: {from: dpo}
"""
ALL = ["data", "base", "pretrain", "sft", "sample", "reward", "dpo", "ppo", "evaluate", "export"]
HOLD = """
import pathlib, sys
from xinglin.run import exclusive
with exclusive(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
Go = Callable[..., list[str]]


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    """Run the recipe; the names of the stages that did work."""
    worked: list[str] = []

    def work(run: stages.Run, stage: Stage, config: Any) -> dict[str, Any]:
        worked.append(stage.name)
        if getattr(config, "from_", None):
            run.model(config.from_)
        (stage.dir / "out.txt").write_text(config.model_dump_json())
        return {}

    for kind in stages.FUNCTIONS:
        monkeypatch.setitem(stages.FUNCTIONS, kind, work)
    monkeypatch.setattr(report, "write_report", lambda out: out / "report.html")
    (tmp_path / "demo.yaml").write_text(RECIPE)

    def once(*settings: str, **options: Any) -> list[str]:
        worked.clear()
        recipe = load_recipe(str(tmp_path / "demo.yaml"), settings=list(settings))
        run_recipe(recipe, RunOptions(**{"out": tmp_path / "out", "quiet": True, **options}))
        return list(worked)

    return once


# --- what runs again -------------------------------------------------------------------------------------------------


def test_a_second_run_skips_what_is_complete(go: Go, tmp_path: Path) -> None:
    assert go() == ALL
    before = {path: path.read_bytes() for path in tmp_path.rglob("manifest.json")}
    assert len(before) == len(ALL) and go() == []
    assert {path: path.read_bytes() for path in tmp_path.rglob("manifest.json")} == before


@pytest.mark.parametrize(
    ("setting", "again"),
    [
        ("data.seed=1", ALL),
        ("base.tiny.seed=1", [name for name in ALL if name != "data"]),
        ("sft.lr=0.01", ["sft", "sample", "reward", "dpo", "ppo", "evaluate", "export"]),
        ("reward.lr=0.01", ["reward", "ppo", "evaluate"]),
        ("ppo.kl=0.5", ["ppo", "evaluate"]),
        ("dpo.beta=0.5", ["dpo", "export"]),
        ("evaluate.limit=3", ["evaluate"]),
    ],
)
def test_a_changed_setting_reruns_its_stage_and_those_after_it(go: Go, setting: str, again: list[str]) -> None:
    go()
    assert go(setting) == again
    assert go(setting) == []


def test_only_one_stage(go: Go, tmp_path: Path) -> None:
    go()
    assert go("sft.lr=0.01", only="sft") == ["sft"]
    assert go("sft.lr=0.01", only="sft") == []
    assert go("dpo.beta=0.5", only="dpo") == ["dpo"]
    with pytest.raises(InputError, match="--only dpoo: the recipe has no such stage; it has data, base, pretrain"):
        go(only="dpoo")


def test_only_a_stage_whose_start_is_missing(go: Go, tmp_path: Path) -> None:
    assert go(only="data") == ["data"]
    with pytest.raises(InputError, match="stage 'sft' is not finished; run it first, or the whole recipe"):
        go(only="dpo")
    assert not (tmp_path / "out/03-sft").exists()
    assert not (tmp_path / "out/06-dpo/manifest.json").exists()


def test_another_data_source_is_another_run(go: Go, tmp_path: Path) -> None:
    go()
    (tmp_path / "public").mkdir()
    (tmp_path / "public/a.txt").write_text("1")
    public = {"data": "public", "data_dir": tmp_path / "public"}
    assert go(**public) == ALL and go(**public) == []
    (tmp_path / "public/a.txt").write_text("2")  # the same size
    assert go(**public) == ALL


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_second_process_is_refused(go: Go, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="out: another process is running there; wait for it or give another"):
            go()
        assert [path.name for path in out.iterdir()] == [".lock"]
        other.kill()
    assert go() == ALL  # the lock died with its holder


def test_a_folder_of_something_else_is_refused(go: Go, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.doc").write_text("x")
    with pytest.raises(InputError, match="out: not empty and no run of ours; give --out a new or empty folder"):
        go()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.doc"]
    with pytest.raises(InputError, match="thesis.doc: is a file; --out names a folder"):
        go(out=tmp_path / "out/thesis.doc")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written_is_refused(go: Go, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(InputError, match="cannot write there"):
        go(out=tmp_path / "closed/out")


def test_a_gpu_that_is_not_there_is_refused(go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="asks for a GPU .* and this machine has none .* run it with --scale tiny"):
        go("base.device=cuda")
    assert not (tmp_path / "out").exists()


def test_the_cpu_leaves_gpus_alone(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert go("base.device=cpu") == ALL
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_public_data_needs_its_folder(go: Go, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data public needs --data-dir DIR, a folder of public sets; no --data-dir"):
        go(data="public")
    with pytest.raises(InputError, match="--data public needs --data-dir DIR.*nowhere: no such folder"):
        go(data="public", data_dir=tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_refused(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=100 << 20)
    monkeypatch.setattr(run_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="out: 100 MB free, the run needs about 2048 MB; free some space"):
        go()


# --- one stage alone -------------------------------------------------------------------------------------------------


def alone(out: Path, config: Pretrain, inputs: list[Path], *, restart: bool = False) -> bool:
    return run_alone("pretrain", config, out, lambda config, stage: {"counts": {"rows": 1}}, inputs, restart=restart)


def test_a_stage_alone_tells_what_changed_and_runs_again_when_told_to(tmp_path: Path) -> None:
    """Two trainings of one model differ in no name and no size."""
    model, data, out = tmp_path / "model", tmp_path / "data.jsonl", tmp_path / "out"
    model.mkdir()
    for name in ("adapter_model.safetensors", "tokenizer.json"):
        (model / name).write_bytes(b"one")
    write_records(data, documents(2))
    assert alone(out, Pretrain(), [model, data])
    assert not alone(out, Pretrain(), [model, data])

    def told(config: Pretrain, *changes: str) -> None:
        kept = {path: path.read_bytes() for path in out.iterdir()}
        with pytest.raises(InputError, match="holds work that was begun otherwise: .*add --restart") as refused:
            alone(out, config, [model, data])
        assert all(change in str(refused.value) for change in changes) and "\n" not in str(refused.value)
        assert {path: path.read_bytes() for path in out.iterdir()} == kept
        assert alone(out, config, [model, data], restart=True)
        assert not alone(out, config, [model, data])

    (model / "adapter_model.safetensors").write_bytes(b"two")
    told(Pretrain(), "model/adapter_model.safetensors: other content;")
    (model / "tokenizer.json").write_bytes(b"two")
    told(Pretrain(), "model/tokenizer.json: other content;")
    told(Pretrain(lr=0.01), "lr 0.0001 -> 0.01;")
    write_records(data, documents(3))
    told(Pretrain(lr=0.02, lora=Lora(rank=3)), "lora.rank 16 -> 3, lr 0.01 -> 0.02", "data.jsonl: other content;")


def test_a_recipe_says_what_changed_before_it_begins_a_stage_again(
    go: Go, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go()
    capsys.readouterr()
    go("sft.lr=0.01")
    said = capsys.readouterr().err
    assert "03-sft: lr 0.0001 -> 0.01; starting again\n" in said and "sample: sft: other content; starting" in said
    assert "02-pretrain" not in said


def test_a_stage_alone_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    write_data(tmp_path / "out")
    with pytest.raises(InputError, match="out: not empty and no stage of ours; give --out a new or empty folder"):
        alone(tmp_path / "out", Pretrain(), [])
    assert (tmp_path / "out/documents/train.jsonl").is_file()


# --- what a stage is handed ------------------------------------------------------------------------------------------


def test_a_base_on_disk_brings_its_path_and_template(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text(RECIPE.replace("{tiny: {hidden_size: 32, num_heads: 2}}", "{path: m}"))
    recipe = load_recipe(str(tmp_path / "demo.yaml"), settings=["base.template=llama"])
    run = stages.Run(recipe, RunOptions(tmp_path), {"sft": tmp_path / "03-sft"}, {})
    assert run.model("base") == Path("m") and run.template("base") == "llama"
    assert run.model("sft") == tmp_path / "03-sft/model" and run.template("sft") is None
    assert run.synthetic  # of the ward
    assert not stages.Run(recipe, RunOptions(tmp_path, data="public"), {}, {}).synthetic
    for name in ("ppo", "base-other"):
        with pytest.raises(InputError, match=f"stage '{name}' is not finished"):
            run.model(name)


def test_public_data_is_scored_by_overlap_with_the_doctors_answer(tmp_path: Path) -> None:
    from tiny_stages import questions

    (tmp_path / "demo.yaml").write_text(RECIPE)
    recipe = load_recipe(str(tmp_path / "demo.yaml"))
    score = rule_scorer(stages.Run(recipe, RunOptions(tmp_path, data="public"), {}, {}))
    (question,) = questions(1)
    same, other = score(question, question.reference), score(question, "无关")
    assert same["overall"] > 0.9 and other["overall"] < 0.3


def test_a_killed_export_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a model lies there; the stage writes it again instead of refusing its own folder."""
    import tiny_models

    (tmp_path / "demo.yaml").write_text(RECIPE)
    recipe = load_recipe(str(tmp_path / "demo.yaml"))
    tiny_models.save(tmp_path / "06-dpo/model")
    stage = Stage(tmp_path / "09-export", "export", quiet=True)
    (stage.dir / "model").mkdir()
    (stage.dir / "model/half").write_text("x")
    run = stages.Run(recipe, RunOptions(tmp_path), {"dpo": tmp_path / "06-dpo"}, {})
    facts = stages.export_stage(run, stage, recipe.stages["export"])  # type: ignore[arg-type]
    assert facts["largest_difference"] == 0 and not (stage.dir / "model/half").exists()
