"""The folder of an evaluation: what is read back, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save

from proxy import evaluation
from proxy.errors import ConfigError
from proxy.evaluation import ATTACK, BENIGN, REPORT_FILE, SCORES_FILE, Evaluation, Kind

DETECTORS = ("residual", "margin")


def an_evaluation() -> Evaluation:
    generator = np.random.default_rng(0)

    def scores(count: int) -> np.ndarray:
        return generator.random((count, 2), np.float32)

    right = generator.integers(0, 2, (5, 2), np.uint8)
    return Evaluation(
        DETECTORS,
        (
            Kind(BENIGN, "clean", scores(7), scores(7)[:, 0], np.ones((7, 2), np.uint8)),
            Kind(ATTACK, "pgd l/inf", scores(5), scores(5)[:, 0], right),
            Kind(ATTACK, "none succeeded", scores(0)),
        ),
        ("none", "median"),
        {"model": "m", "threats": {"pgd l/inf": "oblivious"}},
        {"model": "m", "date": "2026-11-23T20:00:00Z", "rows": [{"kind": "summary"}]},
    )


def write(folder: Path, given: Evaluation) -> Path:
    (folder / SCORES_FILE).write_bytes(evaluation.dump(given))
    (folder / REPORT_FILE).write_text(json.dumps(dict(given.report)))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path, an_evaluation())


def test_what_is_written_is_read_back(folder: Path) -> None:
    given, found = an_evaluation(), evaluation.load(folder, "m")
    assert (found.detectors, found.ways) == (given.detectors, given.ways)
    assert (dict(found.about), dict(found.report)) == (given.about, given.report)
    assert set(found.of(ATTACK)) == {"pgd l/inf", "none succeeded"}
    for kind in given.kinds:
        same = found.of(kind.role)[kind.name]
        for one, other in ((kind.scores, same.scores), (kind.fused, same.fused)):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(kind.right, same.right)
    assert found.threat("pgd l/inf") == "oblivious"
    assert found.threat("none succeeded") == ""


def test_a_policy_without_a_score_leaves_nan(tmp_path: Path) -> None:
    given = an_evaluation()
    clean = replace(given.kinds[0], fused=np.full(7, np.nan, np.float32))
    found = evaluation.load(write(tmp_path, replace(given, kinds=(clean,))))
    assert np.isnan(found.of(BENIGN)["clean"].fused).all()


def test_another_model_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"of model 'm', not 'other'. Run `breakwater evaluate"):
        evaluation.load(folder, "other")
    report = {**an_evaluation().report, "model": "n"}
    (folder / REPORT_FILE).write_text(json.dumps(report))
    with pytest.raises(ConfigError, match=r"is of model 'n', scores\.safetensors of 'm'"):
        evaluation.load(folder)


@pytest.mark.parametrize("name", [REPORT_FILE, SCORES_FILE])
def test_a_file_that_is_not_there(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=f"{name} is missing. Run"):
        evaluation.load(folder)


@pytest.mark.parametrize("name", [REPORT_FILE, SCORES_FILE])
@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"\xff" * 40, b"[" * 100_000, b'{"a": 1}'])
def test_damage_is_a_clear_error(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"{name}.*Run `breakwater evaluate"):
        evaluation.load(folder)


@pytest.mark.parametrize("rows", [None, {}, [1], "rows"])
def test_a_report_without_rows_is_refused(folder: Path, rows: Any) -> None:
    (folder / REPORT_FILE).write_text(json.dumps({"model": "m", "rows": rows}))
    with pytest.raises(ConfigError, match="no list of rows"):
        evaluation.load(folder)


def test_every_cut_is_found(folder: Path) -> None:
    whole = (folder / SCORES_FILE).read_bytes()
    for length in range(0, len(whole), 37):
        (folder / SCORES_FILE).write_bytes(whole[:length])
        with pytest.raises(ConfigError):
            evaluation.load(folder)


def test_a_huge_file_is_not_read(folder: Path) -> None:
    with (folder / SCORES_FILE).open("r+b") as file:
        file.truncate(evaluation.MOST_BYTES + 1)
    with pytest.raises(ConfigError, match="more than 268435456"):
        evaluation.load(folder)


Change = Callable[[dict[str, Any], dict[str, str]], Any]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: t.update({"attack/a/odd": t["attack/pgd l/inf/right"]}), "unknown tensor"),
        (lambda t, m: t.update({"foe/a/scores": t["benign/clean/scores"]}), "unknown tensor"),
        (lambda t, m: t.update({"attack//scores": t["benign/clean/scores"]}), "unknown tensor"),
        (lambda t, m: t.update({"attack/\x1b[2J/scores": t["benign/clean/scores"]}), "unknown"),
        (lambda t, m: t.update({"attack/a/fused": np.zeros(3, np.float32)}), "no scores"),
        (lambda t, m: t["benign/clean/scores"].__setitem__((0, 0), np.nan), "not finite"),
        (lambda t, m: t["benign/clean/right"].__setitem__((0, 0), 2), "neither right nor wrong"),
        (lambda t, m: t.update({"benign/clean/fused": np.zeros(6, np.float32)}), r"not \(7,\)"),
        (lambda t, m: t.update({"benign/clean/scores": np.zeros((7, 2))}), "float64"),
        (lambda t, m: t.update({"benign/clean/scores": np.zeros((7, 3), np.float32)}), "7, 2"),
        (lambda t, m: t.update({"benign/clean/scores": np.zeros((), np.float32)}), "tensor"),
        (lambda t, m: t.clear(), "0 kinds"),
        (lambda t, m: m.clear(), "detectors"),
        (lambda t, m: m.update(detectors="[]"), "needs detectors"),
        (lambda t, m: m.update(detectors='["a", "a"]'), "twice"),
        (lambda t, m: m.update(detectors='["a", "\\u001b[2J"]'), "list of names"),
        (lambda t, m: m.update(detectors="3"), "list of names"),
        (lambda t, m: m.update(ways='["median", "none"]'), "first way"),
        (lambda t, m: m.update(about="[]"), "not an object"),
        (lambda t, m: m.pop("about"), "about"),
    ],
)
def test_what_does_not_fit_is_refused(folder: Path, change: Change, message: str) -> None:
    tensors = {k: v.copy() for k, v in load_arrays((folder / SCORES_FILE).read_bytes()).items()}
    meta = evaluation.metadata(an_evaluation())
    change(tensors, meta)
    (folder / SCORES_FILE).write_bytes(save(tensors, metadata=meta))
    with pytest.raises(ConfigError, match=message):
        evaluation.load(folder)
