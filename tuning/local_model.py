"""The local copy of a served model that guided parts are trained against.

A model file is a program, and reading it means trusting it as one. TorchScript (.pt) and ONNX
hold graphs and numbers, but what loads them is native code; `torch.export.load` (.pt2) falls back
to unpickling and evaluates size expressions, so a file made by an enemy could run anything. They
are the operator's own files: only `breakwater fit` reads them, `serve` never does, and nothing of
them but the digest is kept.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from proxy.adapt import ModelSpec
from proxy.errors import ConfigError

AGREEMENT = 0.99
"""Least share of images on which the copy must give the served model's class."""

LogitModel = Callable[[Tensor], Tensor]
"""(B, C, H, W) pixels in [0, 1] -> (B, K) logits or log-probabilities, differentiable."""


class LocalModel:
    """A model file as a differentiable function of pixels.

    The file is a copy of what is served, so it takes the values that go over the wire (the same
    range or mean/std, the same order of axes, always with a batch axis and as floating point) and
    returns what the served model returns. For encoded inputs: pixels in [0, 1], NCHW.

    Args:
        network: of the file, on the device.
        sha256: digest of the file.
        spec: of the served model.
        device: where to compute.
    """

    def __init__(
        self, network: nn.Module, sha256: str, spec: ModelSpec, device: torch.device
    ) -> None:
        self.sha256 = sha256
        self._network = network
        self._spec = spec
        self._low = torch.tensor(spec.low, device=device).view(1, -1, 1, 1)
        self._span = torch.tensor(spec.high, device=device).view(1, -1, 1, 1) - self._low

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of (B, C, H, W) pixels in [0, 1], or log-probabilities, as the model returns."""
        wire = x * self._span + self._low
        if (self._spec.layout or "").endswith("HWC"):
            wire = wire.permute(0, 2, 3, 1)
        scores = _only(self._network(wire), self._spec.output).flatten(1)
        if self._spec.output_kind == "probabilities":
            return scores.clamp(min=torch.finfo(torch.float32).tiny).log()
        return scores

    def agreement(self, x: Tensor, answers: Tensor, batch: int) -> float:
        """Share of the images on which the copy's class is that of the served model's answer.

        Args:
            x: (N, C, H, W) on the model's device.
            answers: the served model's, (N, K).
            batch: images to ask about at a time.

        Raises:
            ConfigError: the copy does not take such images.
        """
        try:
            with torch.no_grad():
                classes = torch.cat([self(part).argmax(1).cpu() for part in x.split(batch)])
        except Exception as error:
            raise ConfigError(
                f"the model file cannot be asked about {tuple(x.shape[1:])} images as they go to "
                f"{self._spec.model}: {error}. It must take batches of any size: export it with a "
                "free batch axis"
            ) from error
        return float((classes == answers.argmax(1)).float().mean())

    def check(self, x: Tensor, answers: Tensor, batch: int) -> None:
        """Raise ConfigError unless the copy answers as the served model does; see `agreement`."""
        share = self.agreement(x, answers, batch)
        if share >= AGREEMENT:
            return
        raise ConfigError(
            f"the model file gives the class {self._spec.model} gives for {share:.0%} of "
            f"{len(x)} images ({AGREEMENT:.0%} are needed). Check that it is the served version, "
            "in evaluation mode, and takes the values that go over the wire: range or mean/std and "
            "layout as configured, colour channels in the same order"
        )


def _only(output: Any, name: str | None) -> Tensor:
    """The tensor of class scores among what a network returned."""
    if isinstance(output, Mapping):
        output = output[name] if name in output else next(iter(output.values()))
    while isinstance(output, tuple | list):
        output = output[0]
    if not isinstance(output, Tensor):
        raise TypeError(f"it returns {type(output).__name__}, not a tensor")
    return output


def load(path: Path, spec: ModelSpec, device: torch.device) -> LocalModel:
    """Read a model file: .pt (TorchScript), .pt2 (torch.export) or .onnx.

    Raises:
        ConfigError: it cannot be read as what its ending says.
    """
    readers = {".pt": _torch_script, ".pt2": _exported, ".onnx": _onnx}
    if path.suffix not in readers:
        raise ConfigError(f"{path}: a model file ends in {', '.join(readers)}")
    try:
        network, sha256 = readers[path.suffix](path, device)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{path} cannot be read: {error}. Export the model anew, best as .pt2: "
            "torch.export.save(torch.export.export(model.eval(), (x,), "
            "dynamic_shapes=({0: torch.export.Dim('batch')},)), 'model.pt2')"
        ) from error
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return LocalModel(network, sha256, spec, device)


def _torch_script(path: Path, device: torch.device) -> tuple[nn.Module, str]:
    blob = path.read_bytes()
    with warnings.catch_warnings():
        # Deprecated in favour of torch.export, but what many a Triton's model repository holds.
        warnings.simplefilter("ignore", DeprecationWarning)
        network = torch.jit.load(io.BytesIO(blob), map_location=device)
    return network.eval(), hashlib.sha256(blob).hexdigest()


def _exported(path: Path, device: torch.device) -> tuple[nn.Module, str]:
    from torch.export.passes import move_to_device_pass

    blob = path.read_bytes()
    program = torch.export.load(io.BytesIO(blob))
    # Its mode is that of the export; agreement with the served model shows a wrong one.
    return move_to_device_pass(program, device).module(), hashlib.sha256(blob).hexdigest()


def _onnx(path: Path, device: torch.device) -> tuple[nn.Module, str]:
    try:
        import onnx
        import onnx2fx
    except ImportError as error:
        raise ConfigError(
            f"{path}: reading ONNX takes `pip install 'breakwater[onnx]'` ({error}); or export the "
            "model as .pt2"
        ) from error
    graph = onnx.load(str(path))  # with the numbers that may lie in files beside it
    network = onnx2fx.convert(graph)
    return network.to(device).eval(), hashlib.sha256(graph.SerializeToString()).hexdigest()
