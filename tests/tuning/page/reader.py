"""Reads a page as a browser would: well-formed, and what it refers to."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br"}
FETCHED = {"src", "srcset", "href", "xlink:href", "data", "poster", "action", "background"}


class Reader(HTMLParser):
    """Checks that elements are closed in order; collects headings, images and references."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.styles: list[str] = []
        self.unnamed = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.references += [value for name, value in attrs if name in FETCHED and value]
        self.styles += [value for name, value in attrs if name == "style" and value]
        if tag == "img" or told.get("role") == "img":
            self.unnamed += not (told.get("alt") or told.get("aria-label"))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if self.open and self.open[-1] == "style":
            self.styles.append(data)


def read(text: str) -> Reader:
    """The page, checked to be well-formed."""
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def fetches_nothing(text: str) -> None:
    """Every reference stays inside the page and has its target; no id occurs twice."""
    reader = read(text)
    assert all(each.startswith(("data:image/png", "#")) for each in reader.references)
    assert not any(re.search(r"https?:|//|url\((?!#)", style) for style in reader.styles)
    assert not re.search(r"@import|<script|<link|<iframe|<object|<base", text)
    targets = {each[1:] for each in reader.references if each.startswith("#")}
    targets |= set(re.findall(r"url\(#([^)]+)\)", text))
    assert targets <= set(reader.ids)
    assert len(reader.ids) == len(set(reader.ids))
