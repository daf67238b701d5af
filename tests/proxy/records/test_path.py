"""Requests through the pipeline, a server and real workers, and what is recorded of them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from safetensors.torch import load, save

from proxy.flow import SampleVerdict
from proxy.records.kept import Subject
from tests.defended import ALL_FOUR, Defended, Opener, settings_of
from tests.images import CLEAN, MIXED, request
from tests.proxy.records.telling import line
from tests.proxy.running import ask, running, until
from tests.proxy.test_history_path import MODEL as REMEMBERS
from tests.proxy.test_history_path import binary_search
from tests.proxy.test_worker_processes import workers
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton

MODEL = "digits_like"
TOKEN = "for-the-tests-and-nobody-else"


def follow(d: Defended, model: str = MODEL) -> Defended:
    detectors = tuple(part.name for part in d.defences.config.models[model].detectors)
    d.records.follow([Subject(model, detectors, d.defences.digest(model))])
    return d


async def test_observe_records_every_sample(opened: Opener) -> None:
    async with opened({MODEL: {"mode": "observe"}}) as d:
        watch = follow(d).records.watch(everything=True)
        await d.infer(request(MODEL, MIXED))
        await d.observed(4)
        found = d.records.scores(MODEL)
        assert (found.kept, found.seen, found.partial) == (4, 4, 0)
        assert set(found.scores) == ALL_FOUR
        assert found.columns["verdict"].count("suspicious") == 1
        async with asyncio.timeout(10):
            told = await anext(watch)
        assert (told.verdict, told.outcome, told.action) == ("suspicious", "observed", "none")
        assert told.scores.keys() == told.p_values.keys() == ALL_FOUR
        assert [each.id for each in d.records.recent()] == [told.id]
        assert found.columns["total_ms"][0] > 0


async def test_enforce_records_what_was_done(opened: Opener) -> None:
    async with opened({MODEL: {"action": "purify"}}, records={"thumbnails": True}) as d:
        await d.infer(request(MODEL, MIXED))
        await until(lambda: _is(d.records.recent()))
        (told,) = d.records.recent()
        assert (told.verdict, told.action, told.outcome) == ("suspicious", "purify", "ok")
        assert told.thumbnail
        assert {"queue", "score", "total"} <= told.stage_ms.keys()
        assert d.flow.pixels is None


async def _is(value: object) -> bool:
    return bool(value)


async def test_a_cascade_leaves_scores_out(opened: Opener) -> None:
    cascade = {"clean": 0.3, "suspicious": 0.001}
    async with opened({MODEL: {"cascade": cascade}}) as d:
        follow(d)
        for x in CLEAN:
            await d.infer(request(MODEL, x[None]))
        found = d.records.copy(MODEL) or pytest.fail("nothing is kept")
        shown = found.snapshot()
        assert 0 < shown.partial <= shown.kept == len(CLEAN)
        missing = [name for name, scores in shown.scores.items() if None in scores]
        assert missing == ["feature_squeezing"]


def scores(samples: Sequence[SampleVerdict]) -> list[dict[str, float]]:
    return [dict(each.scores) for each in samples]


async def test_a_lone_sample_scores_as_it_does_in_a_batch(opened: Opener) -> None:
    async with opened({MODEL: {"mode": "enforce"}}) as d:
        await d.infer(request(MODEL, CLEAN))
        whole = scores(d.flow.samples)
        alone = []
        for x in CLEAN:
            await d.infer(request(MODEL, x[None]))
            alone += scores(d.flow.samples)
        assert len(whole) == len(alone) == len(CLEAN)
        for one, other in zip(whole, alone, strict=True):
            assert one.keys() == other.keys() == ALL_FOUR
            assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
            assert all(math.isfinite(each) for each in one.values())


async def test_a_series_of_queries_is_marked(opened: Opener) -> None:
    policy = {"fpr": 0.05, "action": "flag"}
    async with opened({REMEMBERS: {"query_attacks": policy, "fpr": 0.02}}) as d:
        follow(d, REMEMBERS)
        for x in binary_search():
            await d.infer(request(REMEMBERS, x[None]), principal="\x1b[2J<b>eve\ud7ff")
        told = d.records.recent()
        assert told[0].alarm or told[0].quarantined
        assert told[0].chain >= 3
        assert told[0].principal.startswith("\x1b[2J<b>")
        columns = d.records.scores(REMEMBERS).columns
        assert any(columns["chain"])
        assert not all(columns["chain"])
        assert len(set(columns["principal"])) == 1


async def test_a_server_tells_and_forgets_what_another_defence_scored(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    path = tmp_path / "breakwater.yaml"

    def write(**fields: Any) -> None:
        models = settings_of(calibrations, {MODEL: {"fpr": 0.05, **fields}})
        path.write_text(yaml.safe_dump(json.loads(json.dumps({"models": models}, default=str))))

    write()
    async with (
        running(triton.grpc_address, path=path) as front,
        aiohttp.ClientSession(f"http://{front.server.admin_address}") as session,
        session.get("/records/watch") as watch,
    ):
        await front.ready()
        await ask(front.channel, "ModelInfer", request(MODEL, MIXED))
        async with asyncio.timeout(2):
            told = await line(watch)
        assert (told["model"], told["verdict"]) == (MODEL, "suspicious")
        before = await front.server.scores(MODEL)
        assert (before["kept"], before["version"]) == (4, "1")
        assert await front.metric("records_kept", model=MODEL) == 4
        assert await front.metric("watchers") == 1

        write(fpr=0.06, action="block")
        assert await front.server.reload()
        assert (await front.server.scores(MODEL))["kept"] == 4  # the same scores still
        other = tmp_path / "again"
        _another(calibrations / MODEL, other)
        write(calibration=other)
        assert await front.server.reload()
        after = await front.server.scores(MODEL)
        assert (after["kept"], after["seen"]) == (0, 0)
        assert after["defence"] not in ("", before["defence"])


def _another(folder: Path, other: Path) -> None:
    """The same calibration with a detector that has learned something else."""
    other.mkdir()
    tensors = load((folder / "calibration.safetensors").read_bytes())
    name = next(key for key in tensors if key.startswith("calibration/"))
    blob = save({**tensors, name: tensors[name] + 1e-6})
    (other / "calibration.safetensors").write_bytes(blob)
    facts = json.loads((folder / "calibration.json").read_text())
    facts["tensors_sha256"] = hashlib.sha256(blob).hexdigest()
    (other / "calibration.json").write_text(json.dumps(facts))


async def test_two_workers_are_one_to_whoever_asks(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    path = tmp_path / "breakwater.yaml"
    models = settings_of(calibrations, {MODEL: {"fpr": 0.05}})
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    control = {"listen": "127.0.0.1:0", "token_file": "token"}
    document = {"models": models, "control": control}
    path.write_text(yaml.safe_dump(json.loads(json.dumps(document, default=str))))
    async with workers(triton.grpc_address, "--config", str(path)) as subject:
        both = await subject.connections()
        admin = f"http://{subject.process.admin}"
        async with (
            aiohttp.ClientSession(admin, headers={"Authorization": f"Bearer {TOKEN}"}) as session,
            session.get("/records/watch") as watch,
        ):

            async def is_followed() -> bool:
                return "breakwater_watchers 2.0" in (await subject.process.get("/metrics"))[1]

            await until(is_followed)
            for channel in both:
                await ask(channel, "ModelInfer", request(MODEL, MIXED))
            async with asyncio.timeout(10):
                told = [await line(watch) for _ in both]
            assert len({each["id"] for each in told}) == 2
            async with session.get(f"/records/scores?model={MODEL}") as response:
                found = await response.json()
            # Both have seen the same images, whose scores agree to five digits or nearly so.
            assert found["seen"] == 8
            assert 4 <= found["kept"] <= 8
            for each in told:
                said = {"id": each["id"], "label": "adversarial"}
                async with session.post("/records/label", json=said) as response:
                    assert response.status == 200
            async with session.get("/records") as response:
                listed = await response.json()
            assert {each["id"] for each in listed} == {each["id"] for each in told}
            assert {each["label"] for each in listed} == {"adversarial"}
            async with session.get(f"/records/scores?model={MODEL}") as response:
                assert "adversarial" in (await response.json())["columns"]["label"]
