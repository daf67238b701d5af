"""`breakwater tune --capacity`: what each way to run the defence takes, and which fits a budget."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from proxy import __version__, artifacts
from proxy.config import Config, Model
from proxy.devices import use_device
from proxy.errors import ConfigError
from tuning import traffic
from tuning.costs import Cost, recommendation, table
from tuning.demo.sidecar import Sidecar
from tuning.knee import IDLE_PAUSE_S, IDLE_REQUESTS, QUICK, Effort, measure_capacity
from tuning.load import Client
from tuning.model_client import ask_spec
from tuning.narrow import Whole
from tuning.processes import cpu_s
from tuning.variants import Variant, variants

CONNECTIONS = 8
"""Enough that the kernel, which deals them out, leaves no worker without."""
_CPU_REQUESTS = 400
_CPU_SHARE = 0.5
"""Of the knee: where CPU per request is measured."""
_SAMPLES = re.compile(r'^breakwater_samples_total\{.*verdict="(\w+)"\} (\S+)', re.MULTILINE)


def run(
    config: Config,
    name: str,
    *,
    data: Path | None = None,
    budget_ms: float | None = None,
    out: Path,
    quick: bool = False,
    console: Console | None = None,
) -> int:
    """Measure the variants of one model's defence and write `capacity.json` and `capacity.png`.

    Args:
        data: samples to send; random images of the model's shape when missing.
        budget_ms: most that the defence may add to the p50; the configuration's when missing.
        out: folder to write to.
        quick: fewer and shorter measurements.

    Raises:
        ConfigError: nothing can be measured; says what to do.
    """
    console = console or Console(stderr=True)
    model = _model(config, name)
    budget = budget_ms if budget_ms is not None else model.budget_ms
    spec = asyncio.run(ask_spec(config, name, model))
    messages = traffic.requests(spec, data)
    if data is None:
        console.print("sending random images: with --data FILE.npz it would be your own traffic")
    if os.getloadavg()[0] > 0.5:
        console.print("this machine is busy: the figures will come out high and noisy")
    costs = _measured(config, name, variants(model), messages, quick, console)
    told = recommendation(costs, budget)
    console.print(table(name, costs))
    console.print(told)
    _write(out, config, name, data, budget, costs, told)
    drawn = _draw(out / "capacity.png", costs, console)
    console.print(
        f"written to {out / 'capacity.json'}" + (f" and {out / 'capacity.png'}" if drawn else "")
    )
    return 0


def _model(config: Config, name: str) -> Model:
    model = config.models.get(name)
    if model is None:
        known = ", ".join(config.models) or "none"
        raise ConfigError(f"no model {name!r} in the configuration (there: {known})")
    variants(model)  # raises where there is nothing to tune
    assert model.calibration is not None  # noqa: S101 (the configuration demands one)
    artifacts.load(model.calibration, name, model, use_device("cpu"))
    return model


def _measured(
    config: Config,
    name: str,
    chosen: Sequence[Variant],
    messages: Sequence[bytes],
    quick: bool,
    console: Console,
) -> list[Cost]:
    """Every variant, each in a process of its own; pass-through stays up to compare with."""
    columns = (TextColumn("{task.description:22}"), BarColumn(), MofNCompleteColumn())
    costs: list[Cost] = []
    with (
        tempfile.TemporaryDirectory(prefix="breakwater-tune-") as folder,
        Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress,
    ):
        task = progress.add_task("", total=len(chosen))
        bare = _start(chosen[0], Path(folder), config, name)
        try:
            for variant in chosen:
                progress.update(task, description=variant.name)
                is_bare = variant is chosen[0]
                sidecar = bare if is_bare else _start(variant, Path(folder), config, name)
                try:
                    cost = uvloop.run(_cost(variant, sidecar, bare, messages, quick))
                finally:
                    if not is_bare:
                        sidecar.stop()
                costs.append(cost)
                progress.advance(task)
        finally:
            bare.stop()
    return costs


def _start(variant: Variant, folder: Path, config: Config, name: str) -> Sidecar:
    own = folder / re.sub(r"\W+", "-", variant.name)
    own.mkdir()
    return Sidecar(
        variant.write(own, config, _whole(config, name)), own / "log", workers=variant.workers
    )


def _whole(config: Config, name: str) -> Whole:
    model = config.models[name]
    assert model.calibration is not None  # noqa: S101 (the configuration demands one)
    return Whole(model.calibration, name, model)


async def _cost(
    variant: Variant, sidecar: Sidecar, bare: Sidecar, messages: Sequence[bytes], quick: bool
) -> Cost:
    async with (
        Client(sidecar.address, messages, connections=CONNECTIONS) as client,
        Client(bare.address, messages, connections=CONNECTIONS) as other,
    ):
        try:
            capacity = await measure_capacity(client, QUICK if quick else Effort())
        except RuntimeError as error:
            raise ConfigError(
                f"{variant.name}: {error}; with action: block, send samples that are not "
                "suspicious (--data)"
            ) from error
        await other.one_at_a_time(50, pause_s=0)
        beside = await other.one_at_a_time(IDLE_REQUESTS, pause_s=IDLE_PAUSE_S)
        rate = _CPU_SHARE * capacity.knee.throughput_per_s or 250 / capacity.idle_p50_ms
        spent_s = cpu_s(sidecar.pid)
        load = await client.open_loop(rate, _CPU_REQUESTS)
        spent_s = cpu_s(sidecar.pid) - spent_s
    answered = max(len(load.latency_ms), 1)
    added_ms = capacity.idle_p50_ms - beside.percentile_ms(50)
    return Cost(
        variant=variant,
        capacity=capacity,
        added_p50_ms=0.0 if sidecar is bare else added_ms,
        cpu_ms=1000 * spent_s / answered,
        suspicious=await asyncio.to_thread(_suspicious, sidecar),
    )


def _suspicious(sidecar: Sidecar) -> float | None:
    counts = {verdict: float(n) for verdict, n in _SAMPLES.findall(sidecar.metrics())}
    total = sum(counts.values())
    return counts.get("suspicious", 0.0) / total if total else None


def _write(
    out: Path,
    config: Config,
    name: str,
    data: Path | None,
    budget_ms: float,
    costs: Sequence[Cost],
    told: str,
) -> None:
    steps = [
        {
            "variant": cost.variant.name,
            "offered_per_s": round(step.offered_per_s, 1),
            "throughput_per_s": round(step.throughput_per_s, 1),
            "p50_ms": round(step.p50_ms, 3),
            "p99_ms": round(step.p99_ms, 3),
            "kept_up": step.has_kept_up,
        }
        for cost in costs
        for step in cost.capacity.knee.steps
    ]
    document = {
        "breakwater": __version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "model": name,
        "upstream": config.upstream,
        "data": "random images" if data is None else str(data),
        "budget_ms": budget_ms,
        "recommendation": told,
        "rows": [cost.row() for cost in costs],
        "steps": steps,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "capacity.json").write_text(json.dumps(document, indent=1) + "\n")


def _draw(path: Path, costs: Sequence[Cost], console: Console) -> bool:
    try:
        from tuning.capacity_picture import draw
    except ImportError:
        console.print("no picture: it needs matplotlib (pip install breakwater[demo])")
        return False
    draw(path, {cost.variant.name: cost.capacity for cost in costs})
    return True
