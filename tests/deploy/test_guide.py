"""The operating guide names what exists: paths, commands, settings, metrics, alerts, figures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import rules

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "deploy/README.md"
TEXT = GUIDE.read_text()
BLOCKS = re.findall(r"(?:^|\n)((?: {4,}.*\n?)+)", TEXT)
INLINE = re.findall(r"`([^`\n]+)`", TEXT)
HEADINGS = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
LINKS = re.findall(r"\]\(([^)\s]+)\)", TEXT)
FOLDERS = {"deploy", "docs", "loadtests", "proxy", "tests", "tuning"}
NOT_SETTINGS = {"principal", "client_id", "runbook_url"}
"""Fields of an audit line, and an annotation of alerts."""


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    return {anchor(h) for h in re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)}


def properties(node: Any) -> set[str]:
    """Every setting's name anywhere in a JSON Schema."""
    if isinstance(node, list):
        return {name for each in node for name in properties(each)}
    if not isinstance(node, dict):
        return set()
    own = set(node["properties"]) if isinstance(node.get("properties"), dict) else set()
    return own | {name for each in node.values() for name in properties(each)}


SETTINGS = properties(json.loads((ROOT / "deploy/config.schema.json").read_text()))


NOT_OURS = {"--build-arg", "--server-side"}
"""Options of docker and kubectl."""


@cache
def help_of(command: str) -> str:
    run = [sys.executable, "-m", "proxy", *command.split(), "--help"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"breakwater {command}: {done.stderr}"
    return done.stdout


def commands() -> list[str]:
    """Every `breakwater ...` of the guide: the subcommand with what follows."""
    lines = [line for block in BLOCKS for line in block.splitlines()]
    found = [
        m[1]
        for text in [*lines, *INLINE]
        if (m := re.search(r"(?:^|\s)breakwater ([a-z].+)", text))
    ]
    return sorted({each.strip() for each in found})


@pytest.mark.parametrize("link", sorted(set(LINKS)))
def test_links_lead_somewhere(link: str) -> None:
    path, _, fragment = link.partition("#")
    target = GUIDE if not path else (GUIDE.parent / path).resolve()
    assert target.exists()
    if fragment:
        assert fragment in anchors(target)


@pytest.mark.parametrize("text", sorted({t for t in INLINE if t.split("/")[0] in FOLDERS}))
def test_paths_are_there(text: str) -> None:
    assert (ROOT / text).exists()


def test_paths_in_commands_are_there() -> None:
    words = [word for block in BLOCKS for word in block.split()]
    named = {word for word in words if word.split("/")[0] in FOLDERS and "/" in word}
    named = {
        n for n in named if not n.startswith("deploy/triton")
    }  # kubectl's name of a Deployment
    assert named
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("command", commands())
def test_commands_are_understood(command: str) -> None:
    words = command.split()
    name = " ".join(words[:2]) if words[0] == "policy" else words[0]
    text = help_of(name)
    for flag in (word for word in words if word.startswith("--")):
        assert re.search(rf"(?<![\w-]){flag}(?![\w-])", text), f"{name} has no {flag}"


def test_options_named_alone_are_somebodys() -> None:
    alone = {word for text in INLINE for word in text.split() if re.fullmatch(r"--[a-z-]+", word)}
    text = "".join(help_of(command.split()[0]) for command in commands()) + help_of("policy show")
    assert alone
    assert not {flag for flag in alone if flag not in text} - NOT_OURS


@pytest.mark.parametrize("target", re.findall(r"`make ([\w-]+)`", TEXT))
def test_make_knows_its_targets(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_modules_to_run_are_there() -> None:
    for module in re.findall(r"python -m ([\w.]+)", TEXT):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), module


def test_settings_are_in_the_schema() -> None:
    dotted = {t.split(":")[0] for t in INLINE if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+(: \S+)?", t)}
    simple = {t.split(":")[0] for t in INLINE if re.fullmatch(r"[a-z]+(_[a-z]+)+(: \S+)?", t)}
    named = {part for each in dotted | simple for part in each.split(".")}
    parts = {p for p in named if not p.startswith("breakwater")} - NOT_SETTINGS - detectors()
    assert len(parts) > 20
    unknown = parts - SETTINGS - reasons()
    assert not unknown


def detectors() -> set[str]:
    run = [sys.executable, "-m", "proxy", "check", "--list"]
    listed = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"\w+", listed))


def reasons() -> set[str]:
    """Values of the label `reason`, as the code has them."""
    sources = "\n".join(p.read_text() for p in (ROOT / "proxy").rglob("*.py"))
    return {t for t in INLINE if f'"{t}"' in sources}


def test_metrics_are_exported() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "proxy").rglob("*.py"))
    named = {n for text in INLINE for n in re.findall(r"breakwater_\w+", text)}
    assert len(named) > 10
    for name in named:
        bare = name.removeprefix("breakwater_").removesuffix("_total")
        assert re.search(rf'"(breakwater_)?{bare}(_total)?"', sources), name


@pytest.mark.parametrize("alert", sorted(rules.alerts()))
def test_every_alert_has_its_section(alert: str) -> None:
    assert alert in HEADINGS
    url = rules.alerts()[alert]["annotations"]["runbook_url"]
    path, _, fragment = url.partition("#")
    assert path.endswith("/deploy/README.md")
    assert fragment == anchor(alert)


def test_every_section_has_its_alert() -> None:
    named = {h for h in HEADINGS if re.fullmatch(r"Breakwater[A-Z]\w+", h)}
    assert named == rules.alerts().keys()


@pytest.mark.parametrize(
    "mode", ["pass-through", "observe", "enforce sequential", "enforce speculative"]
)
def test_the_table_of_sizes_is_what_was_measured(mode: str) -> None:
    rows = json.loads((ROOT / "loadtests/results/overhead.json").read_text())["rows"]
    cost = {
        row["tensor"]: row["proxy_cpu_ms"]
        for row in rows
        if row.get("proxy") == f"breakwater {mode}" and row["concurrency"] == 8
    }
    line = next(line for line in TEXT.splitlines() if line.startswith(f"| {mode} |"))
    said = re.findall(r"([\d.]+) ms, ([\d,]+)/s", line)
    for (ms, rate), tensor in zip(said, ("12 KB", "600 KB"), strict=True):
        assert float(ms) == pytest.approx(cost[tensor], abs=0.006)
        assert int(rate.replace(",", "")) == pytest.approx(1000 / cost[tensor], rel=0.02)


def test_it_can_be_read_in_one_sitting() -> None:
    assert len(TEXT.splitlines()) <= 350
