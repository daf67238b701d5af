"""The Triton model repository: the classifier at both sizes, and peer (b) in several variants."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from loadtests.compare.workload import CLASSES, Workload

SERVING = Path(__file__).with_name("serving")

_CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: 64
input [{{ name: "image" data_type: TYPE_FP32 dims: [3, {side}, {side}] }}]
output [{{ name: "logits" data_type: TYPE_FP32 dims: [{classes}] }}]
instance_group [{{ count: {instances} kind: KIND_CPU }}]
{more}
"""
_BATCHING = "dynamic_batching {}"
_PARAMETER = 'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


@dataclass(frozen=True)
class BlsVariant:
    """A way to deploy peer (b); the fastest one is compared."""

    instances: int
    batching: bool

    @property
    def suffix(self) -> str:
        """Its part of the model's name."""
        return f"{self.instances}{'_batching' if self.batching else ''}"

    def model(self, workload: Workload) -> str:
        """Its name in Triton."""
        return f"defended_{workload.name.replace(' ', '').lower()}_{self.suffix}"


VARIANTS = (BlsVariant(1, True), BlsVariant(2, True), BlsVariant(2, False))


def write_repository(
    folder: Path, workloads: Sequence[Workload], variants: Sequence[BlsVariant] = VARIANTS
) -> Path:
    """Write every model's folder; returns the repository's."""
    for workload in workloads:
        version = _write_model(
            folder, workload.classifier, "classifier.py", workload, instances=1, more=_BATCHING
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # as in tuning.demo.digits
            traced = torch.jit.trace(workload.network, workload.sent[:1])
        traced.save(str(version / "network.pt"))
        for variant in variants:
            parameters = {"classifier": workload.classifier, "threshold": workload.threshold}
            more = [_PARAMETER.format(key=k, value=v) for k, v in parameters.items()]
            more += [_BATCHING] if variant.batching else []
            _write_model(
                folder,
                variant.model(workload),
                "bls.py",
                workload,
                instances=variant.instances,
                more="\n".join(more),
            )
    return folder


def _write_model(
    folder: Path, name: str, source: str, workload: Workload, *, instances: int, more: str
) -> Path:
    """Write one model; returns its version's folder."""
    version = folder / name / "1"
    version.mkdir(parents=True)
    shutil.copy(SERVING / source, version / "model.py")
    config = _CONFIG.format(
        name=name, side=workload.side, classes=CLASSES, instances=instances, more=more
    )
    (folder / name / "config.pbtxt").write_text(config)
    return version
