"""The `breakwater` command: `proxy.commands` has its subcommands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from proxy import __version__, log
from proxy.commands import (
    audit,
    calibrate,
    card,
    check,
    demo,
    diff,
    drain,
    evaluate,
    fit,
    health,
    history,
    label,
    policy,
    replay,
    serve,
    suspicious,
    tune,
    watch,
)
from proxy.errors import ConfigError

COMMANDS = (
    *(serve, calibrate, fit, evaluate, tune, card, check, diff, replay),
    *(policy, watch, suspicious, label, history, audit, health, drain, demo),
)
"""In the order of `--help`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(arguments)
    try:
        log.set_up(options.log_level)
        status: int = options.run(options, arguments)
    except ConfigError as error:
        print(f"breakwater: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="breakwater",
        description="Inference-time adversarial-defence proxy for NVIDIA Triton.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"breakwater {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for each in COMMANDS:
        each.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
