"""`breakwater demo`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from proxy.commands.options import Commands, command

_DESCRIPTION = """\
The whole story on this machine: train a small model, serve it from a real Triton, calibrate, start
the proxy, attack the model without and with it, and print what happened."""


def add(commands: Commands) -> None:
    """Add `demo` to the command line."""
    parser = command(commands, "demo", "see it work, real Triton included", _DESCRIPTION)
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), metavar="DIR", help="pictures and files"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    parser.set_defaults(run=_run, log_level="WARNING")


def _run(options: argparse.Namespace, _: Sequence[str]) -> int:
    from tuning.demo import run

    return run(options.out, json_file=options.json, keep=options.keep)
