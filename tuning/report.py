"""`breakwater check`: what would be enforced, in words a person can check."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import detectors
import purifiers
from proxy import configfile
from proxy.adapt import ModelSpec
from proxy.config import Config, Model
from proxy.cpu_quota import available_cpus, suggested_workers, thread_count
from proxy.defence import Defence
from proxy.defences import Defences
from proxy.drift.panes import ENOUGH
from proxy.errors import ProxyError
from proxy.history.history import History
from proxy.metrics import Metrics
from proxy.rpc import ALWAYS_ON
from proxy.scoring import Scorer
from proxy.upstream import Upstream
from purifiers.base import Kind
from purifiers.plugins import Plugin

Part = detectors.Detector | purifiers.Purifier

_REACH_S = 2.0
"""What a shared store gets to answer."""


def print_schema() -> int:
    """Print the JSON Schema of the configuration file."""
    print(json.dumps(configfile.schema(), indent=2))  # noqa: T201
    return 0


def print_parts() -> int:
    """Print the detectors and purifiers a configuration can name; 1 if a plug-in cannot be used."""
    console = Console()
    _print_table(console, "Detectors", detectors.DETECTORS)
    _print_table(console, "Purifiers", purifiers.PURIFIERS)
    plugins: list[Plugin[detectors.Detector] | Plugin[purifiers.Purifier]] = [
        *detectors.PLUGINS.each(detectors.DETECTORS),
        *purifiers.PLUGINS.each(purifiers.PURIFIERS),
    ]
    if plugins:
        table = _table("Plug-ins", "name", "takes", "from", "what it is")
        for plugin in plugins:
            takes, what = (
                _facts(plugin.part) if plugin.part else ("", f"[red]{escape(plugin.problem)}[/]")
            )
            table.add_row(plugin.name, takes, plugin.distribution, what)
        console.print(table)
    return 1 if any(plugin.part is None for plugin in plugins) else 0


def _print_table(console: Console, title: str, parts: Mapping[str, type[Part]]) -> None:
    table = _table(title, "name", "takes", "what it is")
    for name, part in parts.items():
        table.add_row(name, *_facts(part))
    console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    return table


def _facts(part: type[Part]) -> tuple[str, str]:
    """What it takes, and the first line about it."""
    kinds = "any" if part.kinds == frozenset(Kind) else ", ".join(sorted(part.kinds))
    return kinds, escape((part.__doc__ or "").strip().partition("\n")[0])


async def print_policy(config: Config) -> int:
    """Validate, complete from Triton if it answers, and print; 0 when it could be served.

    Raises:
        ConfigError: a calibration or part cannot be used.
    """
    console = Console()
    defences = Defences(config, Metrics())
    upstream = Upstream(
        config.upstream, max_message_bytes=config.max_message_bytes, tls=config.upstream_tls
    )
    try:
        await defences.refresh(upstream)
        answers = True
    except ProxyError as error:
        console.print(
            f"Triton at {config.upstream}: {escape(str(error))}. Models are shown as configured."
        )
        answers = False
    finally:
        await upstream.close()
    _print_front(console, config)
    if any(model.remembers for model in config.models.values()):
        await _print_history(console, config)
    for defence in defences.models():
        _print_model(console, defence)
    if not config.models:
        console.print(
            "no models configured: a hardened pass-through (validation, RPC policy, metrics)"
        )
    broken = [d for d in defences.models() if answers and d.problem]
    return 1 if broken else 0


def _print_front(console: Console, config: Config) -> None:
    table = Table(show_header=False, title="Front", title_justify="left")
    allowed = sorted(ALWAYS_ON) + sorted(config.rpc.allow)
    rows = {
        "listen": config.listen,
        "upstream": config.upstream,
        "admin": config.admin,
        "RPC groups allowed": ", ".join(allowed),
        "shared memory": config.shared_memory,
        "NaN and infinities, unlisted models": config.non_finite,
        "unlisted models": f"{config.unlisted_models} (validated, not scored)"
        if config.unlisted_models == "pass"
        else "refuse",
        "largest message": f"{config.max_message_bytes} bytes",
        "in flight at most": str(config.max_in_flight),
        "processors": _processors(config),
    }
    for key, value in rows.items():
        table.add_row(key, value)
    console.print(table)


def _processors(config: Config) -> str:
    """What the cgroup and affinity leave, and how many workers that is enough for."""
    cpus = available_cpus()
    threads = thread_count(config.torch_threads, os.environ)
    return (
        f"{cpus:g} for this process: at most {suggested_workers(cpus, threads)} --workers with "
        f"torch_threads {threads}, less what a model server beside it needs"
    )


async def _print_history(console: Console, config: Config) -> None:
    """What remembers queries; raises ConfigError for a secret that cannot be used."""
    cfg = config.history
    table = Table(show_header=False, title="History of queries", title_justify="left")
    table.add_row("remembers", f"{cfg.capacity} queries a worker, for {cfg.ttl_minutes:g} min")
    secret = f"from {cfg.key_file}" if cfg.key_file else "random, of this process alone"
    table.add_row("salt", f"{escape(secret)}, another every {cfg.rotate_hours:g} h")
    history = History(cfg, Metrics())
    await history.start()
    try:
        table.add_row("shared with", escape(await _reached(history)) if cfg.shared else "nobody")
    finally:
        await history.close()
    if config.principal_header is None:
        table.add_row("principals", "peer addresses: clients behind one gateway are one principal")
    console.print(table)


async def _reached(history: History) -> str:
    """How the shared store is, once it has had a moment to answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_REACH_S):
            while history.standings()["shared"]["state"] != "up":  # noqa: ASYNC110 (no event tells)
                await asyncio.sleep(_REACH_S / 50)
    return f"the replicas of one store, which is {history.standings()['shared']['state']}"


