"""`breakwater diff`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.commands.control_port import add_control, with_client
from proxy.commands.options import Commands, command, positive
from proxy.errors import ConfigError

if TYPE_CHECKING:
    from proxy.control.client import Client

_DESCRIPTION = """\
Say which recorded requests a change of policy would affect, before it is made. A running sidecar
keeps the scores of a sample of its traffic (records.capacity); each is judged by both policies.
What needs scores that were not recorded cannot be told: then try the new file as a shadow.

The scores come from a running `breakwater serve` through its control port, or from --records FILE,
as GET /records/scores?model=NAME on the admin port gives them. The policy in force is --config, or
the file that the sidecar says it runs, where it is on this machine.

Exit status 0: compared, nothing affected; 1: no answer; 2: not understood, or a file cannot be
used; 3: compared, and some requests would be affected."""

AFFECTED = 3
"""Exit status where some recorded request would be treated otherwise."""


def add(commands: Commands) -> None:
    """Add `diff` to the command line."""
    parser = command(commands, "diff", "see whom a change of policy would affect", _DESCRIPTION)
    parser.add_argument("new", type=Path, metavar="NEW.yaml", help="configuration to compare")
    parser.add_argument("--model", required=True, metavar="NAME", help="model to compare it for")
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration in force")
    parser.add_argument("--records", type=Path, metavar="FILE", help="recorded scores (JSON)")
    parser.add_argument(
        "--limit", type=positive, default=20, metavar="N", help="list so many (default: 20)"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    add_control(parser)
    parser.set_defaults(run=_run, log_level="ERROR")


def _run(options: argparse.Namespace, _: Sequence[str]) -> int:
    if options.records is None:
        return with_client(options, lambda client: _asked(options, client))
    if options.config is None:
        raise ConfigError("--records needs --config, the configuration they were recorded under")
    try:
        text = options.records.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--records {options.records}: {error}") from error
    return _compared(options, _parsed(text), options.config)


def _asked(options: argparse.Namespace, client: Client) -> int:
    """With the scores of a running sidecar, and the file it runs."""
    from proxy.pb.breakwater.v1 import control_pb2 as pb

    current = options.config
    if current is None:
        current = Path(client.call("GetPolicy", pb.GetPolicyRequest()).path)
        if not current.is_file():
            raise ConfigError(
                f"the sidecar runs {str(current)!r}, which is not on this machine; give a copy of "
                "it, its calibration beside it, with --config"
            )
    found = client.call("GetScores", pb.GetScoresRequest(model=options.model))
    return _compared(options, _parsed(found.text), current)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the recorded scores are not JSON: {error}") from error


def _compared(options: argparse.Namespace, scores: Any, current: Path) -> int:
    from rich.console import Console

    from tuning import diff, diff_report

    recorded = diff.Recorded.read(scores, options.model)
    now, then = (diff.Policy.load(file, options.model) for file in (current, options.new))
    told = diff_report.report(diff.compare(recorded, now, then), now, then, options.limit)
    if options.json:
        print(json.dumps(told, indent=2))  # noqa: T201
    else:
        diff_report.show(told, Console())
    return AFFECTED if told["affected"] else 0
