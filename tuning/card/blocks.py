"""A document of few kinds of blocks, written as Markdown or as one HTML page."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tuning.page import markup
from tuning.page.document import document

_SPECIAL = re.compile(r"([\\`*_\[\]>#|~&])")


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    words: str


@dataclass(frozen=True)
class Items:
    """A list."""

    words: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names and what there is to say of each."""

    told: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Grid:
    """A table; all rows have the columns of the first."""

    rows: Sequence[Mapping[str, str]]


Block: TypeAlias = Text | Items | Facts | Grid
Sections: TypeAlias = Mapping[str, Sequence[Block]]
"""Heading -> what it says."""


def as_markdown(title: str, about: Mapping[str, str], sections: Sections) -> str:
    """The document as Markdown; nothing in it is taken for markup or acted on by a terminal."""
    told = " · ".join(f"{_plain(name)}: {_plain(value)}" for name, value in about.items())
    parts = [f"# {_plain(title)}", *([told] if told else [])]
    for heading, blocks in sections.items():
        parts.append(f"## {_plain(heading)}")
        parts += [_markdown(block) for block in blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Text(words):
            return _plain(words)
        case Items(words):
            return "\n".join(f"- {_plain(each)}" for each in words)
        case Facts(told):
            return _table(["", ""], [list(pair) for pair in told])
        case Grid(rows):
            return _table(list(rows[0]), [list(row.values()) for row in rows]) if rows else ""


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(
        f"| {' | '.join('---' if cell == '---' else _plain(cell) for cell in line)} |"
        for line in lines
    )


def _plain(text: str) -> str:
    # Not every renderer knows an escaped bracket.
    return _SPECIAL.sub(r"\\\1", printable(text)).replace("<", "&lt;")


def printable(text: str) -> str:
    """The text on one line, without what a terminal would act on."""
    return "".join(c if c.isprintable() else " " for c in text.replace("\u00a0", " "))


def as_page(title: str, about: Mapping[str, str], sections: Sections) -> str:
    """The document as one HTML page that fetches nothing."""
    return document(
        title, about, {name: "".join(map(_html, blocks)) for name, blocks in sections.items()}
    )


def _html(block: Block) -> str:
    match block:
        case Text(words):
            return f"<p>{html.escape(words)}</p>"
        case Items(words):
            items = "".join(f"<li>{html.escape(each)}</li>" for each in words)
            return f"<ul>{items}</ul>"
        case Facts(told):
            return markup.facts(told)
        case Grid(rows):
            return markup.prose([dict(row) for row in rows]) if rows else ""
