"""Gathers evidence on samples through Triton, as the proxy will see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from rich.progress import Progress, TaskID
from torch import Tensor

from detectors.base import Detector, Evidence, peer_key
from proxy.adapt import ModelSpec
from proxy.upstream import Upstream
from tuning.model_client import ModelClient, as_seen


class Witness:
    """Asks the model about samples and their views, and other models about the samples.

    Args:
        parts: say what evidence is needed; the model is asked only if one needs its answers.
        progress: gets a task for each call of `evidence`.
        generator: of random views, on the CPU.
    """

    def __init__(
        self,
        upstream: Upstream,
        spec: ModelSpec,
        parts: Sequence[Detector],
        progress: Progress,
        generator: torch.Generator,
    ) -> None:
        asks = any(d.asks for d in parts)
        self._client = ModelClient(upstream, spec) if asks else None
        peers = dict.fromkeys(peer for d in parts for peer in d.peers)
        # Another model is asked in this one's terms: the same inputs, the same kind of answer.
        self._peers = {
            peer_key(peer): ModelClient(upstream, replace(spec, model=peer)) for peer in peers
        }
        self._spec = spec
        self._views = {view.key: view for d in parts for view in d.views}
        self._progress = progress
        self._generator = generator

    async def evidence(self, groups: Mapping[str, Tensor], title: str) -> dict[str, Evidence]:
        """Evidence on groups of samples, each (N, ...) as read from a file."""
        seen = {name: as_seen(self._spec, samples) for name, samples in groups.items()}
        if self._client is None:
            return {group: Evidence(samples) for group, samples in seen.items()}
        asked = 1 + len(self._views) + len(self._peers)
        total = sum(len(samples) for samples in seen.values()) * asked
        task = self._progress.add_task(title, total=total)
        return {
            group: await self._of(self._client, samples, task) for group, samples in seen.items()
        }

    async def _of(self, client: ModelClient, x: Tensor, task: TaskID) -> Evidence:
        output = await self._ask(client, x, task)
        answers = {
            key: await self._ask(client, view.purify(x, self._generator), task)
            for key, view in self._views.items()
        }
        answers |= {key: await self._ask(peer, x, task) for key, peer in self._peers.items()}
        return Evidence(x, output, answers)

    async def _ask(self, client: ModelClient, x: Tensor, task: TaskID) -> Tensor:
        return await client.answers(x, lambda count: self._progress.advance(task, count))
