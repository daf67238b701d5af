"""The defences of all configured models: built from the configuration, completed by Triton."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from proxy import rpc, shadow_policy
from proxy.adapt import ModelSpec, resolve
from proxy.breaker import State
from proxy.calibration_age import CalibrationAge
from proxy.config import Config, Model
from proxy.defence import Defence, Onlooker
from proxy.errors import ConfigError, UpstreamError, UpstreamUnavailable
from proxy.keyfile import read_key
from proxy.metrics import Metrics
from proxy.pb import open_inference_pb2 as pb
from proxy.upstream import Upstream

if TYPE_CHECKING:
    import torch

    from detectors.calibration import Calibration
    from detectors.drift_reference import Reference
    from proxy.artifacts import Artifact
    from proxy.history.salts import Salts
    from proxy.scoring import Scorer

_ASK_TIMEOUT_S = 5.0

Description = tuple[pb.ModelMetadataResponse, pb.ModelConfig | None]
"""What Triton says of a model; the configuration is None where it is restricted."""

log = logging.getLogger(__name__)


class Defences:
    """Defences by model name.

    Args:
        config: the configuration; calibrations are loaded and checked at once.
        metrics: told the models and their thresholds.
        salts: of the fingerprints of models whose queries are remembered.

    Raises:
        ConfigError: a part is unknown, or a calibration missing, foreign or stale.
    """

    def __init__(self, config: Config, metrics: Metrics, salts: Salts | None = None) -> None:
        self.config = config
        self._salts = salts
        self._metrics = metrics
        self._artifacts: dict[str, Artifact] = {}
        self._references: dict[str, Reference] = {}
        self._seconds: dict[str, tuple[Model, Artifact]] = {}
        self._described: dict[str, Description] = {}
        self._device: torch.device | None = None
        if any(model.detectors for model in config.models.values()):
            self._load()
        metrics.configure(
            {name: [d.name for d in model.detectors] for name, model in config.models.items()}
        )
        self._known = {
            name: Defence(name, model, metrics.model(name), model.non_finite)
            for name, model in config.models.items()
        }
        self._ages = [
            CalibrationAge(name, artifact.provenance.date, config.models[name], metrics.model(name))
            for name, artifact in self._artifacts.items()
        ]
        self.note_ages()
        for name in self._seconds:
            self._known[name].shadow = self._onlooker(name, config.models[name])
        self._other = Defence(
            "other",
            None,
            metrics.model("other"),
            config.non_finite,
            refused=config.unlisted_models == "refuse",
        )

    def find(self, model: str) -> Defence:
        """The defence of a model; one without configuration for a model that is not listed."""
        return self._known.get(model, self._other)

    @property
    def needs_device(self) -> bool:
        """Whether anything is to be scored at all."""
        return bool(self._artifacts)

    def digest(self, model: str) -> str:
        """Digest of a model's defence, see `Artifact.digest`; empty without detectors."""
        artifact = self._artifacts.get(model)
        return "" if artifact is None else artifact.digest

    def calibrated(self) -> dict[str, tuple[Model, Calibration]]:
        """The models that are scored: configuration and calibration by name."""
        return {
            name: (self.config.models[name], artifact.calibration)
            for name, artifact in self._artifacts.items()
        }

    def reference(self, model: str) -> Reference:
        """What benign traffic of a model that is scored looks like, for drift to be seen."""
        return self._references[model]

    def models(self) -> list[Defence]:
        """The configured models' defences."""
        return list(self._known.values())

    def note_ages(self) -> None:
        """Report calibrations that have grown old by now."""
        for age in self._ages:
            age.look(time.time())

    def learn_from(self, previous: Defences) -> None:
        """Take over what Triton has said of its models, for those it says nothing of now.

        A configuration that comes while Triton is being restarted must not undo the defences.
        """
        self._described = {**previous._described, **self._described}

    async def refresh(self, upstream: Upstream) -> None:
        """Ask Triton about every configured model and complete or mend what has changed.

        Raises:
            UpstreamUnavailable: Triton cannot be reached, and has not described a model yet that is
                not ready; nothing was changed.
            UpstreamError: Triton takes too long; what it had described by then is in force.
        """
        for defence in self._known.values():
            if defence.model is None:
                continue
            try:
                self._described[defence.name] = await describe(upstream, defence.name)
            except UpstreamUnavailable:
                if defence.is_ready or defence.name not in self._described:
                    raise
            except UpstreamError as error:
                if error.code_name == "DEADLINE_EXCEEDED":
                    raise  # the others would have to wait as long
                if defence.is_ready or defence.name not in self._described:
                    self._report(defence, f"Triton does not describe it: {error.details}")
                    continue
            await self._complete(defence, defence.model)
            if defence.shadow is not None and defence.shadow.defence.model is not None:
                await self._complete(defence.shadow.defence, defence.shadow.defence.model)

    async def _complete(self, defence: Defence, model: Model) -> None:
        """Build or mend what depends on Triton's description."""
        try:
            spec = resolve(defence.name, model, *self._described[defence.name])
            if spec != defence.spec or not defence.is_ready:
                scorer = None
                if defence.wants_scoring:  # tenths of a second, in which the traffic goes on
                    scorer = await asyncio.to_thread(self._scorer, defence, spec)
                defence.spec, defence.scorer = spec, scorer
            defence.problem = ""
        except ConfigError as error:
            defence.scorer = None
            # What is only validated need not be an image.
            if defence.wants_scoring:
                self._report(defence, str(error))

    async def rotate(self) -> None:
        """Go over to the detectors of this epoch, where a secret draws them, beside the traffic."""
        onlookers = [each.shadow.defence for each in self._known.values() if each.shadow]
        for defence in (*self._known.values(), *onlookers):
            scorer = defence.scorer
            if scorer is not None and await asyncio.to_thread(scorer.rotate):
                _publish(defence, scorer)

    def _report(self, defence: Defence, problem: str) -> None:
        if problem != defence.problem:
            defence.problem = problem
            is_shadow = self._known.get(defence.name) is not defence
            what = "has no shadow" if is_shadow else "is not defended"
            log.warning("model %s %s: %s", defence.name, what, problem)

    def _load(self) -> None:
        from detectors.drift_reference import Reference
        from proxy import devices

        self._device = devices.use_device(
            self.config.device,
            threads=self.config.torch_threads,
            memory_fraction=self.config.gpu_memory_fraction,
        )
        for name, model in self.config.models.items():
            if model.detectors:
                loaded = _loaded(name, model, self._device)
                self._artifacts[name] = artifact = loaded[0]
                self._references[name] = Reference.of_calibration(
                    artifact.calibration, model.fpr, artifact.reference
                )
                if loaded[1] is not None:
                    self._seconds[name] = loaded[1]

    def _onlooker(self, name: str, model: Model) -> Onlooker:
        counts = self._metrics.shadow(name)
        share = 1.0 if model.shadow is None else model.shadow.share
        looking, _ = self._seconds[name]
        return Onlooker(Defence(name, looking, counts, looking.non_finite), counts, share)

    def _scorer(self, defence: Defence, spec: ModelSpec) -> Scorer:
        from proxy.engine import Engine
        from proxy.memory_ladder import MemoryLadder

        assert defence.model is not None  # noqa: S101 (wants_scoring implies a model)
        assert self._device is not None  # noqa: S101 (set by _load)
        artifact, salts = self._artifacts[defence.name], self._salts
        if self._known[defence.name] is not defence:  # the shadow, which remembers nothing
            artifact, salts = self._seconds[defence.name][1], None
        scorer = Engine(
            *(spec, defence.model, artifact, self._device, defence.metrics.detector, salts),
            ladder=MemoryLadder(self._metrics.device_fallback),
        )
        served, calibrated = ",".join(spec.versions), scorer.provenance.model_version
        if served != calibrated:
            log.warning(
                "model %s was calibrated on version %s, Triton serves %s: calibrate again",
                *(defence.name, calibrated, served),
            )
        defence.metrics.calibration_stale("model_version", served != calibrated)
        scorer.warm_up()
        _publish(defence, scorer)
        return scorer


