"""One HTML file with its sections, style and links between them; nothing outside it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

ABSENT = '<p class="note">Not part of this run.</p>'
"""What a section without content says."""


def document(
    heading: str,
    about: Mapping[str, str],
    sections: Mapping[str, str],
    *,
    title: str = "",
    lead: str = "",
) -> str:
    """A whole page.

    Args:
        heading: in words.
        about: where the figures come from, e.g. commit, machine, command, date.
        sections: their HTML by name; an empty one says that it is not part of this run.
        title: of the window; the heading where missing.
        lead: HTML before the sections.
    """
    anchors = {name: name.lower().replace(" ", "-") for name in sections}
    links = "".join(f'<a href="#{anchor}">{name}</a>' for name, anchor in anchors.items())
    body = "".join(
        f'<section><h2 id="{anchors[name]}">{name}</h2>{content or ABSENT}</section>\n'
        for name, content in sections.items()
    )
    told = " · ".join(f"{name} <code>{html.escape(value)}</code>" for name, value in about.items())
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title or heading)}</title>\n<style>\n{style}</style></head>\n<body>"
        f"<h1>{html.escape(heading)}</h1>"
        f'<p class="about">{told}</p>{lead}<nav aria-label="Sections">{links}</nav>\n'
        f"<main>{body}</main></body></html>\n"
    )
