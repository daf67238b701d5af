"""What an operator reads, and what an attacker's name cannot do to it."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from proxy.history.listing import meant, page, printable
from proxy.history.quarantine import Standing

NOW = 1_700_000_000.0
EVE = Standing(
    model="cnn",
    principal="ipv4:10.0.0.1:5",
    alarms=1234,
    penalty=64.0,
    quarantined_for_s=4100.0,
    first_alarm=NOW - 7000,
    last_alarm=NOW - 190,
    longest_chain=5678,
)
NASTY = [
    *(
        "\x1b[2J\x1b]0;owned\x07",
        "\r\nfree again",
        "[bold red]x[/]",
        "[link=http://e.x]",
        ":smile:",
    ),
    *("\u202eevil", "a\u200bb", "\udc80", "\xa0", "\\x1b", "\\", "\U000e0001", "eve\t"),
]


def printed(
    *standings: Standing, remembered: int = 12_345, shared: Any = None, most_rows: int = 50
) -> str:
    out = io.StringIO()
    console = Console(file=out, width=120)
    principals = [standing.principal for standing in standings]
    answer = {"remembered": remembered, "shared": shared, "principals": principals}
    console.print(page(answer, standings, now=NOW, most_rows=most_rows))
    return out.getvalue()


def rows(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in text.splitlines()
        if line.startswith("│")
    ]


def test_a_principal_in_quarantine() -> None:
    text = printed(EVE)
    assert rows(text) == [["cnn", EVE.principal, "1,234", "68 min", "5,678", "3 min ago"]]
    assert text.endswith("12,345 queries remembered here. Shared store: none.\n")


def test_a_principal_that_is_free_again_and_one_from_elsewhere() -> None:
    free = replace(EVE, quarantined_for_s=0.0, alarms=1, longest_chain=0)
    imposed = replace(EVE, alarms=0, longest_chain=0, quarantined_for_s=5.0)
    assert rows(printed(free, imposed)) == [
        ["cnn", EVE.principal, "1", "free", "-", "3 min ago"],
        ["cnn", EVE.principal, "elsewhere", "5 s", "-", "-"],
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((-3.0, "0 s"), (0.2, "0 s"), (89.0, "89 s"), (90.1, "2 min"), (5300, "88 min")),
        *((5400, "2 h"), (86_400, "24 h"), (36 * 3600, "2 days"), (1e9, "11574 days")),
    ],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    ago = rows(printed(replace(EVE, last_alarm=NOW - seconds)))[0][-1]
    assert ago == f"{text} ago"


def test_many_are_cut_and_counted() -> None:
    text = printed(*[replace(EVE, principal=str(n)) for n in range(1060)], most_rows=60)
    assert len(rows(text)) == 60
    assert "... and 1,000 more; --json lists all" in text


def test_nobody_and_nothing() -> None:
    assert "Nobody raised an alarm of late.\n7 queries remembered" in printed(remembered=7)
    assert "Only queries to models with the detector `history`" in printed(remembered=0)
    assert "Only queries" not in printed(remembered=7)


@pytest.mark.parametrize(
    ("shared", "text"),
    [
        ({"state": "up", "queued": 0}, "Shared store: up."),
        (
            {"state": "down: timeout", "queued": 1200},
            "down: timeout (1,200 entries wait to be told)",
        ),
        ({"state": "down: \x1b[2J"}, "down: \\x1b[2J."),
    ],
)
def test_the_shared_store_is_named(shared: dict[str, Any], text: str) -> None:
    assert text in printed(EVE, shared=shared)


@given(st.text())
@example("\\x1b")
@example("\\\\x1b")
@example("\x1b\\")
def test_what_is_printed_is_harmless_unambiguous_and_can_be_given_back(text: str) -> None:
    assert printable(text).isprintable()
    assert meant(printable(text)) == text


@pytest.mark.parametrize(
    "text", ["eve", "ipv4:10.0.0.1:5", "spiffe://a/b", "Žofie 東京", "a\\b", ""]
)
def test_ordinary_names_are_taken_as_they_are(text: str) -> None:
    assert meant(text) == text


@pytest.mark.parametrize("text", ["\\U00110000", "\\x1", "\\uABCD", "\\q"])
def test_what_is_no_escape_stays(text: str) -> None:
    assert meant(text) == text


@pytest.mark.parametrize("name", NASTY)
def test_names_do_nothing_to_the_terminal(name: str) -> None:
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True, color_system=None)
    answer = {"remembered": 1, "shared": None, "principals": [name]}
    nasty = replace(EVE, principal=name, model=name, quarantined_for_s=0.0)
    console.print(page(answer, [nasty], now=NOW, most_rows=5))
    text = out.getvalue()
    assert text.replace("\n", "").isprintable()
    (row,) = rows(text)
    assert row[0] == row[1] == printable(name)


def test_long_names_are_folded_not_cut() -> None:
    name = "".join(f"{n:04}" for n in range(100))
    cells = rows(printed(replace(EVE, principal=name)))
    assert "".join(row[1] for row in cells) == name
