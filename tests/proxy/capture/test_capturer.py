"""Suspicious requests as files, beside the requests and never in their way."""

from __future__ import annotations

import fcntl
import io
import json
import os
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from PIL import Image
from prometheus_client import CollectorRegistry

from proxy.capture import capturer as module
from proxy.capture.capturer import Capturer, capturer
from proxy.capture.files import Captured, unpack
from proxy.capture.metrics import CaptureMetrics
from proxy.capture.settings import Capture
from proxy.errors import ConfigError
from proxy.flow import Flow, SampleVerdict, Verdict
from tests.defended import settings_of
from tests.images import benign, request, tampered
from tests.proxy.running import ask, running, until
from tuning.triton import EmbeddedTriton

SUSPECT = SampleVerdict(Verdict.SUSPICIOUS, 3.0, 2.0, {"grid": 0.001}, "grid")
CLEAN = SampleVerdict(Verdict.PASS, 1.0, 2.0, {"grid": 0.5})
FAILED = SampleVerdict(Verdict.FAILED, 1.0, 2.0, {})
KEY = b"k" * 32


def flow(*samples: SampleVerdict, **fields: Any) -> Flow:
    said = {"principal": "alice", "model": "../../etc/passwd\n", "samples": samples, **fields}
    return Flow("r1", 0.0, None, **said)


class Scene:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder, self.registry = folder, CollectorRegistry()
        self.capturer = Capturer(
            Capture(folder=folder, **settings),
            key=KEY,
            metrics=CaptureMetrics(self.registry),
            digest_of=lambda model: f"calibration of {len(model)}",
        )

    def found(self) -> list[Captured]:
        self.capturer.close()
        return [unpack(path.read_bytes()) for path in sorted(self.folder.glob("*.capture"))]

    def dropped(self, reason: str) -> float | None:
        name = "breakwater_capture_dropped_total"
        return self.registry.get_sample_value(name, {"reason": reason})


def test_suspicious_requests_alone_are_captured(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "s")
    scene.capturer.note(flow(CLEAN), b"clean", None)
    scene.capturer.note(flow(FAILED), b"failed", None)  # an outage must not fill the folder
    scene.capturer.note(flow(CLEAN, SUSPECT), b"suspicious", None)
    scene.capturer.note(flow(CLEAN, quarantined=True), b"quarantined", None)
    found = scene.found()
    assert sorted(each.payload for each in found) == [b"quarantined", b"suspicious"]
    assert found[0].facts["model"] == "../../etc/passwd\n"
    assert found[0].facts["calibration"] == "calibration of 17"
    for path in scene.folder.iterdir():
        assert path.name == ".lock" or path.name.replace("-", "")[:45].isalnum()
    assert scene.registry.get_sample_value("breakwater_capture_files") == 2


def test_principals_are_told_apart_and_not_named(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "s", inputs="none")
    for principal in ("alice", "bob", "alice"):
        scene.capturer.note(flow(SUSPECT, principal=principal), b"secret", None)
    found = scene.found()
    assert len({each.facts["principal"] for each in found}) == 2
    assert not any(b"alice" in p.read_bytes() for p in scene.folder.glob("*.capture"))
    assert [each.payload for each in found] == [b""] * 3
    assert found[0].facts["request_bytes"] == 6


def test_thumbnails_are_small_pictures(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "s", inputs="thumbnail")
    assert scene.capturer.takes_pictures
    x = torch.from_numpy(benign(2, 0))
    scene.capturer.note(flow(CLEAN, SUSPECT), b"request", x)
    scene.capturer.note(flow(SUSPECT), b"request", torch.rand(1, 40))  # no picture
    picture, none = scene.found()
    assert (picture.kind, none.kind) == ("thumbnail", "none")
    with Image.open(io.BytesIO(picture.payload)) as image:
        shown = np.asarray(image, np.float32).transpose(2, 0, 1) / 255
    assert np.abs(shown - x[1].numpy()).max() < 0.01


