"""What a run would take, and what this machine can give: the dry run and the doctor.

xinglin run iimedgpt --dry-run        stages, tokens, memory for the real base
xinglin doctor                        versions, cores, memory, GPUs
xinglin doctor --plan iimedgpt        will it fit, how long will it take: measured in miniature where the model is the
                                      embedded one (measure.py), from the roofline where it is large (roofline.py)
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from xinglin.config import Recipe, Training
from xinglin.plan.measure import Forecast
from xinglin.plan.paper import GB, memory, parameters
from xinglin.run import versions


def print_plan(recipe: Recipe, data: str) -> None:
    """The stages in order, with what each trains on and the memory it needs at the recipe's base."""
    shape = None if recipe.base.tiny else recipe.base.full_shape
    print(f"{recipe.name}: {recipe.title}\nbase: {recipe.base.name}\ndata: {data}\n")
    print(f"{'stage':<20} {'kind':<10} {'from':<12} {'method':<7} {'lr':>8} {'batch':>6} {'epochs':>6} {'GB':>7}")
    for name, config in recipe.stages.items():
        if isinstance(config, Training):
            size = f"{memory(shape, config)['total']:.1f}" if shape else "-"
            numbers = f"{config.method:<7} {config.lr:>8.1e} {config.batch_size:>6} {config.epochs:>6g} {size:>7}"
            print(f"{name:<20} {config.stage:<10} {config.from_:<12} {numbers}")
        else:
            print(f"{name:<20} {config.stage:<10} {getattr(config, 'from_', ''):<12}")
    if shape:
        linear, rest = parameters(shape)
        print(f"\n{(linear + rest) / GB:.1f} G parameters, {rest / GB:.1f} G of them embedding and head.")
        _print_tokens(recipe)
        print(
            "Memory is a paper estimate for one process, activations kept (no recompute); not measured on this machine."
        )
    elif recipe.base.tiny:
        print("\nThe embedded model: `xinglin doctor --plan` measures its time and memory in miniature.")
    assumed = sum(value.startswith("assumed") for value in recipe.provenance.values())
    published = sum(value.startswith("published") for value in recipe.provenance.values())
    if recipe.provenance:
        print(f"{published} values are published, {assumed} assumed; `xinglin recipe show {recipe.name}` lists each.")


def _print_tokens(recipe: Recipe) -> None:
    """Tokens each training stage reads, from the sizes the paper publishes."""
    for name, tokens in recipe.tokens.items():
        config = recipe.stages.get(name)
        epochs = config.epochs if isinstance(config, Training) else 1
        print(f"{name}: {tokens / 1e6:,.0f} M tokens x {epochs:g} epochs = {tokens * epochs / 1e6:,.0f} M")


def print_doctor() -> None:
    """Versions and limits of this machine, one a line."""
    import torch

    facts: dict[str, Any] = dict(versions())
    facts["cores"] = os.cpu_count()
    facts["memory"] = f"{memory_here():.0f} GB"
    facts["disk free here"] = f"{shutil.disk_usage('.').free / GB:.0f} GB"
    facts["bf16 on the CPU"] = "native" if torch.cpu._is_avx512_bf16_supported() else "emulated: fp32 is used"
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            info = torch.cuda.get_device_properties(index)
            facts[f"gpu {index}"] = f"{info.name}, {info.total_memory / GB:.0f} GB"
    else:
        facts["gpu"] = "none: every stage runs on the CPU"
    for name in ("vllm", "trl"):
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            facts[name] = "not installed (optional)"
    for name, value in facts.items():
        print(f"{name:<16} {value}")


def print_forecast(forecasts: Iterable[Forecast], gigabytes: float, where: str) -> list[Forecast]:
    """The table, a line as soon as each is known, and what it sums to. `gigabytes`: the memory there is."""
    print(f"{where}\n\n{'stage':<20} {'kind':<10} {'tokens':>10} {'time':>9} {'GB':>7}  fits")
    shown = []
    for one in forecasts:
        shown.append(one)
        tokens = (
            "-" if one.tokens is None else f"{one.tokens:,.0f}" if one.tokens < 1e7 else f"{one.tokens / 1e6:,.0f} M"
        )
        size = "-" if one.gigabytes is None else f"{one.gigabytes:.2f}"
        fits = "-" if one.gigabytes is None else "yes" if one.gigabytes <= gigabytes else "NO"
        line = f"{one.stage:<20} {one.kind:<10} {tokens:>10} {duration(one.seconds):>9} {size:>7}  {fits:<4} {one.note}"
        print(line.rstrip(), flush=True)
    known = [one for one in shown if one.seconds is not None]
    whole = "" if len(known) == len(shown) else f" (without {', '.join(o.stage for o in shown if o.seconds is None)})"
    peak = max((one.gigabytes or 0.0 for one in shown), default=0.0)
    print(f"{'together':<31} {'':>10} {duration(sum(one.seconds or 0 for one in known)):>9} {peak:>7.2f}{whole}")
    return shown


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "-"
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def memory_here() -> float:
    """Gigabytes of this machine, or of the control group it runs in."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    given = limit.read_text("utf-8").strip() if limit.is_file() else "max"
    return min(whole, int(given) if given.isdigit() else whole) / GB
