"""Guarantee k: an unknown config key is an error with the nearest name and the line, at every depth of every stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from xinglin.config import STAGES
from xinglin.recipe import load_recipe
from xinglin.records import InputError

KEYS = {kind: [field.alias or name for name, field in model.model_fields.items()] for kind, model in STAGES.items()}
TYPOS = [(kind, key, key[:-1]) for kind, keys in KEYS.items() for key in keys if len(key) > 3 and key[:-1] not in keys]


def refused(path: Path, text: str) -> str:
    path.write_text(text, "utf-8")
    with pytest.raises(InputError) as error:
        load_recipe(str(path))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_there_are_typos_to_try() -> None:
    assert len(TYPOS) > 100 and {kind for kind, _, _ in TYPOS} == set(STAGES)


@pytest.mark.parametrize("kind", list(STAGES))
def test_a_letter_lost_from_any_key(tmp_path: Path, kind: str) -> None:
    for key, typo in [(key, typo) for found, key, typo in TYPOS if found == kind]:
        told = refused(tmp_path / "r.yaml", f"name: x\nstages:\n  {kind}:\n    # a remark\n    {typo}: 1\n")
        assert f"r.yaml:5: unknown key '{kind}.{typo}'; did you mean '{key}'?" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nome: x\nname: x\nstages: {data: }", ":1: unknown key 'nome'; did you mean 'name'?"),
        ("name: x\nbase:\n  pth: m\nstages: {data: }", ":3: unknown key 'base.pth'; did you mean 'path'?"),
        (
            "name: x\nbase:\n  tiny:\n    pretrain: {ephocs: 1}\nstages: {data: }",
            ":4: unknown key 'base.tiny.pretrain.ephocs'; did you mean 'epochs'?",
        ),
        (
            "name: x\nstages:\n  sft:\n    general_share: 0\n    lora:\n      alhpa: 1",
            ":6: unknown key 'sft.lora.alhpa'; did you mean 'alpha'?",
        ),
        (
            "name: x\nstages:\n  sample:\n    from: base\n    decoding: {temprature: 1}",
            ":5: unknown key 'sample.decoding.temprature'; did you mean 'temperature'?",
        ),
        (
            "name: x\nstages:\n  data:\n    public:\n      docments: 1",
            ":5: unknown key 'data.public.docments'; did you mean 'documents'?",
        ),
        ("name: x\nstages:\n  data:\n  pretain:\n", ":4: unknown stage 'pretain'; did you mean 'pretrain'?"),
    ],
)
def test_every_depth(tmp_path: Path, text: str, told: str) -> None:
    assert told in refused(tmp_path / "r.yaml", text)


def test_a_key_like_no_other_lists_what_is_allowed(tmp_path: Path) -> None:
    told = refused(tmp_path / "r.yaml", "name: x\nstages:\n  sample: {from: base, zzz: 1}")
    assert "did you mean" not in told and "allowed: stage, seed, from, questions, limit, num_answers, decoding" in told
