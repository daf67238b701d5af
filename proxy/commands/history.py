"""`breakwater history`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from proxy.commands.control_port import token_of
from proxy.commands.options import Commands, address, command, seconds

_DESCRIPTION = """\
Show who raised alarms: principals whose queries, in series, look like a search for an adversarial
input. Asks a running `breakwater serve` on its admin port.

One alarm puts a principal in quarantine for the model's quarantine_minutes, each doubling of the
alarms for as long again, at most seven times as long. What is done with a principal in quarantine
is the model's query_attacks.action; the caller is not told.

--clear ends a quarantine now, say of a test suite that looked like an attack. It forgets the
alarms, not the queries: who goes on with the same series raises the next alarm. Each replica has a
list of its own: clear at all of them.

What a terminal would act on in a principal's name is printed as an escape like \\x1b; --clear takes
the name as it is printed.

Where control.token_file is configured it needs the token, from --token-file or BREAKWATER_TOKEN.

Exit status 0: done; 1: no answer; 2: the command was not understood."""


def add(commands: Commands) -> None:
    """Add `history` to the command line."""
    parser = command(commands, "history", "see who attacks with queries", _DESCRIPTION)
    parser.add_argument(
        "--admin",
        type=address,
        default="127.0.0.1:9090",
        metavar="HOST:PORT",
        help="admin port of the sidecar (default: 127.0.0.1:9090)",
    )
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with the token")
    parser.add_argument("--model", metavar="NAME", help="only alarms at this model")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--clear", metavar="PRINCIPAL", help="end this principal's quarantine")
    what.add_argument("--clear-all", action="store_true", help="end everybody's quarantine")
    what.add_argument(
        "--watch",
        type=seconds,
        nargs="?",
        const=2.0,
        metavar="SECONDS",
        help="go on until Ctrl-C, asking every 2 s or as often as said",
    )
    parser.add_argument("--json", action="store_true", help="print the answer itself, as JSON")
    parser.set_defaults(run=_run, log_level="WARNING")


def _run(options: argparse.Namespace, _: Sequence[str]) -> int:
    from proxy import inquiry
    from proxy.history.listing import meant

    host, port = options.admin
    admin = inquiry.Address(host, port, token_of(options.token_file))
    settings = {"model": options.model, "as_json": options.json}
    if options.clear_all:
        return inquiry.clear(admin, None, **settings)
    if options.clear is not None:
        return inquiry.clear(admin, meant(options.clear), **settings)
    return inquiry.show(admin, every_s=options.watch, **settings)
