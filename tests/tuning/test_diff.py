"""Recorded samples under two policies: counted by hand here, and over a running proxy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from proxy import artifacts, rpc
from proxy.artifacts import Provenance, defence_of
from proxy.cli import main
from proxy.commands.diff import AFFECTED
from proxy.errors import ConfigError
from proxy.records.record import Label
from tests.defended import settings_of
from tests.images import MIXED, benign, request
from tests.proxy.explorer.scores import NAMES, a_calibration, a_model, a_snapshot, drawn
from tests.proxy.running import ask, running, until
from tuning.diff import Policy, Recorded, compare
from tuning.triton import EmbeddedTriton

MODEL = "digits_like"


def recorded_of(scores: np.ndarray, names: Any = NAMES, **columns: Any) -> dict[str, Any]:
    """A snapshot as a proxy gives it."""
    found = a_snapshot(scores, names, **columns)
    count = len(scores)
    found["columns"] |= {"hash": list(range(count)), "principal": ["00000000"] * count}
    return {**found, "version": "1", "defence": "", "since_s": 0.0, "capacity": 20_000}


class Files:
    """Configuration files of model m, each with a calibration of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.scores = folder / "scores.json"

    def write(self, name: str, states: dict[str, float] | None = None, **fields: Any) -> Path:
        model = a_model(**{**fields, "calibration": self._folder / f"{name}-calibration"})
        provenance = Provenance(
            model="m",
            model_version="1",
            data_sha256="",
            samples=300,
            groups=("clean", "noise"),
            date="2026-11-23T00:00:00Z",
            defence=defence_of(model),
        )
        artifacts.save(
            self._folder / f"{name}-calibration",
            calibration=a_calibration(names=[part.name for part in model.detectors]),
            states={n: {"learned": torch.tensor([v])} for n, v in (states or {}).items()},
            provenance=provenance,
        )
        path = self._folder / f"{name}.yaml"
        settings = model.model_dump(mode="json", exclude_unset=True)
        path.write_text(json.dumps({"models": {"m": settings}}))
        return path

    def load(self, name: str, states: dict[str, float] | None = None, **fields: Any) -> Policy:
        return Policy.load(self.write(name, states, **fields), "m")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_lower_rate_lets_pass_what_the_higher_one_flags(files: Files) -> None:
    recorded = Recorded.read(recorded_of(drawn(400, 3, 0.8)), "m")
    current, new = files.load("now", fpr=0.2), files.load("then", fpr=0.02)
    found = compare(recorded, current, new)
    fused = current.sweep.fused(recorded.scores)
    between = (fused > new.sweep.threshold.value) & (fused <= current.sweep.threshold.value)
    at_new = fused > new.sweep.threshold.value
    expected = (fused > current.sweep.threshold.value) & ~at_new
    assert not between.any()
    np.testing.assert_array_equal(found.affected, expected)
    assert 0 < expected.sum() < 400
    assert found.known.all()
    assert found.untold == ()
    assert not found.delayed.any()
    assert list(recorded.ids[:2]) == ["r399:0", "r398:0"]  # newest first


def test_another_action_affects_what_both_suspect(files: Files) -> None:
    recorded = Recorded.read(recorded_of(drawn(200, 3, 0.8)), "m")
    purify = {"action": "purify", "purifiers": [{"name": "median", "params": {"size": 3}}]}
    found = compare(recorded, files.load("now"), files.load("then", **purify))
    np.testing.assert_array_equal(found.affected, found.current.suspicious)
    np.testing.assert_array_equal(found.delayed, found.affected)
    assert set(found.new.actions) == {"none", "purify"}


def test_a_series_is_acted_on_whatever_its_samples_look_like(files: Files) -> None:
    names = (*NAMES, "history")
    scores = np.concatenate([drawn(50, 3), np.zeros((50, 1), np.float32)], axis=1)
    columns = {"chain": [row < 10 for row in range(50)]}
    recorded = Recorded.read(recorded_of(scores, names, **columns), "m")

    def policy(name: str, action: str) -> Policy:
        parts = [{"name": each} for each in names]
        return files.load(name, detectors=parts, query_attacks={"action": action})

    found = compare(recorded, policy("now", "flag"), policy("then", "block"))
    np.testing.assert_array_equal(found.affected, recorded.chained)
    assert set(found.new.actions[recorded.chained]) == {"block"}


def test_detectors_that_learned_otherwise_are_not_comparable(files: Files) -> None:
    recorded = Recorded.read(recorded_of(drawn(50, 3)), "m")
    current = files.load("now", {"residual": 1.0, "margin": 2.0})
    same = compare(recorded, current, files.load("same", {"residual": 1.0, "margin": 2.0}))
    assert same.untold == ()
    assert same.known.all()
    other = compare(recorded, current, files.load("other", {"residual": 1.5, "margin": 2.0}))
    assert other.untold == ("residual",)
    assert not other.known.any()
    parts = [{"name": "residual"}, {"name": "energy"}]
    more = compare(recorded, files.load("plain"), files.load("more", detectors=parts))
    assert more.untold == ("energy",)


def test_a_detector_with_other_parameters_is_not_comparable(files: Files) -> None:
    parts = [{"name": "feature_squeezing", "params": {"temperature": 2.0}}]
    found = compare(
        Recorded.read(recorded_of(drawn(50, 3)), "m"),
        files.load("now"),
        files.load("then", detectors=parts),
    )
    assert found.untold == ("feature_squeezing",)


