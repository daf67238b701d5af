"""A made-up report of an evaluation, with rows of every kind and plausible figures."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.binomial import lower_bound, upper_bound
from proxy.evaluation import Evaluation, Kind
from proxy.lineage import Classes, Finding, Lineage
from tuning.evaluate.titles import NAMES
from tuning.page.rows import Row

HOSTILE = '</title><script src="http://evil.example/x.js"></script>'
_ACTIONS = ("flag", "purify", "block")


def share(name: str, value: float, total: int) -> Row:
    """A share with its interval."""
    count = min(total, max(0, round(value * total)))
    return {
        name: count / total,
        f"{name}_low": round(lower_bound(count, total, 0.975), 4),
        f"{name}_high": round(upper_bound(count, total, 0.975), 4),
    }


def _attacks(draw: random.Random) -> list[Row]:
    rows: list[Row] = []
    told = [("attack", name, "oblivious") for name in NAMES]
    told += [("transfer", f"transfer_{name}", "transfer") for name in ("pgd8", "smooth8")]
    told += [("attack", f"grey{bound}", "grey-box") for bound in (2, 8)]
    for kind, name, threat in told:
        caught = draw.uniform(0.5, 0.98)
        row: Row = {"kind": kind, "name": name, "attack": name, "family": "gradient_linf"}
        row |= {"threat": threat, "tuned_on": name == "pgd2", "tried": 200, "samples": 160}
        row |= share("success", 0.8, 200) | share("tpr", caught, 160)
        row |= share("tpr_at_1", caught - 0.1, 160) | share("tpr_at_5", caught + 0.02, 160)
        row |= share("auroc", min(0.999, caught + 0.05), 160) | {"failed": 0}
        right = {"none": 0.2, "flag": 0.2, "purify": 0.62, "purify_always": 0.66, "block": 0.9}
        for action, value in right.items():
            row |= share(f"robust_{action}", value, 200)
        rows.append(row | {"l2": 1.2, "linf_255": 8.0})
    return rows


def _benign(draw: random.Random) -> list[Row]:
    rows: list[Row] = []
    kinds = {
        "benign": ("clean", "noise", "jpeg", "photometric", "blur", "shift"),
        "unseen": ("video_frame", "gamma", "rotation", "webp", "downscaled", "saturation"),
        "ood": ("dead_leaves", "texture", "gradient", "inverted"),
    }
    for kind, names in kinds.items():
        for name in names:
            rate = draw.uniform(0.002, 0.012) if kind == "benign" else draw.uniform(0.005, 0.06)
            row: Row = {"kind": kind, "name": name, "samples": 300} | share("fpr", rate, 300)
            if kind != "ood":
                right = {"none": 0.92, "flag": 0.92, "purify": 0.918, "block": 0.91}
                for action, value in right.items():
                    row |= share(f"accuracy_{action}", value, 300)
            rows.append(row)
    return rows


def _adaptive() -> list[Row]:
    rows: list[Row] = []
    for branch in ("unflagged", "flagged on purpose", "either"):
        for eps in (2, 8):
            row: Row = {"kind": "adaptive", "threat": "adaptive", "tuned_on": False}
            row |= {"branch": branch, "eps_255": eps, "steps": 50, "samples": 32}
            row |= share("strongest", eps / 11, 32) | share("undefended_strongest", 1.0, 32)
            rows.append(row)
    return rows


def _asked() -> list[Row]:
    rows: list[Row] = []
    for name, reads in (("square_queries", "scores"), ("hop_skip_jump_queries", "class")):
        for action in ("none", *_ACTIONS):
            row: Row = {"kind": "query", "name": name, "threat": "black-box query"}
            row |= {"tuned_on": False, "action": action, "reads": reads, "budget": 300}
            row |= {"samples": 10} | share("success", 0.8 if action == "none" else 0.3, 10)
            row |= share("unflagged_success", 0.1, 10) | share("detected", 0.9, 10)
            row |= {"queries_median": 41.0, "queries_mean": 120.3, "detected_at_median": None}
            row |= {"queries_to_success": "" if action == "block" else "3 41 41 250"}
            rows.append(row | {"flagged_per_query": 0.2, "ms_per_query": 5.1})
    return rows


def _served(draw: random.Random) -> list[Row]:
    rows: list[Row] = []
    for action in _ACTIONS:
        for name in ("clean", "pgd8"):
            row: Row = {"kind": "served", "action": action, "name": name, "threat": "oblivious"}
            rows.append(row | {"samples": 20} | share("right", 0.7, 20) | share("refused", 0, 20))
        whole: Row = {"kind": "served", "action": action, "name": "all", "samples": 40}
        rows.append(whole | share("agreement", 1.0, 40))
        for traffic in ("clean", "attacked"):
            head: Row = {"action": action, "traffic": traffic, "samples": 300}
            latency: Row = {"kind": "latency", **head}
            for percent, added in ((50, 1.2), (99, 4.1)):
                added += draw.random()
                latency |= {f"p{percent}_ms": 3 + added, f"pass_through_p{percent}_ms": 3.0}
                latency |= {f"added_p{percent}_ms": added}
            rows += [latency, {"kind": "cost", **head, "cpu_ms": 2.1, "upstream_calls": 1.3}]
    return rows


def lineage(**changes: Any) -> Lineage:
    """What is known of a file of 2,000 images, 100 of them copies."""
    copies = Finding(count=100, looked_at=2000, how="equal to an earlier one", examples=(7, 9))
    none = Finding(count=0, looked_at=2000, how="looked at")
    fields: dict[str, Any] = {
        "sha256": "ab" * 32,
        "source": "cameras of the north gate",
        "kind": "image",
        "samples": 2000,
        "shape": (3, 32, 32),
        "dtype": "uint8",
        "classes": Classes(
            count=10, smallest=190, largest=210, effective=9.9, samples={"0": 210, "1": 190}
        ),
        "duplicates": copies,
        "near_duplicates": none,
        "effective": 1900,
        "constant": none,
        "outliers": none,
        "date": "2026-01-02T03:04:05+00:00",
        "versions": {"breakwater": "0.1.0", "torch": "2.13.0", "numpy": "1.26.4"},
    }
    return Lineage.model_validate(fields | changes)


def report(**changes: Any) -> dict[str, Any]:
    """The content of a `report.json`."""
    draw = random.Random(5)
    rows = [*_attacks(draw), *_benign(draw), *_adaptive(), *_asked(), *_served(draw)]
    return {
        "breakwater": "0.1.0",
        "date": "2026-01-03T03:04:05+00:00",
        "commit": "abcdef0",
        "machine": "2 cores",
        "command": "breakwater evaluate --config a.yaml --model resnet20 --data '<b>.npz'",
        "model": "resnet20",
        "seed": 0,
        "data": lineage().model_dump(mode="json"),
        "policy": {"fpr": 0.01, "action": "purify", "detectors": ["residual", "margin"]},
        "rows": rows,
    } | changes


def pictures() -> dict[str, dict[str, npt.NDArray[np.uint8]]]:
    """Two lines of small images."""
    draw = np.random.default_rng(1)
    captions = ("original", "attacked", "difference x8", "purified")
    return {
        name: {each: draw.integers(0, 256, (3, 32, 32), dtype=np.uint8) for each in captions}
        for name in ("pgd8", "patch8")
    }


def evaluation() -> Evaluation:
    """Fused scores that tell attacks from benign images fairly well."""
    draw = np.random.default_rng(2)
    kinds = [("benign", name, 0.0) for name in ("clean", "noise", "jpeg")]
    kinds += [("attack", name, 2.0 + i / 4) for i, name in enumerate(NAMES)]
    made = []
    for role, name, shift in kinds:
        fused = (draw.normal(0, 1, 300) + shift).astype(np.float32)
        made.append(Kind(role, name, fused[:, None], fused))
    threats = dict.fromkeys(NAMES, "oblivious")
    return Evaluation(("residual",), tuple(made), about={"threats": threats})
