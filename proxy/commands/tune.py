"""`breakwater tune`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from proxy.commands.options import Commands, add_addresses, command, config_of
from proxy.errors import ConfigError

_DESCRIPTION = """\
Measure what each way to run a model's defence costs on this machine, and which one fits a budget.

Starts the sidecar with the configured detectors as pass-through, observing, and enforcing: on the
input alone, with a cascade, sequentially, speculatively, with two workers. Each is a process of its
own in front of the configured Triton, which must be running; the audit log and the shared history
of the real sidecar are left alone. For each it reports

  added p50   what a lone request waits longer than through pass-through
  knee        the most requests a second at which p99 is at most twice that of the idle sidecar
  CPU         of the sidecar, milliseconds a request, at half the knee

Requests arrive at random, on time whether or not earlier ones are answered, and their latency
counts from when they were due. Run it on the machine that will serve, with nothing else on it, and
not against a Triton that others use: finding the knee means overloading it for moments.

Writes DIR/tune.json and DIR/tune.png, and says in two sentences what to take. About 5 minutes;
--quick: 1 to 2."""


def add(commands: Commands) -> None:
    """Add `tune` to the command line."""
    parser = command(commands, "tune", "measure what a defence costs", _DESCRIPTION)
    add_addresses(parser)
    parser.add_argument("--model", required=True, metavar="NAME", help="a key under `models`")
    parser.add_argument(
        "--data", type=Path, metavar="FILE.npz", help="samples x to send (default: random images)"
    )
    parser.add_argument(
        "--budget-ms",
        type=float,
        metavar="MS",
        help="most that the defence may add to the p50 (default: the config's budget_ms)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter measurements")
    parser.set_defaults(run=_run, log_level="WARNING")


def _run(options: argparse.Namespace, _: Sequence[str]) -> int:
    from tuning.tune import run

    if options.config is None:
        raise ConfigError("tune needs --config FILE, which names the model's detectors")
    status: int = run(
        config_of(options),
        options.model,
        data=options.data,
        budget_ms=options.budget_ms,
        out=options.out,
        quick=options.quick,
    )
    return status
