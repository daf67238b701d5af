"""`breakwater card`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from proxy.commands.options import Commands, command, config_of
from proxy.errors import ConfigError

_DESCRIPTION = """\
Write the card of a model's defence, for audits: what is defended and how, against which attackers,
measured on which data, with which results, and where it ends: published breaks of each part, what
the evaluation missed, what nothing looks at. Figures come from a report of `breakwater evaluate`;
without one the card says that nothing was measured.

Says also what makes the card doubtful: an old calibration, an evaluation of another policy, copies
in the data. Asks no server."""


def add(commands: Commands) -> None:
    """Add `card` to the command line."""
    parser = command(commands, "card", "describe a model's defence for audits", _DESCRIPTION)
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration (YAML)")
    parser.add_argument("--model", required=True, metavar="NAME", help="a key under `models`")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="DIR/report.json",
        help="of `breakwater evaluate` (default: the config's evaluation)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="card.html or card.md (default: print Markdown)"
    )
    parser.set_defaults(run=_run, log_level="ERROR")


def _run(options: argparse.Namespace, _: Sequence[str]) -> int:
    from tuning.card.write import run

    if options.config is None:
        raise ConfigError("card needs --config FILE, which names the model's defence")
    status: int = run(config_of(options), options.model, options.report, options.out)
    return status