def test_a_slow_disk_costs_captures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 10_000)
    scene = Scene(tmp_path / "s")
    lock = os.open(tmp_path / "s" / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)  # as long as another worker's write takes
    for _ in range(2000):
        scene.capturer.note(flow(SUSPECT), b"x" * 10, None)
    assert (scene.dropped("queue") or 0) >= 2000 - module.MOST_WAITING - 1
    before = scene.dropped("queue") or 0
    scene.capturer.note(flow(SUSPECT), b"x" * 9999, None)
    assert scene.dropped("queue") == before + 1
    os.close(lock)
    assert len(scene.found()) == 2000 - before


def test_what_cannot_be_written_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(tmp_path / "s", max_mb=1)
    scene.capturer.note(flow(SUSPECT), b"x" * 300_000, None)
    scene.found()
    assert scene.dropped("too_large") == 1
    again = Scene(tmp_path / "t")
    (tmp_path / "t").rename(tmp_path / "gone")
    for _ in range(3):
        again.capturer.note(flow(SUSPECT), b"x", None)
    again.capturer.close()
    assert again.dropped("disk") == 3
    assert caplog.text.count("captures cannot be written") == 1


def test_the_key_comes_from_the_file_the_workers_or_nowhere(tmp_path: Path) -> None:
    metrics = CaptureMetrics(CollectorRegistry())
    assert capturer(None, None, metrics, str) is None
    tags = []
    (tmp_path / "key").write_bytes(KEY)
    for name, key_file, shared in (
        *(("a", tmp_path / "key", None), ("b", tmp_path / "key", b"s")),
        *(("c", None, b"s"), ("d", None, b"s"), ("e", None, None), ("f", None, None)),
    ):
        settings = Capture(folder=tmp_path / name, key_file=key_file)
        made = capturer(settings, shared, metrics, str)
        assert made is not None
        made.note(flow(SUSPECT), b"", None)
        made.close()
        (path,) = (tmp_path / name).glob("*.capture")
        tags.append(unpack(path.read_bytes()).facts["principal"])
    assert tags[0] == tags[1]
    assert tags[2] == tags[3]
    assert len(set(tags)) == 4
    with pytest.raises(ConfigError, match=r"capture\.key_file"):
        capturer(Capture(folder=tmp_path, key_file=tmp_path / "no"), None, metrics, str)


@pytest.mark.triton
@pytest.mark.parametrize("mode", ["enforce", "observe"])
async def test_a_sidecar_keeps_what_it_inspected_and_no_header(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path, mode: str
) -> None:
    def captures() -> list[Path]:
        return list((tmp_path / "s").glob("*.capture"))

    fields = {"mode": mode, "action": "block", "on_failure": "closed"}
    async with running(
        triton.grpc_address,
        models=settings_of(calibrations, {"digits_like": fields}),
        capture={"folder": tmp_path / "s"},
        audit={"path": tmp_path / "audit"},
    ) as sidecar:
        bad = request("digits_like", tampered(benign(2, 3)))
        for message in (request("digits_like", benign(2, 3)), bad):
            with_token = (("authorization", "Bearer hunter2"),)
            reply = await ask(sidecar.channel, "ModelInfer", message, metadata=with_token)
            expected = mode == "enforce" and message is bad
            assert (reply.code is not grpc.StatusCode.OK) is expected

        async def is_captured() -> bool:
            return any(bad.SerializeToString() in path.read_bytes() for path in captures())

        await until(is_captured)
    files = captures()
    kept = [unpack(path.read_bytes()) for path in files]
    found = [each for each in kept if each.payload == bad.SerializeToString()]
    assert len(found) == 1
    assert found[0].facts["action"] == ("block" if mode == "enforce" else "none")
    assert found[0].facts["verdict"] == "suspicious"
    assert len(found[0].facts["calibration"]) > 8
    assert not any(b"hunter2" in path.read_bytes() for path in files)
    told = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    assert found[0].facts["request_id"] in {each["request_id"] for each in told}
