"""One request being inspected: all that its phases share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy import wire
from proxy.adapt import ModelSpec
from proxy.budget import Budget, timed
from proxy.case import Buffer
from proxy.config import Model
from proxy.defence import Defence
from proxy.errors import DeadlineExceeded, DetectorFailed, InvalidTensor
from proxy.flow import Flow
from proxy.upstream import Metadata

if TYPE_CHECKING:
    from proxy.scoring import Scorer


@dataclass(frozen=True, slots=True)
class Image:
    """The inspected tensor of a request, and what looks at it."""

    index: int
    """Its place among the request's inputs."""
    data: Buffer
    shape: tuple[int, ...]
    spec: ModelSpec
    scorer: Scorer
    """Taken once a request: Triton may describe the model anew in the meantime."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """A request to a model that is to be scored."""

    flow: Flow
    defence: Defence
    model: Model
    """The defence's configuration, which is there when there is something to score."""
    request: wire.InferRequest
    metadata: Metadata | None
    """The client's, sent along with the proxy's own queries."""
    budget: Budget
    longest_s: float
    """Most seconds the model server gets where the client has set no deadline."""

    @property
    def timeout_s(self) -> float:
        """Seconds the model server may still take."""
        return self.flow.left_s(self.longest_s)

    @property
    def left_s(self) -> float:
        """Seconds the defence may still take: of its budget, or before the client's deadline."""
        return min(self.budget.left_s, self.flow.left_s(self.budget.left_s))

    def overrun(self) -> DetectorFailed | DeadlineExceeded:
        """What to raise where that does not suffice.

        The budget is the policy's, and `on_failure` decides. The deadline is the client's: if it
        let a request pass unjudged, clients could choose one that does.
        """
        if self.flow.left_s(self.longest_s) < self.budget.left_s:
            return DeadlineExceeded("the deadline leaves no time for the request to be judged")
        return DetectorFailed("budget")

    @property
    def in_sequence(self) -> bool:
        """Whether the request belongs to a sequence whose state it changes.

        The client's word for it counts only where the model may keep state at all.
        """
        spec = self.defence.spec
        if spec is not None and not spec.may_be_stateful:
            return spec.stateful
        if "sequence_id" not in self.request.head.parameters:
            return False
        value = self.request.head.parameters["sequence_id"]
        return bool(value.int64_param or value.string_param)

    @property
    def must_go_on(self) -> bool:
        """Whether it belongs to a sequence by Triton's own word, so that it is never blocked.

        The client's does not count: calling anything a sequence would be a way past wherever the
        model is an ensemble, or Triton's description of it restricted.
        """
        return self.defence.spec is not None and self.defence.spec.stateful

    @contextmanager
    def waiting(self, stage: str) -> Iterator[None]:
        """Count the time spent inside as this stage's, and against the budget."""
        with self.budget.running(), timed(self.flow, stage):
            yield

    def image(self) -> Image | None:
        """What there is to look at; None, and counted, where there is nothing.

        Raises:
            DetectorFailed: the model cannot be scored yet, or takes an input nobody knows.
            InvalidTensor: the tensor is not of the model's datatype.
        """
        spec, scorer = self.defence.spec, self.defence.scorer
        if spec is None or scorer is None:
            raise DetectorFailed("not_ready", self.defence.problem)
        known = (spec.input, *spec.ignored_inputs)
        if any(t.name not in known for t in self.request.tensors):
            # Another version of the model may have other inputs, and look at these.
            raise DetectorFailed("no_evidence", "an input that the configuration does not know")
        tensor = next((t for t in self.request.tensors if t.name == spec.input), None)
        if tensor is None:
            # Nothing to look at; a model that needs the tensor will say so itself.
            self.defence.metrics.unscored("no_tensor")
            return None
        if tensor.shared_memory is not None:
            self.defence.metrics.unscored("shared_memory")
            return None
        if tensor.datatype != spec.datatype:
            raise InvalidTensor(
                f"input {tensor.name!r} is {tensor.datatype}, the model takes {spec.datatype}"
            )
        return Image(tensor.index, tensor.payload(), tensor.shape, spec, scorer)
