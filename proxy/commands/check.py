"""`breakwater check`."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from proxy.commands.options import Commands, add_addresses, command, config_of

_DESCRIPTION = """\
Validate a configuration and print what would be enforced, completed from Triton if it answers.
Exit status 0: usable; 1: Triton contradicts it, and a model would go undefended; 2: the file or a
calibration cannot be used."""


def add(commands: Commands) -> None:
    """Add `check` to the command line."""
    parser = command(commands, "check", "validate a configuration", _DESCRIPTION)
    add_addresses(parser)
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema and exit")
    parser.add_argument(
        "--list", action="store_true", help="print detectors and purifiers and exit"
    )
    parser.set_defaults(run=_run, log_level="ERROR")


def _run(options: argparse.Namespace, _: Sequence[str]) -> int:
    from tuning import report

    if options.schema:
        return report.print_schema()
    if options.list:
        return report.print_parts()
    return asyncio.run(report.print_policy(config_of(options)))
