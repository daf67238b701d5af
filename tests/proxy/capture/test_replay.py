"""Captured requests under another policy."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.capture.files import facts, pack
from proxy.capture.replay import replay
from proxy.cli import main
from proxy.config import Config
from proxy.errors import ConfigError
from proxy.flow import Action, Flow, SampleVerdict, Verdict
from tests.defended import settings_of
from tests.images import benign, request, tampered
from tuning.triton import EmbeddedTriton

SUSPECT = SampleVerdict(Verdict.SUSPICIOUS, 3.0, 2.0, {})
BAD, GOOD = tampered(benign(2, 3)), benign(1, 5)
MODEL = "digits_like"


def captured(folder: Path, name: str, x: Any, *, model: str = MODEL, kind: str = "full") -> Path:
    """A captured request that was blocked as suspicious."""
    folder.mkdir(exist_ok=True)
    flow = Flow("r", 0.0, None, "p", model=model, samples=(SUSPECT,), action=Action.BLOCK)
    data = request(MODEL, x).SerializeToString()
    said = facts(datetime.now(UTC), flow, principal="a" * 16, calibration="d")
    path = folder / f"{name}.capture"
    path.write_bytes(pack(said, data, kind, data if kind == "full" else b""))
    return path


def configuration(triton: EmbeddedTriton, calibrations: Path, **fields: Any) -> Config:
    policy = {"action": "block", "on_failure": "closed", **fields}
    models = settings_of(calibrations, {MODEL: policy})
    return Config.model_validate({"upstream": triton.grpc_address, "models": models})


@pytest.mark.triton
async def test_the_same_attack_is_seen_again_and_the_benign_are_spared(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    captured(tmp_path / "s", "1", BAD)
    captured(tmp_path / "s", "2", GOOD)
    outcome = await replay(tmp_path / "s", configuration(triton, calibrations), None)
    bad, good = outcome.replayed
    assert not bad.differs
    assert good.differs
    assert (bad.after, good.after) == (("suspicious", "block"), ("pass", "none"))
    assert outcome.to_json()["differing"] == 1
    observing = configuration(triton, calibrations, mode="observe")
    seen = await replay(tmp_path / "s", observing, MODEL)
    assert seen.replayed[0].after == ("suspicious", "none")
    assert not (await replay(tmp_path / "s", observing, "other")).replayed


@pytest.mark.triton
async def test_files_that_are_none_are_skipped_and_named(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "s"
    good = captured(folder, "good", GOOD)
    cut = captured(folder, "cut", GOOD)
    cut.write_bytes(cut.read_bytes()[:-1])
    captured(folder, "kept-none", GOOD, kind="none")
    captured(folder, "elsewhere", GOOD, model="\x1b[31mevil")
    (folder / "link.capture").symlink_to(good)
    (folder / "notes.txt").write_text("mine")
    (folder / "empty.capture").touch()
    (folder / "folder.capture").mkdir()
    (folder / ".lock").touch()
    garbage = Flow("r", 0.0, None, "p", model=MODEL, samples=(SUSPECT,))
    said = facts(datetime.now(UTC), garbage, principal="a", calibration="d")
    (folder / "garbage.capture").write_bytes(pack(said, b"\xff\xff", "full", b"\xff\xff"))
    outcome = await replay(folder, configuration(triton, calibrations), None)
    assert [each.file for each in outcome.replayed] == ["good.capture"]
    assert {file.partition(".")[0] for file, _ in outcome.skipped} == {
        *("cut", "kept-none", "elsewhere", "link", "notes", "empty", "folder", "garbage")
    }


async def test_without_a_model_server_it_says_so(calibrations: Path, tmp_path: Path) -> None:
    captured(tmp_path / "s", "1", BAD)
    models = settings_of(calibrations, {MODEL: {}})
    config = Config.model_validate({"upstream": "127.0.0.1:1", "models": models})
    with pytest.raises(ConfigError, match="--upstream"):
        await replay(tmp_path / "s", config, None)
    with pytest.raises(ConfigError, match="cannot be read"):
        await replay(tmp_path / "none", config, None)


@pytest.mark.triton
def test_the_command(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configuration(triton, calibrations).model_dump(
        mode="json", include={"upstream", "models"}, exclude_unset=True
    )
    (tmp_path / "new.yaml").write_text(yaml.safe_dump(config))
    words = ["replay", str(tmp_path / "s"), "--config", str(tmp_path / "new.yaml")]
    captured(tmp_path / "s", "1", BAD)
    assert main([*words, "--json", str(tmp_path / "out.json")]) == 0
    assert "1 replayed, 0 would be treated otherwise" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["requests"][0]["differs"] is False
    captured(tmp_path / "s", "2", GOOD)
    captured(tmp_path / "s", "3", GOOD, model="\x1b[31mevil")
    assert main(words) == 3
    out = capsys.readouterr().out
    assert "suspicious/block -> pass/none" in out
    assert "\x1b" not in out
    assert main([*words, "--model", "other"]) == 1
    assert main(["replay", str(tmp_path / "s")]) == 2
