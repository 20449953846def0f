"""Several processes train one model: `torchrun --nproc-per-node 2 -m xinglin sft ...`. On one, all of this is idle.

A rank is one of the processes. Each reads the same folders, plans the same steps, and takes its share of a step's
micro-batches. Weights, gradients and both moments of AdamW lie in shards (FSDP2, arXiv:2304.11277) and are put together
for the layer in hand; gradients are summed, never averaged, because the engine divides by the targets of all ranks.

Only rank 0, the main one, speaks and writes: the others work in a folder that is thrown away (`own`) and hear its
decisions by `tell`. What a stage does beside its steps (save, reload, examine) is done by rank 0 alone: after the last
step it holds the whole model again and the others are `Released`. Stages that are not made for several ranks run there
as well (`each`), while the others wait.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from xinglin.models.packing import Batch, Group, pack
from xinglin.models.packing import micro_batches as pack_micro_batches
from xinglin.records import InputError
from xinglin.run import say

Found = TypeVar("Found")
Call = Callable[..., Any]
STEP_TIMEOUT = timedelta(hours=2)  # of one exchange between ranks: rank 0 may be writing a large checkpoint meanwhile
PATIENCE = 0.02  # seconds between two looks for rank 0's word
SPOKEN = "spoken"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Released(Exception):
    """Ends a stage on all ranks but the main one: its steps are done."""


class _Company:
    """What the processes share beside torch's own state; None of it on one process."""

    store: dist.Store | None = None
    scratch: Path | None = None
    alone = False
    words = itertools.count()


# --- who is there ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Meet the other processes, and say a failure once: whoever fails first speaks, all end with its exit code."""
    store, number, count = next(dist.rendezvous("env://"))
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if os.environ.get("MASTER_ADDR") in LOOPBACK:  # one machine: its ranks talk over loopback
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=STEP_TIMEOUT)
    with tempfile.TemporaryDirectory(prefix="xinglin-") as scratch, _hushed(number > 0):
        _Company.store, _Company.scratch = dist.PrefixStore("xinglin", store), Path(scratch)
        try:
            yield
        except Exception as error:
            _first_speaks(2 if isinstance(error, InputError) else 1)
            raise
        except SystemExit as end:  # typer ends every command with one
            if not end.code:
                _leave()
            raise
        _leave()


def _leave() -> None:
    dist.barrier()  # rank 0 may hold the store
    dist.destroy_process_group()


def _first_speaks(code: int) -> None:
    """Returns on the first rank that fails. On the others it ends the process, with the first one's code: most often
    their own failure is no more than that one's absence."""
    store = _Company.store
    assert store is not None
    try:
        first = store.add(SPOKEN, 1) == 1
        if first:
            store.set("code", str(code))
        else:
            code = int(store.get("code"))
    except RuntimeError:  # the store went with the process that held it
        first = False
    if not first:
        raise SystemExit(code)


@contextlib.contextmanager
def _hushed(yes: bool) -> Iterator[None]:
    """No bars, no lines."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.ExitStack() as stack:
        if yes:
            stack.enter_context(contextlib.redirect_stderr(nowhere))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        yield


def world_size() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_initialized() and not _Company.alone else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this process speaks and writes."""
    return rank() == 0


def own(path: Path) -> Path:
    """Where this rank may write what belongs under `path`: there, or in the folder that is thrown away."""
    if is_main():
        return path
    assert _Company.scratch is not None
    return _Company.scratch / path.resolve().relative_to(path.resolve().anchor)


def tell(value: Found) -> Found:
    """What rank 0 says, on all ranks: something JSON can carry. The others wait for it."""
    if world_size() == 1:
        return value
    assert _Company.store is not None
    word = f"word-{next(_Company.words)}"
    if is_main():
        _Company.store.set(word, json.dumps(value))
        return value
    while not _Company.store.check([word]):  # not `wait`, which no signal interrupts
        time.sleep(PATIENCE)
    return json.loads(_Company.store.get(word))


def each(kind: str, together: bool, work: Callable[[], None]) -> None:
    """Do a stage's work on all ranks, or `together` being False on rank 0 alone. All leave when rank 0 is done."""
    if world_size() == 1:
        work()
        return
    if not together:
        say(f"{kind}: runs on one process, the other {world_size() - 1} wait")
    if together or is_main():
        _Company.alone = not together
        try:
            with contextlib.suppress(Released):
                work()
        finally:
            _Company.alone = False
    tell("done")


# --- a step ----------------------------------------------------------------------------------------------------------