def _print_model(console: Console, defence: Defence) -> None:
    model, spec = defence.model, defence.spec
    if model is None:
        return
    table = Table(show_header=False, title=f"Model {defence.name}", title_justify="left")
    if defence.problem:
        table.add_row("[red]problem[/red]", escape(defence.problem))
    if spec is not None:
        _add_tensors(table, spec)
    table.add_row("mode", model.mode + ("" if model.mode == "observe" else f", {model.action}"))
    table.add_row("dispatch", model.dispatch)
    table.add_row("budget", f"{model.budget_ms:g} ms, then fail {model.on_failure}")
    if model.detectors and model.mode == "enforce" and model.on_failure == "open":
        table.add_row("fail open", "a failing or overloaded detector lets requests pass")
    table.add_row("detectors", ", ".join(p.name for p in model.detectors) or "none")
    table.add_row("purifiers", ", ".join(p.name for p in model.purifiers) or "none")
    _add_options(table, model)
    if defence.scorer is not None and spec is not None:
        _add_calibration(table, defence.scorer, model.fpr, ",".join(spec.versions))
    console.print(table)


def _add_options(table: Table, model: Model) -> None:
    """What is off unless the configuration asks for it."""
    if model.remembers:
        policy = model.query_attacks
        lasts = f"{policy.quarantine_minutes:g} min of quarantine after an alarm"
        table.add_row(
            "query attacks",
            f"{policy.action}, {lasts if policy.quarantine_minutes else 'no quarantine'}; at most "
            f"{policy.fpr:.2%} of benign near-duplicates",
        )
    if model.drift.enabled and model.drift.on_alarm != "none":
        table.add_row(
            "drift",
            f"{model.drift.on_alarm} on an alarm; needs traffic of at least {ENOUGH} principals in "
            "half a window, with fewer the alarm is told and `action` stays",
        )
    if model.cascade is not None:
        table.add_row(
            "cascade",
            f"stop where at least {model.cascade.clean:.1%} of benign samples look "
            f"more suspicious, or at most {model.cascade.suspicious:.1%}",
        )
    if model.secrecy is not None:
        table.add_row(
            "secrecy",
            f"{model.secrecy.keep:.0%} of the detectors, drawn anew every "
            f"{model.secrecy.rotate_hours:g} h by {escape(str(model.secrecy.key_file))}",
        )
    if model.aggregate is not None:
        rule = {"mean": "mean of probabilities", "vote": "majority vote"}[model.aggregate.rule]
        table.add_row("aggregate", f"{rule} over {model.aggregate.copies} purified copies")


def _add_tensors(table: Table, spec: ModelSpec) -> None:
    layout = "encoded JPEG/PNG" if spec.encoded else str(spec.layout)
    low, high = (", ".join(f"{v:.4g}" for v in ends) for ends in (spec.low, spec.high))
    shape = escape(str(list(spec.shape)))
    table.add_row("input", f"{spec.input} {spec.datatype} {shape}, {layout}")
    table.add_row("holds", f"{spec.kind}s")
    table.add_row("versions served", ", ".join(spec.versions))
    ends = {"image": "pixel 0 .. 1", "waveform": "full scale"}.get(spec.kind)
    if ends is not None:
        table.add_row(f"{ends} on the wire", f"{low} .. {high}")
    table.add_row("output", f"{spec.output} ({spec.output_kind})")
    table.add_row("largest query", f"{spec.batch_limit} samples")
    kinds = [k for k, on in (("stateful", spec.stateful), ("decoupled", spec.decoupled)) if on]
    if kinds:
        table.add_row("kind", f"{', '.join(kinds)}: scored on the input only")


def _add_calibration(table: Table, scorer: Scorer, fpr: float, served: str) -> None:
    source = scorer.provenance
    table.add_row(
        "calibrated",
        f"{source.date} on {source.samples} samples, model version {source.model_version}",
    )
    if source.model_version != served:
        table.add_row(
            "[yellow]calibration[/yellow]",
            f"made on version {source.model_version}, Triton serves {served}: calibrate again",
        )
    for level, (threshold, upper) in scorer.threshold_bounds.items():
        table.add_row(
            f"threshold ({level})",
            f"{threshold:.4g} for {fpr:.2%} false positives (at most {upper:.2%})",
        )
