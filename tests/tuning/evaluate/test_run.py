"""`breakwater evaluate` end to end: real Triton, real sidecars, a small model."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from proxy import artifacts, evaluation
from proxy.config import Config
from proxy.errors import ConfigError
from tests.defended import MODELS, PURIFIERS
from tests.images import benign
from tests.learning import DigitsLike, export
from tuning.evaluate import wanted as wishes
from tuning.evaluate.run import run
from tuning.evaluate.sizes import ADAPTIVE, GREY_BOX, OBLIVIOUS, QUERY, THREATS, TRANSFER, Sizes
from tuning.evaluate.wanted import Wanted
from tuning.lineage import Origin
from tuning.triton import EmbeddedTriton

pytestmark = [pytest.mark.triton, pytest.mark.timeout(300)]

NAMES = ("fgsm8", "smooth8", "deepfool", "square_queries")
SMALL = Sizes(
    benign=40,
    ood=5,
    attacked=12,
    grey=4,
    grey_steps=3,
    adaptive=3,
    adaptive_steps=4,
    bounds=(4,),
    surrogate=40,
    surrogate_steps=2,
    queried=2,
    scored_budget=10,
    served=2,
    timed=6,
)


@pytest.fixture(scope="module")
def config(triton: EmbeddedTriton, calibrations: Path) -> Config:
    model = {
        **MODELS["digits_like"],
        "calibration": calibrations / "digits_like",
        "fpr": 0.05,
        "mode": "enforce",
        "action": "purify",
        "purifiers": PURIFIERS,
    }
    return Config.model_validate(
        {"upstream": triton.grpc_address, "models": {"digits_like": model}}
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    x = benign(120, seed=9)
    y = DigitsLike()(torch.from_numpy(x)).argmax(1).numpy()
    np.savez(folder / "data.npz", x=(x * 255).round().astype(np.uint8), y=y)
    np.savez(folder / "unlabelled.npz", x=x)
    np.savez(folder / "wrong.npz", x=x, y=(y + 1) % 10)
    np.savez(folder / "strange.npz", x=x, y=y + 3)
    export(DigitsLike(), folder / "copy.pt2")
    torch.manual_seed(0)
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
    export(other, folder / "other.pt")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wishes, "sized", lambda *, quick, samples: SMALL)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def out(config: Config, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    wanted = Wanted(
        model_file=files / "copy.pt2",
        surrogate_file=files / "copy.pt2",
        attacks=NAMES,
        seed=3,
        origin=Origin("a test", "CC0"),
    )
    console = Console(file=io.StringIO(), width=200)
    assert run(config, "digits_like", files / "data.npz", folder, wanted, console=console) == 0
    return folder


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def rows(report: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [row for row in report["rows"] if row["kind"] == kind]


def test_every_threat_is_declared_and_measured(report: dict[str, Any]) -> None:
    assert set(report["threats"]) == set(THREATS)
    told = {(row["kind"], row["threat"]) for row in report["rows"] if row.get("threat")}
    assert {
        ("attack", OBLIVIOUS),
        ("attack", GREY_BOX),
        ("transfer", TRANSFER),
        ("query", QUERY),
        ("adaptive", ADAPTIVE),
    } <= told
    assert {row["name"] for row in rows(report, "attack")} == {
        *("fgsm8", "smooth8", "deepfool", "grey4")
    }


def test_shares_come_with_intervals(report: dict[str, Any]) -> None:
    for row in rows(report, "attack") + rows(report, "transfer"):
        assert row["tried"] in (12, 4)
        for name in ("tpr", "tpr_at_5", "robust_none", "robust_purify", "robust_block"):
            assert row[f"{name}_low"] <= (row[name] or 0) <= row[f"{name}_high"]
        assert row["success"] > 0.7  # a linear model
        assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]
        assert row["tuned_on"] is False


def test_benign_variations_are_apart_from_what_nobody_calibrated_on(
    report: dict[str, Any],
) -> None:
    known, unseen, strange = (
        {row["name"] for row in rows(report, kind)} for kind in ("benign", "unseen", "ood")
    )
    assert set(report["policy"]["calibrated"]["groups"]) == known
    assert {"webp", "rotation", "gamma"} <= unseen
    assert strange == {"dead_leaves", "texture", "gradient", "inverted"}
    assert not known & unseen
    assert all(row["accuracy_none"] > 0.9 for row in rows(report, "benign") if "clean" in row)


def test_the_endpoint_judges_as_the_scores_say(report: dict[str, Any]) -> None:
    agreed = [row for row in rows(report, "served") if row["name"] == "all"]
    assert {row["action"] for row in agreed} == {"flag", "purify", "block"}
    assert all(row["agreement"] == 1.0 and row["samples"] > 6 for row in agreed)
    blocked = [row for row in rows(report, "served") if row["action"] == "block"]
    for row in blocked:
        if row["name"] != "all":
            assert row["refused"] == row["flagged"]


def test_cost_and_latency_of_each_action(report: dict[str, Any]) -> None:
    for kind in ("latency", "cost"):
        found = {(row["action"], row["traffic"]) for row in rows(report, kind)}
        actions = ("flag", "purify", "block")
        assert found == {(a, t) for a in actions for t in ("clean", "attacked")}
    for row in rows(report, "cost"):
        if row["action"] == "flag":
            assert row["upstream_samples"] >= row["upstream_calls"] >= 1
    assert all(row["p50_ms"] > 0 for row in rows(report, "latency") if row["action"] == "flag")


def test_searches_ask_the_undefended_model_beside(report: dict[str, Any]) -> None:
    found = {row["action"]: row for row in rows(report, "query")}
    assert set(found) == {"pass-through", "purify"}
    for row in found.values():
        assert row["budget"] == 10
        assert 0 < row["queries_mean"] <= 10
    assert found["pass-through"]["detected"] == 0
    for row in found.values():
        needed = [int(count) for count in row["queries_to_success"].split()]
        assert len(needed) == round(row["success"] * row["samples"])
        assert needed == sorted(needed)
        assert all(1 <= count <= 10 for count in needed)


def test_who_knows_everything_tries_both_ways_through(report: dict[str, Any]) -> None:
    found = {row["branch"]: row for row in rows(report, "adaptive")}
    assert set(found) == {"unflagged", "flagged on purpose", "either"}
    worst = max(found[name]["strongest"] for name in ("unflagged", "flagged on purpose"))
    assert found["either"]["strongest"] >= worst
    assert found["either"]["strongest"] <= found["either"]["undefended_strongest"]


def test_the_scores_can_be_read_again(out: Path, report: dict[str, Any]) -> None:
    found = evaluation.load(out, "digits_like")
    assert list(found.detectors) == report["policy"]["detectors"]
    assert found.ways[0] == "none"
    assert found.threat("fgsm8") == OBLIVIOUS
    assert found.threat("adaptive4_unflagged") == ADAPTIVE
    assert found.about["tried"]["fgsm8"] == 12
    assert found.of("ood")["inverted"].right is None
    clean = found.of("benign")["clean"]
    assert clean.fused is not None
    (row,) = (row for row in rows(report, "benign") if row["name"] == "clean")
    assert round(float((clean.fused > report["policy"]["threshold"]).mean()), 4) == row["fpr"]


def test_the_defence_is_named_as_live_records_name_it(
    config: Config, out: Path, report: dict[str, Any]
) -> None:
    model = config.models["digits_like"]
    assert model.calibration is not None
    loaded = artifacts.load(model.calibration, "digits_like", model, torch.device("cpu"))
    assert report["defence"] == loaded.digest
    assert evaluation.load(out).about["defence"] == loaded.digest


def test_where_the_data_is_from(report: dict[str, Any]) -> None:
    assert report["data"]["source"] == "a test"
    assert report["data"]["licence"] == "CC0"
    assert report["seed"] == 3


def test_the_page_shows_it(out: Path) -> None:
    page = (out / "report.html").read_text()
    assert "deepfool" in page.lower()
    assert "data:image/png" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_second_run_makes_no_attack_again_and_asks_a_running_endpoint(
    config: Config, files: Path, out: Path, report: dict[str, Any]
) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in (out / "work").iterdir()}
    wanted = Wanted(
        model_file=files / "copy.pt2",
        surrogate_file=files / "copy.pt2",
        attacks=NAMES,
        threats=(OBLIVIOUS, GREY_BOX, TRANSFER),
        seed=3,
        endpoint=config.upstream,  # as undefended as can be
    )
    console = Console(file=io.StringIO())
    assert run(config, "digits_like", files / "data.npz", out, wanted, console=console) == 0
    after = {file.name: file.stat().st_mtime_ns for file in (out / "work").iterdir()}
    assert after == before
    again = json.loads((out / "report.json").read_text())
    served = {row["name"]: row for row in rows(again, "served")}
    assert {row["action"] for row in served.values()} == {"as deployed"}
    assert served["clean"]["right"] == 1
    assert served["fgsm8"]["wrong_served"] == 1
    assert "agreement" not in served["clean"]  # nobody says what was flagged
    same = ("attack", "benign", "unseen", "ood", "transfer")
    for kind in same:
        assert rows(again, kind) == rows(report, kind)


def test_without_a_copy_attackers_train_a_surrogate_and_ask(
    config: Config, files: Path, tmp_path: Path
) -> None:
    assert Wanted().known() == (TRANSFER, QUERY)
    wanted = Wanted(attacks=("smooth8", "square_queries"), endpoint=config.upstream)
    console = Console(file=io.StringIO())
    assert run(config, "digits_like", files / "data.npz", tmp_path, wanted, console=console) == 0
    found = json.loads((tmp_path / "report.json").read_text())
    assert set(found["threats"]) == {TRANSFER, QUERY}
    assert [row["name"] for row in rows(found, "transfer")] == ["transfer_smooth8"]
    assert {row["action"] for row in rows(found, "query")} == {"pass-through", "as deployed"}
    assert not rows(found, "attack")
    assert any("no copy of the model" in note for note in found["notes"])
    assert list((tmp_path / "work").glob("surrogate-*.safetensors"))


def test_what_is_done_when_it_is_stopped_is_kept(
    config: Config, files: Path, tmp_path: Path
) -> None:
    wanted = Wanted(model_file=files / "copy.pt2", attacks=("fgsm8", "cw"), threats=(OBLIVIOUS,))

    def interrupt() -> None:
        """Ctrl-C comes as soon as the first attack has been kept."""
        while not list((tmp_path / "work").glob("fgsm8-*")):
            if done.wait(0.01):
                return
        os.kill(os.getpid(), signal.SIGINT)

    done = threading.Event()
    thread = threading.Thread(target=interrupt)
    # What is started in the background of a shell ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread.start()
    told = io.StringIO()
    console = Console(file=told)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(config, "digits_like", files / "data.npz", tmp_path, wanted, console=console)
    finally:
        done.set()
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert "run the same again to go on" in " ".join(told.getvalue().split())
    assert not (tmp_path / "report.json").exists()
    assert list((tmp_path / "work").glob("fgsm8-*"))


@pytest.mark.parametrize(
    ("data", "given", "told"),
    [
        ("unlabelled.npz", {}, "has no labels"),
        ("wrong.npz", {}, "gives the right class to 0 of"),
        ("strange.npz", {}, "labels from"),
        ("data.npz", {"model_file": "other.pt"}, "gives the class digits_like gives for"),
        ("data.npz", {"surrogate_file": "missing.pt"}, "cannot be read"),
        ("data.npz", {"attacks": ("nosuch",)}, "there are fgsm8"),
        ("data.npz", {"threats": (ADAPTIVE,)}, "--model-file COPY"),
        ("nothing.npz", {}, "nothing.npz"),
    ],
)
def test_what_cannot_be_evaluated_says_what_to_do(
    config: Config, files: Path, tmp_path: Path, data: str, given: dict[str, Any], told: str
) -> None:
    paths = {name: files / v if name.endswith("_file") else v for name, v in given.items()}
    with pytest.raises(ConfigError, match=told):
        run(config, "digits_like", files / data, tmp_path, Wanted(**paths))


def test_a_model_without_a_defence_or_of_another_kind_is_refused(
    config: Config, files: Path, tmp_path: Path
) -> None:
    changed = {"bare": {}, "tones": {"inputs": [{"kind": "waveform"}]}}
    for name, fields in changed.items():
        model = config.models["digits_like"].model_dump(mode="json", exclude_defaults=True)
        model = {**model, **fields} if fields else {}
        if fields:
            model |= {"detectors": [{"name": "residual"}], "purifiers": [], "action": "flag"}
        other = Config.model_validate({"upstream": config.upstream, "models": {name: model}})
        told = "takes waveforms" if fields else "lists no detectors"
        with pytest.raises(ConfigError, match=told):
            run(other, name, files / "data.npz", tmp_path)
    with pytest.raises(ConfigError, match="no model 'other'"):
        run(config, "other", files / "data.npz", tmp_path)


def test_a_triton_that_is_down_is_named(config: Config, files: Path, tmp_path: Path) -> None:
    down = config.model_copy(update={"upstream": "127.0.0.1:1"})
    with pytest.raises(ConfigError, match="is Triton running there"):
        run(down, "digits_like", files / "data.npz", tmp_path)
