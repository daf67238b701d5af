"""`breakwater label`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from proxy.commands.control_port import ABOUT, add_control, with_client
from proxy.commands.options import Commands, command

if TYPE_CHECKING:
    from proxy.control.client import Client

_DESCRIPTION = (
    """\
Say what a sample was that a running sidecar has judged: benign or adversarial. `breakwater
suspicious` and `breakwater watch` show the ids. `breakwater calibrate --live` takes labels into
account. `none` takes a label back."""
    + ABOUT
)


def add(commands: Commands) -> None:
    """Add `label` to the command line."""
    parser = command(commands, "label", "say what a suspicious sample was", _DESCRIPTION)
    parser.add_argument("id", metavar="ID", help="of the sample, as it is printed")
    parser.add_argument("label", choices=("benign", "adversarial", "none"))
    add_control(parser)
    parser.set_defaults(run=_run, log_level="WARNING")


def _run(options: argparse.Namespace, _: Sequence[str]) -> int:
    return with_client(options, lambda client: _label(client, options))


def _label(client: Client, options: argparse.Namespace) -> int:
    from proxy.history.listing import meant
    from proxy.pb.breakwater.v1 import control_pb2 as pb

    label = "" if options.label == "none" else options.label
    client.call("LabelRequest", pb.Label(id=meant(options.id), label=label))
    print("Noted." if label else "Taken back.")  # noqa: T201
    return 0
