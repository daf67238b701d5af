"""What happens when the device runs out of memory: smaller batches, then the CPU, then up again.

Runs on the device thread alone, so there are no locks. Knows nothing of what a pass does.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

Fallback = Literal["smaller_batch", "cpu"]

COOL_DOWN_S = 30.0
"""How long a pass that ran out of memory is kept small. Trying the full batch too early costs one
failed pass and the emptying of the allocator's cache; 30 s makes that less than a pass in a
thousand, and is short beside the minutes that another model on the same GPU takes to come or go."""

_TEXTS = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "DefaultCPUAllocator")
"""Libraries that allocate by themselves raise a plain RuntimeError with one of these."""

log = logging.getLogger(__name__)


def is_out_of_memory(error: Exception) -> bool:
    """Whether less work at a time could have gone well."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


@dataclass(frozen=True, slots=True)
class Pass(Generic[Item, Result]):
    """One kind of work on the device."""

    key: Hashable
    """Work with equal keys needs about as much memory for each sample."""
    samples: Callable[[Item], int]
    """How many samples an item has."""
    on_device: Callable[[Sequence[Item]], Sequence[Result]]
    on_cpu: Callable[[Sequence[Item]], Sequence[Result]] | None
    """The same on the CPU; None where that is the device itself."""


@dataclass(slots=True)
class _Rung:
    """What a pass may do for now."""

    until_s: float
    together: float = math.inf
    """Most samples of several items at a time."""
    alone: float = math.inf
    """An item with so many samples or more goes to the CPU."""


class MemoryLadder:
    """Runs passes as large as the memory allows.

    A batch that does not fit is halved until it does; one item that does not fit alone runs on the
    CPU. What did not fit is not tried again until a cool-down is over.

    Args:
        on_fallback: told each time that a batch is run in parts, or an item on the CPU.
        cool_down_s: how long to stay small, seconds.
        now: seconds of a clock that does not go back.
    """

    def __init__(
        self,
        on_fallback: Callable[[Fallback], None],
        *,
        cool_down_s: float = COOL_DOWN_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_fallback = on_fallback
        self._cool_down_s = cool_down_s
        self._now = now
        self._rungs: dict[Hashable, _Rung] = {}
        self._is_short = False

    def run(self, work: Pass[Item, Result], items: Sequence[Item]) -> list[Result]:
        """The results of all items, in order.

        Raises:
            Exception: whatever the pass raises, running out of memory on the CPU included.
        """
        self._expire()
        parts = list(self._parts(work, items))
        if len(parts) > 1:
            self._on_fallback("smaller_batch")
        results = [result for part in parts for result in self._try(work, part)]
        if self._is_short and not self._rungs:
            self._is_short = False
            log.info("the device has memory again: full batches")
        return results

    def _expire(self) -> None:
        if self._rungs:
            now = self._now()
            self._rungs = {key: rung for key, rung in self._rungs.items() if rung.until_s > now}

    def _parts(self, work: Pass[Item, Result], items: Sequence[Item]) -> Iterator[Sequence[Item]]:
        """The items in groups that may be run together."""
        rung = self._rungs.get(work.key)
        if rung is None:
            yield items
            return
        part: list[Item] = []
        samples = 0
        for item in items:
            size = work.samples(item)
            if part and samples + size > rung.together:
                yield part
                part, samples = [], 0
            part.append(item)
            samples += size
        yield part

    def _try(self, work: Pass[Item, Result], items: Sequence[Item]) -> list[Result]:
        samples = sum(map(work.samples, items))
        rung = self._rungs.get(work.key)
        # Where the CPU is the device there is nothing below: what failed a moment ago may go well.
        is_worth_it = rung is None or len(items) > 1 or samples < rung.alone
        if is_worth_it or work.on_cpu is None:
            results = self._attempt(work, items)
            if results is not None:
                return results
            self._fall(work.key, samples, alone=len(items) == 1)
        if len(items) > 1:
            self._on_fallback("smaller_batch")
            middle = len(items) // 2
            return self._try(work, items[:middle]) + self._try(work, items[middle:])
        self._on_fallback("cpu")
        if work.on_cpu is None:
            raise MemoryError(f"{samples} samples do not fit into memory")
        return list(work.on_cpu(items))

    def _attempt(self, work: Pass[Item, Result], items: Sequence[Item]) -> list[Result] | None:
        """The results; None when the memory did not suffice.

        What comes next is done after the exception is gone: its traceback holds the frames, and
        with them the tensors, of the pass that failed.
        """
        try:
            return list(work.on_device(items))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if not self._is_short:
                self._is_short = True
                log.warning(
                    "out of memory on the device: smaller batches, then the CPU, for %g s (%s)",
                    *(self._cool_down_s, str(error)),  # not the error: a handler may keep it
                )
            return None

    def _fall(self, key: Hashable, samples: int, *, alone: bool) -> None:
        rung = self._rungs.setdefault(key, _Rung(0.0))
        rung.until_s = self._now() + self._cool_down_s
        if alone:
            rung.alone = min(rung.alone, samples)
        else:
            rung.together = min(rung.together, samples // 2)
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # what is left may be in pieces too small to use
