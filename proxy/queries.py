"""The proxy's own questions: what does the model say to copies of this image?"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from proxy.answers import Output, check_whose, copies_request, read_output, rows_of
from proxy.case import Buffer
from proxy.errors import (
    DeadlineExceeded,
    DetectorFailed,
    Overloaded,
    ProxyError,
    UpstreamError,
    UpstreamUnavailable,
)
from proxy.flow import new_request_id
from proxy.inspection import Image, Inspection
from proxy.tasks import Tasks
from proxy.upstream import Upstream

_SHARE = 0.9
"""Of the time left, for answers."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of a query."""

    outputs: dict[str, Output]
    """By the name of the copy."""
    failure: DetectorFailed | Overloaded | None = None
    """Why some are missing, if so."""
    unanswered: frozenset[str] = frozenset()
    """Those to hold against their detectors, if the model did answer the client."""


class Query:
    """Answers to come.

    Args:
        kind: what tells it from those that take another time.
        asked: each call, with the names of the copies in it.
        is_small: it is about one sample, so that it should not take long.
    """

    def __init__(
        self,
        kind: Hashable,
        asked: Mapping[asyncio.Task[dict[str, Output]], Sequence[str]],
        tasks: Tasks,
        *,
        is_small: bool,
    ) -> None:
        self.kind = kind
        self._asked = dict(asked)
        self._tasks = tasks
        self._is_small = is_small

    def let_go(self) -> None:
        """Nobody waits for the rest any more."""
        for task in self._asked:
            self._tasks.let_go(task)

    async def within(self, seconds: float) -> Answers:
        """What has come by then; returns as soon as all has, or one call has failed."""
        done, late = await asyncio.wait(
            self._asked, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION
        )
        outputs: dict[str, Output] = {}
        failure: DetectorFailed | Overloaded | None = None
        unanswered: set[str] = set()
        for task in done:
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if error is None:
                outputs |= task.result()
                continue
            failure = _told(error)
            if not _befalls_all(error):
                unanswered |= {*self._asked[task]}
        if late and failure is None:
            failure = DetectorFailed("budget")
            if self._is_small:  # clients choose how much they ask at a time
                unanswered = {key for task in late for key in self._asked[task]}
        return Answers(outputs, failure, frozenset(unanswered))


def _told(error: BaseException) -> DetectorFailed | Overloaded:
    if isinstance(error, DetectorFailed | Overloaded):
        return error
    if isinstance(error, asyncio.CancelledError):
        return DetectorFailed("error", "a call about copies was given up")
    if not isinstance(error, ProxyError):
        raise error
    failure = DetectorFailed("error", f"the model refused a copy: {error}")
    failure.__cause__ = error
    return failure


def _befalls_all(error: BaseException) -> bool:
    """Whether the client's own call will have failed as well, so that no detector is to blame.

    The server is gone, or finds fault with the request, which the copies' is made like.
    """
    if isinstance(error, UpstreamError):
        return error.code_name == "INVALID_ARGUMENT"
    return isinstance(error, UpstreamUnavailable)


class Queries:
    """Asks about one request; its queries may take as long as the model has when this is made.

    That is longer than the budget: the copies are asked about while the model answers the client,
    and only the wait beyond that answer counts as the defence's.

    Args:
        samples: those of the request that the copies hold; all of them by default.
    """

    def __init__(
        self,
        upstream: Upstream,
        tasks: Tasks,
        inspection: Inspection,
        image: Image,
        samples: Sequence[int] | None = None,
    ) -> None:
        self._upstream = upstream
        self._tasks = tasks
        self._inspection = inspection
        self._image = image
        self._samples = samples
        self._timeout_s = inspection.timeout_s

    @property
    def original(self) -> Buffer:
        """The unchanged copy of the samples, as a raw wire tensor."""
        if self._samples is None:
            return self._image.data
        return rows_of(self._inspection.request.tensors[self._image.index], self._samples)

    def start(
        self, kind: Hashable, copies: Mapping[str, Buffer], peers: Mapping[str, str]
    ) -> Query:
        """Ask the model about the copies, raw wire tensors by name, and others about the original.

        Args:
            kind: as for `Query`.
            peers: name of the answer -> the other model; something is to be asked.
        """
        # As many copies in one call as the model's batch limit allows.
        spec = self._image.spec
        per_call = max(1, spec.batch_limit // max(1, self.rows)) if spec.has_batch_axis else 1
        keys = list(copies)
        groups = [keys[i : i + per_call] for i in range(0, len(keys), per_call)]
        asked = {
            self._tasks.start(self._ask(group, [copies[k] for k in group]), quiet=True): group
            for group in groups
        }
        asked |= {
            self._tasks.start(self._ask([key], [self.original], peer), quiet=True): [key]
            for key, peer in peers.items()
        }
        return Query(kind, asked, self._tasks, is_small=self.rows == 1)

    async def _ask(
        self, keys: Sequence[str], copies: Sequence[Buffer], peer: str | None = None
    ) -> dict[str, Output]:
        spec, inspection = self._image.spec, self._inspection
        name = new_request_id()
        message = copies_request(
            *(inspection.request, spec, self._image.index, copies, peer, self._samples),
            request_id=name,
        )
        with inspection.flow.calling("query", inspection.metadata) as metadata:
            answer = await self._upstream.infer(
                message, timeout_s=self._timeout_s, metadata=metadata
            )
        check_whose(answer.data, name)
        output = read_output(answer.data, spec, self.rows * len(copies))
        if output is None:
            raise DetectorFailed("no_evidence", "the model's answer has no class scores")
        return dict(zip(keys, np.split(output, len(copies)), strict=True))

    @property
    def rows(self) -> int:
        """Samples in one copy."""
        if self._samples is not None:
            return len(self._samples)
        return self._image.shape[0] if self._image.spec.has_batch_axis else 1


def patience_s(inspection: Inspection) -> float:
    """How long answers may still take: what is there by then is yet to be judged."""
    return _SHARE * inspection.left_s


async def wait(inspection: Inspection, query: Query) -> Answers:
    """The answers to a query that come within the budget.

    Raises:
        DeadlineExceeded: the client's deadline came first.
    """
    with inspection.waiting("views"):
        answers = await query.within(patience_s(inspection))
    if isinstance(answers.failure, DetectorFailed) and answers.failure.reason == "budget":
        cause = inspection.overrun()
        if isinstance(cause, DeadlineExceeded):
            raise cause
    return answers
