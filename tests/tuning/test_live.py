"""`breakwater calibrate --live`: from traffic through a running proxy to the thresholds it uses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from proxy import artifacts, configfile
from proxy.cli import main
from tests.defended import settings_of
from tests.images import benign, request, tampered
from tests.proxy.running import Running, ask, running, until
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton

NAME = "digits_like"
FPR = 0.05
NEEDED = 300


async def send(proxy: Running, images: NDArray[np.float32], principal: str) -> None:
    """One request, of as many samples as there are images."""
    metadata = (("x-user", principal),)
    reply = await ask(proxy.channel, "ModelInfer", request(NAME, images), metadata=metadata)
    assert not reply.details


async def recorded(proxy: Running, count: int) -> dict[str, Any]:
    """What is recorded once so many samples have been scored."""
    found: dict[str, Any] = {}

    async def are_there() -> bool:
        found.update(await proxy.server.scores(NAME))
        return bool(found["seen"] >= count)

    await until(are_there, limit_s=60)
    return found


Observing = Callable[..., Any]


@pytest.fixture
def observing(triton: EmbeddedTriton, calibrations: Path, tmp_path: Path) -> Observing:
    """Opens a proxy that observes, from a configuration file the command line reads too."""

    @asynccontextmanager
    async def opened(**fields: Any) -> AsyncIterator[tuple[Running, Path]]:
        models = settings_of(calibrations, {NAME: {"mode": "observe", **fields}})
        token = tmp_path / "token"
        token.write_text("a-token-of-the-tests")
        token.chmod(0o600)
        content = {
            "upstream": triton.grpc_address,
            "principal_header": "x-user",
            "control": {"listen": "127.0.0.1:0", "token_file": str(token)},
            "models": models,
        }
        file = tmp_path / "breakwater.yaml"
        file.write_text(yaml.safe_dump(json.loads(json.dumps(content, default=str))))
        async with running(triton.grpc_address, path=file) as proxy:
            yield proxy, file

    return opened


def calibrate(file: Path, *options: object) -> int:
    words = ["calibrate", "--live", "--config", file, "--model", NAME, *options]
    return main([str(word) for word in words])


async def test_from_traffic_to_thresholds_that_are_served(
    observing: Observing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "live"
    async with observing() as (proxy, file):
        images = benign(360, seed=30)
        for i in range(0, 360, 20):
            await send(proxy, images[i : i + 20], f"user{i}")
        await send(proxy, images[:20], "again")
        await send(proxy, tampered(images[:1]), "eve")
        await recorded(proxy, 381)
        asked = ("--control", proxy.server.control_address, "--out", out)
        assert await asyncio.to_thread(calibrate, file, *asked) == 1
        assert "token" in capsys.readouterr().err
        shown = ("--token-file", tmp_path / "token")
        assert await asyncio.to_thread(calibrate, file, *asked, *shown) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "Screening of 36" in told  # what was sent again counts once
    for word in ("near-duplicates", "KS distance", "live, untrimmed", "the old threshold flags"):
        assert word in told
    model = configfile.load(file).models[NAME]
    assert model.calibration is not None
    previous, made = (
        artifacts.load(folder, NAME, model, torch.device("cpu"))
        for folder in (model.calibration, out)
    )
    assert made.provenance.groups == (*previous.provenance.groups, "live")
    assert made.provenance.data == previous.provenance.data
    facts = made.provenance.live
    assert facts is not None
    assert facts["seen"] == 381
    assert facts["steps"][-1]["left"] >= NEEDED
    assert len(facts["previous_sha256"]) == 64
    assert facts["wanted"]["fpr"] == FPR
    async with observing(calibration=out, mode="enforce", action="block") as (proxy, _):
        await send(proxy, benign(5, seed=31), "user")
        reply = await ask(proxy.channel, "ModelInfer", request(NAME, tampered(benign(2, seed=31))))
        assert reply.code is not grpc.StatusCode.OK


async def test_scores_of_replicas_that_were_saved(
    observing: Observing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for replica in range(2):
        async with observing() as (proxy, file):
            images = benign(200, seed=40 + replica)
            for i in range(0, 200, 20):
                await send(proxy, images[i : i + 20], f"user{i}")
            files.append(tmp_path / f"scores{replica}.json")
            files[-1].write_text(json.dumps(await recorded(proxy, 200)))
    one, both = (["--records", files[0]], ["--records", files[0], "--records", files[1]])
    out = tmp_path / "live"
    assert calibrate(file, *one, "--out", out) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "samples are left after screening" in told
    assert "At the pace so far that takes about" in told
    assert not out.exists()
    assert calibrate(file, *both, "--out", out, "--replace", "--seed", "3") == 0
    model = configfile.load(file).models[NAME]
    made = artifacts.load(out, NAME, model, torch.device("cpu"))
    assert made.provenance.groups == ("live",)


@pytest.fixture
async def saved(observing: Observing, tmp_path: Path) -> tuple[Path, Path]:
    """A configuration file, and scores saved of a few samples."""
    async with observing() as (proxy, file):
        await send(proxy, benign(20, seed=50), "user")
        scores = tmp_path / "scores.json"
        scores.write_text(json.dumps(await recorded(proxy, 20)))
    return file, scores


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "other"}, "not of model 'digits_like'"),
        ({"defence": "0" * 64}, "of another defence"),
        ({"seen": 0}, "nothing is recorded of model digits_like yet"),
        ({"detectors": ["energy"]}, "of other detectors"),
        ({"columns": {}}, "incomplete"),
    ],
)
async def test_foreign_and_hostile_scores_are_refused(
    saved: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
    message: str,
) -> None:
    file, scores = saved
    scores.write_text(json.dumps(json.loads(scores.read_text()) | change))
    assert calibrate(file, "--records", scores, "--out", tmp_path / "live") == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1]", "not a JSON object"), ("{", "holds no recorded scores"), ("[" * 99999, "holds no")],
)
async def test_files_that_hold_no_scores(
    saved: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    message: str,
) -> None:
    file, scores = saved
    scores.write_text(text)
    assert calibrate(file, "--records", scores, "--out", tmp_path / "live") == 2
    assert message in " ".join(capsys.readouterr().err.split())


async def test_what_is_asked_for_wrongly(
    saved: tuple[Path, Path],
    calibrations: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, scores = saved
    given = ("--records", scores)
    for options, message in (
        (given, "say where to write with --out DIR"),
        ((*given, "--out", calibrations / NAME), "another folder than"),
        ((*given, "--out", tmp_path / "x", "--group", f"a={scores}"), "go with --data"),
        (("--records", tmp_path / "no.json", "--out", tmp_path / "x"), "no.json"),
    ):
        assert calibrate(file, *options) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert calibrate(file, "--control", "127.0.0.1:1", "--out", tmp_path / "x") == 1
    assert "no answer from 127.0.0.1:1" in capsys.readouterr().err
