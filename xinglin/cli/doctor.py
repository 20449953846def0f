"""`xinglin doctor`: what this machine can run, and with --plan whether a recipe fits it and how long it takes."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xinglin.records import InputError

if TYPE_CHECKING:
    from xinglin.config import Base, Recipe, StageConfig
    from xinglin.plan.measure import Forecast
    from xinglin.run import Stage

DOCTOR_EXAMPLES = (
    "Examples:  xinglin doctor   |   xinglin doctor --plan quickstart   |   xinglin doctor --plan ivygpt --scale tiny"
)


def doctor_command(
    plan: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="Will this recipe fit here, and how long will it take?")
    ] = None,
    scale: Annotated[str, typer.Option(help="full, or tiny, as in `xinglin run`.")] = "full",
    data: Annotated[str, typer.Option(help="ward or public, as in `xinglin run`.")] = "ward",
    data_dir: Annotated[Path | None, typer.Option(help="The folder, for --data public.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Change one value.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="With --plan: print one JSON object.")] = False,
) -> None:
    """What this machine can run: versions, cores, memory, GPUs. With --plan: a recipe's time and memory."""
    if plan is None:
        from xinglin.plan import print_doctor

        print_doctor()
        return
    if scale not in ("full", "tiny") or data not in ("ward", "public"):
        raise InputError(f"--scale {scale!r} --data {data!r}: allowed are full or tiny, and ward or public")
    from xinglin.recipe import load_recipe

    recipe = load_recipe(plan, scale=scale, settings=settings)
    found = plan_recipe(recipe, data, data_dir, quiet=json_)
    if json_:
        print(json.dumps({"recipe": recipe.name, "stages": [dataclasses.asdict(one) for one in found]}))


def plan_recipe(recipe: Recipe, data: str, data_dir: Path | None, *, quiet: bool = False) -> list[Forecast]:
    """Forecast every stage; unless `quiet`, print the table as it grows."""
    from xinglin.plan import memory_here, print_forecast

    if recipe.base.tiny is None and recipe.base.path is None:
        from xinglin.plan.roofline import device_here, forecast_paper

        if recipe.base.full_shape is None:
            raise InputError(f"recipe {recipe.name!r}: no base.path, base.tiny or base.full_shape to plan with")
        device = device_here()
        estimates = forecast_paper(recipe, device)
        where = f"{recipe.name} on {device.name}: a paper estimate, not measured"
        return estimates if quiet else print_forecast(estimates, device.gigabytes, where)
    with tempfile.TemporaryDirectory(prefix="xinglin-plan-") as scratch:
        forecasts = _measured(recipe, data, data_dir, Path(scratch))
        where = f"{recipe.name} on this machine: every stage in miniature, multiplied by what the run will do"
        return list(forecasts) if quiet else print_forecast(forecasts, memory_here(), where)


def _measured(recipe: Recipe, data: str, data_dir: Path | None, scratch: Path) -> Iterator[Forecast]:
    """The data stage as it is, then the forecasts, over the run's own stage functions."""
    from xinglin.config import Base, Data
    from xinglin.plan.measure import Forecast, forecast_run, peak_gigabytes
    from xinglin.run import Stage
    from xinglin.stages import FUNCTIONS, Run, RunOptions

    run = Run(recipe, RunOptions(scratch, data, data_dir, quiet=True), {}, {})
    start = time.perf_counter()
    config = recipe.stages.get("data", Data())
    FUNCTIONS["data"](run, Stage(scratch / "data", "data", quiet=True), config)
    yield Forecast("data", "data", None, time.perf_counter() - start, peak_gigabytes())

    def work(name: str, config: StageConfig | Base, stage: Stage, folder: Path) -> None:
        run.folders["data"] = folder
        kind = "base" if isinstance(config, Base) else config.stage
        run.folders[name] = stage.dir
        FUNCTIONS[kind](run, stage, config)

    yield from forecast_run(recipe, scratch / "data", scratch, work)
