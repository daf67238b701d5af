"""Writes the locked requirements of the image: exact versions, with PyPI's hashes.

    .venv/bin/python deploy/image/lock.py

The versions are those of the environment it runs in, so run it in the one whose tests passed.
Wheels for Linux on x86-64 and Python 3.11 only. PyTorch is apart, since its CPU build is on an
index of its own and its CUDA build brings NVIDIA's libraries along.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EXTRAS = ("console", "tracing")
"""Extras of the project that the image has: what an operator uses, nothing for development."""
HEADER = "# Written by deploy/image/lock.py. Do not edit; pip checks each file against its hash.\n"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
_PYPI = ("--isolated", "--index-url", "https://pypi.org/simple")


def main() -> None:
    """Write requirements.txt, torch-cpu.txt and torch-cuda.txt beside this file."""
    wanted = [*project_requirements(), *torch_requirements()]
    torch = next(r for r in project_dependencies() if r.startswith("torch=="))
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("".join(f"{n}=={v}\n" for n, v in installed().items()))
        locked = resolve(wanted, *_PYPI, "--constraint", str(constraints))
        constraints.write_text("".join(f"{n}=={v}\n" for n, (v, _) in locked.items()))
        cuda = resolve([torch], *_PYPI, "--constraint", str(constraints))
    cpu = resolve([f"{torch}+cpu"], "--no-deps", "--extra-index-url", CPU_INDEX)
    write("requirements.txt", locked)
    write("torch-cuda.txt", {n: pin for n, pin in cuda.items() if n not in locked})
    write("torch-cpu.txt", cpu, f"--extra-index-url {CPU_INDEX}\n")


def project_dependencies() -> list[str]:
    """What pyproject.toml says the product needs."""
    project = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *(r for e in EXTRAS for r in extras(project, e))]


def extras(project: dict[str, Any], name: str) -> list[str]:
    """The requirements of one extra."""
    found: list[str] = project["optional-dependencies"][name]
    return found


def project_requirements() -> list[str]:
    """The same without PyTorch."""
    return [r for r in project_dependencies() if not r.startswith("torch==")]


def torch_requirements() -> list[str]:
    """What PyTorch itself needs, but for CUDA's libraries."""
    every = metadata.requires("torch") or []
    plain = [r for r in every if "extra ==" not in r]
    return [r for r in plain if not re.match(r"(nvidia|cuda|triton)", r)]


def installed() -> dict[str, str]:
    """Versions of this environment, by normalised name."""
    found = {normalised(d.name): d.version for d in metadata.distributions()}
    return {n: v for n, v in found.items() if n not in ("torch", "breakwater", "pip")}


def normalised(name: str) -> str:
    """A project's name as indexes spell it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def resolve(requirements: list[str], *options: str) -> dict[str, tuple[str, str]]:
    """Name -> (version, SHA-256 of its wheel) of everything that is needed for these."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        only = ["--only-binary", ":all:", "--report", str(report)]
        subprocess.run([*pip, *only, *options, *requirements], check=True)
        found = json.loads(report.read_text())["install"]
    return {
        normalised(each["metadata"]["name"]): (
            each["metadata"]["version"],
            each["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for each in sorted(found, key=lambda e: normalised(e["metadata"]["name"]))
    }


def write(name: str, pins: dict[str, tuple[str, str]], head: str = "") -> None:
    """Write one requirements file."""
    lines = (f"{n}=={v} \\\n    --hash=sha256:{digest}\n" for n, (v, digest) in pins.items())
    (HERE / name).write_text(HEADER + head + "".join(lines))


if __name__ == "__main__":
    main()
