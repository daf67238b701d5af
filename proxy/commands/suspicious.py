"""`breakwater suspicious`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proxy.commands.control_port import ABOUT, add_control, with_client
from proxy.commands.options import Commands, command, positive

if TYPE_CHECKING:
    from proxy.control.client import Client

_DESCRIPTION = (
    """\
List the latest suspicious and failed samples of a running sidecar, newest first, and those of
series of queries. It keeps the last few hundred (records.recent).

With --disagreements: those that the shadow policy judges otherwise."""
    + ABOUT
)


def add(commands: Commands) -> None:
    """Add `suspicious` to the command line."""
    parser = command(commands, "suspicious", "list the latest suspicious samples", _DESCRIPTION)
    parser.add_argument("--model", default="", metavar="NAME", help="only of this model")
    parser.add_argument(
        "--limit", type=positive, default=20, metavar="N", help="so many at most (default: 20)"
    )
    parser.add_argument(
        "--disagreements", action="store_true", help="where the shadow policy says otherwise"
    )
    parser.add_argument("--json", action="store_true", help="print the records, as JSON")
    add_control(parser)
    parser.set_defaults(run=_run, log_level="WARNING")


def _run(options: argparse.Namespace, _: Sequence[str]) -> int:
    return with_client(options, lambda client: _list(client, options))


def _list(client: Client, options: argparse.Namespace) -> int:
    from rich.console import Console

    from proxy.control import listing, messages
    from proxy.pb.breakwater.v1 import control_pb2 as pb

    what: dict[str, Any] = {"model": options.model, "limit": options.limit}
    if options.disagreements:
        found = client.call("ListDisagreements", pb.ListDisagreementsRequest(**what))
    else:
        found = client.call("ListSuspicious", pb.ListSuspiciousRequest(**what))
    records = found.records
    if options.json:
        print(json.dumps([messages.plain(record) for record in records], indent=2))  # noqa: T201
    else:
        Console().print(listing.page(records))
    return 0
