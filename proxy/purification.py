"""The device side of purifying: suspicious samples to clean ones, several copies to one answer.

Runs on the device thread, on lists of items that the batcher put together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from proxy.adapt import ModelSpec
from proxy.case import Buffer, Splice, Suspects
from proxy.codec import Codec
from proxy.config import Model
from proxy.errors import ConfigError, DetectorFailed, InvalidTensor
from proxy.memory_ladder import MemoryLadder, Pass
from proxy.tensors import PixelCodec
from purifiers import Chain, Purifier
from purifiers.aggregate import majority_vote, mean_of_probabilities

Drawn = tuple[Buffer, ...]
Answers = npt.NDArray[np.float32]

_LEAST = math.log(torch.finfo(torch.float32).tiny)
_RULES = {"mean": mean_of_probabilities, "vote": majority_vote}


class Purifying(Protocol):
    """Purifies the suspicious samples of many requests in one pass."""

    @property
    def purifies(self) -> bool:
        """Whether there is a purifier at all."""
        ...

    def purify(self, items: Sequence[Suspects]) -> list[Splice | Exception]:
        """The suspicious samples purified, as replacements within their wire tensors."""
        ...

    def redraw(self, items: Sequence[Suspects]) -> list[Drawn | Exception]:
        """Purified copies beside the one served: raw wire tensors of the suspicious samples."""
        ...

    def combine(self, items: Sequence[Answers]) -> list[Answers | Exception]:
        """One answer from those to all copies, (V, S, K) -> (S, K) each."""
        ...


class Purification:
    """The purifiers of one model.

    Args:
        spec: the model's tensors.
        codec: of its input.
        model: its configuration.
        chain: its purifiers, with their networks.
        device: where to compute.

    Raises:
        ConfigError: copies are to be aggregated that this model cannot be asked about.
    """

    def __init__(
        self,
        spec: ModelSpec,
        codec: Codec,
        model: Model,
        chain: Sequence[Purifier],
        device: torch.device,
    ) -> None:
        self._spec = spec
        self._codec = codec
        self._device = device
        self._purifier = Chain(chain) if chain else None
        # What comes before the first random purifier is the same for every copy.
        steady = list(takewhile(lambda part: not part.is_random, chain))
        self._steady = Chain(steady) if steady else None
        self._random = Chain(chain[len(steady) :]) if len(steady) < len(chain) else None
        self._aggregate = model.aggregate
        if model.aggregate is not None and not spec.can_query:
            raise ConfigError(
                f"models.{spec.model}.aggregate: a stateful or decoupled model cannot be asked "
                "about several copies; remove it"
            )

    @property
    def purifies(self) -> bool:
        """Whether there is a purifier at all."""
        return self._purifier is not None

    def purify(self, items: Sequence[Suspects]) -> list[Splice | Exception]:
        """The suspicious samples purified, as replacements within their wire tensors."""
        if self._spec.encoded:
            return [self._spliced_files(item) for item in items]
        clean = memoryview(self._codec.encode(self._purified(_suspicious(items, self._device))))
        results: list[Splice | Exception] = []
        at = 0
        for item in items:
            width = len(item.data) // len(item.glance.x)
            pieces: list[tuple[int, Buffer]] = []
            for sample in item.samples:
                pieces.append((sample * width, clean[at : at + width]))
                at += width
            results.append(pieces)
        return results

    def redraw(self, items: Sequence[Suspects]) -> list[Drawn | Exception]:
        """Purified copies beside the one served: raw wire tensors of the suspicious samples."""
        assert self._aggregate is not None  # noqa: S101 (only then are copies asked for)
        more = self._aggregate.copies - 1
        if self._spec.encoded:
            return [self._copied_files(item, more) for item in items]
        assert self._random is not None  # noqa: S101 (`build_purifiers` demands one)
        x = _suspicious(items, self._device)
        x = x if self._steady is None else self._steady.purify(x)
        drawn = [self._random.purify(x).cpu() for _ in range(more)]
        results: list[Drawn | Exception] = []
        at = 0
        for item in items:
            rows = slice(at, at + len(item.samples))
            at = rows.stop
            results.append(tuple(self._codec.encode(copy[rows]) for copy in drawn))
        return results

    def combine(self, items: Sequence[Answers]) -> list[Answers | Exception]:
        """One answer from those to all copies, as the model would give it.

        Args:
            items: answers to V copies of S samples each, (V, S, K), as `answers.read_output`.

        Returns:
            (S, K) each: log-probabilities, and for a model that answers with logits, logits with
            the mean normaliser of the copies' own. Bare log-probabilities among the logits of a
            batch would tell the caller which samples are suspected.
        """
        assert self._aggregate is not None  # noqa: S101 (only then are answers combined)
        rule = _RULES[self._aggregate.rule]
        results: list[Answers | Exception] = []
        for item in items:
            answers = torch.from_numpy(item)
            scores = rule(answers).clamp(min=_LEAST)
            if self._spec.output_kind == "logits":
                scores = scores + answers.logsumexp(2).mean(0)[:, None]
            usable = bool(torch.isfinite(scores).all())
            results.append(scores.numpy() if usable else DetectorFailed("non_finite"))
        return results

    def _purified(self, x: Tensor) -> Tensor:
        assert self._purifier is not None  # noqa: S101 (the configuration demands one to purify)
        return self._purifier.purify(x.to(self._device)).cpu()

    def _spliced_files(self, item: Suspects) -> Splice | Exception:
        codec = PixelCodec(self._spec)
        files = codec.files(item.data)
        for sample in item.samples:
            try:
                files[sample] = codec.edit_file(files[sample], self._purified)
            except InvalidTensor as error:
                return error
        return codec.frame(files)

    def _copied_files(self, item: Suspects, more: int) -> tuple[Buffer, ...] | Exception:
        codec = PixelCodec(self._spec)
        files = codec.files(item.data)
        try:
            return tuple(
                codec.frame([codec.edit_file(files[i], self._purified) for i in item.samples])
                for _ in range(more)
            )
        except InvalidTensor as error:
            return error


class ResilientPurification:
    """The same on as many samples at a time as the memory allows.

    Args:
        plain: does the work.
        ladder: falls and recovers.
        on_cpu: gives the same on the CPU; None where that is the device itself.
    """

    def __init__(
        self,
        plain: Purifying,
        ladder: MemoryLadder,
        on_cpu: Callable[[], Purifying] | None,
    ) -> None:
        self._plain = plain
        self._ladder = ladder
        self._on_cpu = on_cpu

    @property
    def purifies(self) -> bool:
        """See `Purifying`."""
        return self._plain.purifies

    def purify(self, items: Sequence[Suspects]) -> list[Splice | Exception]:
        """See `Purifying`."""
        twin = self._on_cpu
        on_cpu = None if twin is None else lambda part: twin().purify(part)
        work = Pass(("purify", _sample(items)), _count, self._plain.purify, on_cpu)
        return self._ladder.run(work, items)

    def redraw(self, items: Sequence[Suspects]) -> list[Drawn | Exception]:
        """See `Purifying`."""
        twin = self._on_cpu
        on_cpu = None if twin is None else lambda part: twin().redraw(part)
        work = Pass(("redraw", _sample(items)), _count, self._plain.redraw, on_cpu)
        return self._ladder.run(work, items)

    def combine(self, items: Sequence[Answers]) -> list[Answers | Exception]:
        """See `Purifying`; on the CPU in any case."""
        return self._plain.combine(items)


def _sample(items: Sequence[Suspects]) -> tuple[int, ...]:
    return tuple(items[0].glance.x.shape[1:])


def _count(item: Suspects) -> int:
    return len(item.samples)


def _suspicious(items: Sequence[Suspects], device: torch.device) -> Tensor:
    """The suspicious samples of all items, one after the other, wherever they were looked at."""
    return torch.cat([item.glance.x[list(item.samples)].to(device) for item in items])
