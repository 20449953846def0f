"""Tensors from published files to safetensors shards, one at a time, and the proof that they arrived.

Memory is bounded by one output shard and one tensor: a 28 GB model is converted in 4 GB. Safetensors are mapped, not
read; `.bin` files are pickles and are opened only where the user allows it, as tensors alone (`weights_only`) and
mapped too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from xinglin.models.convert.architectures import Tensors
from xinglin.models.load import check_weights
from xinglin.records import InputError
from xinglin.run import write_text

SHARD_BYTES = 2 << 30
SAFE_TORCH = (2, 10)  # the first whose weights_only reader has no known way around it (CVE-2025-32434 and after)


def source_files(source: Path, allow_bin: bool) -> list[Path]:
    """The weight files of a published folder, checked. Raises `InputError` for none, damaged or pickled ones."""
    files = sorted(source.glob("*.safetensors"))
    for path in files:
        check_weights(path)
    pickles = sorted(source.glob("pytorch_model*.bin"))
    if not files and pickles and not allow_bin:
        raise InputError(
            f"{source}: found pickled weights ({pickles[0].name}), which are refused; take the safetensors release, "
            "or give --allow-bin to read tensors alone out of them"
        )
    if not files and pickles and tuple(map(int, torch.__version__.split(".")[:2])) < SAFE_TORCH:
        raise InputError(f"--allow-bin needs torch 2.10 or newer, this is {torch.__version__}; update torch")
    if not files and not pickles:
        raise InputError(f"{source}: found no weights; give the folder of a model as it was published")
    files = files or pickles
    _check_index(source, files)
    return files


def _check_index(source: Path, files: Sequence[Path]) -> None:
    """Every file the index names is there."""
    stem = "model" if files[0].suffix == ".safetensors" else "pytorch_model"
    path = source / f"{stem}{files[0].suffix}.index.json"
    if path.is_file():
        named = set(json.loads(path.read_text("utf-8"))["weight_map"].values())
        missing = sorted(named - {file.name for file in files})
        if missing:
            raise InputError(f"{path}: names {missing[0]}, which is not there; copy the model again")


def read_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor, one at a time."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                yield name, file.get_tensor(name)
        return
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:100]
        raise InputError(f"{path}: cannot be read as tensors alone ({type(error).__name__}: {reason})") from None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise InputError(f"{path}: cannot be read as tensors alone (holds something else than names and tensors)")
    yield from tensors.items()


def converted(files: Sequence[Path], tensors: Tensors, advance: Callable[[int], None]) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of the native model. Raises `InputError` for a tensor that is not of this architecture."""
    for path in files:
        for name, tensor in read_tensors(path):
            found = tensors(name, tensor)
            if found is None:
                raise InputError(f"{path}: tensor {name} is not of this architecture; it is not converted in part")
            yield from found.items()
            advance(tensor.nbytes)


def write_weights(
    files: Sequence[Path], tensors: Tensors, folder: Path, advance: Callable[[int], None]
) -> tuple[str, int]:
    """Shards and index in `folder`; returns the dtype of most weights and the number of parameters."""
    shards: list[list[str]] = []
    held: dict[str, Tensor] = {}
    sizes: Counter[torch.dtype] = Counter()
    held_bytes = total_bytes = 0
    for name, tensor in converted(files, tensors, advance):
        if held and held_bytes + tensor.nbytes > SHARD_BYTES:
            _write_shard(folder, shards, held)
            held, held_bytes = {}, 0
        held[name] = tensor
        held_bytes += tensor.nbytes
        total_bytes += tensor.nbytes
        sizes[tensor.dtype] += tensor.numel()
    _write_shard(folder, shards, held)
    _name_shards(folder, shards, total_bytes)
    return str(sizes.most_common(1)[0][0]).removeprefix("torch."), sizes.total()


def _write_shard(folder: Path, shards: list[list[str]], held: dict[str, Tensor]) -> None:
    save_file(held, folder / f"part-{len(shards)}", metadata={"format": "pt"})
    shards.append(list(held))


def _name_shards(folder: Path, shards: Sequence[Sequence[str]], size: int) -> None:
    """The names transformers looks for, now that the number of shards is known."""
    if len(shards) == 1:
        (folder / "part-0").rename(folder / "model.safetensors")
        return
    where = {}
    for number, names in enumerate(shards):
        file = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        (folder / f"part-{number}").rename(folder / file)
        where.update(dict.fromkeys(names, file))
    index = {"metadata": {"total_size": size}, "weight_map": where}
    write_text(folder / "model.safetensors.index.json", json.dumps(index, indent=1))


def verify(files: Sequence[Path], tensors: Tensors, folder: Path, advance: Callable[[int], None]) -> int:
    """Read back what was written: every tensor of the native model, of its shape, equal to the source; how many."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        expected = {name: p.shape for name, p in AutoModelForCausalLM.from_config(config).state_dict().items()}
    seen = set()
    with ExitStack() as stack:
        open_files = [stack.enter_context(safe_open(path, "pt")) for path in sorted(folder.glob("*.safetensors"))]
        stored = {name: file for file in open_files for name in file.keys()}  # noqa: SIM118
        for name, tensor in converted(files, tensors, advance):
            if expected.get(name) != tensor.shape:
                shape = tuple(expected[name]) if name in expected else "no such tensor"
                raise InputError(f"{files[0]}: {name} is {tuple(tensor.shape)}, config.json asks for {shape}")
            if not torch.equal(stored[name].get_tensor(name), tensor):
                raise RuntimeError(f"{folder}: {name} was written differently from what was read")
            seen.add(name)
    missing = sorted(expected.keys() - seen)
    if missing:
        raise InputError(f"{files[0].parent}: the weights lack {missing[0]} (and {len(missing) - 1} more); copy again")
    return len(seen)
