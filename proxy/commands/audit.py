"""`breakwater audit`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.commands.options import Commands, command

if TYPE_CHECKING:
    from proxy.audit_verify import Report

_DESCRIPTION = """\
Say whether an audit log is as it was written. Each line seals the one before it, by run of a
worker; give all files of a log, in any order. `audit.key_file` of the configuration made the seals,
if it is set; without a key anybody who may write the file can write a chain that holds.

A cut at the very end, or a whole run that is gone, leaves no trace in the file itself: give what
the process log said after 'audit head', which is logged every minute, with --anchor. Half a line,
as a full disk or a crash leaves it, and lines that the log says it lost are told and are no break.

Exit status 0: intact; 1: not; 2: not understood, or a file cannot be read."""

_SHOWN = 20


def add(commands: Commands) -> None:
    """Add `audit` to the command line."""
    audit = command(commands, "audit", "verify the audit log", _DESCRIPTION)
    wanted = audit.add_subparsers(required=True, metavar="WHAT")
    parser = command(wanted, "verify", "say whether it is as it was written", _DESCRIPTION)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="what `audit.key_file` is")
    parser.add_argument(
        "--anchor",
        action="append",
        default=[],
        metavar="RUN:SEQ:DIGEST",
        help="end of a chain at some time, as the process log says; may be repeated",
    )
    parser.set_defaults(run=_run, log_level="WARNING")


def _run(options: argparse.Namespace, _: Sequence[str]) -> int:
    from proxy.audit_verify import Anchor, verify
    from proxy.keyfile import read_key

    key = None if options.key_file is None else read_key("audit", options.key_file)
    anchors = [Anchor.parse(each) for each in options.anchor]
    files = list({each.resolve(): each for each in options.files}.values())
    report = verify(files, key, anchors)
    for text in _told(report):
        print(text)  # noqa: T201
    return 1 if report.breaks else 0


def _told(report: Report) -> list[str]:
    """What is shown of a report, a line each."""
    told = [f"{each.place}: {each.kind}: {each.text}" for each in report.breaks[:_SHOWN]]
    hidden = len(report.breaks) - _SHOWN + report.more
    if hidden > 0:
        told.append(f"... and {hidden} more breaks")
    told += [f"{place}: half a line (full disk or crash)" for place in report.torn[:_SHOWN]]
    if len(report.torn) > _SHOWN:
        told.append(f"... and {len(report.torn) - _SHOWN} more halves")
    for run, seq in report.late.items():
        told.append(f"run {run}: starts at line {seq}; what was before is not in these files")
    for run, (seq, seal) in report.ends.items():
        told.append(f"run {run}: ends with {run}:{seq}:{seal}")
    if report.lost:
        told.append(f"{report.lost} lines were lost when they were to be written, says the log")
    state = "NOT INTACT" if report.breaks else "intact"
    return [*told, f"{state}: {report.lines} lines of {len(report.ends)} runs hold"]
