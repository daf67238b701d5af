"""The example of docs/plugins.md, found as it would be once it is installed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import detectors
import purifiers
from proxy.cli import main
from purifiers.plugins import entries
from tuning.contract import check_detector, check_purifier

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "plugin"
GROUPS = ("breakwater.detectors", "breakwater.purifiers")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What pip makes of its pyproject.toml, beside the package itself."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    info = tmp_path / "breakwater_example-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group in GROUPS:
        points = project["entry-points"][group]
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(EXAMPLE)
    monkeypatch.syspath_prepend(tmp_path)
    entries.cache_clear()
    yield tmp_path
    entries.cache_clear()
    for name in [name for name in sys.modules if name.startswith("breakwater_example")]:
        del sys.modules[name]


@pytest.mark.usefixtures("installed")
def test_its_parts_are_found_and_keep_the_contract() -> None:
    check_detector(lambda: detectors.build("saturation", {"margin": 0.05}))
    check_purifier(purifiers.build("posterise", {"levels": 8}))


@pytest.mark.usefixtures("installed")
def test_its_parts_are_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["check", "--list"]) == 0
    told = capsys.readouterr().out
    for name in ("saturation", "posterise"):
        (line,) = [line for line in told.splitlines() if name in line]
        assert "breakwater-example" in line


def test_its_own_tests_pass(installed: Path) -> None:
    paths = f"import sys; sys.path[:0] = [{str(installed)!r}, {str(EXAMPLE)!r}]; "
    code = f"{paths}import pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '.']))"
    subprocess.run([sys.executable, "-c", code], cwd=EXAMPLE, check=True)
