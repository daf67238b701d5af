"""Networks on disk: what is written comes back, and what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from detectors import Residual
from proxy import weights
from proxy.errors import ConfigError
from proxy.weights import Plan
from purifiers import Chain, Median
from tests.learning import Repair, Roughness, Smooth

CPU = torch.device("cpu")
PLAN = Plan(
    recipe="tests.SmoothRecipe",
    data_sha256="ab" * 32,
    samples=60,
    shape=(3, 8, 8),
    classes=10,
    seed=0,
    steps=4,
    batch=16,
)
DATE = "2026-01-02T03:04:05+00:00"


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Smooth.recipe.build((3, 8, 8), 10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    weights.save(tmp_path / "c", "smooth", network(), PLAN, DATE)
    return tmp_path / "c"


def refusal(folder: Path, *parts: weights.Part) -> str:
    with pytest.raises(ConfigError) as caught:
        weights.load(folder, "cnn", parts or [Smooth()], CPU)
    return str(caught.value)


def test_parts_are_found_wherever_they_are() -> None:
    chain = Chain([Median(), Chain([Smooth(), Repair()])])
    found = weights.users([Roughness(), Residual(), chain])
    assert {name: [part.name for part in parts] for name, parts in found.items()} == {
        "smooth": ["roughness", "smooth"],
        "repair": ["repair"],
    }


def test_what_is_saved_comes_back_and_is_shared(folder: Path) -> None:
    smooth, roughness = Smooth(), Roughness()
    networks = weights.load(folder, "cnn", [smooth, roughness], CPU)
    weights.give([roughness, Chain([smooth])], networks)
    assert smooth.network is roughness.network is networks["smooth"].network
    assert not networks["smooth"].network.training
    assert not any(p.requires_grad for p in networks["smooth"].network.parameters())
    before, after = network().state_dict(), networks["smooth"].network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert networks["smooth"].training.plan == PLAN
    assert sorted(p.name for p in (folder / "weights").iterdir()) == [
        "smooth.safetensors",
        "weights.json",
    ]


def test_saving_another_keeps_the_first(folder: Path) -> None:
    first = weights.read(folder)["smooth"]
    weights.save(folder, "repair", network(1), PLAN, DATE)
    assert weights.read(folder)["smooth"] == first
    assert list(weights.read(folder)) == ["repair", "smooth"]


def test_nothing_is_needed_where_nothing_is_learned(tmp_path: Path) -> None:
    assert weights.load(tmp_path / "absent", "cnn", [Median(), Residual()], CPU) == {}


def test_missing_names_the_part_and_the_command(folder: Path, tmp_path: Path) -> None:
    text = refusal(tmp_path, Roughness())
    assert f"weights {tmp_path / 'weights'}: smooth (for roughness) is not trained" in text
    assert (
        f"Run `breakwater fit --config FILE --model cnn --data FILE.npz --out {tmp_path}`" in text
    )
    text = refusal(folder, Smooth(), Repair())
    assert "repair is not trained" in text
    assert "--model-file FILE" in text


def test_a_part_without_its_network() -> None:
    with pytest.raises(ConfigError, match=r"repair, smooth \(for roughness\) are not loaded"):
        weights.give([Repair(), Roughness()], {})


def test_a_flipped_bit_is_noticed(folder: Path) -> None:
    file = folder / "weights" / "smooth.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert "it is not the file that weights.json describes. Run `breakwater fit" in refusal(folder)


def test_a_lost_file(folder: Path) -> None:
    (folder / "weights" / "smooth.safetensors").unlink()
    assert "No such file" in refusal(folder)


def test_another_architecture(folder: Path) -> None:
    weights.save(folder, "smooth", nn.Linear(2, 2), PLAN, DATE)
    assert "Missing key" in refusal(folder)


@pytest.mark.parametrize(("content", "where"), [("{", "the file"), ('{"networks": 1}', "networks")])
def test_damaged_json(folder: Path, content: str, where: str) -> None:
    (folder / "weights" / "weights.json").write_text(content)
    assert f"weights.json is damaged at {where}" in refusal(folder)


def test_the_json_is_readable_and_says_where_it_came_from(folder: Path) -> None:
    content = json.loads((folder / "weights" / "weights.json").read_text())
    assert content["networks"]["smooth"]["plan"]["seed"] == 0
    assert content["networks"]["smooth"]["date"] == DATE


def test_changed_are_those_used_now_that_differ(folder: Path) -> None:
    networks = weights.load(folder, "cnn", [Smooth()], CPU)
    now = weights.digests([Roughness()], networks)
    assert weights.digests([Residual()], networks) == {}
    assert weights.changed(now, now) == []
    assert weights.changed({**now, "gone": "ab"}, now) == []
    assert weights.changed({}, now) == ["smooth"]
    assert weights.changed({"smooth": "cd"}, now) == ["smooth"]
