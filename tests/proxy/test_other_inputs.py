"""Vectors and waveforms from calibration to verdicts, through the pipeline and the real Triton."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console

from proxy.config import Config
from proxy.errors import DetectorFailed, InvalidTensor
from proxy.pb import open_inference_pb2 as pb
from purifiers import Quantise, Smooth
from tests.builders import infer_request
from tests.defended import Defended, defended, each
from tests.images import CLIENT
from tests.proxy.running import ask, running
from tuning.calibrate import run
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton

MODELS = Path(__file__).resolve().parents[1] / "models"
FPR = 0.05
BATCH = 50


def squeezing(*views: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": "feature_squeezing",
        "params": {"views": [{"name": name, "params": params} for name, params in views]},
    }


VECTOR = {
    "inputs": [{"kind": "vector"}],
    "detectors": [
        *({"name": name} for name in ("vector_mahalanobis", "vector_neighbours")),
        *({"name": name} for name in ("vector_autoencoder", "margin", "energy")),
        squeezing(("quantise", {"digits": 1}), ("quantise", {"digits": 2})),
    ],
    "purifiers": [{"name": "quantise", "params": {"digits": 1}}],
}
WAVEFORM = {
    "inputs": [{"kind": "waveform"}],
    "detectors": [
        *({"name": name} for name in ("band_residual", "margin", "energy")),
        squeezing(("smooth", {}), ("smooth", {"size": 7, "how": "mean"})),
    ],
    "purifiers": [{"name": "smooth", "params": {"size": 3}}],
}


@dataclass
class Case:
    """One model, its benign samples and attacked ones that fool it."""

    name: str
    tensor: str
    fields: dict[str, Any]
    calibrate: NDArray[np.float32]
    benign: NDArray[np.float32]
    attacked: NDArray[np.float32]


def network_of(name: str) -> ModuleType:
    """The module beside a test model's model.py."""
    spec = importlib.util.spec_from_file_location(f"{name}_network", MODELS / name / "1/network.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def climbed(
    x: NDArray[Any], slope: Callable[[NDArray[Any]], NDArray[Any]], size: float, steps: int = 20
) -> NDArray[Any]:
    """Projected gradient ascent within `size` of `x` in every value."""
    y = x.copy()
    for _ in range(steps):
        y = np.clip(y + size / 8 * np.sign(slope(y)), x - size, x + size)
    return y


def fooling(network: Any, x: NDArray[Any], y: NDArray[np.int64]) -> NDArray[np.float32]:
    return x[network.logits(x).argmax(axis=1) != y].astype(np.float32)


def tabular(size: float) -> Case:
    """Rows of the breast-cancer table, attacked by `size` standard deviations."""
    module = network_of("tabular")
    network = module.Network()
    x, y = (part[module.TRAINING :] for part in module.rows())
    right = network.logits(x).argmax(axis=1) == y
    right[:250] = False
    z = (x[right] - network.mean) / network.std

    def slope(z: NDArray[Any]) -> NDArray[Any]:
        return network.slope(z * network.std + network.mean, y[right])

    moved = climbed(z, slope, size) * network.std + network.mean
    attacked = fooling(network, moved, y[right])
    return Case("tabular", "row", VECTOR, x[:250], x[250:], attacked)


def tones(size: float) -> Case:
    """Tones with a faint overtone, attacked by `size` of full scale."""
    module = network_of("tones")
    network = module.Network()
    x, y = module.tones(120, seed=12)
    moved = np.clip(climbed(x, lambda w: network.slope(w, y), size), -1, 1)
    attacked = fooling(network, moved, y)
    return Case("tones", "wave", WAVEFORM, module.tones(300, seed=11)[0], x, attacked)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("other_inputs")


@pytest.fixture(scope="module")
def calibrated(triton: EmbeddedTriton, folder: Path) -> dict[str, dict[str, Any]]:
    """The configuration of each model, once it is calibrated."""
    fields = {}
    for case in (tabular(1.0), tones(0.08)):
        fields[case.name] = {**case.fields, "calibration": folder / case.name, "fpr": FPR}
        data = folder / f"{case.name}.npz"
        np.savez(data, x=case.calibrate)
        config = {"upstream": triton.grpc_address, "models": {case.name: fields[case.name]}}
        with (folder / f"{case.name}.log").open("w") as log:
            run(Config.model_validate(config), case.name, data, console=Console(file=log))
    return fields


@asynccontextmanager
async def serving(
    triton: EmbeddedTriton, case: Case, fields: dict[str, Any], folder: Path
) -> AsyncIterator[Defended]:
    models = {case.name: fields}
    async with defended(triton.grpc_address, folder, folder, models) as d:
        assert not d.defences.find(case.name).problem
        yield d


async def flagged(d: Defended, case: Case, x: NDArray[np.float32]) -> float:
    """The share of samples that are suspicious."""
    verdicts = []
    for start in range(0, len(x), BATCH):
        part = np.ascontiguousarray(x[start : start + BATCH])
        await d.infer(infer_request({case.tensor: part}, model=case.name, request_id=CLIENT))
        verdicts += each(d.flow.samples)
    assert set(verdicts) <= {"pass", "suspicious"}
    assert len(verdicts) == len(x)
    return verdicts.count("suspicious") / len(x)


