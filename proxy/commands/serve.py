"""`breakwater serve`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.commands.options import (
    Commands,
    add_addresses,
    command,
    config_of,
    overrides,
    positive,
)

if TYPE_CHECKING:
    from proxy.config import Config

_DESCRIPTION = """\
Stand in front of Triton: inspect, decide, purify, forward, measure.

Without --config it is a hardened pass-through: validation, RPC policy and metrics, no scoring.
Clients change only the address they connect to. Stop it with SIGTERM or POST /drain: it finishes
what is in flight first. SIGHUP (or a changed file) reloads the configuration."""


def add(commands: Commands) -> None:
    """Add `serve` to the command line."""
    parser = command(commands, "serve", "run the sidecar", _DESCRIPTION)
    add_addresses(parser)
    parser.add_argument("--listen", metavar="HOST:PORT", help="where clients connect")
    parser.add_argument("--admin", metavar="HOST:PORT", help="metrics, health and drain (HTTP)")
    parser.add_argument("--metrics", metavar="HOST:PORT", help="read-only /metrics (HTTP)")
    parser.add_argument(
        "--workers", type=positive, default=1, metavar="N", help="processes sharing the port"
    )
    parser.add_argument("--worker-index", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--worker-dir", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker-history", type=int, help=argparse.SUPPRESS)
    parser.set_defaults(run=_run, log_level="INFO")


def _run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    from proxy.allocator import keep_large_buffers

    # It means a reload; until that is possible there is nothing to reload, and nobody to end.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    keep_large_buffers()
    config = config_of(options)
    if options.worker_index is None:
        _warn_of_threads(config, options.workers)
    if options.workers > 1 and options.worker_index is None:
        from proxy.supervisor import supervise

        supervised = supervise(
            arguments,
            config,
            options.workers,
            path=options.config,
            overrides=overrides(options),
        )
        return asyncio.run(supervised)
    return _run_server(options, config)


def _warn_of_threads(config: Config, workers: int) -> None:
    """Say so where more threads would compute than the cgroup has processors for."""
    from proxy import cpu_quota

    if any(model.detectors for model in config.models.values()):
        threads = cpu_quota.thread_count(config.torch_threads, os.environ)
        if text := cpu_quota.advice(workers, threads, cpu_quota.available_cpus()):
            logging.getLogger(__name__).warning("%s", text)


def _run_server(options: argparse.Namespace, config: Config) -> int:
    import uvloop

    from proxy.server import Server
    from proxy.supervisor import RECORDS_KEY, watch_parent

    worker = options.worker_index is not None

    async def run() -> int:
        if worker:
            # Without a supervisor nobody would ever stop this process; the next one wants the port.
            watch_parent(lambda: os.kill(os.getpid(), signal.SIGINT))
        server = Server(
            config,
            path=options.config,
            overrides=overrides(options),
            share_port=worker,
            admin=options.worker_dir / f"worker-{options.worker_index}.sock" if worker else None,
            history_file=options.worker_history,
            records_key=bytes.fromhex(os.environ[RECORDS_KEY]) if worker else None,
        )
        await server.start()
        return await server.run()

    result: int = uvloop.run(run())
    return result
