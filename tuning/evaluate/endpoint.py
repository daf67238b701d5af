"""Running sidecars, one for each action, and clients that ask them one image a request."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import torch
from torch import Tensor

from proxy import rpc, wire
from proxy.adapt import ModelSpec
from proxy.answers import read_output
from proxy.errors import ConfigError
from proxy.kinds import codec_of
from tuning.demo.sidecar import Sidecar
from tuning.evaluate.oracle import Answer, Image
from tuning.evaluate.subject import Subject
from tuning.narrow import Whole
from tuning.variants import PASS_THROUGH, Variant

HEADER = "x-breakwater-evaluate"
"""Metadata key that says who asks."""
AS_DEPLOYED = "as deployed"
"""The action of an endpoint that is not ours: what it does is for its operator to say."""
VERDICT = "breakwater-verdict"
_TIMEOUT_S = 30.0
_PATIENT_MS = 10_000.0
"""A busy machine must not make a defence that is late look like none."""
_REFUSED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.PERMISSION_DENIED)


@dataclass(frozen=True)
class Site:
    """Where a model is served."""

    action: str
    """flag, purify, block, `PASS_THROUGH` or `AS_DEPLOYED`."""
    address: str
    pid: int | None = None


@dataclass(frozen=True)
class Reply:
    """What came back for one image."""

    scores: Tensor | None
    """(K,); None where it was refused."""
    verdict: str
    """pass, suspicious or failed; empty where nobody says."""


class Client:
    """Asks one address, one image a request.

    Args:
        principal: who asks, unless a question says otherwise.
    """

    def __init__(self, site: Site, spec: ModelSpec, principal: str) -> None:
        option = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        self._channel = grpc.insecure_channel(site.address, option)
        self._call: Any = self._channel.unary_unary(rpc.INFER.path)
        self._site, self._spec, self._principal = site, spec, principal
        self._codec = codec_of(spec)
        self._refuses = site.action in ("block", AS_DEPLOYED)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close()

    def send(self, x: Tensor, principal: str | None = None) -> Reply:
        """The reply to one image, (C, H, W) in [0, 1].

        Raises:
            ConfigError: an error that is no refusal.
        """
        sender = ((HEADER, principal or self._principal),)
        try:
            answer, call = self._call.with_call(
                message(self._spec, x), timeout=_TIMEOUT_S, metadata=sender
            )
        except grpc.RpcError as error:
            # What is blocked looks like a busy server, so that nobody learns why.
            if self._refuses and error.code() in _REFUSED and not _is_gone(error):
                return Reply(None, _verdict(error.trailing_metadata()) or "suspicious")
            raise ConfigError(
                f"{self._site.address} ({self._site.action}) answers {error.code().name}: "
                f"{str(error.details())[:200]}"
            ) from error
        scores = read_output(answer, self._spec, 1)
        if scores is None:
            raise ConfigError(f"{self._site.address}: the answer holds no class scores")
        return Reply(torch.from_numpy(scores[0].copy()), _verdict(call.trailing_metadata()))

    def ask(self, image: Image) -> Answer:
        """The same as `oracle.Oracle` has it."""
        reply = self.send(torch.from_numpy(np.ascontiguousarray(image)))
        scores = None if reply.scores is None else reply.scores.numpy()
        return Answer(scores, ((VERDICT, reply.verdict),))


def message(spec: ModelSpec, x: Tensor) -> bytes:
    """A request for one image, (C, H, W)."""
    codec, one = codec_of(spec), x[None]
    tensors = [(spec.input, spec.datatype, codec.wire_shape(one), codec.encode(one))]
    return wire.build_infer_request(spec.model, "", tensors, [spec.output or ""])


def _is_gone(error: Any) -> bool:
    """Whether nobody was there to refuse."""
    return "connect" in str(error.details()).lower()


def _verdict(metadata: Any) -> str:
    found = dict(metadata or ()).get(VERDICT, "")
    return found if isinstance(found, str) else ""


@contextlib.contextmanager
def sites(subject: Subject, endpoint: str | None, folder: Path) -> Iterator[list[Site]]:
    """Undefended first, then each action; processes of their own that end with this.

    Args:
        endpoint: host:port of a running sidecar, which is then the only one asked.
        folder: for configurations and logs.

    Raises:
        ConfigError: a sidecar did not become ready.
    """
    if endpoint is not None:
        upstream = Site(PASS_THROUGH, subject.config.upstream)
        yield [upstream, Site(AS_DEPLOYED, endpoint)]
        return
    task = subject.progress.add_task("starting sidecars", total=None)
    variants = _variants(subject)
    with contextlib.ExitStack() as stack:
        with ThreadPoolExecutor(len(variants)) as pool:
            waiting = [pool.submit(_start, subject, folder, variant) for variant in variants]
        failed = [each for each in waiting if each.exception() is not None]
        running = [each.result() for each in waiting if each not in failed]
        for sidecar in running:
            stack.callback(sidecar.stop)
        for each in failed:
            each.result()
        subject.progress.update(task, total=1, completed=1)
        yield [
            Site(variant.name, sidecar.address, sidecar.pid)
            for variant, sidecar in zip(variants, running, strict=True)
        ]


def _variants(subject: Subject) -> list[Variant]:
    model = subject.model
    actions = ["flag", *(["purify"] if model.purifiers else []), "block"]
    patient = max(model.budget_ms, _PATIENT_MS)
    found = [Variant(PASS_THROUGH, None, 0)]
    for action in actions:
        changed = {"mode": "enforce", "action": action, "annotate": True, "budget_ms": patient}
        if action != "purify":
            changed["aggregate"] = None
        found.append(Variant(action, model.model_copy(update=changed), 4))
    return found


def _start(subject: Subject, folder: Path, variant: Variant) -> Sidecar:
    own = folder / variant.name
    own.mkdir(parents=True, exist_ok=True)
    config = subject.config.model_copy(update={"principal_header": HEADER})
    assert subject.model.calibration is not None  # noqa: S101 (detectors demand one)
    whole = Whole(subject.model.calibration, subject.name, subject.model)
    return Sidecar(variant.write(own, config, whole), own / "log")
