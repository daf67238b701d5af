"""One document, written in two ways."""

from __future__ import annotations

from tests.tuning.page.reader import read
from tuning.card.blocks import Facts, Grid, Items, Sections, Text, as_markdown, as_page

SHOWN: Sections = {
    "First": [Text("a_b < c"), Items(["one", "two"])],
    "Second": [Facts([("name", "x|y")]), Grid([{"a": "1", "b": "2"}]), Grid([])],
}


def test_markdown() -> None:
    assert as_markdown("The *title*", {"date": "May"}, SHOWN) == (
        "# The \\*title\\*\n\ndate: May\n\n## First\n\na\\_b &lt; c\n\n- one\n- two\n\n"
        "## Second\n\n|  |  |\n| --- | --- |\n| name | x\\|y |\n\n"
        "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    )


def test_a_page() -> None:
    text = as_page("The <title>", {}, SHOWN)
    assert read(text).headings == ["First", "Second"]
    assert "<p>a_b &lt; c</p><ul><li>one</li><li>two</li></ul>" in text
    assert "x|y" in text


def test_lines_stay_lines() -> None:
    text = as_markdown("t", {}, {"s": [Text("a\n# b\x1b[2J\u202e")]})
    assert text.endswith("a \\# b \\[2J \n")
