"""Guarantee r: pickles and remote code are refused, before a byte of theirs is run."""

import json
import os
import pickle
from pathlib import Path

import pytest
from tiny_models import save, shake, training

from xinglin.models.adapters import load_critic, read_adapter
from xinglin.models.load import describe, load_base
from xinglin.models.trainable import load_trainable
from xinglin.records import InputError
from xinglin.rollout.local import LocalGenerator
from xinglin.rollout.reward import load_reward


class Payload:
    """Unpickled, it touches a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


DOORS = {
    "describe": describe,
    "load_base": lambda folder: load_base(folder, nf4=False),
    "load_trainable": lambda folder: load_trainable(folder, training("full")),
    "load_critic": load_critic,
    "load_reward": load_reward,
    "serve": LocalGenerator.load,
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save(tmp_path / "base")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    made = load_trainable(base, training("lora"))
    shake(made.module, seed=3, only=".policy.")
    made.save(tmp_path / "adapter")
    return tmp_path / "adapter"


def assert_one_line(error: pytest.ExceptionInfo[InputError], says: str) -> None:
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_the_payload_is_live(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights(base: Path, tmp_path: Path, name: str, door: str) -> None:
    (base / "model.safetensors").unlink()
    (base / name).write_bytes(pickle.dumps(Payload(tmp_path / "marker")))
    with pytest.raises(InputError) as error:
        DOORS[door](base)
    assert_one_line(error, f"found pickled weights ({name}), which are refused; convert them to safetensors")
    assert not (tmp_path / "marker").exists()


def test_a_pickle_beside_safetensors_is_not_read(base: Path, tmp_path: Path) -> None:
    (base / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(tmp_path / "marker")))
    load_base(base, nf4=False)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("door", ["load_trainable", "serve"])
def test_pickled_adapter(adapter: Path, tmp_path: Path, door: str) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Payload(tmp_path / "marker")))
    with pytest.raises(InputError) as error:
        DOORS[door](adapter)
    assert_one_line(error, "no adapter_model.safetensors; pickled adapters are refused")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("door", DOORS)
def test_remote_code(base: Path, tmp_path: Path, door: str) -> None:
    config = json.loads((base / "config.json").read_text("utf-8"))
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (base / "config.json").write_text(json.dumps(config), "utf-8")
    (base / "evil.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')", "utf-8")
    with pytest.raises(InputError) as error:
        DOORS[door](base)
    assert_one_line(error, "asks for remote code (auto_map)")
    assert not (tmp_path / "marker").exists()


def test_remote_code_of_a_tokenizer_is_not_run(base: Path, tmp_path: Path) -> None:
    path = base / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    config["auto_map"] = {"AutoTokenizer": [None, "evil.Tokenizer"]}
    path.write_text(json.dumps(config), "utf-8")
    (base / "evil.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')", "utf-8")
    LocalGenerator.load(base)
    assert not (tmp_path / "marker").exists()


def test_remote_code_of_an_adapters_base(adapter: Path, base: Path) -> None:
    config = json.loads((base / "config.json").read_text("utf-8")) | {"auto_map": {"AutoConfig": "evil.Config"}}
    (base / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(InputError, match="asks for remote code"):
        describe(adapter)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("damage", ["truncated", "header of 2^60 bytes", "empty"])
def test_damaged_safetensors(base: Path, door: str, damage: str) -> None:
    path = base / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(
        {"truncated": whole[:-100], "header of 2^60 bytes": (1 << 60).to_bytes(8, "little") + whole[8:], "empty": b""}[
            damage
        ]
    )
    with pytest.raises(InputError) as error:
        DOORS[door](base)
    assert_one_line(error, "damaged safetensors file")


def test_truncated_adapter(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError) as error:
        LocalGenerator.load(adapter)
    assert_one_line(error, "damaged safetensors file")


def test_an_adapter_over_another_base(adapter: Path, base: Path, tmp_path: Path) -> None:
    other = load_trainable(base, training("full"))
    shake(other.module, seed=77)
    other.save(base)
    with pytest.raises(InputError) as error:
        LocalGenerator.load(adapter)
    assert_one_line(error, "was trained on another base than")
    (adapter / "xinglin.json").unlink()  # a stranger's adapter has no hash; its shapes must still fit
    save(base, "llama")
    with pytest.raises(InputError) as error:
        read_adapter(load_base(base, nf4=False), adapter, "policy")
    assert_one_line(error, "does not fit its base model")
