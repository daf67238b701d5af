"""`breakwater card`: writes the card of a model's defence, as Markdown or as a page."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from proxy import __version__
from proxy.config import Config
from proxy.errors import ConfigError
from proxy.files import write_whole
from tuning.card.blocks import as_markdown, as_page, printable
from tuning.card.content import content
from tuning.card.state import doubts, gather

FORMS = {".md": as_markdown, ".html": as_page}
"""Ending of a file -> how the card is written into it."""


def run(config: Config, name: str, report: Path | None, out: Path | None) -> int:
    """Write the card of one model; returns the exit status.

    Args:
        report: `report.json` of an evaluation, or its folder; the configured one by default.
        out: a file to write, `.md` or `.html`; None: Markdown to standard output.

    Raises:
        ConfigError: no such model, a report that is none, or a file that cannot be written.
    """
    if out is not None and out.suffix not in FORMS:
        raise ConfigError(f"--out {out}: must end in {' or '.join(FORMS)}")
    if report is not None and report.is_dir():
        report = report / "report.json"
    state = gather(config, name, report)
    about = {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "breakwater": __version__,
    }
    form = FORMS[out.suffix] if out is not None else as_markdown
    text = form(f"Defence of {name}", about, content(state))
    if out is None:
        sys.stdout.write(text)
        return 0
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, text.encode())
    except OSError as error:
        raise ConfigError(f"--out {out}: {error}") from error
    console = Console(stderr=True)
    for told in doubts(state):
        console.print(f"doubtful: {escape(printable(told))}", highlight=False)
    console.print(f"written to {escape(printable(str(out)))}")
    return 0
