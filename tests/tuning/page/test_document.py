"""A whole page."""

from __future__ import annotations

from tests.tuning.page.reader import fetches_nothing, read
from tuning.page.document import ABSENT, document

HOSTILE = '<script src="http://evil.example/x.js"></script>'


def test_sections_are_linked_and_empty_ones_say_so() -> None:
    text = document("What is caught", {"commit": "abc"}, {"At a glance": "<p>well</p>", "Cost": ""})
    reader = read(text)
    assert reader.headings == ["At a glance", "Cost"]
    assert '<a href="#at-a-glance">At a glance</a>' in text
    assert text.count(ABSENT) == 1
    assert "<title>What is caught</title>" in text
    fetches_nothing(text)


def test_what_others_chose_is_text() -> None:
    text = document(HOSTILE, {"command": HOSTILE}, {"Cost": ""}, lead="<p>first</p>")
    fetches_nothing(text)
    assert "<script" not in text
    assert text.index("<p>first</p>") < text.index("<nav")