def _publish(defence: Defence, scorer: Scorer) -> None:
    scorer.circuits.on_change = partial(_circuit_changed, defence)
    for level, (threshold, fpr_upper) in scorer.threshold_bounds.items():
        defence.metrics.threshold(level, threshold, fpr_upper)


def _circuit_changed(defence: Defence, detector: str, state: State) -> None:
    """Tell the operator; half open is neither here nor there."""
    if state is not State.HALF_OPEN:
        is_open = state is State.OPEN
        defence.metrics.circuit(detector, is_open=is_open)
        what = "left out: it keeps failing or takes too long" if is_open else "at work again"
        log.warning("model %s: detector %s is %s", defence.name, detector, what)


def check(config: Config) -> None:
    """Load what a configuration names as `Defences` does, on the CPU, and let it go.

    Raises:
        ConfigError: as `Defences` does, for the first model that cannot be defended; or the
            history's key cannot be used.
    """
    if config.history.key_file is not None and any(m.remembers for m in config.models.values()):
        read_key("history", config.history.key_file)
    if any(model.detectors for model in config.models.values()):
        from proxy import devices

        for name, model in config.models.items():
            if model.detectors:
                _loaded(name, model, devices.CPU)


_Second = tuple[Model, "Artifact"]


def _loaded(name: str, model: Model, device: torch.device) -> tuple[Artifact, _Second | None]:
    """A model's calibration, and its shadow with that one's."""
    artifact = _artifact(name, model, model, device)
    if model.shadow is None:
        return artifact, None
    second = shadow_policy.load(name, model, model.shadow)
    looking = shadow_policy.lookable(second)
    try:
        return artifact, (looking, _artifact(name, second, looking, device))
    except ConfigError as error:
        raise ConfigError(f"models.{name}.shadow: {error}") from error


