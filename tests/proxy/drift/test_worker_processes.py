"""Two real workers: one alarm between them, and both act on it."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
import yaml

from tests.defended import settings_of
from tests.images import request, tampered
from tests.proxy.drift.monitored import MODEL, dark, ordinary
from tests.proxy.running import ask, until
from tests.proxy.test_worker_processes import workers
from tuning.triton import EmbeddedTriton

HALF = 150
"""Samples of half the window by count at each worker."""


def config_file(folder: Path, calibrations: Path) -> Path:
    drift = {
        **{"windows": {"count": 2 * HALF, "minutes": 60}, "false_alarm_days": 0.1},
        "on_alarm": "suspend",
    }
    # Sequential: calls in vain would be cancelled, and this Triton may not survive that (#7368).
    model = {"action": "block", "dispatch": "sequential", "drift": drift}
    models = settings_of(calibrations, {MODEL: model})
    path = folder / "breakwater.yaml"
    document = json.loads(json.dumps({"models": models, "principal_header": "x-user"}, default=str))
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.triton
async def test_an_alarm_is_the_same_at_both_and_over_when_acknowledged(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    odd = request(MODEL, tampered(ordinary(50, 8)))
    path = config_file(tmp_path, calibrations)
    async with workers(triton.grpc_address, "--config", str(path)) as subject:
        both = await subject.connections()

        async def codes() -> set[grpc.StatusCode]:
            sender = (("x-user", "somebody"),)
            answers = [await ask(each, "ModelInfer", odd, metadata=sender) for each in both]
            return {answer.code for answer in answers}

        async def drifts() -> bool:
            shown = json.loads((await subject.process.get("/drift"))[1])
            return MODEL in shown and shown[MODEL]["drifting"] is True

        refused = await codes()
        assert grpc.StatusCode.OK not in refused
        for worker, channel in enumerate(both):
            scenes = dark(worker, 3 * HALF)
            for i in range(0, 3 * HALF, 2):
                sender = (("x-user", f"client-{worker}-{i // 2 % 70}"),)
                await ask(channel, "ModelInfer", request(MODEL, scenes[i : i + 2]), metadata=sender)
        await until(drifts, limit_s=30)
        assert await codes() == {grpc.StatusCode.OK}
        metrics = (await subject.process.get("/metrics"))[1]
        assert f'breakwater_drift_alarm{{model="{MODEL}"}} 1.0' in metrics
        assert f'breakwater_blocking_suspended{{model="{MODEL}"}} 1.0' in metrics
        assert "has drifted from its calibration" in "\n".join(subject.process.log)
        status, text = await subject.process.get("/drift/acknowledge?all=1", "POST")
        assert (status, "control.token_file" in text) == (403, True)
