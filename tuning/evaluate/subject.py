"""The model under evaluation with its configured defence, its data, and how it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from rich.progress import Progress
from torch import Tensor

from detectors.base import Detector
from detectors.benign import rounded
from detectors.rule import Rule
from proxy import artifacts, parts, weights
from proxy.adapt import ModelSpec, resolve
from proxy.config import Config, Model
from proxy.defences import describe
from proxy.devices import use_device
from proxy.errors import ConfigError, ProxyError
from proxy.rules import Rules
from proxy.scoring import check_evidence
from proxy.upstream import Upstream
from purifiers import Purifier
from tuning import dataset, local_model
from tuning.batches import affordable
from tuning.evaluate.network import free_threads
from tuning.evaluate.store import Store, digest
from tuning.local_model import LocalModel
from tuning.model_client import ModelClient, as_seen

_CHECKED = 128
"""Images a copy of the model is compared on."""
_CHUNK = 128

T = TypeVar("T")


@dataclass(frozen=True)
class Subject:
    """Everything an evaluation rests on."""

    config: Config
    name: str
    model: Model
    spec: ModelSpec
    artifact: artifacts.Artifact
    detectors: tuple[Detector, ...]
    """As configured, with what the calibration holds for them."""
    purifiers: tuple[Purifier, ...]
    rule: Rule
    """Takes the scores of all detectors, at the configured rate."""
    data: dataset.Dataset
    x: Tensor
    """The data as the proxy reads it, rounded to 8 bits, (N, C, H, W)."""
    y: Tensor
    """(N,)."""
    copy: LocalModel | None
    surrogate: LocalModel | None
    store: Store
    seed: int
    progress: Progress

    @classmethod
    def load(
        cls,
        config: Config,
        name: str,
        data: Path,
        *,
        model_file: Path | None = None,
        surrogate_file: Path | None = None,
        work: Path,
        seed: int = 0,
        progress: Progress,
    ) -> Subject:
        """Read and check all of it; Triton must be running.

        Args:
            surrogate_file: a model of the attacker's own that takes the same inputs.
            work: folder of what is kept between runs.

        Raises:
            ConfigError: something is missing or does not fit.
        """
        model = _model(config, name)
        found = _labelled(data, model)
        device = use_device("cpu", threads=free_threads())
        assert model.calibration is not None  # noqa: S101 (detectors demand one)
        artifact = artifacts.load(model.calibration, name, model, device)
        detectors, purifiers = _equipped(model, artifact, device)
        spec = _asked(config, name, lambda upstream: _spec(upstream, name, model))
        check_evidence(spec, detectors)
        copy, surrogate = (
            None if file is None else local_model.load(file, spec, device)
            for file in (model_file, surrogate_file)
        )
        subject = cls(
            config=config,
            name=name,
            model=model,
            spec=spec,
            artifact=artifact,
            detectors=detectors,
            purifiers=purifiers,
            rule=Rules(name, model, artifact.calibration, detectors).whole,
            data=found,
            x=rounded(as_seen(spec, found.x)),
            y=torch.from_numpy(found.y),
            copy=copy,
            surrogate=surrogate,
            store=Store(work),
            seed=seed,
            progress=progress,
        )
        subject.check()
        return subject

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image, (C, H, W)."""
        return tuple(self.x.shape[1:])

    @property
    def identity(self) -> str:
        """Tells served models apart: name, versions, and how they answer now."""
        return f"{self.name} {self.spec} {digest(self._probe)}"

    @property
    def classes(self) -> int:
        """How many the model tells apart."""
        return self._probe.shape[1]

    def answers(self, x: Tensor, title: str = "asking the model") -> Tensor:
        """The served model's own answers, (N, K).

        Raises:
            ConfigError: the model cannot be asked.
        """
        task = self.progress.add_task(title, total=len(x))

        async def ask(upstream: Upstream) -> Tensor:
            client = ModelClient(upstream, self.spec)
            return await client.answers(x, lambda count: self.progress.advance(task, count))

        return self.ask(ask) if len(x) else torch.zeros(0, 2)

    def ask(self, question: Callable[[Upstream], Awaitable[T]]) -> T:
        """What Triton says, by a connection of its own.

        Raises:
            ConfigError: it cannot be asked.
        """
        return _asked(self.config, self.name, question)

    def check(self) -> None:
        """Raise ConfigError where labels, copies or answers do not fit the served model."""
        answers = self._probe
        classes = answers.shape[1]
        if not (int(self.y.min()) >= 0 and int(self.y.max()) < classes):
            raise ConfigError(
                f"y has labels from {int(self.y.min())} to {int(self.y.max())}, but model "
                f"{self.name} answers with {classes} classes, 0 to {classes - 1}"
            )
        if self.copy is not None:
            self.copy.check(self.x[:_CHECKED], answers, affordable(_CHUNK, self.shape))
        if self.surrogate is not None:
            share = self.surrogate.agreement(
                self.x[:_CHECKED], answers, affordable(_CHUNK, self.shape)
            )
            if share < 2 / classes:
                raise ConfigError(
                    f"--surrogate-file gives the served model's class for {share:.0%} of "
                    f"{len(answers)} images, hardly more than chance: check that it takes the "
                    "values that go over the wire and has the same order of classes"
                )

    @cached_property
    def _probe(self) -> Tensor:
        return self.answers(self.x[:_CHECKED], "checking the model")


def _model(config: Config, name: str) -> Model:
    model = config.models.get(name)
    if model is None:
        known = ", ".join(config.models) or "none"
        raise ConfigError(f"no model {name!r} in the configuration (there: {known})")
    if not model.detectors:
        raise ConfigError(f"models.{name} lists no detectors, so there is no defence to evaluate")
    if model.kind != "image":
        raise ConfigError(
            f"models.{name} takes {model.kind}s: `breakwater evaluate` has attacks on images only "
            "so far"
        )
    if model.output.kind == "none":
        raise ConfigError(f"models.{name}.output is none: attacks need the model's class scores")
    return model


def _equipped(
    model: Model, artifact: artifacts.Artifact, device: torch.device
) -> tuple[tuple[Detector, ...], tuple[Purifier, ...]]:
    """The configured parts with what they learned."""
    detectors, purifiers = parts.build_detectors(model), parts.build_purifiers(model)
    weights.give([*detectors, *purifiers], artifact.networks)
    for detector in detectors:
        detector.load_state(artifact.states[detector.name], device)
    return detectors, purifiers


def _labelled(data: Path, model: Model) -> dataset.Dataset:
    found = dataset.load(data, model.kind)
    if found.y is None:
        raise ConfigError(
            f"{data} has no labels: an evaluation needs the array y, (N,) true classes, beside x"
        )
    return found


async def _spec(upstream: Upstream, name: str, model: Model) -> ModelSpec:
    return resolve(name, model, *await describe(upstream, name))


def _asked(config: Config, name: str, question: Callable[[Upstream], Awaitable[T]]) -> T:
    async def asked() -> T:
        upstream = Upstream(
            config.upstream, max_message_bytes=config.max_message_bytes, tls=config.upstream_tls
        )
        try:
            return await question(upstream)
        finally:
            await upstream.close()

    try:
        return asyncio.run(asked())
    except ConfigError:
        raise
    except ProxyError as error:
        raise ConfigError(
            f"the model {name} cannot be asked at {config.upstream}: {error}; "
            "is Triton running there?"
        ) from error