def micro_batches(rows: Sequence[Group], max_tokens: int) -> list[Batch]:
    """The rows of a step as packed rows of `max_tokens`: a multiple of the ranks of them, about equally long."""
    batches = pack_micro_batches(rows, max_tokens)
    number = -(-len(batches) // world_size()) * world_size()
    if number == len(batches):
        return batches
    bins: list[list[Group]] = [[] for _ in range(number)]
    sizes = [0] * number
    for row in sorted(rows, key=lambda row: -row.num_tokens):
        emptiest = sizes.index(min(sizes))
        bins[emptiest].append(row)
        sizes[emptiest] += row.num_tokens
    if max(sizes) > max(max_tokens, max(row.num_tokens for row in rows)):
        return batches
    return [pack(members) for members in bins if members]


def deal(batches: Sequence[Any]) -> list[tuple[Any, bool]]:
    """This rank's micro-batches. All ranks get equally many, since each forward pass is a meeting: one that would go
    short takes another's as well, marked False, and its loss counts nothing."""
    rounds = -(-len(batches) // world_size())
    numbers = range(rank() if world_size() > 1 else 0, rounds * world_size(), world_size())
    return [(batches[number % len(batches)], number < len(batches)) for number in numbers]


def totals(loss_sum: Tensor, count: int, sums: dict[str, Tensor]) -> tuple[Tensor, int, dict[str, Tensor]]:
    """The loss, the targets and the metrics of a step, summed over all ranks."""
    if world_size() == 1:
        return loss_sum, count, sums
    counted = torch.tensor(count, device=loss_sum.device)
    values = torch.stack([tensor.double() for tensor in (loss_sum, counted, *sums.values())])
    dist.all_reduce(values)
    return values[0], int(values[1]), dict(zip(sums, values[2:], strict=True))


def agreed(signals: Sequence[int]) -> int:
    """The signal that any rank has received first, or 0: all stop after the same step."""
    signum = signals[0] if signals else 0
    if world_size() == 1:
        return signum
    heard = torch.tensor(signum)
    dist.all_reduce(heard, dist.ReduceOp.MAX)
    return int(heard)


# --- a model in shards -----------------------------------------------------------------------------------------------


class _Root(nn.Module):
    """Calls a function while the weights outside the layers (embedding, last norm, heads) are whole. A loss reads some
    of them directly, so the whole loss is one forward pass to FSDP."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Call, *args: Any) -> Any:
        return function(*args)


def shard(module: nn.Module) -> Call:
    """Shard a module in place. What runs it must then be called through what is returned: `call(loss_fn, batch)`.

    One shard for each layer and one for all else, frozen and NF4 weights too. The arithmetic stays that of one process:
    weights travel in their own precision. Raises `InputError` where the ranks did not load the same weights.
    """
    if world_size() == 1:
        return lambda function, *args: function(*args)
    parameter = next(module.parameters())
    _check_same(module)
    mesh = init_device_mesh(parameter.device.type, (world_size(),))
    root = _Root(module)
    for part in list(module.modules()):
        if isinstance(part, nn.ModuleList):
            for layer in part:
                fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    fully_shard(root, mesh=mesh, reshard_after_forward=True)
    for sharded in _sharded(root):
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    return root


def _sharded(root: nn.Module) -> list[FSDPModule]:
    return [part for part in root.modules() if isinstance(part, FSDPModule)]


def _check_same(module: nn.Module) -> None:
    """The sum of each rank's weights: each keeps its own share of what it loaded, and no one would notice."""
    mine = sum(float(p.detach().double().sum()) for p in module.parameters())
    sums = [torch.zeros((), dtype=torch.float64) for _ in range(world_size())]
    dist.all_gather(sums, torch.tensor(mine, dtype=torch.float64))
    others = [number for number, each in enumerate(sums) if float(each) != float(sums[0])]
    if others:
        raise InputError(
            f"rank {others[0]} loaded other weights than rank 0; give all machines the same --model folder"
        )


def release(call: Call) -> None:
    """After the last step: the whole model on rank 0, which goes on alone; raises `Released` on the others."""
    if not isinstance(call, _Root):
        return
    for sharded in _sharded(call):
        sharded.set_reshard_after_forward(False)
        sharded.unshard()
    for part in call.modules():
        part._state_dict_pre_hooks.clear()  # FSDP's, which would shard the weights again when they are saved
    dist.barrier()
    if not is_main():
        raise Released
    _Company.alone = True  # until the stage ends


# --- a checkpoint ----------------------------------------------------------------------------------------------------


def whole(tensor: Tensor) -> Tensor:
    """All of a sharded tensor, on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors in the memory of rank 0's machine, one after another; nothing on the others."""
    if world_size() == 1:
        return tensors
    found = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if is_main():
            found[name] = full.cpu()
    return found


def read(newest: Callable[[Path], Any], folder: Path) -> Any:
    """What `checkpoint.newest` finds on rank 0. The others get its step, its facts, and tensors without content."""
    found = newest(folder) if is_main() else None
    if world_size() == 1:
        return found
    about = None
    if found is not None:
        step, tensors, facts = found
        about = [step, {name: [list(t.shape), str(t.dtype)] for name, t in tensors.items()}, facts]
    about = tell(about)
    if is_main() or about is None:
        return found
    empty = {
        name: torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")), device="meta")
        for name, (shape, dtype) in about[1].items()
    }
    return about[0], empty, about[2]


def place(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A tensor of a checkpoint where `parameter` lies: on its device, in its shards where it has some."""
    if world_size() == 1:
        return tensor.to(parameter.device)
    full = tensor.to(parameter.device) if is_main() else torch.empty_like(tensor, device=parameter.device)
    if isinstance(parameter, DTensor) and tensor.shape == parameter.shape:
        return distribute_tensor(full, parameter.device_mesh, parameter.placements)
    dist.broadcast(full, 0)
    return full
