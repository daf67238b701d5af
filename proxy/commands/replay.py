"""`breakwater replay`."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.commands.options import Commands, add_addresses, command, config_of
from proxy.errors import ConfigError

if TYPE_CHECKING:
    from proxy.capture.replay import Outcome

_DESCRIPTION = """\
Judge captured requests (`capture` of the configuration, inputs: full) by another policy, offline:
what it would say of each, and do. The model server is asked what the policy's detectors need; no
answer goes to anybody. Series of queries are judged in the order they came, at the speed of the
replay, with a memory of its own. Files that are no captures, or damaged, are skipped and named.

Exit status 0: nothing would be treated otherwise; 1: nothing could be replayed; 2: not understood,
or a file or the model server cannot be used; 3: some requests would be treated otherwise."""

AFFECTED = 3
"""Exit status where some request would be treated otherwise."""
_SHOWN = 50


def add(commands: Commands) -> None:
    """Add `replay` to the command line."""
    parser = command(commands, "replay", "judge captured requests by another policy", _DESCRIPTION)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of captures")
    add_addresses(parser)
    parser.add_argument("--model", metavar="NAME", help="only this model's requests")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it there")
    parser.set_defaults(run=_run, log_level="WARNING")


def _run(options: argparse.Namespace, _: Sequence[str]) -> int:
    import asyncio

    from proxy.capture.replay import replay

    if options.config is None:
        raise ConfigError("replay needs --config FILE, which has the policy to try")
    outcome = asyncio.run(replay(options.folder, config_of(options), options.model))
    if options.json is not None:
        _write(options.json, outcome)
    for text in _told(outcome):
        print(text)  # noqa: T201
    if not outcome.replayed:
        return 1
    return AFFECTED if any(each.differs for each in outcome.replayed) else 0


def _write(path: Path, outcome: Outcome) -> None:
    from proxy.files import write_whole

    try:
        write_whole(path, json.dumps(outcome.to_json(), indent=2).encode())
    except OSError as error:
        raise ConfigError(f"--json {path}: {error}") from error


def _told(outcome: Outcome) -> list[str]:
    """What is shown, a line each; whatever files say is escaped."""
    differing = [each for each in outcome.replayed if each.differs]
    told = []
    for each in differing[:_SHOWN]:
        before, after = ("/".join(_plain(word) for word in p) for p in (each.before, each.after))
        why = f" ({_plain(each.reason)})" if each.reason else ""
        told.append(f"{_plain(each.request_id)} {_plain(each.model)}: {before} -> {after}{why}")
    if len(differing) > _SHOWN:
        told.append(f"... and {len(differing) - _SHOWN} more")
    told += [f"skipped {_plain(file)}: {_plain(why)}" for file, why in outcome.skipped[:_SHOWN]]
    counts = Counter((each.before, each.after) for each in outcome.replayed)
    for pair, count in counts.most_common(_SHOWN):
        told.append(f"{count:6} " + " -> ".join(_plain("/".join(words)) for words in pair))
    return [
        *told,
        f"{len(outcome.replayed)} replayed, {len(differing)} would be treated otherwise, "
        f"{len(outcome.skipped)} files skipped",
    ]


def _plain(text: str) -> str:
    return repr(text[:200])[1:-1]
