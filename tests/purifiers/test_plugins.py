"""Parts of other distributions: found, named, and refused with the distribution's name."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import detectors
import purifiers
from detectors import DetectorError
from detectors.views import view_of
from proxy.config import Model
from proxy.errors import ConfigError
from proxy.parts import build_detectors
from purifiers import PurifierError
from purifiers.plugins import entries

SOURCE = """
from typing import ClassVar
from detectors import Detector, DetectorError, Need
from purifiers import Purifier


class Mean(Detector):
    '''The brightness.'''
    name: ClassVar[str] = "mean_of"
    needs = Need.INPUT
    tier = 0

    def __init__(self, sign: int = 1) -> None:
        if sign not in (-1, 1):
            raise DetectorError("sign is -1 or 1")
        self.sign = {1: "plus"}[sign]

    def _score(self, evidence):
        return evidence.x.flatten(1).mean(1)


class Negative(Purifier):
    '''The negative.'''
    name = "negative"
    key = "negative"

    def _purify(self, x, generator=None):
        return 1 - x


class Unnamed(Mean):
    name = "another"


class Tierless(Mean):
    name = "tierless"
    tier = None


class Kindless(Mean):
    name = "kindless"
    kinds = {"image"}


class Capital(Mean):
    name = "Capital"


class Abstract(Detector):
    name = "abstract"


number = 7
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a distribution with one module on the path: its name, and its entry points."""

    def installed(name: str, *, kind: str = "detectors", **points: str) -> None:
        folder = tmp_path / name
        module = name.replace("-", "_")
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(SOURCE)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{key} = {module}:{value}" for key, value in points.items()]
        (info / "entry_points.txt").write_text(
            "\n".join([f"[breakwater.{kind}]", *lines]).replace(f"{module}:!", "absent_module:")
        )
        monkeypatch.syspath_prepend(folder)
        entries.cache_clear()

    before = set(sys.modules)
    yield installed
    entries.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith("acme"):
            del sys.modules[name]


def test_a_plug_in_is_built_by_its_name(install: Install) -> None:
    install("acme-parts", mean_of="Mean")
    assert detectors.build("mean_of", {"sign": 1}).name == "mean_of"
    model = Model.model_validate({"calibration": "c", "detectors": [{"name": "mean_of"}]})
    assert [part.name for part in build_detectors(model)] == ["mean_of"]
    assert "mean_of" not in detectors.DETECTORS


def test_a_plug_in_can_be_a_view(install: Install) -> None:
    install("acme-parts", kind="purifiers", negative="Negative")
    assert purifiers.build("negative").key == "negative"
    assert view_of("mine", {"name": "negative"}).key == "negative"


def test_unknown_names_list_plug_ins_too(install: Install) -> None:
    install("acme-parts", mean_of="Mean")
    with pytest.raises(DetectorError, match=r"there are: residual, .*, mean_of"):
        detectors.build("meen_of")


@pytest.mark.parametrize(
    ("name", "target", "words"),
    [
        ("residual", "Mean", "'residual' is the name of a built-in part"),
        ("mean_of", "number", "mean_of is 7, not a subclass of Detector"),
        ("mean_of", "Negative", "not a subclass of Detector"),
        ("mean_of", "Unnamed", "Unnamed.name is 'another', the entry point's 'mean_of'"),
        ("Capital", "Capital", "lower-case letters and underscores"),
        ("abstract", "Abstract", "is abstract: it does not define _score"),
        ("tierless", "Tierless", "tierless has no tier of type int"),
        ("kindless", "Kindless", "kindless.kinds is {'image'}, not a frozenset of Kind"),
        ("mean_of", "absent", "cannot be used: AttributeError: .*'absent'"),
        ("mean_of", "!Mean", "cannot be used: ModuleNotFoundError: .*'absent_module'"),
    ],
)
def test_what_cannot_be_used_is_blamed_on_its_distribution(
    install: Install, name: str, target: str, words: str
) -> None:
    install("acme-parts", **{name: target})
    with pytest.raises(DetectorError, match=f"acme-parts: .*{words}"):
        detectors.build(name)
    (offered,) = detectors.PLUGINS.each(detectors.DETECTORS)
    assert (offered.name, offered.distribution, offered.part) == (name, "acme-parts", None)
    assert re.search(words, offered.problem)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"sign": 0}, "acme-parts: mean_of cannot be used: sign is -1 or 1"),
        ({"sign": -1}, "acme-parts: mean_of cannot be used: KeyError: -1"),
        ({"other": 0}, r"mean_of: unknown parameters \['other'\]; there are: sign"),
    ],
)
def test_constructors_may_refuse(install: Install, params: dict[str, int], words: str) -> None:
    install("acme-parts", mean_of="Mean")
    with pytest.raises(DetectorError, match=words):
        detectors.build("mean_of", params)
    part = {"name": "mean_of", "params": params}
    with pytest.raises(ConfigError, match=words):
        build_detectors(Model.model_validate({"calibration": "c", "detectors": [part]}))


def test_two_distributions_with_one_name(install: Install) -> None:
    install("acme-parts", mean_of="Mean")
    install("acme-other", mean_of="Mean", another="Unnamed")
    with pytest.raises(DetectorError, match="acme-other and acme-parts: both offer 'mean_of'"):
        detectors.build("mean_of")
    assert detectors.build("another").name == "another"  # nobody else's fault


def test_a_purifier_that_takes_a_built_in_name(install: Install) -> None:
    install("acme-parts", kind="purifiers", jpeg="Negative")
    with pytest.raises(PurifierError, match="acme-parts: 'jpeg' is the name of a built-in part"):
        purifiers.build("jpeg")
    assert purifiers.build("median").name == "median"
