"""The study's page and the README's tables, from made-up rows of every shape."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest

from loadtests.harness import Row
from loadtests.quality import page, readme
from tests.tuning.page.reader import fetches_nothing, read
from tuning.evaluate.titles import NAMES
from tuning.page.plots import Curves

TIERS = ("0: input only", "2: + three copies", "3: + another model")
BENIGN = ("fresh/clean", "fresh/noise", "fresh/jpeg", "unseen/video_frame", "unseen/gamma")
SETS = ("fresh/clean", *(f"attack/{name}" for name in NAMES))
DETECTORS = ("residual", "srm", "jpeg_view", "purified_view")
SERVED = ("none", "jpeg", "bit_depth(bits=4)", "guided_denoiser")


def share(draw: random.Random, around: float, samples: int = 200) -> Row:
    value = min(1.0, max(0.0, round(around + draw.uniform(-0.1, 0.1), 4)))
    return {
        "share": value,
        "low": max(0.0, value - 0.05),
        "high": min(1.0, value + 0.05),
        "samples": samples,
    }


def detected(draw: random.Random) -> list[Row]:
    rows: list[Row] = []
    points = (("worst group 0.01", 0.01), ("worst group 0.05", 0.05), ("mix 0.01", 0.02))
    for i, tier in enumerate(TIERS):
        for point, rate in points:
            for attack in NAMES:
                found = share(draw, 0.6 + 0.1 * i + rate)
                rows.append({"tier": tier, "attack": attack, "point": point, **found, "auroc": 0.9})
            rows.extend(
                {"tier": tier, "benign": kind, "point": point}
                | {"share": rate / 2, "low": rate / 4, "high": 2 * rate, "samples": 500}
                for kind in BENIGN
            )
    rows += [{"detector": name} | dict.fromkeys(NAMES, draw.random()) for name in DETECTORS]
    rows += [{"secret": name} | dict.fromkeys(NAMES, draw.random()) for name in ("fixed", "draw 0")]
    rows += [
        {"cascade": name, "images": images, "asked": 0.4, **share(draw, 0.8)}
        for name in ("none", "clean 0.5")
        for images in SETS
    ]
    return rows


def purified(draw: random.Random) -> list[Row]:
    rows: list[Row] = [
        {"served": served, "images": images, **share(draw, 0.6)}
        for served in SERVED
        for images in SETS
    ]
    for system in ("flag only", "block at 1 %"):
        for images in SETS:
            wrong = share(draw, 0.1)
            rows.append(
                {"system": system, "images": images, "samples": 200, "refused": 0.01}
                | {"served_wrong": wrong["share"], "served_wrong_low": wrong["low"]}
                | {"served_wrong_high": wrong["high"], "accuracy": 0.9}
            )
    return rows


def confronted() -> list[Row]:
    rows: list[Row] = []
    for defence in ("tier 2 flags", "jpeg served always"):
        for eps in (1, 2, 4, 8):
            for steps in (20, 100):
                lost = min(1.0, eps * steps / 300)
                row: Row = {"defence": defence, "eps_255": eps, "steps": steps, "samples": 60}
                for name, value in (("strongest", lost), ("undefended_strongest", 1.0)):
                    row |= {name: value, f"{name}_low": 0.9 * value, f"{name}_high": value}
                rows.append(row)
    return rows


def measured() -> list[Row]:
    """Rows of every shape a study has."""
    draw = random.Random(3)
    rows = detected(draw) + purified(draw) + confronted()
    for tier in TIERS:
        row: Row = {"transfer": "pgd8", "tier": tier, "samples": 200, "accuracy": 0.4}
        rows.append(row | {"flagged": 0.9, "low": 0.85, "high": 0.94})
    for side in (32, 224):
        for i, part in enumerate((*DETECTORS, "jpeg", "bit_depth", "guided_denoiser")):
            kind = "detector" if part in DETECTORS else "purifier"
            cost: Row = {"part": part, "kind": kind, "side": side, "queries": i % 3}
            rows.append(cost | {"ms_1": 0.2 * (i + 1), "ms_32": 0.05 * (i + 1)})
    for attack, value in (("pgd2", 0.99), ("pgd4", 0.5)):
        goal: Row = {"figure": "tier 0 detected", "at": "mix 0.01", "images": attack}
        rows.append(goal | {"value": value, "to_reach": ">= 0.97", "met": value >= 0.97})
    return rows


def curves() -> Curves:
    false = np.geomspace(1e-3, 0.5, 30)
    return {tier: dict.fromkeys(NAMES, (false, false**0.2)) for tier in TIERS[:2]}


def written(path: Path, rows: list[Row]) -> str:
    draw = np.random.default_rng(1)
    image = draw.integers(0, 256, (3, 32, 32), dtype=np.uint8)
    pictures = [("PGD <8>", {"original": image, 'attacked "x"': image[:1]})]
    page.write(path, rows, curves(), pictures, {"commit": "abc", "command": "run --a '<b>'"})
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with everything."""
    return written(tmp_path_factory.mktemp("page") / "report.html", measured())


