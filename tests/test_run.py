"""Recipes: every mistake of a user is one line that names the place."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from xinglin.config import BestOfN, Evaluate, Sft
from xinglin.recipe import load_recipe, recipe_names
from xinglin.records import InputError
from xinglin.run import Stage, check_disjoint, file_hash, prepare_output, seed_for, stage_key, write_text

RECIPE = """\
name: demo
base:
  path: models/base
  tiny:
    hidden_size: 32
    num_heads: 2
stages:
  data:
  sft:
    lr: 1e-4
    epochs: 2
    general_share: 0.25
  reward: {from: sft, lr: 1.0e-5}
tiny:
  base: {path: null}
  stages:
    sft: {epochs: 5}
"""


@pytest.fixture
def write(tmp_path: Path):
    def writer(text: str = RECIPE, *, old: str = "", new: str = "") -> str:
        assert old in text
        path = tmp_path / "demo.yaml"
        path.write_text(text.replace(old, new) if old else text, encoding="utf-8")
        return str(path)

    return writer


def refused(path: str, **options: object) -> str:
    with pytest.raises(InputError) as error:
        load_recipe(path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


# --- what is right ---------------------------------------------------------------------------------------------------


def test_values_are_typed_and_lr_written_as_1e_4_is_a_number(write) -> None:
    recipe = load_recipe(write())
    sft = recipe.stages["sft"]
    assert isinstance(sft, Sft) and (sft.lr, sft.epochs, sft.general_share) == (1e-4, 2.0, 0.25)
    assert list(recipe.stages) == ["data", "sft", "reward"] and recipe.base.path == "models/base"


def test_the_tiny_section_is_merged_key_by_key(write) -> None:
    recipe = load_recipe(write(), scale="tiny")
    sft = recipe.stages["sft"]
    assert isinstance(sft, Sft) and (sft.lr, sft.epochs) == (1e-4, 5.0)
    assert recipe.base.path is None and recipe.base.tiny is not None and recipe.base.tiny.hidden_size == 32


def test_a_recipe_without_a_tiny_section_says_so(write) -> None:
    path = write(RECIPE[: RECIPE.index("tiny:\n  base: {path")])
    assert "no `tiny:` section" in refused(path, scale="tiny")


def test_the_shipped_recipes_load() -> None:
    assert "quickstart" in recipe_names()
    for name in recipe_names():
        assert load_recipe(name).stages


def test_one_recipe_may_hold_a_kind_twice(write) -> None:
    path = write(old="  reward: {", new="  sft-again: {stage: sft, from: sft, general_share: 0}\n  reward: {")
    again = load_recipe(path).stages["sft-again"]
    assert isinstance(again, Sft) and again.from_ == "sft"


def test_an_unknown_recipe_names_those_there_are() -> None:
    assert "quickstart" in refused("quickstar")


# --- --set -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "read", "value"),
    [
        ("sft.lr=2e-4", lambda r: r.stages["sft"].lr, 2e-4),
        ("sft.batch_size=1_000", lambda r: r.stages["sft"].batch_size, 1000),
        ("sft.keep_best=false", lambda r: r.stages["sft"].keep_best, False),
        ("sft.max_steps=null", lambda r: r.stages["sft"].max_steps, None),
        ("sft.betas=[0.8, 0.9]", lambda r: r.stages["sft"].betas, (0.8, 0.9)),
        ("sft.lora.rank=4", lambda r: r.stages["sft"].lora.rank, 4),
        ("data.seed=7", lambda r: r.stages["data"].seed, 7),  # the section stands empty in the file
        ("base.path=other/model", lambda r: r.base.path, "other/model"),
        ("base.tiny.vocab_size=512", lambda r: r.base.tiny.vocab_size, 512),
    ],
)
def test_set(write, setting: str, read, value: object) -> None:
    assert read(load_recipe(write(), settings=[setting])) == value


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("sft.lr", "has not the form stage.key=value"),
        ("lr=1", "has not the form stage.key=value"),
        ("sft.=1", "has not the form stage.key=value"),
        ("sfx.lr=1e-4", "unknown stage 'sfx'; did you mean 'sft'?"),
        ("sft.lr.x=1", "lr is a value, not a section"),
        ("sft.lr=[1", "not plain YAML"),
        ("sft.lr=!!python/object:os.system {}", "not plain YAML"),
        ("sft.lr=5", "--set sft.lr=5: sft.lr is 5"),  # the place is the command line, not the file's line
        ("sft.rl=5", "--set sft.rl=5: unknown key 'sft.rl'"),
        ("sft.lr=nan", "sft.lr is nan"),
        ("sft.from=reward", "sft.from names 'reward', which is no earlier stage; earlier: base, data"),
    ],
)
def test_set_refused(write, setting: str, told: str) -> None:
    assert told in refused(write(), settings=[setting])


# --- what is wrong in the file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("    epochs: 2", "    epoch: 2", "demo.yaml:11: unknown key 'sft.epoch'; did you mean 'epochs'?"),
        ("    epochs: 2", "    lora: {rnk: 4}", "demo.yaml:11: unknown key 'sft.lora.rnk'; did you mean 'rank'?"),
        ("hidden_size: 32", "hiden_size: 32", "demo.yaml:5: unknown key 'base.tiny.hiden_size'; did you mean 'hidden_"),
        ("name: demo", "nam: demo\nname: demo", "demo.yaml:1: unknown key 'nam'; did you mean 'name'?"),
        ("  reward: {", "  rewar: {", "demo.yaml:13: unknown stage 'rewar'; did you mean 'reward'?"),
        ("from: sft", "from: sfx", "demo.yaml:13: reward.from names 'sfx', which is no earlier stage; earlier: base"),
        ("from: sft", "from: reward", "reward.from names 'reward', which is no earlier stage"),
        ("    epochs: 2", "    epochs: 2\n    epochs: 3", "demo.yaml:12: stages.sft.epochs is set a second time"),
        ("    general_share: 0.25\n", "", "demo.yaml:9: sft.general_share is missing; it must be written"),
        ("    epochs: 2", "    epochs: yes", "demo.yaml:11: sft.epochs is True: a truth value"),
        ("    epochs: 2", "    batch_size: true", "demo.yaml:11: sft.batch_size is True: a truth value"),
        ("    epochs: 2", "    batch_size: many", "demo.yaml:11: sft.batch_size is 'many'"),
        (
            "    epochs: 2",
            "    lr_schedule: x",
            "unknown key 'sft.lr_schedule'; did you mean 'schedule'?",
        ),
        ("    epochs: 2", "    schedule: cosin", "demo.yaml:11: sft.schedule is 'cosin'"),
        ("lr: 1e-4", "lr: .nan", "demo.yaml:10: sft.lr is nan"),
        ("    epochs: 2", "    betas: [0.9, 1.0]", "sft.betas.1 is 1.0"),
        ("hidden_size: 32", "hidden_size: 33", "base.tiny: hidden_size 33 is no multiple of 2 x num_heads (2)"),
        ("  data:\n", "  data: 5\n", "demo.yaml:8: stage 'data' is 5; it must be a section"),
        ("  data:\n", "  data: [1]\n", "demo.yaml:8: stage 'data' is [1]; it must be a section"),
        ("  data:\n", "  base:\n    stage: data\n", "'base' cannot name a stage"),
        ("  data:\n", "  ../up:\n    stage: data\n", "'../up' cannot name a stage"),
        ("  data:\n", "  7:\n", "unknown stage '7'"),
        ("name: demo", "name: demo\n1: 2", "demo.yaml"),
    ],
)
def test_mistakes_name_their_line(write, old: str, new: str, told: str) -> None:
    assert told in refused(write(old=old, new=new))


def test_all_problems_are_told_at_once(write) -> None:
    text = RECIPE.replace("lr: 1e-4", "lr: -1").replace("epochs: 2", "batch_size: -5").replace("1.0e-5", "nan")
    text = text.replace("name: demo", "name: demo\ntitel: x").replace("0.25", "1.5")
    told = refused(write(text))
    for problem in (":11: sft.lr is -1", ":12: sft.batch_size is -5", ":13: sft.general_share is 1.5"):
        assert problem in told
    assert ":14: reward.lr is 'nan'" in told and ":2: unknown key 'titel'; did you mean 'title'?" in told


def test_a_line_in_the_tiny_section_is_named_only_where_it_is_used(write) -> None:
    path = write(RECIPE.replace("epochs: 2", "epochs: -2").replace("{epochs: 5}", "{epochs: -5}"))
    assert "demo.yaml:11: sft.epochs is -2" in refused(path)
    assert "demo.yaml:17: sft.epochs is -5" in refused(path, scale="tiny")


@pytest.mark.parametrize("kind", ["ppo", "grpo", "best_of_n"])
def test_a_reward_stage_must_stand_before(write, kind: str) -> None:
    path = write(old="  reward: {", new=f"  {kind}: {{reward: judge}}\n  reward: {{")
    assert f"{kind}.reward names 'judge', which is no earlier stage" in refused(path)
    if kind != "best_of_n":
        assert load_recipe(write(old="  reward: {", new=f"  {kind}: {{reward: rule}}\n  reward: {{"))


def test_evaluated_checkpoints_must_exist(write) -> None:
    good = "  evaluate: {checkpoints: [base, sft], compare: [[sft, base]]}\n"
    evaluate = load_recipe(write(old="tiny:\n  base: {", new=good + "tiny:\n  base: {")).stages["evaluate"]
    assert isinstance(evaluate, Evaluate) and evaluate.compare == (("sft", "base"),)
    bad = good.replace("[base, sft]", "[base, sfx]").replace("[[sft, base]]", "[]")
    assert "evaluate.checkpoints names 'sfx'" in refused(write(old="tiny:\n  base: {", new=bad + "tiny:\n  base: {"))
    lost = good.replace("[[sft, base]]", "[[sft, reward]]")
    assert "compare names 'reward', which is not among its checkpoints" in refused(
        write(old="tiny:\n  base: {", new=lost + "tiny:\n  base: {")
    )


def test_more_kept_than_sampled(write) -> None:
    path = write(old="  reward: {from", new="  best_of_n: {keep: 9, num_answers: 8, reward: sft}\n  reward: {from")
    assert "best_of_n: keep is 9, but only 8 answers are sampled" in refused(path)
    assert BestOfN(keep=8, num_answers=8).keep == 8


# --- hostile YAML ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['touch {marker}']", "!!python/object:os.x {{}}"])
def test_python_objects_are_refused(write, tmp_path: Path, tag: str) -> None:
    marker = tmp_path / "marker"
    told = refused(write(old="name: demo", new="name: " + tag.format(marker=marker)))
    assert "demo.yaml:1: not a plain YAML recipe" in told and not marker.exists()


def test_an_anchors_bomb_is_refused_at_once(write) -> None:
    lines = ["name: bomb", "l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert "demo.yaml:3: YAML alias *l0 is refused" in refused(write("\n".join([*lines, "stages: {}"])))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a recipe is a mapping"),
        ("[1, 2]", "a recipe is a mapping"),
        ("name: x", "a recipe is a mapping"),
        ("name: x\nstages: [sft]", "a recipe is a mapping"),
        ("name: x\nstages: {data: }\ntiny: 5", "no `tiny:` section"),
        ("name: [", "demo.yaml:1"),
        ("a: " + "[" * 500 + "]" * 500, "nested too deeply"),
        ("name: \x00", "not a plain YAML recipe"),
    ],
)
def test_what_is_no_recipe(write, text: str, told: str) -> None:
    assert told in refused(write(text), scale="tiny" if "tiny" in text else "full")


def test_a_recipe_in_gbk_is_told(tmp_path: Path) -> None:
    path = tmp_path / "gbk.yaml"
    path.write_bytes("name: 杏林".encode("gbk"))
    assert "byte 6 is not UTF-8" in refused(str(path))


# --- folders, logs, keys ---------------------------------------------------------------------------------------------


def test_a_log_line_with_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        Stage(tmp_path, "x").log(step=1, text="病历")


def test_rewind_drops_later_lines_and_one_cut_short(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "x")
    for step in (0, 1, 2, 3):
        stage.log(step=step)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    stage.rewind(2)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [0, 1, 2]
    stage.rewind(-1)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_seeds_depend_on_every_part_and_on_nothing_else() -> None:
    digest = hashlib.sha256(b"(0, 'ppo', 1)").digest()
    assert seed_for(0, "ppo", 1) == int.from_bytes(digest[:8], "big") // 2 < 2**63
    assert len({seed_for(0, "a", 1), seed_for(0, "a", 2), seed_for(1, "a", 1), seed_for(0, "b", 1)}) == 4


def test_the_key_changes_with_config_and_inputs() -> None:
    config = Sft(general_share=0)
    assert stage_key(config, {"data": "1"}) == stage_key(Sft(general_share=0), {"data": "1"})
    assert len({stage_key(config, {"data": "1"}), stage_key(config, {"data": "2"})}) == 2
    assert stage_key(config, {}) != stage_key(Sft(general_share=0, lr=2e-4), {})


def test_output_folders(tmp_path: Path) -> None:
    prepare_output(tmp_path / "new/run")
    assert (tmp_path / "new/run").is_dir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        prepare_output(tmp_path / "file")
    with pytest.raises(InputError, match="not empty and no run of ours"):
        prepare_output(tmp_path)
    write_text(tmp_path / "run.json", "{}")
    prepare_output(tmp_path)
    with pytest.raises(InputError, match="cannot write there"):
        prepare_output(tmp_path / "file/below")
    with pytest.raises(InputError, match="MB free, the run needs about"):
        prepare_output(tmp_path, free_bytes=1 << 62)


def test_the_manifest_lists_the_outputs(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "demo", quiet=True)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/a.txt").write_text("abc")
    assert not stage.complete
    stage.finish(config={}, inputs={}, key="k")
    assert stage.complete and stage.manifest()["outputs"] == {"model/a.txt": file_hash(tmp_path / "model/a.txt")}
    # SHA-256 of "abc" as published in FIPS 180-2, appendix B.1
    assert file_hash(tmp_path / "model/a.txt").startswith("ba7816bf8f01cfea414140de5dae2223b00361a3")


def test_copies_of_the_training_file_are_no_validation(tmp_path: Path) -> None:
    for name, text in (("train", "a"), ("copy", "a"), ("valid", "b")):
        (tmp_path / name).write_text(text)
    check_disjoint(tmp_path / "train", tmp_path / "valid")
    check_disjoint(tmp_path / "train", None)
    for same in ("train", "copy"):
        with pytest.raises(InputError, match="split by patient first"):
            check_disjoint(tmp_path / "train", tmp_path / same)
