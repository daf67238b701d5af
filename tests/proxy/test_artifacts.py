"""A calibration on disk: what is written comes back, and what does not fit is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import detectors
from detectors.calibration import Calibration
from detectors.drift_reference import Reference
from proxy import weights
from proxy.artifacts import JSON_FILE, TENSOR_FILE, Provenance, defence_of, load, save
from proxy.config import Model
from proxy.errors import ConfigError
from tests.learning import Roughness

CPU = torch.device("cpu")
MODEL = Model.model_validate(
    {
        "calibration": "c",
        "inputs": [{"name": "image", "layout": "NCHW"}],
        "detectors": [
            {"name": "residual"},
            {"name": "feature_squeezing", "params": {"temperature": 2}},
        ],
    }
)
STATES = {"residual": {"mean": torch.arange(6.0).reshape(2, 3)}}


def calibration() -> Calibration:
    torch.manual_seed(0)
    groups = {
        g: {n: torch.randn(60) for n in ("residual", "feature_squeezing")}
        for g in ("clean", "noise")
    }
    return Calibration.fit(groups)


def provenance(**fields: Any) -> Provenance:
    defaults: dict[str, Any] = {
        "model": "cnn",
        "model_version": "1",
        "data_sha256": "ab" * 32,
        "samples": 60,
        "groups": ("clean", "noise"),
        "date": "2026-01-02T03:04:05Z",
        "defence": defence_of(MODEL),
    }
    return Provenance(**(defaults | fields))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "calibration" / "cnn"
    save(folder, calibration=calibration(), states=STATES, provenance=provenance())
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / JSON_FILE).read_text())
    change(content)
    (folder / JSON_FILE).write_text(json.dumps(content))


def refusal(folder: Path, name: str = "cnn", model: Model = MODEL) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, name, model, CPU)
    text = str(caught.value)
    assert f"Run `breakwater calibrate --config FILE --model {name} --data FILE.npz" in text
    assert f"--out {folder}`" in text
    return text


def test_what_is_saved_comes_back(folder: Path) -> None:
    artifact = load(folder, "cnn", MODEL, CPU)
    assert artifact.provenance == provenance()
    before, after = calibration().tensors(), artifact.calibration.tensors()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert artifact.calibration.meta() == calibration().meta()
    assert torch.equal(artifact.states["residual"]["mean"], STATES["residual"]["mean"])
    assert artifact.states["feature_squeezing"] == {}  # configured, learned nothing


def test_only_the_two_files_are_left_and_the_json_is_readable(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [JSON_FILE, TENSOR_FILE]
    content = json.loads((folder / JSON_FILE).read_text())
    assert content["provenance"]["samples"] == 60
    assert content["provenance"]["breakwater"]


def test_saving_again_replaces(folder: Path) -> None:
    fresh = provenance(samples=61)
    save(folder, calibration=calibration(), states={}, provenance=fresh)
    artifact = load(folder, "cnn", MODEL, CPU)
    assert artifact.provenance.samples == 61
    assert artifact.states["residual"] == {}


def test_a_calibration_from_before_lineage_was_kept_loads(folder: Path) -> None:
    edit(folder, lambda c: [c["provenance"].pop(key) for key in ("data", "group_data")])
    assert load(folder, "cnn", MODEL, CPU).provenance.data is None


def test_missing(folder: Path) -> None:
    assert "calibration.safetensors is missing" in _without(folder, TENSOR_FILE)
    assert "calibration.json is missing" in _without(folder, JSON_FILE)


def _without(folder: Path, name: str) -> str:
    (folder / name).unlink()
    return refusal(folder)


def test_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "Not a directory" in refusal(tmp_path / "file")


def test_a_flipped_bit_is_noticed(folder: Path) -> None:
    content = bytearray((folder / TENSOR_FILE).read_bytes())
    content[-1] ^= 1
    (folder / TENSOR_FILE).write_bytes(content)
    assert "is not the file that calibration.json describes" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda c: c.update(format=1), "format"),
        (lambda c: c.pop("tensors_sha256"), "tensors_sha256"),
        (lambda c: c["provenance"].pop("date"), "provenance.date"),
        (lambda c: c.update(surprise=1), "surprise"),
    ],
)
def test_damaged_json(folder: Path, change: Callable[[dict[str, Any]], object], where: str) -> None:
    edit(folder, change)
    assert f"calibration.json is damaged at {where}" in refusal(folder)


def test_truncated_json(folder: Path) -> None:
    (folder / JSON_FILE).write_text('{"format": 1')
    assert "calibration.json is damaged at the file" in refusal(folder)


def test_tensors_that_do_not_match_the_description(folder: Path) -> None:
    edit(folder, lambda c: c["calibration"]["groups"].append("jpeg"))
    assert "calibration.safetensors cannot be used" in refusal(folder)


def test_foreign(folder: Path) -> None:
    assert "made for model 'cnn', not 'other'" in refusal(folder, name="other")


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("detectors", {"detectors": [{"name": "residual"}]}),
        ("detectors", {"detectors": [{"name": "residual"}, {"name": "feature_squeezing"}]}),
        ("inputs", {"inputs": [{"name": "image", "layout": "NHWC"}]}),
        ("inputs", {"inputs": [{"name": "image", "layout": "NCHW", "range": [0, 255]}]}),
        ("output", {"output": {"kind": "probabilities"}}),
    ],
)
def test_stale_names_the_part_that_changed(folder: Path, part: str, change: dict[str, Any]) -> None:
    model = Model.model_validate(MODEL.model_dump() | change)
    text = refusal(folder, model=model)
    assert f"it is stale: `{part}` of model cnn was " in text
    assert "when calibrated on 2026-01-02T03:04:05Z" in text


@pytest.mark.parametrize(
    "change",
    [
        {"fpr": 0.05, "mode": "enforce", "budget_ms": 1, "on_failure": "closed"},
        {
            "detectors": [
                {"name": "feature_squeezing", "params": {"temperature": 2}},
                {"name": "residual"},
            ]
        },
        {"inputs": [{"name": "image", "layout": "NCHW"}, {"name": "id", "inspect": False}]},
        {"output": {"kind": "logits"}},  # the default, spelt out
    ],
)
def test_what_the_numbers_do_not_depend_on_may_change(folder: Path, change: dict[str, Any]) -> None:
    model = Model.model_validate(MODEL.model_dump() | change)
    assert load(folder, "cnn", model, CPU).provenance.model == "cnn"


def test_a_purified_view_depends_on_the_purifiers_it_compares_with(tmp_path: Path) -> None:
    view = {"name": "purified_view"}
    fields: dict[str, Any] = {"calibration": "c", "detectors": [{"name": "residual"}, view]}
    median, jpeg = {"name": "median"}, {"name": "jpeg"}

    def configured(chain: list[dict[str, Any]], **params: Any) -> Model:
        detectors = [{"name": "residual"}, {**view, "params": params}]
        return Model.model_validate({**fields, "detectors": detectors, "purifiers": chain})

    made = defence_of(configured([median]))
    save(tmp_path, calibration=calibration(), states={}, provenance=provenance(defence=made))
    assert load(tmp_path, "cnn", configured([median]), CPU).provenance.model == "cnn"
    text = refusal(tmp_path, model=configured([jpeg]))
    assert "it is stale: `detectors` of model cnn was " in text
    assert '"jpeg"' in text
    # With purifiers of its own, those of the model are not what its scores depend on.
    assert defence_of(configured([median], purifiers=[jpeg])) == defence_of(
        configured([], purifiers=[jpeg])
    )


def test_networks_come_along_and_must_be_those_calibrated_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(detectors.DETECTORS, "roughness", Roughness)
    model = Model.model_validate({"calibration": "c", "detectors": [{"name": "roughness"}]})
    plan = weights.Plan(
        **{"recipe": "r", "data_sha256": "ab", "samples": 9, "shape": (3, 8, 8)},
        **{"classes": 0, "seed": 0, "steps": 1, "batch": 1},
    )
    trained = weights.save(folder, "smooth", Roughness.recipe.build((3, 8, 8), 0), plan, "now")
    for digest, fits in ((trained.sha256, True), ("cd" * 32, False)):
        used = provenance(defence=defence_of(model), weights={"smooth": digest})
        save(folder, calibration=calibration(), states={}, provenance=used)
        if fits:
            assert set(load(folder, "cnn", model, CPU).networks) == {"smooth"}
        else:
            assert "the weights of smooth are not those it was made with" in refusal(
                folder, model=model
            )


def test_what_inputs_and_classes_looked_like_is_kept_and_may_be_missing(folder: Path) -> None:
    assert load(folder, "cnn", MODEL, CPU).reference is None  # as in every older calibration
    x = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    kept = Reference.of_evidence({"clean": (x, x.mean((2, 3))), "dark": (x / 2, x.mean((2, 3)))})
    facts = provenance()
    save(folder, calibration=calibration(), states=STATES, provenance=facts, reference=kept)
    found = load(folder, "cnn", MODEL, CPU).reference
    assert found is not None
    assert found.meta() == kept.meta()
    tensors = found.tensors()
    assert all(torch.equal(tensors[key], each) for key, each in kept.tensors().items())


def test_a_damaged_drift_reference_is_refused(folder: Path) -> None:
    edit(folder, lambda content: content.update(drift={"classes": "nominal"}))
    assert "the drift reference is incomplete" in refusal(folder)