@pytest.mark.parametrize(
    ("make", "size", "least"),
    [
        (tabular, 0.5, 0.3),
        (tabular, 1.0, 0.9),
        (tones, 0.02, 0.6),
        (tones, 0.04, 0.5),
        (tones, 0.08, 0.6),
    ],
)
async def test_attacks_are_flagged_and_benign_samples_are_not(
    triton: EmbeddedTriton,
    calibrated: dict[str, dict[str, Any]],
    folder: Path,
    make: Callable[[float], Case],
    size: float,
    least: float,
) -> None:
    case = make(size)
    assert len(case.attacked) >= 40
    async with serving(triton, case, calibrated[case.name], folder) as d:
        # 120 benign samples at a rate of 5 %: 12 is four standard deviations above.
        assert await flagged(d, case, case.benign) <= 0.1
        assert await flagged(d, case, case.attacked) >= least


async def test_a_suspicious_row_is_purified_and_its_company_untouched(
    triton: EmbeddedTriton, calibrated: dict[str, dict[str, Any]], folder: Path
) -> None:
    case = tabular(1.0)
    rows = np.stack([case.benign[0], case.attacked[0], case.benign[1]])
    fields = {**calibrated["tabular"], "action": "purify"}
    async with serving(triton, case, fields, folder) as d:
        await d.infer(infer_request({"row": rows}, model="tabular", request_id=CLIENT))
        assert each(d.flow.samples) == ["pass", "suspicious", "pass"]
        sent = d.upstream.sent["client"][-1]
    forwarded = np.frombuffer(
        pb.ModelInferRequest.FromString(sent).raw_input_contents[0], np.float32
    ).reshape(3, 30)
    expected = Quantise(digits=1).purify(torch.from_numpy(rows[1:2])).numpy()
    assert np.array_equal(forwarded, np.stack([rows[0], expected[0], rows[2]]))


async def test_a_suspicious_wave_is_purified(
    triton: EmbeddedTriton, calibrated: dict[str, dict[str, Any]], folder: Path
) -> None:
    case = tones(0.08)
    fields = {**calibrated["tones"], "action": "purify"}
    async with serving(triton, case, fields, folder) as d:
        message = infer_request({"wave": case.attacked[:8]}, model="tones", request_id=CLIENT)
        await d.infer(message)
        verdicts = each(d.flow.samples)
        sent = d.upstream.sent["client"][-1]
    forwarded = pb.ModelInferRequest.FromString(sent).raw_input_contents[0]
    purified = Smooth().purify(torch.from_numpy(case.attacked[:8, None])).numpy()[:, 0]
    for i, verdict in enumerate(verdicts):
        row = np.frombuffer(forwarded, np.float32).reshape(8, -1)[i]
        assert np.array_equal(row, purified[i] if verdict == "suspicious" else case.attacked[i])
    assert "suspicious" in verdicts


async def test_a_missing_value_has_no_verdict_and_its_company_has(
    triton: EmbeddedTriton, calibrated: dict[str, dict[str, Any]], folder: Path
) -> None:
    case = tabular(1.0)
    rows = np.stack([case.benign[0], case.benign[1], case.attacked[0]])
    rows[1, 4] = np.nan
    message = infer_request({"row": rows}, model="tabular", request_id=CLIENT)
    fields = {**calibrated["tabular"], "non_finite": "pass"}
    async with serving(triton, case, fields, folder) as d:
        await d.infer(message)
        assert each(d.flow.samples) == ["pass", "failed", "suspicious"]
        assert d.flow.failure == "non_finite"
    async with serving(triton, case, {**fields, "on_failure": "closed"}, folder) as d:
        with pytest.raises(DetectorFailed, match="non_finite"):
            await d.infer(message)
    async with serving(triton, case, calibrated["tabular"], folder) as d:
        with pytest.raises(InvalidTensor):
            await d.infer(message)


async def test_a_wave_beyond_full_scale_is_refused(
    triton: EmbeddedTriton, calibrated: dict[str, dict[str, Any]], folder: Path
) -> None:
    case = tones(0.08)
    async with serving(triton, case, calibrated["tones"], folder) as d:
        message = infer_request({"wave": 2 * case.benign[:1] + 1}, model="tones")
        with pytest.raises(InvalidTensor, match="'wave' has values up to"):
            await d.infer(message)


@pytest.mark.parametrize("make", [tabular, tones])
async def test_over_the_network_attacked_samples_are_blocked(
    triton: EmbeddedTriton, calibrated: dict[str, dict[str, Any]], make: Callable[[float], Case]
) -> None:
    case = make(1.0 if make is tabular else 0.08)
    fields = {**calibrated[case.name], "mode": "enforce", "action": "block", "budget_ms": 10_000}
    answered = {"benign": 0, "attacked": 0}
    async with running(triton.grpc_address, models={case.name: fields}) as sidecar:
        await sidecar.ready()
        for kind in answered:
            for sample in getattr(case, kind)[:20]:
                request = infer_request({case.tensor: sample[None]}, model=case.name)
                reply = await ask(sidecar.channel, "ModelInfer", request)
                answered[kind] += reply.code is grpc.StatusCode.OK
    assert answered["benign"] >= 17
    assert answered["attacked"] <= 8
