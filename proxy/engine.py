"""A scorer that is warm before it is used, and does not fail for want of memory on its device."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod

import torch
from torch import nn

from detectors.base import Need
from proxy.adapt import ModelSpec
from proxy.artifacts import Artifact
from proxy.case import Case, Glance, Pixels, Suspects
from proxy.config import Model
from proxy.flow import SampleVerdict
from proxy.history.salts import Salts
from proxy.memory_ladder import MemoryLadder, Pass
from proxy.purification import Purification, ResilientPurification
from proxy.scoring import Scorer

WARM_BATCHES = (1, 8)
"""Samples in the passes run before the first request. torch and oneDNN choose and build what they
run by shape the first time, and the allocator gets its memory: `loadtests/NOTES.md`, Device."""

_BYTES = {"FP64": 8, "FP32": 4, "FP16": 2, "BF16": 2, "INT16": 2, "UINT8": 1, "INT8": 1}


log = logging.getLogger(__name__)


class Engine(Scorer):
    """What a `Scorer` is, and the same on the CPU for when the device has no memory left.

    Args:
        spec: the model's tensors.
        model: its configuration.
        artifact: its calibration.
        device: where to compute.
        on_detector: told each detector's name and seconds per pass.
        salts: as for `Scorer`.
        ladder: falls and recovers; for this engine alone.

    Raises:
        ConfigError: as for `Scorer`.
    """

    def __init__(
        self,
        spec: ModelSpec,
        model: Model,
        artifact: Artifact,
        device: torch.device,
        on_detector: Callable[[str, float], None],
        salts: Salts | None = None,
        *,
        ladder: MemoryLadder,
    ) -> None:
        self._is_warming = False
        super().__init__(spec, model, artifact, device, self._timed(on_detector), salts)
        self._ladder = ladder
        self._build_twin = partial(
            _twin, spec, model, artifact, on_detector=on_detector, salts=salts
        )
        self._twin: Scorer | None = None
        self.purification = ResilientPurification(
            self.purification, ladder, self._pure_twin if self._has_twin else None
        )

    def look(self, items: Sequence[Pixels]) -> list[Glance | Exception]:
        """See `Scorer.look`; on as many items at a time as the memory allows."""
        batched = self._spec.has_batch_axis
        shape = items[0].shape
        work = Pass(
            ("look", shape[1:] if batched else shape, items[0].copies),
            lambda item: item.shape[0] if batched else 1,
            super().look,
            (lambda part: self._on_cpu().look(part)) if self._has_twin else None,
        )
        return self._ladder.run(work, items)

    def judge(self, cases: Sequence[Case]) -> list[tuple[SampleVerdict, ...] | Glance | Exception]:
        """See `Scorer.judge`; on as many cases at a time as the memory allows."""
        judge, there, cpu = super().judge, self._device, torch.device("cpu")
        work: Pass[Case, tuple[SampleVerdict, ...] | Glance | Exception] = Pass(
            ("judge", tuple(cases[0].glance.x.shape[1:]), tuple(cases[0].views)),
            lambda case: max(1, len(case.glance.rows)),
            lambda part: judge([_moved(case, there) for case in part]),
            (lambda part: self._on_cpu().judge([_moved(case, cpu) for case in part]))
            if self._has_twin
            else None,
        )
        return self._ladder.run(work, cases)

    def warm_up(self, batches: Sequence[int] = WARM_BATCHES) -> None:
        """Run each pass that needs no answers on blank samples; not on the device thread.

        Models without a fixed sample shape stay cold: which shapes will come is not known.
        """
        self._is_warming = True
        try:
            for size in batches:
                self._warm(self._blank(size))
        # What fails here fails again on a request, where it is counted and `on_failure` decides.
        except Exception as error:  # noqa: BLE001
            log.warning("model %s: not warmed up: %s", self._spec.model, error)
        finally:
            self._is_warming = False
            self.circuits.reset()

    # -- parts -----------------------------------------------------------------------------------

    def _warm(self, items: Sequence[Pixels]) -> None:
        found = super().look(items) if items else []
        suspects = [
            Suspects(glance, item.data, tuple(range(len(glance.x))))
            for glance, item in zip(found, items, strict=True)
            if isinstance(glance, Glance) and len(glance.x)
        ]
        if suspects and self.purification.purifies:
            self.purification.purify(suspects)

    @property
    def _has_twin(self) -> bool:
        return self._device.type != "cpu"

    def _on_cpu(self) -> Scorer:
        """The same detectors on the CPU, built when first needed."""
        if self._twin is None:
            self._twin = self._build_twin()
            # One object, so that a judgement begun here goes on there, and all rotate together.
            self._twin._rules = self._rules
            self._twin._panel.circuits = self.circuits
        return self._twin

    def _pure_twin(self) -> Purification:
        twin = self._on_cpu().purification
        assert isinstance(twin, Purification)  # noqa: S101 (a plain scorer's is)
        return twin

    def _timed(self, on_detector: Callable[[str, float], None]) -> Callable[[str, float], None]:
        """What is run to warm up is no request's time."""

        def told(name: str, seconds: float) -> None:
            if not self._is_warming:
                on_detector(name, seconds)

        return told

    def _blank(self, size: int) -> list[Pixels]:
        """One request of so many samples, all wire values 0; none of unknown shape."""
        spec = self._spec
        most = spec.max_batch if spec.has_batch_axis else 1
        if spec.encoded:
            if spec.size is None:
                return []
            x = torch.zeros(size if spec.has_batch_axis else 1, 3, *spec.size)
            return [Pixels(self._codec.encode(x), self._codec.wire_shape(x), self._asks)]
        sample = spec.shape[1:] if spec.has_batch_axis else spec.shape
        if any(axis < 1 for axis in sample) or (most is not None and size > most):
            return []
        shape = (size, *sample) if spec.has_batch_axis else sample
        return [Pixels(bytes(prod(shape) * _BYTES[spec.datatype]), shape, self._asks)]

    @property
    def _asks(self) -> bool:
        return any(d.needs is Need.VIEWS for d in self._detectors)


def _twin(
    spec: ModelSpec,
    model: Model,
    artifact: Artifact,
    *,
    on_detector: Callable[[str, float], None],
    salts: Salts | None,
) -> Scorer:
    return Scorer(spec, model, on_cpu(artifact), torch.device("cpu"), on_detector, salts)


def on_cpu(artifact: Artifact) -> Artifact:
    """The same calibration with its tensors on the CPU; takes no memory of the device."""
    return replace(
        artifact,
        states={
            name: {key: tensor.cpu() for key, tensor in state.items()}
            for name, state in artifact.states.items()
        },
        networks={
            name: replace(trained, network=_copied(trained.network))
            for name, trained in artifact.networks.items()
        },
    )


def _copied(network: nn.Module) -> nn.Module:
    """A copy whose tensors are on the CPU from the first: the device has no room for one more."""
    here: Mapping[int, object] = {
        **{id(p): nn.Parameter(p.detach().cpu(), p.requires_grad) for p in network.parameters()},
        **{id(b): b.detach().cpu() for b in network.buffers()},
    }
    return copy.deepcopy(network, dict(here))


def _moved(case: Case, device: torch.device) -> Case:
    """The case with its pixels there; the rest of it is on the CPU anyway."""
    x = case.glance.x
    if x.device.type == device.type:
        return case
    return replace(case, glance=replace(case.glance, x=x.to(device)))
