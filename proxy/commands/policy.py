"""`breakwater policy`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.commands.control_port import ABOUT, add_control, with_client
from proxy.commands.options import Commands, command
from proxy.errors import ConfigError

if TYPE_CHECKING:
    from proxy.control.client import Client

_DESCRIPTION = (
    """\
See and change the policy (the configuration file) of a running sidecar.

  breakwater policy show                             its text, and whether it is in force
  breakwater policy set policy.yaml --dry-run        what would change, or what is wrong with it
  breakwater policy change resnet50 fpr=0.02         one model's settings; comments stay
  breakwater policy change resnet50 mode=enforce query_attacks.action=block
  breakwater policy rollback                         the text before the last change

A text that a reload would refuse is not written. Settings that only a restart puts in force are
named. With --if-digest DIGEST nothing is done where somebody else was quicker."""
    + ABOUT
)


def add(commands: Commands) -> None:
    """Add `policy` to the command line."""
    parser = command(commands, "policy", "see and change a running policy", _DESCRIPTION)
    what = parser.add_subparsers(required=True, metavar="show|set|change|rollback", dest="what")
    show = what.add_parser("show", help="print the text, and on stderr whether it is in force")
    put = what.add_parser("set", help="make a file's text the policy")
    put.add_argument("file", type=Path, metavar="FILE", help="the new text; - for standard input")
    change = what.add_parser("change", help="change settings of one model")
    change.add_argument("model", metavar="MODEL")
    change.add_argument("settings", type=_setting, nargs="+", metavar="KEY=VALUE")
    back = what.add_parser("rollback", help="go back to the text before the last change")
    for each in (put, change, back):
        each.add_argument("--dry-run", action="store_true", help="say what would be, do nothing")
        each.add_argument("--if-digest", default="", metavar="DIGEST", help="see above")
    for each in (show, put, change, back):
        each.add_argument("--json", action="store_true", help="print the answer itself, as JSON")
        add_control(each)
    parser.set_defaults(run=_run, log_level="WARNING")


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _run(options: argparse.Namespace, _: Sequence[str]) -> int:
    return with_client(options, lambda client: _ask(client, options))


def _ask(client: Client, options: argparse.Namespace) -> int:
    from proxy.control import client as calls
    from proxy.pb.breakwater.v1 import control_pb2 as pb

    if options.what == "show":
        return _show(client, as_json=options.json)
    how: dict[str, Any] = {"if_digest": options.if_digest, "dry_run": options.dry_run}
    name: str
    request: pb.SetPolicyRequest | pb.ChangePolicyRequest | pb.RollbackPolicyRequest
    if options.what == "set":
        name, request = "SetPolicy", pb.SetPolicyRequest(text=_read(options.file), **how)
    elif options.what == "change":
        settings = dict(options.settings)
        name = "ChangePolicy"
        request = pb.ChangePolicyRequest(model=options.model, settings=settings, **how)
    else:
        name, request = "RollbackPolicy", pb.RollbackPolicyRequest(**how)
    answer = client.call(name, request, timeout_s=calls.CHANGE_TIMEOUT_S)
    return _tell(answer, as_json=options.json, dry_run=options.dry_run)


def _show(client: Client, *, as_json: bool) -> int:
    from rich.console import Console

    from proxy.control import listing
    from proxy.pb.breakwater.v1 import control_pb2 as pb

    policy = client.call("GetPolicy", pb.GetPolicyRequest())
    if as_json:
        _print_json(policy)
        return 0
    sys.stdout.write(listing.text(policy.text) if sys.stdout.isatty() else policy.text)
    sys.stdout.flush()
    Console(stderr=True).print(listing.policy_state(policy), soft_wrap=True)
    return 0


def _tell(answer: Any, *, as_json: bool, dry_run: bool) -> int:
    from rich.console import Console

    from proxy.control import listing

    if as_json:
        _print_json(answer)
    else:
        Console().print(listing.change(answer, dry_run=dry_run), soft_wrap=True)
    return 1 if answer.problems else 0


def _print_json(answer: Any) -> None:
    from google.protobuf.json_format import MessageToDict

    found = MessageToDict(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    print(json.dumps(found, indent=2))  # noqa: T201


def _read(path: Path) -> str:
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
