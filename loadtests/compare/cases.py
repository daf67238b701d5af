"""Every way to reach the model in one run, and the proof that its answers are right."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tritonclient.grpc as triton_client
import yaml

from loadtests.compare.repository import VARIANTS
from loadtests.compare.systems import calibrate, defended, start_art_proxy, start_mlserver
from loadtests.compare.workload import Workload
from loadtests.harness import Child
from loadtests.sidecar import start_breakwater, write_config
from tuning.triton import EmbeddedTriton

DIRECT, PASS_THROUGH, BREAKWATER = "direct", "breakwater pass-through", "breakwater"
MLSERVER, BLS, ART_PROXY = "mlserver + art", "triton bls", "grpc.aio + art"
UNDEFENDED = (DIRECT, PASS_THROUGH)
_FAILED = ("breakwater_detector_failures_total", "breakwater_fail_open_total")
_TOLERANCE = 2e-3
"""Of logits of deviation 3: a batch of another size rounds differently."""


@dataclass(frozen=True)
class Case:
    """One way to reach the model at one size."""

    system: str
    variant: str
    """How many workers or instances, where several are tried."""
    address: str
    model: str
    pid: int | None
    """The process beside Triton; None where there is none."""
    admin: str = ""
    """Where Breakwater's metrics are."""


@dataclass(frozen=True)
class Checked:
    """What a case did with what is sent, each image once."""

    calls: int
    """Requests that the classifier answered for all images together."""
    flagged: int


Cases = dict[str, list[Case]]
"""By size; a system occurs once for each of its variants."""


def start_cases(
    stack: ExitStack, folder: Path, workloads: tuple[Workload, ...], triton: EmbeddedTriton
) -> Cases:
    """Start every system; they stay up side by side and end with the stack."""
    upstream = triton.grpc_address
    found: Cases = {workload.name: [] for workload in workloads}

    def add(
        system: str, variant: str, started: tuple[Child, str], *, only: str = "", admin: str = ""
    ) -> None:
        child, address = started
        stack.callback(child.stop)
        for workload in workloads:
            if only in ("", workload.name):
                case = Case(system, variant, address, workload.classifier, child.pid, admin)
                found[workload.name].append(case)

    models = {w.classifier: defended(calibrate(folder, w, upstream)) for w in workloads}
    for workload in workloads:
        found[workload.name].append(Case(DIRECT, "", upstream, workload.classifier, None))
    bare = write_config(folder / "pass-through.yaml", upstream, {})
    add(PASS_THROUGH, "", start_breakwater(bare))
    for workers, memory in ((1, "off"), (1, "system"), (2, "system")):
        # With "system" tensors go to Triton through shared memory, as BLS passes them on.
        config = write_config(
            folder / f"breakwater-{workers}-{memory}.yaml",
            upstream,
            models,
            upstream_shared_memory=memory,
        )
        admin = yaml.safe_load(config.read_text())["admin"]
        variant = f"{workers} workers, shared memory {memory}"
        add(BREAKWATER, variant, start_breakwater(config, workers), admin=admin)
    for workers in (0, 2):
        started = start_mlserver(folder, workloads, upstream, workers)
        add(MLSERVER, f"{workers} workers", started)
    for workload in workloads:
        for variant in VARIANTS:
            case = Case(BLS, f"{variant.suffix} instances", upstream, variant.model(workload), None)
            found[workload.name].append(case)
        add(ART_PROXY, "", start_art_proxy(folder, workload, upstream), only=workload.name)
    return found


def answered(triton: EmbeddedTriton, model: str) -> int:
    """How many requests of a model Triton has answered."""
    url = f"http://127.0.0.1:{triton.http_port}/v2/models/{model}/stats"
    with urllib.request.urlopen(url) as answer:
        statistics = json.load(answer)["model_stats"][0]["inference_stats"]
    return int(statistics["success"]["count"])


def ask(case: Case, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The logits a case gives for one image, (K,)."""
    with triton_client.InferenceServerClient(case.address) as client:
        given = triton_client.InferInput("image", [1, *x.shape], "FP32")
        given.set_data_from_numpy(x[None])
        wanted = [triton_client.InferRequestedOutput("logits")]
        answer = client.infer(case.model, [given], outputs=wanted).as_numpy("logits")
    return np.asarray(answer).reshape(-1)


def check(case: Case, workload: Workload, triton: EmbeddedTriton) -> Checked:
    """Send every image once and compare the answers with the network's own.

    Raises:
        RuntimeError: a wrong answer, or a wrong image flagged.
    """
    before = answered(triton, workload.classifier)
    answers = np.stack([ask(case, x) for x in workload.sent.numpy()])
    calls = answered(triton, workload.classifier) - before
    with torch.inference_mode():
        own = workload.network(workload.sent).numpy()
    as_is = np.abs(answers - own).max(1) <= _TOLERANCE
    expected = np.ones(len(own), bool)
    expected[-1] = case.system in UNDEFENDED
    if (as_is != expected).any():
        wrong = np.flatnonzero(as_is != expected).tolist()
        far = np.abs(answers - own).max(1).round(4).tolist()
        raise RuntimeError(f"{case.system} ({case.variant}): images {wrong} of {far}")
    return Checked(calls, int((~as_is).sum()))


def unjudged(case: Case) -> int:
    """Requests so far that Breakwater passed or refused without a verdict."""
    with urllib.request.urlopen(f"http://{case.admin}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(round(float(line.rpartition(" ")[2])) for line in lines if line.startswith(_FAILED))


def fastest(cases: list[Case], rate: Callable[[Case], float]) -> list[Case]:
    """The best variant of every system, in order; `rate` is asked only where there are several."""
    variants: dict[str, list[Case]] = {}
    for case in cases:
        variants.setdefault(case.system, []).append(case)
    return [some[0] if len(some) == 1 else max(some, key=rate) for some in variants.values()]
