"""Writes what the image is made of: a bill of materials (CycloneDX) and a list of licences.

    .venv/bin/python deploy/supply/inventory.py

Both follow from the locked requirements of `deploy/image`; run it after `make image-lock`. Licences
are what the installed distributions say of themselves, CUDA's libraries are named here.
"""

from __future__ import annotations

import re
import tomllib
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
IMAGE = HERE.parent / "image"
LOCKS = {
    "cpu": ("requirements.txt", "torch-cpu.txt"),
    "cuda": ("requirements.txt", "torch-cuda.txt"),
}
_PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[^\s\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_NVIDIA = "LicenseRef-NVIDIA-Proprietary"
_NOT_INSTALLED = {"triton": "MIT", "cuda-pathfinder": "Apache-2.0"}
"""Only the CUDA variant has these; it is not what this environment has."""
_EPOCH = datetime(1980, 1, 1, tzinfo=UTC)
"""Of every document: the same locks give the same bytes."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One locked distribution."""

    name: str
    version: str
    sha256: tuple[str, ...]

    @property
    def licence(self) -> str:
        """What it says of itself, or what is known of CUDA's libraries."""
        if self.name in _NOT_INSTALLED:
            return _NOT_INSTALLED[self.name]
        if self.name.startswith(("nvidia-", "cuda-")):
            return _NVIDIA
        about = metadata.metadata(self.name)
        classified = [
            c.rpartition(" :: ")[2]
            for c in about.get_all("Classifier", [])
            if c.startswith("License :: ")
        ]
        stated = (about.get("License") or "").strip()
        if "\n" in stated:  # the whole text
            stated = ""
        expression = about.get("License-Expression")
        return expression or stated or " AND ".join(classified) or "unknown"


def pins(variant: str) -> list[Pin]:
    """Everything locked for a variant of the image, by name."""
    found: list[Pin] = []
    for file in LOCKS[variant]:
        blocks = (IMAGE / file).read_text().replace("\\\n", " ").splitlines()
        found += [
            Pin(pin["name"], pin["version"], tuple(_HASH.findall(block)))
            for block in blocks
            if (pin := _PIN.match(block))
        ]
    return sorted(found, key=lambda pin: pin.name)


def bill(variant: str) -> str:
    """The bill of materials of a variant, JSON."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    bom = Bom(
        components=[_component(pin) for pin in pins(variant)],
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"breakwater/{version}/{variant}"),
    )
    bom.metadata.timestamp = _EPOCH
    bom.metadata.component = root = Component(
        name="breakwater",
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref="breakwater",
        licenses=[DisjunctiveLicense(id="Apache-2.0")],
    )
    bom.register_dependency(root, bom.components)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def licences() -> str:
    """The list of licences, Markdown."""
    rows = {pin.name: pin for variant in LOCKS for pin in pins(variant)}
    cpu = {pin.name for pin in pins("cpu")}
    lines = [f"| {p.name} | {p.licence} | {_where(p.name, cpu)} |" for p in rows.values()]
    head = (
        "# Licences of what the image contains\n\n"
        "Written by deploy/supply/inventory.py; do not edit. Breakwater itself: Apache-2.0. What "
        "distributions state of themselves; for CUDA's libraries read the text in each wheel.\n\n"
        "| distribution | licence, as it states it | image |\n|---|---|---|\n"
    )
    return head + "\n".join(sorted(lines)) + "\n"


def _where(name: str, cpu: set[str]) -> str:
    return "both" if name in cpu else "CUDA"


def _component(pin: Pin) -> Component:
    return Component(
        name=pin.name,
        version=pin.version,
        type=ComponentType.LIBRARY,
        bom_ref=f"{pin.name}@{pin.version}",
        purl=PackageURL("pypi", name=pin.name, version=pin.version),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in pin.sha256],
        licenses=[DisjunctiveLicense(name=pin.licence)],
    )


def documents() -> dict[str, str]:
    """Every document by its file's name."""
    bills = {f"sbom-{variant}.cdx.json": bill(variant) for variant in LOCKS}
    return {**bills, "LICENCES.md": licences()}


if __name__ == "__main__":
    for name, text in documents().items():
        (HERE / name).write_text(text)
