"""`breakwater watch`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from proxy.commands.control_port import ABOUT, add_control, with_client
from proxy.commands.options import Commands, command

if TYPE_CHECKING:
    from proxy.control.client import Client

_DESCRIPTION = (
    """\
Follow the verdicts of a running sidecar, a line each, until Ctrl-C: suspicious and failed samples
and those of series of queries, or with --all every scored sample.

Who reads too slowly loses lines; the metric breakwater_watch_dropped_total counts them. What a
terminal would act on in a client's text is printed as an escape like \\x1b."""
    + ABOUT
)


def add(commands: Commands) -> None:
    """Add `watch` to the command line."""
    parser = command(commands, "watch", "follow verdicts as they are reached", _DESCRIPTION)
    parser.add_argument("--model", default="", metavar="NAME", help="only of this model")
    parser.add_argument("--all", action="store_true", help="also samples that pass")
    parser.add_argument("--json", action="store_true", help="a line of JSON each")
    add_control(parser)
    parser.set_defaults(run=_run, log_level="WARNING")


def _run(options: argparse.Namespace, _: Sequence[str]) -> int:
    return with_client(options, lambda client: _follow(client, options))


def _follow(client: Client, options: argparse.Namespace) -> int:
    from rich.console import Console

    from proxy.control import listing, messages
    from proxy.pb.breakwater.v1 import control_pb2 as pb

    console = Console()
    request = pb.WatchVerdictsRequest(model=options.model, everything=options.all)
    try:
        for record in client.stream("WatchVerdicts", request):
            if options.json:
                print(json.dumps(messages.plain(record)), flush=True)  # noqa: T201
            else:
                console.print(listing.line(record), soft_wrap=True)
    except KeyboardInterrupt:
        return 0
    return 1
