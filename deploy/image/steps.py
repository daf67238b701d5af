"""Reads the Dockerfile: its stages, and the steps of each, as far as ours uses the language."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

DOCKERFILE = Path(__file__).parent / "Dockerfile"
KNOWN = {
    *("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "RUN"),
    *("STOPSIGNAL", "USER", "WORKDIR"),
}


@dataclass(frozen=True)
class Step:
    """One instruction, its continued lines joined."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """Its words, without quotes."""
        return shlex.split(self.text)

    @property
    def command(self) -> list[str]:
        """The exec form of CMD, ENTRYPOINT or HEALTHCHECK.

        Raises:
            ValueError: it is in shell form.
        """
        found: list[str] = json.loads(self.text[self.text.index("[") :])
        return found


@dataclass
class Stage:
    """What follows one FROM."""

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)

    def of(self, name: str) -> list[Step]:
        """Its steps of one kind, in order."""
        return [step for step in self.steps if step.name == name]


def stages(text: str | None = None) -> list[Stage]:
    """The stages of a Dockerfile, ours by default.

    Raises:
        ValueError: an instruction that `KNOWN` lacks: whoever adds it says here what it does.
    """
    source = DOCKERFILE.read_text() if text is None else text
    lines = [line for line in source.splitlines() if line.strip() and line.lstrip()[0] != "#"]
    found: list[Stage] = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, rest = line.partition(" ")
        if name not in KNOWN:
            raise ValueError(f"{name}: not read by {__file__}")
        if name == "FROM":
            base, _, alias = rest.partition(" AS ")
            found.append(Stage(base, alias))
        elif found:
            found[-1].steps.append(Step(name, rest.strip()))
    return found


def assignments(step: Step, known: Mapping[str, str]) -> dict[str, str]:
    """What an ENV or ARG sets, with the variables so far put in."""
    pairs = (word.partition("=") for word in step.words)
    return {name: Template(value).safe_substitute(known) for name, _, value in pairs}
