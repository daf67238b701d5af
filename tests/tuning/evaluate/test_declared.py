"""How an evaluation says that its data is not fresh."""

from __future__ import annotations

import pytest
import torch

from proxy.artifacts import Artifact, Provenance
from proxy.weights import Plan, Trained, Training
from tests.proxy.explorer.scores import a_calibration
from tuning.dataset import Dataset
from tuning.evaluate.declared import flattered
from tuning.lineage import fingerprints

X = (torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 255).round() / 255
DATA = Dataset(X, None, "fresh")


def trained(data: str) -> Trained:
    plan = Plan(
        **{"recipe": "r", "data_sha256": data, "samples": 9, "shape": (3, 8, 8), "classes": 10},
        **{"seed": 0, "steps": 1, "batch": 1},
    )
    return Trained(torch.nn.Identity(), Training(plan=plan, sha256="", date=""))


def artifact(data: str = "calibrated own", images: torch.Tensor | None = None) -> Artifact:
    provenance = Provenance(
        **{"model": "m", "model_version": "1", "data_sha256": data, "samples": 40},
        **{"groups": ("clean",), "date": "", "defence": {}},
    )
    kept = None if images is None else fingerprints(images)
    networks = {"denoiser": trained("trained")}
    return Artifact(a_calibration(names=["d"]), {}, provenance, networks, samples=kept)


def test_fresh_images_are_no_news() -> None:
    assert flattered(DATA, artifact()) == []
    assert flattered(DATA, artifact(images=1 - X)) == []


@pytest.mark.parametrize(
    ("sha256", "images", "told"),
    [
        ("own", None, "calibrated on this very data"),
        ("own", X, "calibrated on this very data"),
        ("trained", None, "this very data trained denoiser"),
        ("fresh", X[5:12], "calibrated on 7 of these 40 images"),
    ],
)
def test_known_images_are_told(sha256: str, images: torch.Tensor | None, told: str) -> None:
    (note,) = flattered(Dataset(X, None, sha256), artifact(images=images))
    assert told in note
    assert note.endswith("evaluate on other images")


def test_of_many_images_only_some_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuning.lineage.FINGERPRINTS", 10)
    monkeypatch.setattr("tuning.evaluate.declared.FINGERPRINTS", 10)
    found = artifact(images=X)
    assert found.samples is not None
    assert len(found.samples) == 10
    assert "on at least 10 of these 40 images" in flattered(DATA, found)[0]