def _artifact(name: str, model: Model, scored: Model, device: torch.device) -> Artifact:
    """A policy's calibration.

    Args:
        scored: what of the policy judges requests.
    """
    from proxy import artifacts, parts, rules

    assert model.calibration is not None  # noqa: S101 (which detectors need)
    parts.build_purifiers(model)
    detectors = parts.build_detectors(scored)
    artifact = artifacts.load(model.calibration, name, model, device)
    # A rate or a secret that cannot be used is refused at start, not when Triton comes.
    rules.Rules(name, scored, artifact.calibration, detectors)
    return artifact


async def describe(upstream: Upstream, model: str) -> Description:
    """Triton's metadata and configuration of a model; the latter None where it is restricted.

    Raises:
        ProxyError: Triton cannot be reached or does not know the model.
    """
    metadata = await upstream.call(
        rpc.RPCS["ModelMetadata"].path,
        pb.ModelMetadataRequest(name=model).SerializeToString(),
        timeout_s=_ASK_TIMEOUT_S,
    )
    config = None
    try:
        answer = await upstream.call(
            rpc.RPCS["ModelConfig"].path,
            pb.ModelConfigRequest(name=model).SerializeToString(),
            timeout_s=_ASK_TIMEOUT_S,
        )
        config = pb.ModelConfigResponse.FromString(answer.data).config
    except UpstreamError as error:
        if error.code_name == "DEADLINE_EXCEEDED":
            raise  # busy, not restricted: a guess without it could be worse than the last answer
        log.debug("no configuration of model %s: %s", model, error)
    return pb.ModelMetadataResponse.FromString(metadata.data), config