SECTIONS = (
    *("Goals", "At a glance", "Attacks", "Benign images", "Few false alarms"),
    *("Each detector alone", "Cascade and secret", "Purifiers", "Whole systems"),
    *("An attacker who knows", "Transferred attacks", "Cost and benefit", "Pictures", "All rows"),
)


def test_the_page_has_every_section(text: str) -> None:
    assert tuple(read(text).headings) == SECTIONS
    assert "Not part of this run" not in text
    assert text.count("<svg") == 6
    assert "1 of 2" in text


def test_the_page_fetches_nothing(text: str) -> None:
    fetches_nothing(text)
    assert not re.search(r"https?:", text)


def test_pictures_and_plots_have_words(text: str) -> None:
    assert not read(text).unnamed
    assert 'alt="PGD &lt;8&gt;: attacked &quot;x&quot;"' in text
    assert "<title>PGD 2, 0: input only: " in text
    assert "#0000a0" not in text  # stand-ins for the style sheet's colours


def test_the_page_is_the_same_for_the_same_rows(text: str, tmp_path: Path) -> None:
    assert written(tmp_path / "report.html", measured()) == text


def test_a_run_that_measured_little_has_a_page(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    page.write(path, [row for row in measured() if "attack" in row], {}, [], {})
    text = path.read_text(encoding="utf-8")
    assert tuple(read(text).headings) == SECTIONS
    assert text.count("Not part of this run") == 11


def test_a_defence_that_does_harm_is_named(text: str, tmp_path: Path) -> None:
    assert "No defence is weaker" in text
    rows = [row for row in measured() if row.get("defence") == "jpeg served always"]
    rows[0]["undefended_strongest"] = 0.0
    page.write(tmp_path / "report.html", rows, {}, [], {})
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Weaker than the model alone: jpeg served always at 1/255." in text


def test_the_worst_of_a_system_is_an_attack(tmp_path: Path) -> None:
    rows = [row for row in measured() if row.get("system") == "flag only"]
    for row in rows:
        wrong = {"fresh/clean": 0.9, "attack/cw": 0.4}.get(str(row["images"]), 0.1)
        row["served_wrong"] = wrong
    page.write(tmp_path / "report.html", rows, {}, [], {})
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<td class="text">CW</td><td>0.4</td>' in text


def test_the_readme_gets_its_tables_between_the_markers(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"before\n\n{readme.BEGIN}\nold\n{readme.END}\n\nafter\n", encoding="utf-8")
    rows = [row for row in measured() if row.get("attack") != "pgd4"]
    rows = [row for row in rows if "attack" not in row or row["tier"] == TIERS[0]]
    for row in rows:
        if row.get("attack") == "pgd2":
            row["share"] = 0.5 if row["point"] == "worst group 0.01" else 0.756
    readme.update(path, rows)
    once = path.read_text(encoding="utf-8")
    assert once.startswith(f"before\n\n{readme.BEGIN}\n| attack | 0: input only |\n| --- | --- |\n")
    assert once.endswith(f" |\n{readme.END}\n\nafter\n")
    assert "| PGD 2 | 0.50 (0.76) |" in once
    assert "| worst of them | 0.5 % (2.5 %) | 0.5 % (2.5 %) |" in once
    assert "200 successful attacks of each kind; 95 % intervals are at most 0.10 wide." in once
    assert "\n| jpeg | 0." in once
    assert "old" not in once
    readme.update(path, rows)
    assert path.read_text(encoding="utf-8") == once


@pytest.mark.parametrize(
    "text",
    ["", readme.BEGIN, f"{readme.END}\n{readme.BEGIN}", f"{readme.BEGIN}\n" * 2 + readme.END],
)
def test_a_readme_without_its_markers_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"README\.md needs one line '<!-- quality: begin -->'"):
        readme.update(path, measured())
    assert path.read_text(encoding="utf-8") == text