def test_scores_of_another_calibration_are_refused(files: Files) -> None:
    recorded = Recorded.read(recorded_of(drawn(50, 3)), "m")
    current, new = files.load("now"), files.load("then")
    assert compare(replace(recorded, defence=current.artifact.digest), current, new).known.all()
    with pytest.raises(ConfigError, match=r"recorded under another calibration .* with --config"):
        compare(replace(recorded, defence="0" * 64), current, new)


Damage = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: s.pop("columns"),
        lambda s: s["columns"].pop("id"),
        lambda s: s["columns"]["id"].pop(),
        lambda s: s["columns"]["scores"]["margin"].pop(),
        lambda s: s["columns"]["scores"]["margin"].__setitem__(0, "high"),
        lambda s: s["columns"]["scores"].update(margin=7),
        lambda s: s["columns"]["id"].__setitem__(0, 7),
        lambda s: s["columns"]["label"].__setitem__(0, None),
        lambda s: s["columns"]["time_s"].__setitem__(0, "now"),
        lambda s: s.update(detectors=3),
        lambda s: s.update(seen="many"),
        lambda s: s.update(columns=[]),
    ],
)
def test_damaged_scores_are_refused(damage: Damage) -> None:
    value = json.loads(json.dumps(recorded_of(drawn(5, 3))))
    damage(value)
    with pytest.raises(ConfigError, match="recorded scores cannot be used"):
        Recorded.read(value, "m")


@pytest.mark.parametrize("value", [None, [], 3, "text", {}])
def test_what_is_no_snapshot_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="recorded scores cannot be used"):
        Recorded.read(value, "m")


def test_scores_of_another_model_are_refused() -> None:
    with pytest.raises(ConfigError, match="of model 'm', not 'n'"):
        Recorded.read(recorded_of(drawn(5, 3)), "n")


# -- the command -------------------------------------------------------------------------------


def test_the_command_over_files(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    current, new = files.write("now", fpr=0.2), files.write("then", fpr=0.02)
    files.scores.write_text(json.dumps(recorded_of(drawn(400, 3, 0.8))))
    line = ["diff", str(new), "--model", "m", "--config", str(current)]
    line += ["--records", str(files.scores), "--limit", "3"]
    assert main(line) == AFFECTED
    told = capsys.readouterr().out
    assert "recorded samples affected" in told
    assert "flag -> none" in told
    assert "--limit shows them" in told
    assert main([*line, "--json"]) == AFFECTED
    report = json.loads(capsys.readouterr().out)
    assert len(report["samples"]) == 3
    assert report["affected"] == report["rows"][0]["only_current"] > 3
    line[1] = str(current)
    assert main(line) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line, f: line.__delitem__(slice(4, 6)), "--records needs --config"),
        (lambda line, f: f.scores.write_text("{"), "not JSON"),
        (lambda line, f: f.scores.write_bytes(b"\xff"), "--records"),
        (lambda line, f: f.scores.unlink(), "--records"),
        (lambda line, f: line.__setitem__(3, "n"), "of model 'm', not 'n'"),
        (lambda line, f: line.__setitem__(1, "nowhere.yaml"), "nowhere.yaml"),
        (lambda line, f: Path(line[1]).write_text("models: {m: {}}"), "has no detectors"),
    ],
)
def test_what_the_command_cannot_use_is_told(
    files: Files,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[list[str], Files], Any],
    message: str,
) -> None:
    current, new = files.write("now"), files.write("then", fpr=0.02)
    files.scores.write_text(json.dumps(recorded_of(drawn(40, 3))))
    line = ["diff", str(new), "--model", "m", "--config", str(current)]
    line += ["--records", str(files.scores)]
    change(line, files)
    assert main(line) == 2
    assert message in capsys.readouterr().err


@pytest.mark.triton
async def test_the_command_over_a_running_proxy(
    triton: EmbeddedTriton,
    calibrations: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import asyncio

    token = tmp_path / "token"
    token.write_text("a-token-of-many-characters-0123456789\n")
    current, new = tmp_path / "now.yaml", tmp_path / "then.yaml"
    control = {"listen": "127.0.0.1:0", "token_file": str(token)}
    for path, action in ((current, "flag"), (new, "block")):
        models = settings_of(calibrations, {MODEL: {"action": action}})
        path.write_text(json.dumps({"models": models, "control": control}, default=str))
    async with running(triton.grpc_address, path=current) as sidecar:
        for x in (MIXED, benign(8, seed=5)):
            assert (await ask(sidecar.channel, rpc.INFER.name, request(MODEL, x))).data

        async def is_kept() -> bool:
            return (await sidecar.server.scores(MODEL))["kept"] == len(MIXED) + 8

        await until(is_kept)
        (suspect,) = {r["id"] for r in await sidecar.server.records(MODEL, 10)}
        label: Label = "adversarial"
        assert await sidecar.server.label(suspect, label)
        line = ["diff", str(new), "--model", MODEL, "--json", "--token-file", str(token)]
        line += ["--control", sidecar.server.control_address]
        assert await asyncio.to_thread(main, line) == AFFECTED
    report = json.loads(capsys.readouterr().out)
    assert [each["id"] for each in report["samples"]] == [suspect]
    assert report["samples"][0]["label"] == label
    assert report["compared"] == len(MIXED) + 8
    rows = {row["label"]: row for row in report["rows"]}
    assert (rows["adversarial"]["both"], rows["adversarial"]["affected"]) == (1, 1)
    assert rows["all"]["affected_low"] < 1 / 12 < rows["all"]["affected_high"]
