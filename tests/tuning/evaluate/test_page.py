"""The evaluation's page, from a made-up report; and in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.tuning.evaluate.reported import HOSTILE, evaluation, lineage, pictures, report
from tests.tuning.page.reader import fetches_nothing, read
from tuning.evaluate import page
from tuning.evaluate.conclusion import Findings, sentences
from tuning.page.document import ABSENT

SECTIONS = [
    *("Threat models", "Attacks", "Few false alarms", "Benign images", "Answers by action"),
    *("An attacker who knows all", "Attackers who ask", "Latency and cost", "Pictures", "Defence"),
    *("Data", "How to reproduce", "All rows"),
]


def few(*kinds: str) -> list[dict[str, Any]]:
    """Two rows of each kind, or of these kinds: drawing many bars takes long."""
    rows = report()["rows"]
    chosen = kinds or tuple(dict.fromkeys(row["kind"] for row in rows))
    return [row for kind in chosen for row in [r for r in rows if r["kind"] == kind][:2]]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    page.write(path, report(), pictures(), evaluation())
    return path


@pytest.fixture(scope="module")
def text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def test_the_page_has_every_section_and_fetches_nothing(text: str) -> None:
    assert read(text).headings == SECTIONS
    assert ABSENT not in text
    assert text.count("<svg") == 7
    fetches_nothing(text)
    assert not read(text).unnamed


def test_what_was_found_comes_first(text: str) -> None:
    first, second = sentences(Findings.of(report()))
    assert text.index(first) < text.index(second.split(";")[0]) < text.index("<nav")
    assert "cases in which the defence did worse than none" in text


def test_what_was_tuned_on_is_marked(text: str) -> None:
    assert ">PGD 2 (tuned on)</text>" in text
    assert ">PGD 4</text>" in text
    assert "(tuned on): some part of the defence learned" in text


def test_queries_to_each_success_are_dots(text: str) -> None:
    assert "Queries to each success: Square, undefended: 3, 41, 41, 250; " in text
    assert "Square, block flagged: none; " in text
    row = {
        "kind": "query",
        "name": "q",
        "action": "flag",
        "queries_to_success": "x -1 0 7 ² 9 1" + "0" * 5000,
    }
    told = page.render(report(rows=[row]), {})
    assert "q, flag: 7, 9." in told
    assert "to each success" not in page.render(report(rows=[{**row, "queries_to_success": 3}]), {})


def test_the_data_and_how_to_reproduce_are_told(text: str) -> None:
    assert "cameras of the north gate" in text
    assert "Warning:</b> 5% of the samples are copies" in text
    assert "--data &#x27;&lt;b&gt;.npz&#x27;" in text
    assert '<th scope="row">seed</th><td>0</td>' in text


def test_both_data_files_are_told_and_notes_come_early() -> None:
    policy = {"calibrated": {"data": lineage(licence="CC0").model_dump(mode="json"), "date": "May"}}
    notes = ["calibrated on <this> data"]
    text = page.render(report(rows=[], policy=policy, notes=notes, quick=True), {})
    assert text.index("calibrated on &lt;this&gt; data") < text.index("a quick run") < 9000
    assert text.index("Evaluated with") < text.index("Calibrated on") < text.index("CC0")
    assert '<th scope="row">calibrated: date</th><td>May</td>' in text


def test_images_that_are_no_attacks_share_a_line() -> None:
    image = pictures()["pgd8"]["original"]
    shown = {"webp": {"unseen": image}, "texture": {"ood": image}, **pictures()}
    text = page.render(report(rows=[]), shown)
    assert text.count('<div class="pictures">') == 3
    assert 'alt="no attacks: webp (unseen)"' in text


def test_the_same_report_gives_the_same_page() -> None:
    once, again = (page.render(report(rows=few()), pictures()) for _ in range(2))
    assert once == again


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": []},
        {"rows": None},
        {"rows": [{"kind": "attack"}, {"kind": "benign"}, {"kind": "adaptive"}, {"kind": "query"}]},
        {"rows": [{"kind": "latency"}, {"kind": "cost"}, {"kind": "served"}, {}, "text", 3]},
        {"rows": [], "data": {"anything": [1, {"deep": None}]}, "policy": "none"},
        {"rows": [], "policy": {"calibrated": {"data": {"a": 1}, "date": 3}, "config": {"a": [1]}}},
        {"rows": [], "policy": {"calibrated": [1]}, "notes": "text", "data": [1]},
        {"rows": [], "data": None, "policy": {}, "command": None, "seed": None},
    ],
)
def test_what_is_missing_or_odd_is_told_and_the_rest_shown(changes: dict[str, Any]) -> None:
    text = page.render(report(**changes), {})
    assert read(text).headings == SECTIONS
    fetches_nothing(text)


def test_a_report_of_little_says_what_it_lacks() -> None:
    text = page.render({"model": "m", "rows": []}, {})
    assert "How much of clean traffic is flagged was not measured. No attack was measured." in text
    assert text.count(ABSENT) == 12


def test_attacks_that_were_not_possible_say_why() -> None:
    row = {"kind": "adaptive", "threat": "adaptive", "skipped": "it takes a copy of the model"}
    text = page.render(report(rows=[row]), {})
    assert "Not measured: it takes a copy of the model." in text
    assert "<td>no: it takes a copy of the model</td>" in text


def test_no_data_of_a_kind_is_not_a_figure() -> None:
    rows = few("attack", "benign")
    for row in rows:
        row |= {name: None for name in row if name.startswith(("tpr", "fpr", "auroc"))}
    text = page.render(report(rows=rows), {})
    assert "nan" not in text
    assert "not known</title>" in text


def test_whatever_others_chose_is_text() -> None:
    content = report(
        **{"model": HOSTILE, "command": HOSTILE, "machine": HOSTILE, "policy": {HOSTILE: HOSTILE}},
        data=lineage(source=HOSTILE, licence=HOSTILE).model_dump(mode="json"),
    )
    content["rows"] = few()
    for row in content["rows"]:
        row |= {
            name: HOSTILE + str(row[name])
            for name in ("name", "branch", "action", "traffic", "reads")
            if name in row
        }
    text = page.render(content, {HOSTILE: pictures()["pgd8"]})
    fetches_nothing(text)
    assert "<script" not in text
    assert "&lt;script" in text


# -- in a real browser -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        yield browser
        browser.close()


@pytest.mark.skipif(not Path("/usr/bin/chromium").exists(), reason="needs Chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_it_opens_offline_and_fits(browser: Browser, file: Path, scheme: str, width: int) -> None:
    opened = browser.new_page(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
        offline=True,
    )
    problems: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: problems.append(message.text))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(file.as_uri())
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    for details in opened.locator("summary").all():
        details.press("Enter")
    assert opened.locator("details[open]").count() == opened.locator("details").count() > 5
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert not problems
    assert {url for url in asked if not url.startswith("data:")} == {file.as_uri()}
    ink, paper = (
        opened.evaluate(f"getComputedStyle(document.body).{name}")
        for name in ("color", "backgroundColor")
    )
    assert (_brightness(ink) > _brightness(paper)) == (scheme == "dark")
    opened.close()


def _brightness(colour: str) -> int:
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
