"""Measures anchors: sidecars side by side, one blocking client that asks them in turn.

Request by request, so that what disturbs the machine disturbs all alike.
"""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import torch
from torch import Tensor

from detectors.base import Detector, Evidence, Need, peer_key
from proxy import artifacts, rpc, weights
from proxy.config import Config, Model
from proxy.errors import ConfigError
from tuning.demo.sidecar import Sidecar
from tuning.narrow import Whole
from tuning.processes import cpu_s
from tuning.search.latency import Anchor, Cost, cost
from tuning.search.space import Space
from tuning.variants import Variant

TIMEOUT_S = 30.0
WARM_UP = 30
"""Requests before any that count: first passes are many times dearer than later ones."""
PATIENT_MS = 1000.0
"""Budget of what is measured: a busy machine must not make a defence cheap by leaving it out."""
_STARTED_AT_ONCE = 2
_REPEATS = 30
_VERDICT = "breakwater-verdict"


@dataclass(frozen=True, slots=True)
class Running:
    """One sidecar and how to ask it."""

    sidecar: Sidecar
    call: Any
    messages: tuple[bytes, ...]


class Stand:
    """Sidecars of several policies, up at the same time; they end with the context.

    Args:
        config: the configuration they differ from in one model.
        whole: the calibration they are narrowed from.
        messages: requests of one sample each, like ordinary traffic.
    """

    def __init__(self, config: Config, whole: Whole, messages: Sequence[bytes]) -> None:
        self._config, self._whole = config, whole
        self._messages = tuple(messages)
        self._stack = ExitStack()
        self._folder = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="breakwater-tune-"))
        )
        self.running: dict[str, Running] = {}

    def start(
        self, models: Mapping[str, Model | None], on_start: Callable[[], None] = lambda: None
    ) -> None:
        """Start a sidecar for each policy, by name; None: no defence at all.

        Raises:
            ConfigError: one does not become ready.
        """
        with ThreadPoolExecutor(_STARTED_AT_ONCE) as starters:
            made = {name: starters.submit(self._start, name, m) for name, m in models.items()}
            failures = []
            for name, each in made.items():
                try:
                    sidecar = each.result()
                except ConfigError as error:
                    failures.append(error)
                    continue
                self._stack.callback(sidecar.stop)
                channel = self._stack.enter_context(
                    grpc.insecure_channel(sidecar.address, _OPTIONS)
                )
                call = channel.unary_unary(rpc.INFER.path)
                self.running[name] = Running(sidecar, call, self._messages)
                on_start()
        if failures:
            raise failures[0]

    def only_flagged(self, name: str) -> bool:
        """Ask this one, which annotates, about such requests alone as it flags; False: none is."""
        running = self.running[name]
        kept = []
        for message in dict.fromkeys(running.messages):
            _, answered = running.call.with_call(message, timeout=TIMEOUT_S)
            told = dict(answered.trailing_metadata() or ())
            if told.get(_VERDICT) == "suspicious":
                kept.append(message)
        if kept:
            self.running[name] = Running(running.sidecar, running.call, tuple(kept))
        return bool(kept)

    def ask_in_turn(
        self, names: Sequence[str], requests: int, on_round: Callable[[], None] = lambda: None
    ) -> dict[str, Cost]:
        """What each costs, from so many requests to each.

        Raises:
            ConfigError: one answers with an error.
        """
        self._times(names, WARM_UP, lambda: None)
        spent = {name: cpu_s(self.running[name].sidecar.pid) for name in names}
        times = self._times(names, requests, on_round)
        return {
            name: cost(
                times[name],
                1000 * (cpu_s(self.running[name].sidecar.pid) - spent[name]) / requests,
            )
            for name in names
        }

    def _times(
        self, names: Sequence[str], requests: int, on_round: Callable[[], None]
    ) -> dict[str, list[float]]:
        times: dict[str, list[float]] = {name: [] for name in names}
        for i in range(requests):
            turn = i % len(names)
            for name in [*names[turn:], *names[:turn]]:
                running = self.running[name]
                started = time.perf_counter()
                try:
                    running.call(running.messages[i % len(running.messages)], timeout=TIMEOUT_S)
                except grpc.RpcError as error:
                    raise ConfigError(f"{name}: a request failed: {error.details()}") from error
                times[name].append(1000 * (time.perf_counter() - started))
            on_round()
        return times

    def _start(self, name: str, model: Model | None) -> Sidecar:
        folder = self._folder / f"{len(list(self._folder.iterdir()))}-{abs(hash(name)):x}"
        folder.mkdir()
        variant = Variant(name, model, 0)
        return Sidecar(variant.write(folder, self._config, self._whole), folder / "log")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()


_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


def patient(space: Space, anchor: Anchor) -> Model | None:
    """The policy of an anchor, as it is measured."""
    if anchor.candidate is None:
        return None
    return space.policy(anchor.candidate).model_copy(
        update={"budget_ms": PATIENT_MS, "annotate": anchor.flagged, "max_waste": 1.0}
    )


def score_ms(space: Space, whole: Whole, x: Tensor, classes: int) -> dict[str, float]:
    """Milliseconds of each detector's score and copies, for one sample, in this process.

    Args:
        x: samples as detectors see them, (N, ...), N >= 1.
        classes: answers of the model.
    """
    device = torch.device("cpu")
    found = artifacts.load(whole.folder, whole.name, whole.model, device)
    weights.give(space.scoring, found.networks)
    for part in space.scoring:
        part.load_state(found.states[part.name], device)
    generator = torch.Generator().manual_seed(0)
    return {part.name: _timed(part, x[:1], classes, generator) for part in space.scoring}


def _timed(part: Detector, x: Tensor, classes: int, generator: torch.Generator) -> float:
    if part.needs is Need.HISTORY:
        return 0.0
    answer = 4 * torch.randn(1, max(classes, 2), generator=generator)
    keys = [*(view.key for view in part.views), *(peer_key(peer) for peer in part.peers)]
    views = {key: 4 * torch.randn(1, max(classes, 2), generator=generator) for key in keys}
    taken = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        for view in part.views:
            view.purify(x, generator)
        part.score(Evidence(x, answer, views))
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)


def samples_seen(metrics: str) -> dict[str, float]:
    """Verdict -> samples so far, of one scrape."""
    counts: dict[str, float] = {}
    for verdict, count in _SAMPLES.findall(metrics):
        counts[verdict] = counts.get(verdict, 0.0) + float(count)
    return counts


_SAMPLES = re.compile(r'^breakwater_samples_total\{.*verdict="(\w+)"\} (\S+)', re.MULTILINE)
